package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/irq"
	"vfiouser/test/holdings"
)

func eventfd(t testing.TB) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// fired takes an eventfd's counter.
func fired(fd int) bool {
	var b [8]byte
	n, _ := unix.Read(fd, b[:])
	return n == 8
}

func setIRQs(flags codec.IRQSetFlags, index, start, count uint32, data ...byte) []byte {
	return append(u32(uint32(20+len(data)), uint32(flags), index, start, count), data...)
}

const (
	none    = codec.IRQSetDataNone
	boolean = codec.IRQSetDataBool
	evfd    = codec.IRQSetDataEventfd
	mask    = codec.IRQSetActionMask
	unmask  = codec.IRQSetActionUnmask
	trigger = codec.IRQSetActionTrigger
)

// The order in which QEMU enables MSI-X.
func TestMSIXIsEnabledAsQEMUDoes(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdSetIRQs, setIRQs(evfd|trigger, 2, 0, 1)) // zero descriptors
	var fds [irqMSIX]int
	for i := range fds {
		fds[i] = eventfd(t)
		conn.ok(codec.CmdSetIRQs, setIRQs(evfd|trigger, 2, uint32(i), 1), fds[i])
	}
	set := b.device.session().IRQ()
	for i, fd := range fds {
		_ = set.Vector(irq.MSIX, i).Trigger()
		if !fired(fd) {
			t.Errorf("vector %d did not reach its eventfd", i)
		}
	}
	again := eventfd(t)
	conn.ok(codec.CmdSetIRQs, setIRQs(evfd|trigger, 2, 1, 1), again)
	_ = set.Vector(irq.MSIX, 1).Trigger()
	if fired(fds[1]) || !fired(again) {
		t.Error("the eventfd was not replaced")
	}
	conn.ok(codec.CmdSetIRQs, setIRQs(none|trigger, 2, 0, 0))
	_ = set.Vector(irq.MSIX, 0).Trigger()
	if fired(fds[0]) {
		t.Error("fired after the type was disabled")
	}
}

func TestMaskedInterruptFiresOnUnmask(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	fd := eventfd(t)
	conn.ok(codec.CmdSetIRQs, setIRQs(evfd|trigger, 2, 3, 1), fd)
	conn.ok(codec.CmdSetIRQs, setIRQs(boolean|mask, 2, 2, 2, 0, 1))
	v := b.device.session().IRQ().Vector(irq.MSIX, 3)
	_ = v.Trigger()
	if fired(fd) || !v.Pending() {
		t.Error("a masked vector must become pending")
	}
	conn.ok(codec.CmdSetIRQs, setIRQs(none|unmask, 2, 0, 4))
	if !fired(fd) {
		t.Error("a pending vector must fire on unmask")
	}
}

func TestBadInterruptRequestsAreRefused(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	e := eventfd(t)
	file := memfd(t, 4096)
	for _, c := range []struct {
		name    string
		payload []byte
		fds     []int
	}{
		{"type that does not exist", setIRQs(none|trigger, 5, 0, 1), nil},
		{"type without vectors", setIRQs(none|trigger, 1, 0, 0), nil},
		{"range beyond the vectors", setIRQs(evfd|trigger, 2, 3, 2), []int{e, e}},
		{"range that overflows", setIRQs(none|trigger, 2, 1, ^uint32(0)), nil},
		{"two actions", setIRQs(none|mask|trigger, 2, 0, 1), nil},
		{"two kinds of data", setIRQs(none|boolean|trigger, 2, 0, 1, 1), nil},
		{"no action", setIRQs(none, 2, 0, 1), nil},
		{"fewer descriptors than vectors", setIRQs(evfd|trigger, 2, 0, 3), []int{e, e}},
		{"more descriptors than vectors", setIRQs(evfd|trigger, 2, 0, 1), []int{e, e}},
		{"descriptor that is no eventfd", setIRQs(evfd|trigger, 2, 0, 1), []int{file}},
		{"descriptors without EVENTFD", setIRQs(none|trigger, 2, 0, 1), []int{e}},
		{"data shorter than the range", setIRQs(boolean|trigger, 2, 0, 3, 1), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			before := holdings.Descriptors(t)
			conn.fails(unix.EINVAL, codec.CmdSetIRQs, c.payload, c.fds...)
			eventually(t, "as many descriptors as before", func() bool { return holdings.Descriptors(t) == before })
		})
	}
}

// A client shares the description of its eventfd: it can make it blocking, fill it,
// and so hang whoever writes to it.
func TestClientThatBlocksItsEventfdLosesItsSession(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	fd := eventfd(t)
	conn.ok(codec.CmdSetIRQs, setIRQs(evfd|trigger, 2, 0, 1), fd)
	if _, err := unix.Write(fd, u64(^uint64(0)-1)); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() {
		_ = b.device.session().IRQ().Vector(irq.MSIX, 0).Trigger()
		close(written)
	}()
	conn.ends()
	<-written
	b.settled()
	b.attach()
}
