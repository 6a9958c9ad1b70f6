package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/engine/reactor"
	"vfiouser/test/holdings"
)

func u32(v ...uint32) (b []byte) {
	for _, x := range v {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	return b
}

func u64(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.NativeEndian.AppendUint64(b, x)
	}
	return b
}

const pciCommand = 4 // the command register

func regionRead(region, off, n uint64) []byte {
	return append(u64(off), u32(uint32(region), uint32(n))...)
}

func regionWrite(region, off uint64, data ...byte) []byte {
	return append(regionRead(region, off, uint64(len(data))), data...)
}

func dmaMap(flags uint32, offset, addr, size uint64) []byte {
	return append(u32(32, flags), u64(offset, addr, size)...)
}

func dmaUnmap(flags uint32, addr, size uint64) []byte {
	return append(u32(24, flags), u64(addr, size)...)
}

func TestVersionIsNegotiated(t *testing.T) {
	qemu := `{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,"migration":{"pgsize":4096,"max_bitmap_size":268435456},"write_multiple":true}}`
	for _, c := range []struct {
		name    string
		payload []byte
		minor   uint16
		errno   unix.Errno
	}{
		{name: "QEMU proposes 0.0", payload: append(append(u32(0), qemu...), 0), minor: 0},
		{name: "SPDK sends no JSON", payload: u32(1 << 16), minor: 1},
		{name: "a later minor is lowered to ours", payload: u32(7 << 16), minor: 1},
		{name: "unknown capabilities are ignored", payload: append(u32(0), "{\"capabilities\":{\"x\":[1]},\"y\":2}\x00"...)},
		{name: "another major is refused", payload: u32(1), errno: unix.EINVAL},
		{name: "a capability of the wrong type is refused", payload: append(u32(0), "{\"capabilities\":{\"max_msg_fds\":\"1\"}}\x00"...), errno: unix.EINVAL},
		{name: "JSON without its NUL is refused", payload: append(u32(0), "{}"...), errno: unix.EINVAL},
		{name: "no room for data is refused", payload: append(u32(0), "{\"capabilities\":{\"max_data_xfer_size\":0}}\x00"...), errno: unix.EINVAL},
		{name: "a payload that is cut is refused", payload: []byte{0, 0}, errno: unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := newBed(t, Config{}).dial()
			if c.errno != 0 {
				conn.fails(c.errno, codec.CmdVersion, c.payload)
				return
			}
			reply := conn.ok(codec.CmdVersion, c.payload)
			var v codec.VersionMsg
			if err := v.Decode(reply); err != nil {
				t.Fatal(err)
			}
			if v.Major != 0 || v.Minor != c.minor || v.Caps.MaxMsgFDs > 16 || v.Caps.MaxDataXferSize != 1<<20 {
				t.Errorf("reply %+v", v)
			}
			if len(reply)+codec.HeaderSize > 214 {
				t.Errorf("the reply has %d bytes, QEMU takes 214", len(reply)+codec.HeaderSize)
			}
			conn.fails(unix.EINVAL, codec.CmdVersion, c.payload) // once only
		})
	}
}

