package client

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// TestHostileCommands has the server ask for what it must not get, or in ways that it must not.
func TestHostileCommands(t *testing.T) {
	w := newWard(t)
	read := func(addr, count uint64) []byte { return (&codec.DMAAccess{Addr: addr, Count: count}).AppendHead(nil) }
	write := func(addr, count uint64, data string) []byte {
		return append((&codec.DMAAccess{Addr: addr, Count: count}).AppendHead(nil), data...)
	}
	command := func(c codec.Command, flags codec.Flags, payload []byte) []byte {
		h := codec.Header{ID: 9, Command: c, Flags: flags, Size: uint32(codec.HeaderSize + len(payload))}
		return append(h.Append(nil), payload...)
	}
	const dmaRead, dmaWrite = codec.CmdDMARead, codec.CmdDMAWrite
	for _, test := range []struct {
		name  string
		send  []byte
		fds   int
		errno unix.Errno // of the answer
		quiet bool       // none is sent
	}{
		{name: "read across two mappings", send: command(dmaRead, 0, read(0x1ffc, 8)), errno: unix.EINVAL},
		{name: "read that begins before a mapping", send: command(dmaRead, 0, read(0xffc, 8)), errno: unix.ENOENT},
		{name: "read of all mappings", send: command(dmaRead, 0, read(0x1000, 0x3000)), errno: unix.EINVAL},
		{name: "read of 2^64-1 bytes", send: command(dmaRead, 0, read(0x1000, 1<<64-1)), errno: unix.EINVAL},
		{name: "read of 2^32 bytes", send: command(dmaRead, 0, read(0x1000, 1<<32)), errno: unix.EINVAL},
		{name: "read that wraps to a mapping", send: command(dmaRead, 0, read(1<<64-8, 0x1010)), errno: unix.EINVAL},
		{name: "read of the last byte of all", send: command(dmaRead, 0, read(1<<64-1, 1)), errno: unix.ENOENT},
		{name: "read of write-only memory", send: command(dmaRead, 0, read(0x3000, 8)), errno: unix.EACCES},
		{name: "read with data", send: command(dmaRead, 0, append(read(0x1000, 8), make([]byte, 8)...)), errno: 0},
		{name: "read with descriptors", send: command(dmaRead, 0, read(0x1000, 8)), fds: 4, errno: 0},
		{name: "read that wants no answer", send: command(dmaRead, codec.FlagNoReply, read(0x1000, 8)), quiet: true},
		{name: "bad read that wants no answer", send: command(dmaRead, codec.FlagNoReply, read(0, 8)), quiet: true},
		{name: "read with the error flag", send: command(dmaRead, codec.FlagError, read(0x1000, 8)), errno: 0},
		{name: "write to read-only memory", send: command(dmaWrite, 0, write(0x2000, 4, "xxxx")), errno: unix.EACCES},
		{name: "write across two mappings", send: command(dmaWrite, 0, write(0x1ffe, 4, "xxxx")), errno: unix.EINVAL},
		{name: "write of more than its count", send: command(dmaWrite, 0, write(0x1000, 4, "xxxxx")), errno: unix.EINVAL},
		{name: "write of less than its count", send: command(dmaWrite, 0, write(0x1000, 4, "xxx")), errno: unix.EINVAL},
		{name: "write of nothing", send: command(dmaWrite, 0, write(0x1000, 0, "")), errno: unix.EINVAL},
		{name: "write of 2^64-1 bytes", send: command(dmaWrite, 0, write(0x1000, 1<<64-1, "xxxx")), errno: unix.EINVAL},
		{name: "write without data", send: command(dmaWrite, 0, write(0x1000, 4, "")), errno: unix.EINVAL},
		{name: "write without a count", send: command(dmaWrite, 0, make([]byte, 8)), errno: unix.EINVAL},
		{name: "VERSION", send: command(codec.CmdVersion, 0, make([]byte, 4)), errno: unix.ENOTSUP},
		{name: "DMA_MAP with descriptors", send: command(codec.CmdDMAMap, 0, make([]byte, 32)), fds: 2, errno: unix.ENOTSUP},
		{name: "DMA_UNMAP", send: command(codec.CmdDMAUnmap, 0, make([]byte, 24)), errno: unix.ENOTSUP},
		{name: "SET_IRQS with descriptors", send: command(codec.CmdSetIRQs, 0, make([]byte, 20)), fds: 8, errno: unix.ENOTSUP},
		{name: "REGION_WRITE", send: command(codec.CmdRegionWrite, 0, make([]byte, 20)), errno: unix.ENOTSUP},
		{name: "RESET", send: command(codec.CmdReset, 0, nil), errno: unix.ENOTSUP},
		{name: "DEVICE_FEATURE", send: command(codec.CmdDeviceFeature, 0, make([]byte, 8)), errno: unix.ENOTSUP},
		{name: "MIG_DATA_READ", send: command(codec.CmdMigDataRead, 0, make([]byte, 8)), errno: unix.ENOTSUP},
		{name: "command 14", send: command(14, 0, nil), errno: unix.ENOTSUP},
		{name: "command 0", send: command(0, 0, nil), errno: unix.ENOTSUP},
		{name: "command 65535 that wants no answer", send: command(0xffff, codec.FlagNoReply, nil), quiet: true},
	} {
		local := make([]byte, 0x3000)
		w.run(t, test.name, func(s *server) {
			for range 3 {
				s.Reply(s.Want(codec.CmdDMAMap), nil)
			}
			m := s.Want(codec.CmdRegionRead)
			fds, closeAll := eventfds(test.fds)
			defer closeAll()
			s.Send(test.send, fds...)
			if !test.quiet {
				if got, ok := s.Next(); !ok || !got.IsReply() || got.ID != 9 || unix.Errno(got.Errno) != test.errno || got.IsError() != (test.errno != 0) {
					t.Errorf("%s: answer %+v", test.name, got.Header)
				}
			}
			s.Access(m)
		}, func(t *testing.T, ctx context.Context, d *Device) {
			err := d.MapDMA(ctx,
				Mapping{IOVA: 0x1000, Size: 0x1000, FD: -1, Local: local[:0x1000]},
				Mapping{IOVA: 0x2000, Size: 0x1000, FD: -1, Local: local[0x1000:0x2000], Prot: ProtRead},
				Mapping{IOVA: 0x3000, Size: 0x1000, FD: -1, Local: local[0x2000:], Prot: ProtWrite})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := d.ReadRegion32(ctx, 0, 0x10); err != nil || v != 0x13121110 {
				t.Errorf("%#x, %v", v, err)
			}
			if !bytes.Equal(local, make([]byte, len(local))) {
				t.Error("memory was written")
			}
		})
	}
}

