package nvme

import (
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/irq"
)

func TestAsManyQueuesAsThereMayBe(t *testing.T) {
	for _, mode := range []DoorbellMode{Trap, Shadow, Mmap} {
		t.Run(mode.String(), func(t *testing.T) {
			g := newGuest(t, rig{mode: mode, queues: MaxQueues})
			irqs := g.listen(irq.MSIX, MaxQueues+1)
			g.enable()
			if mode == Shadow {
				g.useDBBUF()
			}
			if c := g.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatNumberOfQueues}); c.DW0 != 127|127<<16 {
				t.Errorf("number of queues %#x", c.DW0)
			}
			var queues []*testQueue
			for id := uint16(1); id <= MaxQueues; id++ {
				queues = append(queues, g.createQueue(id, 16))
			}
			if st := g.do(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: guestBase, CDW10: (MaxQueues + 1) | 15<<16, CDW11: 1}).Status; st != spec.InvalidQueueID|spec.StatusDNR {
				t.Errorf("one more: %v", st)
			}
			data := g.alloc(1)
			cids := make([]uint16, len(queues))
			for i, q := range queues {
				cids[i] = q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
			}
			for i, q := range queues {
				if c := q.result(cids[i]); !c.Status.OK() || c.SQID != q.id {
					t.Errorf("%+v", c)
				}
				g.interrupted("a queue", irqs[q.id])
			}
		})
	}
}

// The pin has a bit for each queue.
func TestPinFollowsTheLastQueue(t *testing.T) {
	g := newGuest(t, rig{mode: Trap, queues: MaxQueues})
	irqs := g.listen(irq.INTx, 1)
	pin := g.s.irqs.Vector(irq.INTx, 0)
	g.enable()
	q := g.createQueue(MaxQueues, 16)
	g.until("the pin to fall", func() bool { return !pin.Pending() })
	irqs[0]()
	_ = g.s.irqs.Unmask(irq.INTx, 0, 1, nil)
	q.submit(rw(spec.NVMRead, 1, 0, 8, g.alloc(1), 0))
	g.interrupted("the pin", irqs[0])
	g.until("a completion", q.reap)
	g.until("the pin to fall", func() bool { return !pin.Pending() })
}

func TestLargestQueue(t *testing.T) {
	w := &manualWorker{}
	g := newGuest(t, rig{mode: Trap, workers: func() worker { return w }})
	g.enable()
	q := g.createQueue(1, maxEntries)
	data := g.alloc(1)
	for range 3 { // also where it wraps around
		old := q.tail
		for range maxEntries - 1 {
			q.put(rw(spec.NVMRead, 1, 0, 8, data, 0))
		}
		q.ringTail(old)
		served := 0
		for n := w.poll(); n > 0; n = w.poll() {
			served += n
		}
		if served != maxEntries-1 {
			t.Fatalf("%d commands served", served)
		}
		q.reap()
		for cid, c := range q.completed {
			if !c.Status.OK() {
				t.Fatalf("%+v", c)
			}
			delete(q.completed, cid)
		}
	}
}

func TestFullSharedCompletionQueue(t *testing.T) {
	for _, async := range []bool{false, true} {
		var b block.Backend = memory(t, 1<<20)
		w := &manualWorker{}
		var held *slowBackend
		if async {
			held = holding(b)
			b = held
		}
		g := newGuest(t, rig{mode: Trap, backends: []block.Backend{b}, workers: func() worker { return w }})
		g.enable()
		s := &sharedQueues{guest: g, worker: w, cq: g.newQueue(1, 8)}
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: s.cq.cq, CDW10: 1 | 7<<16, CDW11: 1})
		data := g.alloc(1)
		for id := range uint16(3) {
			q := g.newQueue(id+1, 32)
			g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: uint32(q.id) | 31<<16, CDW11: 1 | 1<<16})
			for range 20 {
				q.put(rw(spec.NVMRead, 1, 0, 8, data, 0))
			}
			q.ringTail(0)
		}
		served := map[uint16]int{}
		for total := 0; total < 60; {
			for w.poll() > 0 {
			}
			if async {
				held.release()
				for w.poll() > 0 {
				}
			}
			cq := g.c.host.cqs[1].Load()
			if cq.used > cq.size-1 || cq.reserved != 0 {
				t.Fatalf("%d entries used, %d reserved of %d", cq.used, cq.reserved, cq.size)
			}
			ids := s.take()
			if len(ids) == 0 || len(ids) > 7 {
				t.Fatalf("%d completions, after %d", len(ids), total)
			}
			for _, id := range ids {
				served[id]++
			}
			total += len(ids)
		}
		if served[1] != 20 || served[2] != 20 || served[3] != 20 {
			t.Errorf("served %v", served)
		}
	}
}

func TestSharedCompletionQueueIsDeletedLast(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		s := newSharedQueues(t, spec.NewCC(true, 0, 6, 4), 16, 64, 0, 0, 0)
		del := func(op uint8, id uint16) spec.Status {
			return s.do(spec.SubmissionEntry{Opcode: op, CDW10: uint32(id)}).Status
		}
		for i, k := range order {
			if st := del(spec.AdminDeleteCQ, 1); st != spec.InvalidQueueDeletion|spec.StatusDNR {
				t.Errorf("%v: completion queue with %d submission queues: %v", order, 3-i, st)
			}
			for _, other := range order[i:] {
				s.submit(other, 2)
			}
			s.worker.poll()
			if n := len(s.take()); n != 2*(3-i) {
				t.Errorf("%v: %d completions of %d queues", order, n, 3-i)
			}
			s.submit(k, 1) // goes with the queue
			if st := del(spec.AdminDeleteSQ, s.sqs[k].id); !st.OK() {
				t.Errorf("%v: delete submission queue %d: %v", order, s.sqs[k].id, st)
			}
			s.worker.poll()
			if n := len(s.take()); n != 0 {
				t.Errorf("%v: %d completions of a queue that is gone", order, n)
			}
		}
		if st := del(spec.AdminDeleteCQ, 1); !st.OK() {
			t.Errorf("%v: completion queue without submission queues: %v", order, st)
		}
		if st := del(spec.AdminDeleteCQ, 1); st != spec.InvalidQueueID|spec.StatusDNR {
			t.Errorf("%v: once more: %v", order, st)
		}
	}
}

// A queue of one device takes no more of a poll with many others beside it.
func TestEveryOfManyQueuesHasItsTurn(t *testing.T) {
	w := &manualWorker{}
	g := newGuest(t, rig{mode: Trap, queues: MaxQueues, workers: func() worker { return w }})
	g.enable()
	data := g.alloc(1)
	var queues []*testQueue
	for id := uint16(1); id <= MaxQueues; id++ {
		q := g.createQueue(id, 8)
		for range 3 {
			q.put(rw(spec.NVMRead, 1, 0, 1, data, 0))
		}
		dma.Store32(g.c.doorbells.page, sqDoorbell(id), q.tail)
		queues = append(queues, q)
	}
	if n := w.poll(); n != 3*MaxQueues {
		t.Errorf("%d commands in a round", n)
	}
	for _, q := range queues {
		q.reap()
		if len(q.completed) != 3 {
			t.Errorf("queue %d: %d completions", q.id, len(q.completed))
		}
	}
}
