package client

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func eventfd(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func streamSocket(t *testing.T) int {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	return pair[0]
}

// aRegion is region 2 of a device, of 4096 bytes.
func aRegion(d *Device) *Region { return &Region{Index: 2, Size: 4096, device: d} }

func TestRegionIOFDs(t *testing.T) {
	d := attach(t, func(s *server) {
		m := s.Want(codec.CmdGetRegionIOFDs)
		var ask codec.IOFDs
		if err := ask.DecodeRequest(m.Payload); err != nil || ask.Index != 2 || ask.ArgSz < 64 {
			t.Errorf("%+v, %v", ask, err)
		}
		s.Reply(m, (&codec.IOFDs{Index: 2, Regions: []codec.IOFD{
			{Offset: 0x10, Size: 4, FDIndex: 1, Type: codec.IOEventfd, Flags: codec.IOEventfdDatamatch, Data: 7},
			{Offset: 0x10, FDIndex: 1, Type: codec.IOEventfd},
			{Offset: 0x800, Size: 0x800, FDIndex: 0, Type: codec.IORegionfd, Flags: codec.IORegionPostedWrites, Data: 1 << 60},
			{Offset: 0x20, Size: 8, FDIndex: 1, Type: codec.IOEventfdShadow, ShadowFDIndex: 2, ShadowOffset: 0xff8},
		}}).AppendReply(nil, ask.ArgSz), streamSocket(t), eventfd(t), memfd(t, 4096))
	})
	f, err := aRegion(d).IOFDs(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	a := f.Areas
	if len(a) != 4 || a[0].Area != (Area{Offset: 0x10, Size: 4}) || a[0].Flags != codec.IOEventfdDatamatch || a[0].Data != 7 ||
		a[0].FD != a[1].FD || a[2].FD == a[0].FD || a[2].Type != codec.IORegionfd || a[2].Data != 1<<60 ||
		a[3].FD != a[0].FD || a[3].ShadowFD < 0 || a[3].ShadowOffset != 0xff8 || a[0].ShadowFD != -1 {
		t.Errorf("%+v", a)
	}
	if n, err := unix.Write(a[0].FD, []byte{1, 0, 0, 0, 0, 0, 0, 0}); n != 8 || err != nil {
		t.Error("signal:", err)
	}
	f.Close()
	f.Close()
}

func TestRegionIOFDsAreAskedForAgainWithMoreRoom(t *testing.T) {
	info := codec.IOFDs{Index: 2}
	for i := range 100 {
		info.Regions = append(info.Regions, codec.IOFD{Offset: uint64(i) * 8, Size: 8, Type: codec.IOEventfd})
	}
	d := attach(t, func(s *server) {
		for i := range 2 {
			m := s.Want(codec.CmdGetRegionIOFDs)
			var ask codec.IOFDs
			_ = ask.DecodeRequest(m.Payload)
			var fds []int
			if i == 1 {
				fds = []int{eventfd(t)}
			}
			s.Reply(m, info.AppendReply(nil, ask.ArgSz), fds...)
		}
		s.Reply(s.Want(codec.CmdGetRegionIOFDs), (&codec.IOFDs{Index: 2}).AppendReply(nil, 16))
		s.Refuse(s.Want(codec.CmdGetRegionIOFDs), unix.ENOTSUP)
	})
	f, err := aRegion(d).IOFDs(testContext(t))
	if err != nil || len(f.Areas) != 100 {
		t.Fatal(err)
	}
	f.Close()
	if f, err := aRegion(d).IOFDs(testContext(t)); err != nil || len(f.Areas) != 0 {
		t.Error("no areas:", err)
	}
	if _, err := aRegion(d).IOFDs(testContext(t)); !errors.Is(err, unix.ENOTSUP) {
		t.Error(err)
	}
}

func TestHostileRegionIOFDsEndTheSession(t *testing.T) {
	event := codec.IOFD{Size: 8, Type: codec.IOEventfd}
	shadow := codec.IOFD{Size: 8, Type: codec.IOEventfdShadow, ShadowFDIndex: 1}
	with := func(a codec.IOFD, change func(*codec.IOFD)) codec.IOFD { change(&a); return a }
	for _, test := range []struct {
		name   string
		area   codec.IOFD
		fds    func(t *testing.T) []int
		change func(b []byte) []byte
	}{
		{name: "descriptor missing", area: event},
		{name: "index behind the descriptors", area: with(event, func(a *codec.IOFD) { a.FDIndex = 1 }),
			fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "index far behind them", area: with(event, func(a *codec.IOFD) { a.FDIndex = 1<<32 - 1 }),
			fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "memory as eventfd", area: event, fds: func(t *testing.T) []int { return []int{memfd(t, 4096)} }},
		{name: "eventfd as socket", area: with(event, func(a *codec.IOFD) { a.Type = codec.IORegionfd }),
			fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "unknown type", area: with(event, func(a *codec.IOFD) { a.Type = 3 }),
			fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "offset behind the region", area: with(event, func(a *codec.IOFD) { a.Offset = 4096; a.Size = 0 }),
			fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "area across the end of the region", area: with(event, func(a *codec.IOFD) { a.Offset = 4092 }),
			fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "area that wraps", area: with(event, func(a *codec.IOFD) { a.Offset = 8; a.Size = ^uint64(0) }),
			fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "shadow's descriptor missing", area: shadow, fds: func(t *testing.T) []int { return []int{eventfd(t)} }},
		{name: "eventfd as shadow", area: shadow, fds: func(t *testing.T) []int { return []int{eventfd(t), eventfd(t)} }},
		{name: "shadow behind its memory", area: with(shadow, func(a *codec.IOFD) { a.ShadowOffset = 4090 }),
			fds: func(t *testing.T) []int { return []int{eventfd(t), memfd(t, 4096)} }},
		{name: "shadow far behind it", area: with(shadow, func(a *codec.IOFD) { a.ShadowOffset = ^uint64(0) }),
			fds: func(t *testing.T) []int { return []int{eventfd(t), memfd(t, 4096)} }},
		{name: "another region", area: event, fds: func(t *testing.T) []int { return []int{eventfd(t)} },
			change: func(b []byte) []byte { b[8] = 3; return b }},
		{name: "flags", area: event, fds: func(t *testing.T) []int { return []int{eventfd(t)} },
			change: func(b []byte) []byte { b[4] = 1; return b }},
		{name: "argsz beyond every bound", area: event, change: func(b []byte) []byte { b[3] = 1; return b[:16] }},
		{name: "argsz that would have fitted", area: event, change: func(b []byte) []byte { return b[:16] }},
		{name: "areas by the million", area: event, change: func(b []byte) []byte { b[14] = 0xff; return b }},
		{name: "areas cut", area: event, change: func(b []byte) []byte { b[0]--; return b }},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				m := s.Want(codec.CmdGetRegionIOFDs)
				b := (&codec.IOFDs{Index: 2, Regions: []codec.IOFD{test.area}}).AppendReply(nil, 1024)
				if test.change != nil {
					b = test.change(b)
				}
				var fds []int
				if test.fds != nil {
					fds = test.fds(t)
				}
				s.Reply(m, b, fds...)
			})
			if _, err := aRegion(d).IOFDs(testContext(t)); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			ended(t, d, ErrProtocol)
		})
	}
	t.Run("argsz that keeps growing", func(t *testing.T) {
		d := attach(t, func(s *server) {
			for i := range byte(2) {
				b := (&codec.IOFDs{Index: 2}).AppendReply(nil, 16)
				b[1] = 8 + i
				s.Reply(s.Want(codec.CmdGetRegionIOFDs), b)
			}
		})
		if _, err := aRegion(d).IOFDs(testContext(t)); !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	})
}

func TestRegionType(t *testing.T) {
	want := codec.RegionType{Type: codec.RegionTypePCIVendor | 0x1234, Subtype: 5}
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdGetRegionInfo), (&codec.RegionInfo{Index: 8, Size: 4096, Flags: 3, Type: want}).AppendReply(nil, 1024))
	})
	if r, err := d.Region(testContext(t), 8); err != nil || r.Type != want {
		t.Errorf("%+v, %v", r, err)
	}
}