// TestFloods has a server send more than anybody asked for.
func TestFloods(t *testing.T) {
	w := newWard(t)
	post := codec.Header{Command: codec.CmdDMAWrite, Flags: codec.FlagNoReply, Size: 16 + 16 + 1}
	posts := bytes.Repeat((&codec.DMAAccess{Addr: 0x1000, Count: 1, Data: []byte{7}}).Append(post.Append(nil)), 20000)
	nonsense := bytes.Repeat(codec.Header{Command: 14, Flags: codec.FlagNoReply, Size: 16}.Append(nil), 20000)
	for _, test := range []struct {
		name  string
		flood []byte
	}{{"posted writes", posts}, {"unknown commands", nonsense}} {
		w.run(t, test.name, func(s *server) {
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			m := s.Want(codec.CmdRegionRead)
			s.Send(test.flood)
			s.Access(m)
			s.Send(test.flood)
		}, func(t *testing.T, ctx context.Context, d *Device) {
			if err := d.MapDMA(ctx, Mapping{IOVA: 0x1000, Size: 0x1000, FD: -1, Local: make([]byte, 0x1000)}); err != nil {
				t.Fatal(err)
			}
			if v, err := d.ReadRegion32(ctx, 0, 0); err != nil || v != 0x03020100 {
				t.Errorf("%#x, %v", v, err)
			}
		})
	}
}

// TestRegionsBackedByTheWrongThing gives descriptors of all kinds for a region of 8,192 bytes. None of them can be mapped, and
// the session goes on.
func TestRegionsBackedByTheWrongThing(t *testing.T) {
	w := newWard(t)
	open := func(path string, flags int) func() (int, error) {
		return func() (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC, 0) }
	}
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		fd   func() (int, error)
		area codec.Area
	}{
		{"a directory", open(t.TempDir(), unix.O_RDONLY), codec.Area{Size: 8192}},
		{"a file opened for nothing", open(file, unix.O_PATH), codec.Area{Size: 8192}},
		{"a file opened for writing", open(file, unix.O_WRONLY), codec.Area{Size: 8192}},
		{"a file opened for reading", open(file, unix.O_RDONLY), codec.Area{Size: 8192}},
		{"/dev/null", open("/dev/null", unix.O_RDWR), codec.Area{Size: 8192}},
		{"an eventfd", func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC) }, codec.Area{Size: 8192}},
		{"an epoll", func() (int, error) { return unix.EpollCreate1(unix.EPOLL_CLOEXEC) }, codec.Area{Size: 8192}},
		{"a socket", func() (int, error) { return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) }, codec.Area{Size: 8192}},
		{"a pipe", func() (int, error) {
			var p [2]int
			err := unix.Pipe2(p[:], unix.O_CLOEXEC)
			_ = unix.Close(p[1])
			return p[0], err
		}, codec.Area{Size: 8192}},
		{"an empty memfd", func() (int, error) { return unix.MemfdCreate("region", unix.MFD_CLOEXEC) }, codec.Area{Size: 8192}},
		{"a memfd that is too short", func() (int, error) {
			fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC)
			return fd, errors.Join(err, unix.Ftruncate(fd, 8191))
		}, codec.Area{Size: 8192}},
		{"an area that is not aligned", open(file, unix.O_RDWR), codec.Area{Offset: 100, Size: 4096}},
		{"an area of nothing", open(file, unix.O_RDWR), codec.Area{Offset: 4096}},
	} {
		w.run(t, test.name, func(s *server) {
			fd, err := test.fd()
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			info := codec.RegionInfo{Size: 8192, Flags: mmapFlags, Sparse: []codec.Area{test.area}}
			s.Reply(s.Want(codec.CmdGetRegionInfo), info.AppendReply(nil, 1024), fd)
			s.ServeAccesses()
		}, func(t *testing.T, ctx context.Context, d *Device) {
			r, err := d.Region(ctx, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if m, err := r.Mmap(0); err == nil {
				m.Close()
				t.Error("mapped")
			} else if !errors.Is(err, ErrNotMappable) {
				t.Error(err)
			}
			if _, err := d.ReadRegion32(ctx, 0, 0); err != nil {
				t.Error(err)
			}
		})
	}
}
