package hostile

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/irq"
)

// setIRQs is a SET_IRQS.
func setIRQs(flags codec.IRQSetFlags, index irq.Index, start, count uint32, data ...byte) []byte {
	set := codec.SetIRQs{ArgSz: codec.SetIRQsSize + uint32(len(data)), Flags: flags, Index: index, Start: start, Count: count, Data: data}
	return set.Append(nil)
}

const assign = codec.IRQSetDataEventfd | codec.IRQSetActionTrigger

// block makes writes to an eventfd wait.
func (a *attack) block(fd int) {
	a.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		a.Fatal(err)
	}
	if _, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, 1<<64-2)); err != nil && err != unix.EAGAIN {
		a.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		a.Fatal(err)
	}
}

// A client that makes its eventfd blocking and fills it catches whoever writes to it.
func TestBlockedEventfds(t *testing.T) {
	forModes(t, []nvme.DoorbellMode{nvme.Trap, nvme.Mmap}, func(t *testing.T, l *lab) {
		for _, index := range []irq.Index{irq.MSIX, irq.MSI, irq.INTx} {
			l.attack(t, index.String()+", of a busy queue", func(a *attack) {
				g, p := a.started(1024)
				fd := a.eventfd()
				vector := uint32(p.id)
				if index == irq.INTx {
					vector = 0
				}
				g.call(codec.CmdSetIRQs, setIRQs(assign, index, vector, 1), fd)
				a.block(fd)
				p.flood(memNS, ramBase+g.ram.alloc(pageSize))
				g.ended()
			})
			l.attack(t, index.String()+", of the admin queue", func(a *attack) {
				g, _ := a.started(64)
				fd := a.eventfd()
				g.call(codec.CmdSetIRQs, setIRQs(assign, index, 0, 1), fd)
				a.block(fd)
				for range 4 {
					g.admin.put(spec.SubmissionEntry{Opcode: 0xff})
				}
				g.admin.ring()
				g.ended()
			})
			l.attack(t, index.String()+", filled again and again", func(a *attack) {
				g, p := a.started(1024)
				fd := a.eventfd()
				vector := uint32(p.id)
				if index == irq.INTx {
					vector = 0
				}
				g.call(codec.CmdSetIRQs, setIRQs(assign, index, vector, 1), fd)
				a.block(fd)
				p.flood(memNS, ramBase+g.ram.alloc(pageSize))
				for range 20000 {
					a.block(fd)
				}
				// It may be that no write came when the eventfd was blocking: one does now, if
				// the session has not ended (INTx has masked itself then).
				for _, action := range []codec.IRQSetFlags{codec.IRQSetActionUnmask, codec.IRQSetActionTrigger} {
					_ = g.send(g.message(codec.CmdSetIRQs, 0, setIRQs(codec.IRQSetDataNone|action, index, vector, 1)))
				}
				g.ended()
			})
			l.attack(t, index.String()+", fired by the client", func(a *attack) {
				g := a.newRig(1 << 20)
				fd := a.eventfd()
				g.call(codec.CmdSetIRQs, setIRQs(assign, index, 0, 1), fd)
				a.block(fd)
				g.must(g.message(codec.CmdSetIRQs, 0, setIRQs(codec.IRQSetDataNone|codec.IRQSetActionTrigger, index, 0, 1)))
				g.ended()
			})
			l.attack(t, index.String()+", masked and unmasked", func(a *attack) {
				g := a.newRig(1 << 20)
				fd, other := a.eventfd(), a.eventfd()
				g.call(codec.CmdSetIRQs, setIRQs(assign, index, 0, 1), other)
				g.call(codec.CmdSetIRQs, setIRQs(codec.IRQSetDataEventfd|codec.IRQSetActionMask, index, 0, 1), fd)
				g.call(codec.CmdSetIRQs, setIRQs(codec.IRQSetDataEventfd|codec.IRQSetActionUnmask, index, 0, 1), fd)
				a.block(fd)
				g.must(g.message(codec.CmdSetIRQs, 0, setIRQs(codec.IRQSetDataNone|codec.IRQSetActionMask, index, 0, 1)))
				g.must(g.message(codec.CmdSetIRQs, 0, setIRQs(codec.IRQSetDataNone|codec.IRQSetActionUnmask, index, 0, 1)))
				g.ended()
			})
		}
		l.attack(t, "INTx, and registers that it depends on", func(a *attack) {
			// The reactor must not wait for a lock under which a worker is caught.
			g, p := a.started(1024)
			fd := a.eventfd()
			g.call(codec.CmdSetIRQs, setIRQs(assign, irq.INTx, 0, 1), fd)
			a.block(fd)
			p.flood(memNS, ramBase+g.ram.alloc(pageSize))
			for range 100 {
				b := access(0, spec.RegINTMS, []byte{1, 0, 0, 0})
				if g.send(g.message(codec.CmdRegionWrite, codec.FlagNoReply, b)) != nil {
					break
				}
				b = access(0, spec.RegINTMC, []byte{1, 0, 0, 0})
				if g.send(g.message(codec.CmdRegionWrite, codec.FlagNoReply, b)) != nil {
					break
				}
			}
			g.ended()
		})
	})
}