func TestCommandsAreServed(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdRegionWrite, regionWrite(0, 8, []byte("register")...))
	for _, c := range []struct {
		name    string
		cmd     codec.Command
		payload []byte
		want    []byte
	}{
		{"GET_INFO", codec.CmdGetInfo, u32(16, 0, 0, 0), u32(16, 3, 9, 5)},
		{"GET_INFO with a larger argsz", codec.CmdGetInfo, u32(32, 0, 0, 0), u32(16, 3, 9, 5)},
		{"GET_REGION_INFO of a trapped region", codec.CmdGetRegionInfo, append(u32(32, 0, 0, 0), u64(0, 0)...), append(u32(32, 3, 0, 0), u64(4096, 0)...)},
		{"GET_REGION_INFO of a region that is not there", codec.CmdGetRegionInfo, append(u32(32, 0, 1, 0), u64(0, 0)...), append(u32(32, 0, 1, 0), u64(0, 0)...)},
		{"GET_REGION_INFO without room for the areas", codec.CmdGetRegionInfo, append(u32(32, 0, 2, 0), u64(0, 0)...), append(u32(80, 13, 2, 32), u64(16384, 0)...)},
		{"GET_IRQ_INFO of INTx", codec.CmdGetIRQInfo, u32(16, 0, 0, 0), u32(16, 7, 0, irqINTx)},
		{"GET_IRQ_INFO of MSI-X", codec.CmdGetIRQInfo, u32(16, 0, 2, 0), u32(16, 1, 2, irqMSIX)},
		{"REGION_READ", codec.CmdRegionRead, regionRead(0, 8, 8), append(regionRead(0, 8, 8), "register"...)},
		{"REGION_READ up to the end", codec.CmdRegionRead, regionRead(0, 4095, 1), append(regionRead(0, 4095, 1), 0)},
		{"REGION_READ of the configuration space", codec.CmdRegionRead, regionRead(7, 0, 4), append(regionRead(7, 0, 4), 0x36, 0x1b, 1, 0)},
		{"REGION_WRITE", codec.CmdRegionWrite, regionWrite(0, 16, 1, 2, 3), regionRead(0, 16, 3)},
		{"REGION_WRITE of the configuration space", codec.CmdRegionWrite, regionWrite(7, 4, 6, 0), regionRead(7, 4, 2)},
		{"DMA_MAP without descriptor", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 4096), nil},
		{"DMA_UNMAP echoes its request", codec.CmdDMAUnmap, dmaUnmap(0, 0x100000, 4096), dmaUnmap(0, 0x100000, 4096)},
		{"DMA_UNMAP of all", codec.CmdDMAUnmap, dmaUnmap(2, 0, 0), dmaUnmap(2, 0, 0)},
		{"RESET", codec.CmdReset, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			if got := conn.ok(c.cmd, c.payload); !bytes.Equal(got, c.want) {
				t.Errorf("reply %x, want %x", got, c.want)
			}
		})
	}
}

