package engine

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// ring is what a client's kernel does at a write: it signals the eventfd.
func ring(t testing.TB, fd int) {
	t.Helper()
	if _, err := unix.Write(fd, one[:]); err != nil {
		t.Fatal(err)
	}
}

func ioFDs(argsz, index uint32) []byte { return u32(argsz, 0, index, 0) }

// area is a sub-region in the reply, without a shadow.
func ioArea(off, size uint64, fd, flags uint32, data uint64) []byte {
	return slices.Concat(u64(off, size), u32(fd, uint32(codec.IOEventfd), flags, 0), u64(data))
}

// bells is a device whose BAR0 has four areas on three events, one of them its own.
type bells struct {
	*bed
	told   chan string
	writes chan uint64
	own    *reactor.Eventfd
}

func newBells(t testing.TB) *bells {
	t.Helper()
	b := &bells{told: make(chan string, 1000), writes: make(chan uint64, 1000)}
	base := newBed(t, Config{})
	own, err := reactor.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	b.own = own
	first := &IOEvent{Handler: func(*Session) { b.told <- "first" }}
	second := &IOEvent{Handler: func(*Session) { b.told <- "second" }}
	bar := Region{
		Size:  4096,
		Write: func(off uint64, _ []byte) error { b.writes <- off; return nil },
		IOEventfds: []IOEventfd{
			{Offset: 0, Size: 4, Event: first},
			{Offset: 8, Size: 2, Match: true, Data: 0x1234, PIO: true, Event: second},
			{Offset: 16, Event: &IOEvent{FD: own.FD()}},
			{Offset: 4088, Size: 8, Event: first},
		},
	}
	b.bed, _ = base.plain(Description{Regions: [NumRegions]Region{0: bar, 2: {Size: 8}}})
	t.Cleanup(func() { _ = own.Close() })
	return b
}

func (b *bells) wantArea() []byte {
	return slices.Concat(u32(176, 0, 0, 4),
		ioArea(0, 4, 0, 0, 0), ioArea(8, 2, 1, 3, 0x1234), ioArea(16, 0, 2, 0, 0), ioArea(4088, 8, 0, 0, 0))
}

func TestIOEventfdsAreListed(t *testing.T) {
	b := newBells(t)
	conn := b.attach()
	for _, c := range []struct {
		name string
		req  []byte
		want []byte
		fds  int
	}{
		{"with room", ioFDs(176, 0), b.wantArea(), 3},
		{"with more room than is needed", ioFDs(1<<20, 0), b.wantArea(), 3},
		{"without room: the size to ask again with", ioFDs(175, 0), u32(176, 0, 0, 4), 0},
		{"with room for nothing", ioFDs(16, 0), u32(176, 0, 0, 4), 0},
		{"a region that has none", ioFDs(16, 2), u32(16, 0, 2, 0), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, got, fds := conn.call(codec.CmdGetRegionIOFDs, c.req)
			if h.Err() != nil || !bytes.Equal(got, c.want) || len(fds) != c.fds {
				t.Errorf("%v, %x, %d descriptors; want %x, %d", h.Err(), got, len(fds), c.want, c.fds)
			}
			reactor.CloseFDs(fds)
		})
	}
	for _, c := range []struct {
		name string
		req  []byte
	}{
		{"cut", u32(176, 0, 0)},
		{"argsz below the structure", ioFDs(15, 0)},
		{"argsz above max_data_xfer_size", ioFDs(1<<20+1, 0)},
		{"flags", u32(176, 1, 0, 0)},
		{"a count", u32(176, 0, 0, 1)},
		{"a region that is not there", ioFDs(176, 1)},
		{"an index that is not there", ioFDs(176, 9)},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			conn.fails(unix.EINVAL, codec.CmdGetRegionIOFDs, c.req)
		})
	}
}

// No more descriptors come than the client takes in a message, and only areas that have theirs.
func TestIOEventfdsKeepToMaxMsgFDs(t *testing.T) {
	for _, c := range []struct {
		limit uint64
		want  []byte
	}{
		{0, u32(16, 0, 0, 0)},
		{1, slices.Concat(u32(96, 0, 0, 2), ioArea(0, 4, 0, 0, 0), ioArea(4088, 8, 0, 0, 0))},
		{2, slices.Concat(u32(136, 0, 0, 3), ioArea(0, 4, 0, 0, 0), ioArea(8, 2, 1, 3, 0x1234), ioArea(4088, 8, 0, 0, 0))},
	} {
		b := newBells(t)
		conn := b.dial()
		v := codec.VersionMsg{Caps: codec.Capabilities{MaxMsgFDs: c.limit, Present: codec.HasMaxMsgFDs}}
		conn.ok(codec.CmdVersion, v.Append(nil))
		h, got, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(4096, 0))
		if h.Err() != nil || !bytes.Equal(got, c.want) || len(fds) != int(c.limit) {
			t.Errorf("limit %d: %v, %x, %d descriptors; want %x", c.limit, h.Err(), got, len(fds), c.want)
		}
		reactor.CloseFDs(fds)
	}
}

