package nvme

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/devices/nvme/spec"
	"vfiouser/engine"
	"vfiouser/irq"
)

// listen assigns eventfds to n vectors and returns functions that read their counters.
func (g *guest) listen(index irq.Index, n int) []func() uint64 {
	g.t.Helper()
	var fds []int
	var counts []func() uint64
	for range n {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			g.t.Fatal(err)
		}
		mine, err := unix.Dup(fd)
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { _ = unix.Close(mine) })
		fds = append(fds, fd)
		counts = append(counts, func() uint64 {
			var b [8]byte
			if _, err := unix.Read(mine, b[:]); err != nil {
				return 0
			}
			return binary.NativeEndian.Uint64(b[:])
		})
	}
	if err := g.s.irqs.SetEventfds(index, 0, fds); err != nil {
		g.t.Fatal(err)
	}
	g.c.update(engine.UpdateInterrupts)
	return counts
}

// interrupted waits for an interrupt.
func (g *guest) interrupted(name string, count func() uint64) {
	g.t.Helper()
	g.until(name, func() bool { return count() > 0 })
}

func TestMSIXHasAVectorForEachQueue(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		r.queues = 3
		g := newGuest(t, r)
		irqs := g.listen(irq.MSIX, 4)
		g.enable()
		q1, q3 := g.createQueue(1, 16), g.createQueue(3, 16)
		g.interrupted("the admin queue", irqs[0])
		data := g.alloc(1)
		for range 10 {
			q1.status(rw(spec.NVMRead, 1, 0, 8, data, 0))
			g.interrupted("queue 1", irqs[1])
			q3.status(rw(spec.NVMRead, 1, 0, 8, data, 0))
			g.interrupted("queue 3", irqs[3])
		}
		if n := irqs[2](); n != 0 {
			t.Errorf("%d interrupts on a vector that no queue has", n)
		}
	})
}

func TestQueueWithoutInterrupts(t *testing.T) {
	g := newGuest(t, rig{mode: Trap, queues: 2})
	irqs := g.listen(irq.MSIX, 3)
	g.enable()
	q := g.newQueue(1, 16)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: 1 | 15<<16, CDW11: 1 | 1<<16})
	g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: 1 | 15<<16, CDW11: 1 | 1<<16})
	q.status(rw(spec.NVMRead, 1, 0, 8, g.alloc(1), 0))
	g.lock(true) // all is done now
	if n := irqs[1](); n != 0 {
		t.Errorf("%d interrupts", n)
	}
}

func TestOneInterruptForABatch(t *testing.T) {
	w := &manualWorker{}
	g := newGuest(t, rig{mode: Trap, workers: func() worker { return w }})
	irqs := g.listen(irq.MSIX, 2)
	g.enable()
	q := g.createQueue(1, 64)
	data := g.alloc(1)
	for range 20 {
		q.put(rw(spec.NVMRead, 1, 0, 8, data, 0))
	}
	q.ringTail(0)
	if n := w.poll(); n != 20 {
		t.Errorf("%d commands in the round", n)
	}
	if n := irqs[1](); n != 1 {
		t.Errorf("%d interrupts", n)
	}
}

func TestMSIWithMask(t *testing.T) {
	g := newGuest(t, rig{mode: Trap, queues: 3})
	irqs := g.listen(irq.MSI, 4)
	g.enable()
	q := g.createQueue(1, 16)
	data := g.alloc(1)
	q.status(rw(spec.NVMRead, 1, 0, 8, data, 0))
	g.interrupted("queue 1", irqs[1])
	g.lock(true)
	g.lock(false)
	irqs[1]()
	g.write32(spec.RegINTMS, 2)
	if g.read32(spec.RegINTMS) != 2 || g.read32(spec.RegINTMC) != 2 {
		t.Error("the mask does not read back")
	}
	q.status(rw(spec.NVMRead, 1, 0, 8, data, 0))
	g.lock(true)
	g.lock(false)
	if n := irqs[1](); n != 0 {
		t.Errorf("%d interrupts although masked", n)
	}
	g.write32(spec.RegINTMC, 2)
	if irqs[1]() != 1 {
		t.Error("no interrupt after the mask was cleared")
	}
}

// The pin stays raised until the host has consumed all completions; each interrupt
// masks it, and the host unmasks it when it has looked.
func TestPinFollowsTheQueues(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g := newGuest(t, r)
		irqs := g.listen(irq.INTx, 1)
		pin := g.s.irqs.Vector(irq.INTx, 0)
		unmask := func() { _ = g.s.irqs.Unmask(irq.INTx, 0, 1, nil) }
		g.enable()
		// Shadow doorbells are not for hosts with a pin.
		if st := g.do(spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: guestBase, PRP2: guestBase}).Status; st.Code() != spec.InvalidOpcode {
			t.Errorf("Doorbell Buffer Config: %v", st)
		}
		q := g.createQueue(1, 16)
		g.until("the pin to fall", func() bool { return !pin.Pending() })
		irqs[0]()
		unmask()
		data := g.alloc(1)
		for range 10 {
			cid := q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
			g.interrupted("the pin", irqs[0])
			unmask() // too early: nothing was consumed
			g.interrupted("the pin again", irqs[0])
			if _, ok := q.completed[cid]; !ok && !q.reap() {
				t.Fatal("interrupt without a completion")
			}
			if r.mode != Mmap && pin.Pending() {
				t.Fatal("the pin is raised after the doorbell was trapped: the next unmask is an interrupt for nothing")
			}
			g.until("the pin to fall", func() bool { return !pin.Pending() })
			unmask()
		}
		q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
		g.interrupted("the pin", irqs[0])
		g.write32(spec.RegINTMS, 1)
		g.until("the pin to fall", func() bool { return !pin.Pending() })
		unmask()
		if irqs[0]() != 0 {
			t.Error("an interrupt although INTMS masks it")
		}
		g.write32(spec.RegINTMC, 1)
		g.interrupted("the pin after INTMC", irqs[0])
	})
}

// The engine serves the MSI-X table: a masked vector waits, and fires when it may.
func TestGatedVectorWaits(t *testing.T) {
	g := newGuest(t, rig{mode: Trap, queues: 2})
	irqs := g.listen(irq.MSIX, 3)
	g.enable()
	q := g.createQueue(1, 16)
	data := g.alloc(1)
	gate := func(closed bool) { _ = g.s.irqs.SetGate(irq.MSIX, 1, 1, irq.GateVector, closed) }
	gate(true)
	q.status(rw(spec.NVMRead, 1, 0, 8, data, 0))
	g.until("the pending bit", func() bool { return g.s.irqs.Vector(irq.MSIX, 1).Pending() })
	if irqs[1]() != 0 {
		t.Error("an interrupt although the vector is masked")
	}
	gate(false)
	g.interrupted("queue 1", irqs[1])
}

func TestDescriptionHasAsManyVectorsAsQueues(t *testing.T) {
	g := newGuest(t, rig{mode: Trap, queues: 2})
	d, err := g.c.Describe()
	if err != nil || d.MSIX.Vectors() != 3 || d.IRQs[irq.MSIX] != 3 {
		t.Errorf("%d in the table, %d interrupts, %v", d.MSIX.Vectors(), d.IRQs[irq.MSIX], err)
	}
}