func TestBadCommandsAreRefusedAndTheSessionGoesOn(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x10000, 0x10000))
	short := memfd(t, 4096)
	pipe := make([]int, 2)
	if err := unix.Pipe(pipe); err != nil {
		t.Fatal(err)
	}
	defer reactor.CloseFDs(pipe)
	for _, c := range []struct {
		name    string
		cmd     codec.Command
		payload []byte
		fds     []int
		errno   unix.Errno
	}{
		{"unknown command", 99, u32(0), nil, unix.EINVAL},
		{"command id 0", 0, u32(0), nil, unix.EINVAL},
		{"a server's command", codec.CmdDMARead, u64(0, 0), nil, unix.EINVAL},
		{"payload that is cut", codec.CmdGetInfo, u32(16), nil, unix.EINVAL},
		{"argsz below the structure", codec.CmdGetInfo, u32(8, 0, 0, 0), nil, unix.EINVAL},
		{"region that does not exist", codec.CmdGetRegionInfo, append(u32(32, 0, 9, 0), u64(0, 0)...), nil, unix.EINVAL},
		{"interrupt type that does not exist", codec.CmdGetIRQInfo, u32(16, 0, 5, 0), nil, unix.EINVAL},
		{"read of a region that does not exist", codec.CmdRegionRead, regionRead(9, 0, 4), nil, unix.EINVAL},
		{"read of a region without size", codec.CmdRegionRead, regionRead(1, 0, 4), nil, unix.EINVAL},
		{"read beyond the end", codec.CmdRegionRead, regionRead(0, 4094, 4), nil, unix.EINVAL},
		{"read whose end overflows", codec.CmdRegionRead, regionRead(0, ^uint64(0)-1, 4), nil, unix.EINVAL},
		{"read of more than max_data_xfer_size", codec.CmdRegionRead, regionRead(0, 0, maxDataXfer+1), nil, unix.EINVAL},
		{"write to a region without handler", codec.CmdRegionWrite, regionWrite(2, 0, 1), nil, unix.EINVAL},
		{"write with less data than it says", codec.CmdRegionWrite, regionRead(0, 0, 4), nil, unix.EINVAL},
		{"handler's errno", codec.CmdRegionRead, regionRead(4, 0, 4), nil, unix.EPERM},
		{"handler's error without errno", codec.CmdRegionWrite, regionWrite(4, 0, 1), nil, unix.EIO},
		{"map over a region", codec.CmdDMAMap, dmaMap(3, 0, 0x18000, 0x1000), nil, unix.EEXIST},
		{"map that wraps around", codec.CmdDMAMap, dmaMap(3, 0, ^uint64(0xfff), 0x2000), nil, unix.EINVAL},
		{"map of nothing", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0), nil, unix.EINVAL},
		{"map without access", codec.CmdDMAMap, dmaMap(0, 0, 0x100000, 0x1000), nil, unix.EINVAL},
		{"map with unknown flags", codec.CmdDMAMap, dmaMap(0x83, 0, 0x100000, 0x1000), nil, unix.EINVAL},
		{"map of more than the file has", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x2000), []int{short}, unix.EINVAL},
		{"map of an offset beyond the file", codec.CmdDMAMap, dmaMap(3, 1<<40, 0x100000, 0x1000), []int{short}, unix.EINVAL},
		{"map of a pipe", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000), pipe[:1], unix.EINVAL},
		{"map with two descriptors", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000), []int{short, short}, unix.EINVAL},
		{"unmap of what is not mapped", codec.CmdDMAUnmap, dmaUnmap(0, 0x500000, 0x1000), nil, unix.ENOENT},
		{"unmap of a part", codec.CmdDMAUnmap, dmaUnmap(0, 0x10000, 0x1000), nil, unix.ENOENT},
		{"more descriptors than were negotiated", codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000), slices.Repeat([]int{short}, maxMsgFDs+1), unix.EINVAL},
		{"descriptors that nobody wants", codec.CmdRegionRead, regionRead(9, 0, 4), []int{short, short}, unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			before := holdings.Descriptors(t)
			conn.fails(c.errno, c.cmd, c.payload, c.fds...)
			eventually(t, "as many descriptors as before", func() bool { return holdings.Descriptors(t) == before })
			conn.ok(codec.CmdGetInfo, u32(16, 0, 0, 0))
		})
	}
}

func TestNothingButVersionBeforeVersion(t *testing.T) {
	conn := newBed(t, Config{}).dial()
	conn.fails(unix.EINVAL, codec.CmdGetInfo, u32(16, 0, 0, 0))
	conn.fails(unix.EINVAL, codec.CmdReset, nil)
	conn.ok(codec.CmdVersion, u32(0))
}

// Each area comes with a descriptor of its own, and only with the full reply.
func TestRegionAreasComeWithDescriptors(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	_, _, fds := conn.call(codec.CmdGetRegionInfo, append(u32(32, 0, 2, 0), u64(0, 0)...))
	if len(fds) != 0 {
		t.Errorf("%d descriptors with a truncated reply", len(fds))
	}
	h, reply, fds := conn.call(codec.CmdGetRegionInfo, append(u32(80, 0, 2, 0), u64(0, 0)...))
	defer reactor.CloseFDs(fds)
	want := slices.Concat(u32(80, 13, 2, 32), u64(16384, 0), u32(1<<16|1, 0, 2, 0), u64(4096, 4096, 12288, 4096))
	if h.Err() != nil || !bytes.Equal(reply, want) {
		t.Errorf("reply %x, want %x", reply, want)
	}
	if len(fds) != 2 {
		t.Errorf("%d descriptors for 2 areas", len(fds))
	}
}