func TestIOEventfdsTellTheDevice(t *testing.T) {
	b := newBells(t)
	conn := b.attach()
	_, _, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(176, 0))
	defer reactor.CloseFDs(fds)
	_, _, again := conn.call(codec.CmdGetRegionIOFDs, ioFDs(176, 0))
	defer reactor.CloseFDs(again)

	for _, c := range []struct {
		fd   int
		want string
	}{{fds[0], "first"}, {fds[1], "second"}, {again[0], "first"}, {again[1], "second"}} {
		ring(t, c.fd)
		if got := <-b.told; got != c.want {
			t.Errorf("told %q, want %q", got, c.want)
		}
	}
	ring(t, fds[2])
	if n, err := DrainEventfd(b.own.FD()); n != 1 || err != nil {
		t.Errorf("the device's own eventfd has %d, %v, want 1", n, err)
	}
	// Whoever does not use them writes by message, which signals nobody.
	conn.ok(codec.CmdRegionWrite, regionWrite(0, 0, 1, 2, 3, 4))
	conn.ok(codec.CmdRegionWriteMulti, writeMultiOf(writeOf(0, 8, 0x34, 0x12)))
	if a, z := <-b.writes, <-b.writes; a != 0 || z != 8 {
		t.Errorf("writes at %d and %d, want 0 and 8", a, z)
	}
	select {
	case got := <-b.told:
		t.Errorf("told %q, which nobody signalled", got)
	default:
	}
}

// The client shares the file description. It can do what it likes to it, and the reactor
// must not hang.
func TestIOEventfdsOfAHostileClient(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, fd int)
	}{
		{"blocking", func(t *testing.T, fd int) {
			if err := unix.SetNonblock(fd, false); err != nil {
				t.Fatal(err)
			}
		}},
		{"blocking, and the counter full", func(t *testing.T, fd int) {
			if err := unix.SetNonblock(fd, false); err != nil {
				t.Fatal(err)
			}
			full := u64(^uint64(1))
			if _, err := unix.Write(fd, full); err != nil {
				t.Fatal(err)
			}
		}},
		{"read by the client, again and again", func(t *testing.T, fd int) {
			if err := unix.SetNonblock(fd, false); err != nil {
				t.Fatal(err)
			}
			for range 1000 {
				ring(t, fd)
				_, _ = reactor.DrainShared(fd) // a race with the reactor, which either may win
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBells(t)
			conn := b.attach()
			_, _, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(176, 0))
			c.do(t, fds[0])
			for range 10 { // the reactor goes on
				conn.ok(codec.CmdRegionWrite, regionWrite(0, 100, 1))
			}
			ring(t, fds[0])
			<-b.told
			conn.close()
			b.settled()
			ring(t, fds[0]) // nobody listens any more
			reactor.CloseFDs(fds)
			b.attach().ok(codec.CmdRegionWrite, regionWrite(0, 100, 1))
		})
	}
}

// Each client gets eventfds of its own: what the last one kept says nothing any more.
func TestIOEventfdsAreNewForEachClient(t *testing.T) {
	b := newBells(t)
	last := b.attach()
	_, _, old := last.call(codec.CmdGetRegionIOFDs, ioFDs(176, 0))
	defer reactor.CloseFDs(old)
	last.close()
	b.settled()
	conn := b.attach()
	_, _, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(176, 0))
	defer reactor.CloseFDs(fds)
	ring(t, old[0])
	ring(t, old[1])
	ring(t, fds[1])
	if got := <-b.told; got != "second" || len(b.told) != 0 {
		t.Errorf("told %q and %d more, want one signal", got, len(b.told))
	}
}

