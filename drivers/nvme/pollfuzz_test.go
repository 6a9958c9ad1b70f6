package nvme

import (
	"errors"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
)

// FuzzPoll: what an honest device completes comes back once, with its status. If the device writes
// what it likes into the completion queue nothing else comes back: a command under way, once, or an
// ErrDevice that is for good, whatever the device writes afterwards.
//
//fuzz:covers drivers/nvme/queue.go
func FuzzPoll(f *testing.F) {
	choice.Fuzz(f, 50, 200, runPoll)
}

func TestPollPrograms(t *testing.T) {
	choice.Programs(t, 100, 150, runPoll)
}

func runPoll(t *testing.T, s *choice.Source) {
	depth := 1 + s.Intn(8)
	q, n := loneQueue(t, QueueConfig{Depth: depth, BufferSize: 4096})
	d := newLoneDevice(q)
	underWay := map[uint16]bool{}
	answers := map[uint16]spec.Status{} // of an honest device
	lied := false
	for s.More() {
		switch s.Intn(8) {
		case 0, 1, 2:
			tag := uint16(s.Intn(depth))
			err := q.Read(tag, n, 0, 1)
			if want := underWay[tag]; q.err == nil && want != errors.Is(err, ErrBusy) {
				t.Fatalf("tag %d, under way %v: %v", tag, want, err)
			}
			if err == nil {
				underWay[tag] = true
			}
		case 3, 4:
			if err := q.Ring(); err != nil && !lied {
				t.Fatal(err)
			}
			if tag, ok := d.fetch(); ok {
				answers[tag] = spec.Status(s.Intn(1 << 15))
				d.post(q.id, tag, answers[tag])
			}
		case 5:
			if s.Odds(8) { // rarely: what comes behind it is lost
				lied = true
				q.cq[s.Intn(len(q.cq))].hi.Store(s.Uint64())
			} else if s.Odds(8) {
				lied = true
				d.post(q.id, uint16(s.Intn(depth+1)), 0)
			}
		default:
			pollOnce(t, q, make([]Completion, 1+s.Intn(depth)), underWay, answers, lied)
		}
	}
}

// pollOnce polls and holds what comes back against what is under way.
func pollOnce(t *testing.T, q *Queue, done []Completion, underWay map[uint16]bool, answers map[uint16]spec.Status, lied bool) {
	before := q.err
	k, err := q.Poll(done)
	if before != nil && (k != 0 || err != before) {
		t.Fatalf("a queue out of use has %d completions, %v", k, err)
	}
	if err != nil && (!lied || !errors.Is(err, ErrDevice)) {
		t.Fatal(err)
	}
	for _, c := range done[:k] {
		if !underWay[c.Tag] {
			t.Fatalf("command %d is completed, and is not under way", c.Tag)
		}
		if want, ok := answers[c.Tag]; !lied && (!ok || c.Status != want || c.Result != 42) {
			t.Fatalf("completion %+v, want status %v", c, want)
		}
		delete(underWay, c.Tag)
		delete(answers, c.Tag)
	}
	if !lied && k < len(done) && len(answers) > 0 {
		t.Fatalf("%d completions are not seen", len(answers))
	}
}