func TestPostedCommandsAreNeverAnswered(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.write(conn.frame(codec.CmdRegionWrite, codec.FlagNoReply, regionWrite(0, 0, 42)))
	conn.write(conn.frame(codec.CmdRegionWrite, codec.FlagNoReply, regionWrite(9, 0, 42))) // in error too
	conn.write(conn.frame(codec.CmdReset, codec.FlagNoReply, nil))
	conn.write(conn.frame(codec.CmdRegionWrite, codec.FlagNoReply, regionWrite(0, 1, 43)))
	if got := conn.ok(codec.CmdRegionRead, regionRead(0, 0, 2))[16:]; !bytes.Equal(got, []byte{0, 43}) {
		t.Errorf("register %v, want 0 43: the reset comes between the writes", got)
	}
}

// A device's handlers can rely on there being a byte.
func TestAccessesOfNoBytesDoNotReachTheDevice(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	for _, region := range []uint64{0, 4} { // every access to BAR4 is refused by the device
		for _, off := range []uint64{0, 12, 4096} {
			if got := conn.ok(codec.CmdRegionRead, regionRead(region, off, 0)); len(got) != 16 {
				t.Errorf("read: %d bytes", len(got))
			}
			conn.ok(codec.CmdRegionWrite, regionWrite(region, off))
		}
		conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(region, 4097, 0))
		conn.fails(unix.EINVAL, codec.CmdRegionWrite, regionWrite(region, 4097))
	}
	conn.fails(unix.EINVAL, codec.CmdRegionWrite, regionWrite(2, 0)) // which cannot be written
}

func TestPipelinedCommandsAreAnsweredInOrder(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	var all []byte
	const n = 500
	for i := range n {
		all = append(all, conn.frame(codec.CmdRegionWrite, 0, regionWrite(0, uint64(i), byte(i)))...)
		all = append(all, conn.frame(codec.CmdRegionRead, 0, regionRead(0, uint64(i), 1))...)
		if i%100 == 0 {
			all = append(all, conn.frame(codec.CmdReset, 0, nil)...)
		}
	}
	first := uint16(2) // 1 was VERSION
	for len(all) > 0 { // in pieces that mind no message
		k := min(len(all), 1000)
		conn.write(all[:k])
		all = all[k:]
	}
	for id := first; id <= conn.next; id++ {
		if h, _, _ := conn.read(); h.ID != id || h.Err() != nil {
			t.Fatalf("reply %+v, want id %d", h, id)
		}
	}
}

// A message may come in any number of pieces; its descriptors come with one of them.
func TestPartialMessagesResume(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	fd := memfd(t, 1<<20)
	for split := 1; split < 48; split++ {
		frame := conn.frame(codec.CmdDMAMap, 0, dmaMap(3, 0, 0x100000, 0x1000))
		conn.write(frame[:split], fd)
		_ = b.engine.reactor.Do(func() {}) // the reactor has seen the first piece, or will see both
		conn.write(frame[split:])
		if h, _, _ := conn.read(); h.Err() != nil {
			t.Fatalf("split at %d: %v", split, h.Err())
		}
		if regions := b.device.session().Memory().Regions(); len(regions) != 1 || regions[0].Local == nil {
			t.Fatalf("split at %d: the region is not mapped: %+v", split, regions)
		}
		conn.ok(codec.CmdDMAUnmap, dmaUnmap(0, 0x100000, 0x1000))
	}
}

func TestDescriptorsBelongToTheirMessage(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	fd := memfd(t, 1<<20)
	with := conn.frame(codec.CmdDMAMap, 0, dmaMap(3, 0, 0x200000, 0x1000))
	conn.write(conn.frame(codec.CmdDMAMap, 0, dmaMap(3, 0, 0x100000, 0x1000)))
	conn.write(with, fd)
	conn.write(conn.frame(codec.CmdDMAMap, 0, dmaMap(3, 0, 0x300000, 0x1000)))
	for range 3 {
		if h, _, _ := conn.read(); h.Err() != nil {
			t.Fatal(h.Err())
		}
	}
	for _, r := range b.device.session().Memory().Regions() {
		if mapped := r.Local != nil; mapped != (r.IOVA == 0x200000) {
			t.Errorf("region %#x mapped: %v", r.IOVA, mapped)
		}
	}
}