// What is signalled while a reset is under way is told when it is over, like writes.
func TestIOEventfdsWaitForAReset(t *testing.T) {
	b := newBed(t, Config{})
	release := make(chan func(), 1)
	b.device.onHold(func(done func()) { release <- done })
	conn := b.attach()
	_, _, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(56, 0))
	defer reactor.CloseFDs(fds)
	conn.write(conn.frame(codec.CmdReset, 0, nil))
	done := <-release
	ring(t, fds[0])
	eventually(t, "the signal noticed", func() (late bool) {
		b.do(func() { late = b.ep.session.events.open[0].late })
		return late
	})
	b.device.onHold(nil)
	done()
	conn.read()
	if got, want := b.device.noted(), []string{"new", "hold", "reset", "go on", "bell"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// A signal counts as a write that came when it was given: before a reset that follows,
// whichever of the two the reactor sees first.
func TestIOEventfdsBeforeAReset(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	_, _, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(56, 0))
	defer reactor.CloseFDs(fds)
	b.do(func() {
		ring(t, fds[0])
		conn.write(conn.frame(codec.CmdReset, 0, nil))
		b.ep.session.HandleEvents(reactor.Readable)
	})
	conn.read()
	if got, want := b.device.noted(), []string{"new", "bell", "hold", "reset", "go on"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// While the device's state is moved there is no register to write to: what is signalled
// then, whether the reactor has seen it or not, does not come after a reset.
func TestIOEventfdsOfASealedDeviceEndWithAReset(t *testing.T) {
	b, d := newMovable(t, newBed(t, Config{}))
	for _, seen := range []bool{true, false} {
		conn := b.attach()
		bell := conn.bell()
		conn.goTo(codec.MigStopCopy)
		before, reset := len(d.noted()), conn.frame(codec.CmdReset, 0, nil)
		b.do(func() {
			ring(t, bell)
			if seen {
				b.ep.session.events.open[0].HandleEvents(reactor.Readable)
			}
			if _, err := unix.Write(conn.fd, reset); err != nil {
				t.Error(err)
			}
			b.ep.session.HandleEvents(reactor.Readable)
		})
		conn.read()
		conn.poke(0, 0, 1)
		ring(t, bell)
		conn.ok(codec.CmdReset, nil)
		if got, want := d.noted()[before:], []string{"reset", "go on", "bell", "hold", "reset", "go on"}; !slices.Equal(got, want) {
			t.Errorf("seen %v: calls %q, want %q", seen, got, want)
		}
		conn.close()
		b.settled()
	}
}

func TestIOEventfdWithShadow(t *testing.T) {
	file := memfd(t, 4096)
	b, _ := newPlainBed(t, Config{}, Description{Regions: [NumRegions]Region{0: {
		Size:  4096,
		Write: func(uint64, []byte) error { return nil },
		IOEventfds: []IOEventfd{
			{Offset: 4, Size: 4, Event: &IOEvent{Handler: func(*Session) {}}, Shadow: &IOShadow{FD: file, Offset: 64}},
			{Offset: 8, Size: 4, Match: true, Data: 9, Event: &IOEvent{Handler: func(*Session) {}}},
		},
	}}})
	conn := b.attach()
	h, got, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(4096, 0))
	defer reactor.CloseFDs(fds)
	want := slices.Concat(u32(112, 0, 0, 2),
		u64(4, 4), u32(0, uint32(codec.IOEventfdShadow), 0, 1), u64(64, 0),
		u64(8, 4), u32(2, uint32(codec.IOEventfd), 1, 0), u64(0, 9))
	if h.Err() != nil || !bytes.Equal(got, want) || len(fds) != 3 {
		t.Errorf("%v, %x, %d descriptors; want %x, 3", h.Err(), got, len(fds), want)
	}
}

func TestIOEventfdHandlerPanicCostsTheSessionOnly(t *testing.T) {
	b, _ := newPlainBed(t, Config{}, Description{Regions: [NumRegions]Region{0: {
		Size:       4096,
		Write:      func(uint64, []byte) error { return nil },
		IOEventfds: []IOEventfd{{Event: &IOEvent{Handler: func(*Session) { panic("bell") }}}},
	}}})
	conn := b.attach()
	_, _, fds := conn.call(codec.CmdGetRegionIOFDs, ioFDs(56, 0))
	defer reactor.CloseFDs(fds)
	ring(t, fds[0])
	conn.ends()
	b.settled()
	b.attach()
}

func TestIOEventfdsThatCannotBeAreRefused(t *testing.T) {
	b := newBed(t, Config{})
	event := &IOEvent{Handler: func(*Session) {}}
	write := func(uint64, []byte) error { return nil }
	for _, c := range []struct {
		name string
		r    Region
	}{
		{"three bytes", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Size: 3, Event: event}}}},
		{"16 bytes", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Size: 16, Event: event}}}},
		{"beyond the end", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Offset: 62, Size: 4, Event: event}}}},
		{"any size at the end", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Offset: 64, Event: event}}}},
		{"data of any size", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Match: true, Event: event}}}},
		{"no event", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Size: 4}}}},
		{"a descriptor that is none", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Size: 4, Event: &IOEvent{FD: -1}}}}},
		{"a shadow that is none", Region{Size: 64, Write: write, IOEventfds: []IOEventfd{{Size: 4, Event: event, Shadow: &IOShadow{FD: -1}}}}},
		{"no handler for writes", Region{Size: 64, IOEventfds: []IOEventfd{{Size: 4, Event: event}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := b.engine.Register(filepath.Join(t.TempDir(), "x"), &plainDevice{desc: Description{Regions: [NumRegions]Region{0: c.r}}})
			if err == nil {
				t.Error("registered")
			}
		})
	}
}
