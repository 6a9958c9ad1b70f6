package nvme

import (
	"fmt"
	"strings"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// sharedQueues is submission queues 1 to n that share completion queue 1, so that the order
// in which commands are served shows there.
type sharedQueues struct {
	*guest
	worker *manualWorker
	cq     *testQueue
	sqs    []*testQueue
}

func newSharedQueues(t *testing.T, cc spec.CC, entries, completions uint32, priorities ...priority) *sharedQueues {
	w := &manualWorker{}
	g := newGuest(t, rig{mode: Trap, workers: func() worker { return w }})
	g.enableAs(cc)
	s := &sharedQueues{guest: g, worker: w, cq: g.newQueue(1, completions)}
	g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: s.cq.cq, CDW10: 1 | (completions-1)<<16, CDW11: 1})
	for i, p := range priorities {
		q := g.newQueue(uint16(i+1), entries)
		s.sqs = append(s.sqs, q)
		g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: uint32(q.id) | (entries-1)<<16, CDW11: 1 | uint32(p)<<1 | 1<<16})
	}
	return s
}

// submit rings the doorbell of queue i for n Flush commands.
func (s *sharedQueues) submit(i, n int) {
	q := s.sqs[i]
	old := q.tail
	for range n {
		q.put(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1})
	}
	q.ringTail(old)
}

// order polls until nothing comes any more, and gives the queues that were served, as "1x3 2"
// for three commands of queue 1 and one of queue 2.
func (s *sharedQueues) order() string {
	var runs []string
	last, n := uint16(0), 0
	end := func() {
		if n > 1 {
			runs = append(runs, fmt.Sprintf("%dx%d", last, n))
		} else if n == 1 {
			runs = append(runs, fmt.Sprint(last))
		}
	}
	for s.worker.poll() > 0 {
		for _, id := range s.take() {
			if id != last {
				end()
				last, n = id, 0
			}
			n++
		}
	}
	end()
	return strings.Join(runs, " ")
}

// take consumes the completions that are there: the queue of each.
func (s *sharedQueues) take() (ids []uint16) {
	q, old := s.cq, s.cq.head
	for {
		b := s.bytes(q.cq+uint64(q.head)*16, 16)
		var c spec.CompletionEntry
		c.SetWords(dma.Load64(b, 0), dma.Load64(b, 8))
		if c.Phase != q.phase {
			break
		}
		if !c.Status.OK() {
			s.t.Errorf("command %d of queue %d: %v", c.CID, c.SQID, c.Status)
		}
		ids = append(ids, c.SQID)
		if q.head++; q.head == q.size {
			q.head, q.phase = 0, !q.phase
		}
	}
	if q.head != old {
		s.ring(cqDoorbell(q.id), old, q.head, true)
	}
	return ids
}

func arbitrate(burst, low, medium, high uint32) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatArbitration, CDW11: burst | low<<8 | medium<<16 | high<<24}
}