func TestBrokenFramesEndTheSessionOnly(t *testing.T) {
	b := newBed(t, Config{})
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"size below the header", codec.Header{Command: codec.CmdGetInfo, Size: 8}.Append(nil)},
		{"4 GiB", codec.Header{Command: codec.CmdGetInfo, Size: ^uint32(0)}.Append(nil)},
		{"more than any message", codec.Header{Command: codec.CmdRegionWrite, Size: maxMessage + 1}.Append(nil)},
		{"neither command nor reply", codec.Header{Command: codec.CmdGetInfo, Size: 16, Flags: 7}.Append(nil)},
		{"reply without request", codec.Header{Command: codec.CmdDMARead, Size: 16, Flags: codec.FlagReply}.Append(nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			conn := b.attach()
			conn.write(c.frame)
			conn.ends()
			b.settled()
		})
	}
	b.t = t
	b.attach().ok(codec.CmdGetInfo, u32(16, 0, 0, 0))
}

func TestSecondClientIsRefusedAtOnce(t *testing.T) {
	b := newBed(t, Config{})
	first := b.attach()
	for range 1000 {
		second := b.dial()
		second.ends()
		second.close()
	}
	first.ok(codec.CmdGetInfo, u32(16, 0, 0, 0))
	first.close()
	<-b.device.gone
	b.attach() // waits for nothing: the connection is kept while the last session is released
}

func TestSilentClientLosesItsPlace(t *testing.T) {
	b := newBed(t, Config{NegotiateTimeout: 50 * time.Millisecond})
	silent := b.dial()
	silent.ends()
	half := b.dial()
	half.write(half.frame(codec.CmdVersion, 0, u32(0))[:7])
	half.ends()
	b.settled()
	b.attach()
}

func TestClientThatDoesNotReadIsDropped(t *testing.T) {
	b := newBed(t, Config{WriteTimeout: 50 * time.Millisecond})
	conn := b.attach()
	frame := conn.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 4096))
	_ = unix.SetNonblock(conn.fd, true)
	for {
		if _, err := unix.Write(conn.fd, frame); err != nil && err != unix.EAGAIN {
			break // the server hung up, and it stopped reading before
		}
	}
	<-b.device.gone
	b.settled()
	b.attach()
}

