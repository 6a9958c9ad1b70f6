package nvme

import (
	"sync"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// polledStore is memory whose requests end within Poll, or within Rest where they are late.
type polledStore struct {
	block.Backend
	late bool

	mu      sync.Mutex
	waiting []*block.Request
	most    int  // requests that waited for one Poll
	single  int  // requests that wait for no Poll
	polled  bool // and not rested since
}

func (p *polledStore) Info() block.Info {
	info := p.Backend.Info()
	info.Async = true
	return info
}

func (p *polledStore) Submit(r *block.Request) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.Batch {
		p.single++
		return p.Backend.Submit(r)
	}
	p.waiting = append(p.waiting, r)
	p.most = max(p.most, len(p.waiting))
	return false, nil
}

func (p *polledStore) Poll() { p.called(true) }
func (p *polledStore) Rest() { p.called(false) }

func (p *polledStore) called(poll bool) {
	p.mu.Lock()
	p.polled = poll
	var ended []*block.Request
	if p.late != poll {
		ended, p.waiting = p.waiting, nil
	}
	p.mu.Unlock()
	for _, r := range ended {
		_, err := p.Backend.Submit(r)
		r.Completer.CompleteBlock(r, err)
	}
}

// A round's commands go to the backend together, and it is told when nobody polls any more,
// be it that nothing is in flight or that the worker sleeps.
func TestPolledBackend(t *testing.T) {
	for _, late := range []bool{false, true} {
		store := &polledStore{Backend: memory(t, 1<<20), late: late}
		g, q := started(t, rig{backends: []block.Backend{store}})
		data := g.alloc(1)
		for i := range uint64(50) {
			if st := q.status(rw(spec.NVMWrite, 1, i, 1, data, 0)); !st.OK() {
				t.Fatal(st)
			}
			if st := q.status(rw(spec.NVMRead, 1, i, 1, data, 0)); !st.OK() {
				t.Fatal(st)
			}
		}
		rested := func() bool {
			store.mu.Lock()
			defer store.mu.Unlock()
			return !store.polled
		}
		for deadline := time.Now().Add(5 * time.Second); !rested(); {
			if time.Now().After(deadline) {
				t.Fatalf("late %v: it is still taken for polled", late)
			}
			time.Sleep(time.Millisecond)
		}
		store.mu.Lock()
		if store.single != 0 || store.most == 0 {
			t.Errorf("late %v: %d requests outside of a round, at most %d in one", late, store.single, store.most)
		}
		store.mu.Unlock()
	}
}

// A group gives way to the kernel's threads after a round in which it served nothing and waited
// for backends that it polls, and after no other; and nobody waits for the round meanwhile.
func TestRoundInVainYields(t *testing.T) {
	store := &polledStore{Backend: memory(t, 1<<20), late: true}
	g, q, w := manualOn(t, rig{mode: Trap, backends: []block.Backend{store}})
	queues := w.sources()[0].(*group)
	yields := 0
	queues.pollers.yield = func() {
		yields++
		if !queues.polling.TryLock() {
			t.Error("it yields within the round")
			return
		}
		queues.polling.Unlock()
	}
	for _, round := range []struct {
		name   string
		before func()
		served bool
		yields int
	}{
		{"nothing to do", func() {}, false, 0},
		{"a command is fetched", func() { q.submit(rw(spec.NVMWrite, 1, 0, 1, g.alloc(1), 0)) }, true, 0},
		{"in vain", func() {}, false, 1},
		{"in vain again", func() {}, false, 1},
		{"the command ends", func() { store.late = false }, true, 0},
		{"nothing in flight", func() {}, false, 0},
	} {
		round.before()
		yields = 0
		if n := queues.Poll(); n > 0 != round.served || yields != round.yields {
			t.Errorf("%s: %d served, %d yields; want %v, %d", round.name, n, yields, round.served, round.yields)
		}
	}
}