func TestArbitration(t *testing.T) {
	const u, h, m, l = priorityUrgent, priorityHigh, priorityMedium, priorityLow
	robin := spec.NewCC(true, 0, 6, 4)
	weighted := robin | spec.AMSWeighted<<11
	for _, c := range []struct {
		name     string
		cc       spec.CC
		set      spec.SubmissionEntry
		queues   []priority
		commands []int
		want     string
	}{
		{"round robin, bursts of 1", robin, arbitrate(0, 0, 0, 0), []priority{u, u}, []int{3, 3}, "1 2 1 2 1 2"},
		{"round robin, bursts of 2", robin, arbitrate(1, 0, 0, 0), []priority{u, u, u}, []int{3, 5, 1}, "1x2 2x2 3 1 2x3"},
		{"round robin, no limit", robin, arbitrate(7, 0, 0, 0), []priority{u, u}, []int{40, 40}, "1x40 2x40"},
		{"round robin has no priorities", robin, arbitrate(1, 0, 0, 9), []priority{l, u, h}, []int{4, 4, 4}, "1x2 2x2 3x2 1x2 2x2 3x2"},
		{"weights", weighted, arbitrate(7, 0, 1, 3), []priority{l, m, h}, []int{6, 8, 8},
			"3x4 2x2 1 3x4 2x2 1 2x2 1 2x2 1x3"},
		{"weight of 256", weighted, arbitrate(7, 0, 0, 255), []priority{l, h}, []int{2, 300}, "2x256 1 2x44 1"},
		{"round robin within a level", weighted, arbitrate(0, 0, 0, 3), []priority{h, h, l}, []int{4, 4, 2}, "1 2 1 2 3 1 2 1 2 3"},
		{"what is left of the weight ends a burst", weighted, arbitrate(2, 0, 0, 5), []priority{h, h, l}, []int{12, 6, 4},
			"1x4 2x2 3 1x4 2x2 3 1x4 2x2 3x2"},
		{"bursts within a weight", weighted, arbitrate(1, 3, 0, 0), []priority{l, l, m}, []int{6, 6, 2}, "3 1x2 2x2 3 1x2 2x2 1x2 2x2"},
		{"urgent ones first", weighted, arbitrate(1, 0, 0, 255), []priority{h, u, l, u}, []int{2, 4, 1, 3}, "2x2 4x2 2x2 4 1x2 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSharedQueues(t, c.cc, 512, 1024, c.queues...)
			s.must(c.set)
			for i, n := range c.commands {
				s.submit(i, n)
			}
			if got := s.order(); got != c.want {
				t.Errorf("served %s, not %s", got, c.want)
			}
		})
	}
}

// An urgent command goes before what other queues still have; the arbitration round goes on
// where it was.
func TestUrgentCommandsOvertake(t *testing.T) {
	s := newSharedQueues(t, spec.NewCC(true, 0, 6, 4)|spec.AMSWeighted<<11, 512, 1024, priorityHigh, priorityMedium, priorityUrgent)
	s.must(arbitrate(7, 0, 99, 99))
	s.submit(0, 150)
	s.submit(1, 150)
	if n := s.worker.poll(); n != 3*maxBurst {
		t.Errorf("%d commands in a poll", n)
	}
	if got := len(s.take()); got != 3*maxBurst {
		t.Fatalf("%d completions", got)
	}
	s.submit(2, 2)
	if got, want := s.order(), "3x2 2x8 1x50 2x50"; got != want {
		t.Errorf("served %s, not %s", got, want)
	}
}

// A level that was alone has not used up the round in which others come.
func TestArbitrationRoundBeginsAnewAfterIdleTime(t *testing.T) {
	s := newSharedQueues(t, spec.NewCC(true, 0, 6, 4)|spec.AMSWeighted<<11, 64, 256, priorityLow, priorityHigh)
	s.must(arbitrate(7, 1, 0, 3))
	s.submit(0, 1)
	s.order()
	s.submit(0, 3)
	s.submit(1, 5)
	if got, want := s.order(), "2x4 1x2 2 1"; got != want {
		t.Errorf("served %s, not %s", got, want)
	}
}

// Weights count among the queues of one worker.
func TestWeightedQueuesShareAWorker(t *testing.T) {
	w := []*manualWorker{{}, {}}
	picked := 0
	g := newGuest(t, rig{mode: Trap, workers: func() worker { picked++; return w[picked%2] }})
	g.enable()
	g.createQueue(1, 16)
	g.createQueue(2, 16)
	if a, b := len(w[0].sources()), len(w[1].sources()); a != 1 || b != 1 {
		t.Errorf("round robin: %d and %d groups", a, b)
	}
	g.disable()
	g.enableAs(spec.NewCC(true, 0, 6, 4) | spec.AMSWeighted<<11)
	g.createQueue(1, 16)
	g.createQueue(2, 16)
	if a, b := len(w[0].sources()), len(w[1].sources()); a+b != 1 {
		t.Errorf("weighted: %d and %d groups", a, b)
	}
}