func TestResetHoldsTheDataPath(t *testing.T) {
	b := newBed(t, Config{})
	release := make(chan func(), 1)
	b.device.onHold(func(done func()) { release <- done })
	conn := b.attach()
	conn.write(conn.frame(codec.CmdRegionWrite, 0, regionWrite(0, 0, 7)))
	conn.write(conn.frame(codec.CmdReset, 0, nil))
	conn.write(conn.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 1)))
	done := <-release
	if h, _, _ := conn.read(); h.Command != codec.CmdRegionWrite {
		t.Fatalf("reply %+v", h)
	}
	if slices.Contains(b.device.noted(), "reset") {
		t.Error("reset before the data path was held")
	}
	b.device.onHold(nil)
	done()
	if h, _, _ := conn.read(); h.Command != codec.CmdReset {
		t.Fatalf("reply %+v, want RESET before what came after it", h)
	}
	if _, reply, _ := conn.read(); reply[16] != 0 {
		t.Error("the register is not reset")
	}
	conn.close()
	<-b.device.gone
	if got, want := b.device.noted(), []string{"new", "hold", "reset", "go on", "hold", "destroy"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// A function level reset is a write to the PCI Express capability; the write's reply
// comes when it is done.
func TestFunctionLevelReset(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdRegionWrite, regionWrite(0, 0, 7))
	conn.ok(codec.CmdRegionWrite, regionWrite(7, pciCommand, 6, 0))
	control := uint64(b.device.express + 8)
	if got := conn.ok(codec.CmdRegionWrite, regionWrite(7, control, 0, 0x80)); !bytes.Equal(got, regionRead(7, control, 2)) {
		t.Errorf("reply %x", got)
	}
	if got := conn.ok(codec.CmdRegionRead, regionRead(0, 0, 1)); got[16] != 0 {
		t.Error("the device is not reset")
	}
	if got := conn.ok(codec.CmdRegionRead, regionRead(7, pciCommand, 2)); got[16] != 0 {
		t.Error("the configuration space is not reset")
	}
	if got, want := b.device.noted(), []string{"new", "hold", "reset", "go on"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

func TestClientMayVanishDuringReset(t *testing.T) {
	b := newBed(t, Config{})
	release := make(chan func(), 1)
	b.device.onHold(func(done func()) { release <- done })
	conn := b.attach()
	conn.write(conn.frame(codec.CmdReset, 0, nil))
	done := <-release
	conn.close()
	eventually(t, "hang-up noticed", func() (dropped bool) {
		_ = b.engine.reactor.Do(func() { dropped = b.ep.session.state == stateDropped })
		return dropped
	})
	b.device.onHold(nil)
	done()
	<-b.device.gone
	b.settled()
	if got := b.device.noted(); slices.Contains(got, "go on") {
		t.Errorf("calls %q: the data path of a client that is gone must not go on", got)
	}
	b.attach()
}

// The reply to DMA_UNMAP comes when nobody uses the memory, and other devices and
// even the same client's DMA replies do not wait for that.
func TestUnmapWaitsForPins(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x10000), memfd(t, 0x10000))
	table := b.device.session().Memory()
	reader := table.NewReader()
	defer reader.Close()
	reader.Enter()
	_, pin, err := reader.Pin(0x100000, 4096, dma.ProtWrite)
	reader.Exit()
	if err != nil {
		t.Fatal(err)
	}
	conn.write(conn.frame(codec.CmdDMAUnmap, 0, dmaUnmap(0, 0x100000, 0x10000)))
	conn.write(conn.frame(codec.CmdGetInfo, 0, u32(16, 0, 0, 0)))
	eventually(t, "region gone from the table", func() bool { return len(table.Regions()) == 0 })
	if err := b.engine.reactor.Do(func() {
		if !b.ep.session.backlog.pending {
			t.Error("the unmap does not wait for the pin")
		}
	}); err != nil {
		t.Fatal(err)
	}
	pin.Release()
	for _, want := range []codec.Command{codec.CmdDMAUnmap, codec.CmdGetInfo} {
		if h, _, _ := conn.read(); h.Command != want || h.Err() != nil {
			t.Fatalf("reply %+v, want %v", h, want)
		}
	}
}

// The reply to DMA_MAP comes when no worker is left that does not see the region: a driver may
// give it addresses there at once, in a queue that the worker is just looking at.
func TestMapWaitsForReaders(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	table := b.device.session().Memory()
	reader := table.NewReader()
	defer reader.Close()
	reader.Enter()
	conn.write(conn.frame(codec.CmdDMAMap, 0, dmaMap(3, 0, 0x100000, 0x10000)), memfd(t, 0x10000))
	eventually(t, "region in the table", func() bool { return len(table.Regions()) == 1 })
	if err := b.engine.reactor.Do(func() {
		if !b.ep.session.backlog.pending {
			t.Error("the map does not wait for the reader")
		}
	}); err != nil {
		t.Fatal(err)
	}
	reader.Exit()
	if h, _, _ := conn.read(); h.Command != codec.CmdDMAMap || h.Err() != nil {
		t.Fatalf("reply %+v", h)
	}
}