func TestInterruptsThatAreRefused(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const none, mask, unmask, trigger = codec.IRQSetDataNone, codec.IRQSetActionMask, codec.IRQSetActionUnmask, codec.IRQSetActionTrigger
	for _, c := range []struct {
		name    string
		payload []byte
		fds     int
	}{
		{"an index that there is not", setIRQs(none|trigger, 5, 0, 1), 0},
		{"index 2^32-1", append(setIRQs(none|trigger, 0, 0, 1)[:8], 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 0, 0, 0), 0},
		{"no action", setIRQs(none, irq.MSIX, 0, 1), 0},
		{"no data", setIRQs(trigger, irq.MSIX, 0, 1), 0},
		{"two actions", setIRQs(none|mask|unmask, irq.MSIX, 0, 1), 0},
		{"two kinds of data", setIRQs(none|codec.IRQSetDataBool|trigger, irq.MSIX, 0, 1, 1), 0},
		{"unknown flags", setIRQs(1<<20|none|trigger, irq.MSIX, 0, 1), 0},
		{"a start beyond the vectors", setIRQs(none|trigger, irq.MSIX, 64, 1), 0},
		{"a count beyond the vectors", setIRQs(none|trigger, irq.MSIX, 0, 65), 0},
		{"a range that overflows", setIRQs(none|trigger, irq.MSIX, 1<<32-1, 2), 0},
		{"a count of 2^32-1", setIRQs(none|mask, irq.MSIX, 1, 1<<32-1), 0},
		{"eventfds without data of that kind", setIRQs(none|trigger, irq.MSIX, 0, 1), 1},
		{"fewer eventfds than vectors", setIRQs(assign, irq.MSIX, 0, 16), 15},
		{"more eventfds than vectors", setIRQs(assign, irq.MSIX, 0, 1), 16},
		{"eventfds beyond the vectors", setIRQs(assign, irq.MSIX, 56, 16), 16},
		{"no eventfd for 2^32-1 vectors", setIRQs(assign, irq.MSIX, 0, 1<<32-1), 0},
		{"fewer flags than vectors", setIRQs(codec.IRQSetDataBool|trigger, irq.MSIX, 0, 16, 1, 1), 0},
		{"flags for 2^32-1 vectors", setIRQs(codec.IRQSetDataBool|trigger, irq.MSIX, 0, 1<<32-1, 1), 0},
		{"a mask for the error interrupt", setIRQs(none|mask, irq.Err, 0, 1), 0},
		{"count 0 without trigger", setIRQs(none|mask, irq.MSIX, 0, 0), 0},
	} {
		l.attack(t, c.name, func(a *attack) {
			s := a.session()
			for range 20 {
				s.refused(unix.EINVAL, codec.CmdSetIRQs, c.payload, slices.Repeat([]int{a.eventfd()}, c.fds)...)
			}
			s.alive()
		})
	}
	l.attack(t, "random", func(a *attack) {
		r := a.random()
		g, p := a.started(1024)
		fds := slices.Repeat([]int{a.eventfd()}, 16)
		p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
		for range 5000 {
			set := codec.SetIRQs{
				ArgSz: codec.SetIRQsSize, Index: codec.IRQIndex(r.Uint32N(6)), Start: r.Uint32N(70), Count: r.Uint32N(20),
				Flags: codec.IRQSetFlags(1<<r.IntN(3) | 8<<r.IntN(3)), Data: make([]byte, r.IntN(20)),
			}
			if r.IntN(10) == 0 {
				set.Start, set.Count, set.Flags = r.Uint32(), r.Uint32(), codec.IRQSetFlags(r.Uint32())
			}
			g.attempt(codec.CmdSetIRQs, set.Append(nil), fds[:r.IntN(4)*r.IntN(6)]...)
		}
		g.alive()
	})
	l.attack(t, "10,000 eventfds for one vector", func(a *attack) {
		g, p := a.started(1024)
		p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
		fd := a.eventfd()
		for range 10_000 {
			g.must(g.message(codec.CmdSetIRQs, codec.FlagNoReply, setIRQs(assign, irq.MSIX, 1, 1)), fd)
		}
		g.alive()
	})
}