func TestGuestMemoryByMessage(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x200000))
	s := b.device.session()
	memory := bytes.Repeat([]byte("guest memory "), 100000)
	result := make(chan error, 1)
	buf := make([]byte, maxDMAMessage+100) // more than one message takes
	go func() { result <- s.ReadDMA(context.Background(), 0x100010, buf) }()
	for range 2 {
		h, req, _ := conn.read()
		if h.Command != codec.CmdDMARead || h.IsReply() {
			t.Fatalf("message %+v, want DMA_READ", h)
		}
		// A region access in between is answered: a vCPU may hold the client's lock.
		conn.write(conn.frame(codec.CmdGetInfo, 0, u32(16, 0, 0, 0)))
		if got, _, _ := conn.read(); got.Command != codec.CmdGetInfo {
			t.Fatalf("message %+v, want the reply to GET_INFO", got)
		}
		addr, n := binary.NativeEndian.Uint64(req), binary.NativeEndian.Uint64(req[8:])
		reply := append(req[:16:16], memory[addr-0x100000:][:n]...)
		conn.write(append(codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply, Size: uint32(16 + len(reply))}.Append(nil), reply...))
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf, memory[0x10:][:len(buf)]) {
		t.Error("what was read is not what is there")
	}

	go func() { result <- s.WriteDMA(context.Background(), 0x100000, []byte("written")) }()
	h, req, _ := conn.read()
	if string(req[16:]) != "written" || h.Command != codec.CmdDMAWrite {
		t.Errorf("message %+v %q", h, req)
	}
	conn.write(codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply | codec.FlagError, Errno: uint32(unix.EPERM), Size: 16}.Append(nil))
	if err := <-result; !errors.Is(err, unix.EPERM) {
		t.Errorf("error %v, want the client's EPERM", err)
	}
	if err := s.ReadDMA(context.Background(), 0x500000, buf[:1]); !errors.Is(err, dma.ErrNotMapped) {
		t.Errorf("error %v, want ErrNotMapped", err)
	}
}

// A range may begin in one region and end in another, mapped or not.
func TestGuestMemoryAcrossRegions(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000), memfd(t, 0x1000))
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x101000, 0x1000), memfd(t, 0x1000))
	s := b.device.session()
	want := bytes.Repeat([]byte("0123456789"), 500)
	if err := s.WriteDMA(context.Background(), 0x100800, want); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := s.ReadDMA(context.Background(), 0x100800, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, or other data", err)
	}
	for _, r := range []struct{ iova, n uint64 }{{0x101ff0, 0x20}, {0xffff0, 0x20}, {^uint64(0) - 3, 8}} {
		if err := s.ReadDMA(context.Background(), r.iova, make([]byte, r.n)); !errors.Is(err, dma.ErrNotMapped) {
			t.Errorf("%#x, %d bytes: %v, want ErrNotMapped", r.iova, r.n, err)
		}
	}
}

func TestGuestMemoryByMessageIsBounded(t *testing.T) {
	b := newBed(t, Config{DMATimeout: 50 * time.Millisecond})
	conn := b.attach()
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000))
	s := b.device.session()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.ReadDMA(ctx, 0x100000, make([]byte, 8)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	if err := s.ReadDMA(context.Background(), 0x100000, make([]byte, 8)); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
	conn.ends() // a client that does not answer is dropped
	if err := s.ReadDMA(context.Background(), 0x100000, make([]byte, 8)); err == nil {
		t.Error("no error after the session has ended")
	}
}

func TestTruncatedGuestMemoryCostsTheSessionOnly(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	fd := memfd(t, 0x10000)
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x10000), fd)
	s := b.device.session()
	if err := s.WriteDMA(context.Background(), 0x100000, []byte("there")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadDMA(context.Background(), 0x100000, make([]byte, 8)); !errors.Is(err, unix.EFAULT) {
		t.Errorf("error %v, want EFAULT", err)
	}
	conn.ends()
	b.settled()
	b.attach()
}
