package reactor

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

type numberedTask struct{ producer, n int }

func (numberedTask) Run() {}

func newQueue() *queue {
	q := new(queue)
	q.init()
	return q
}

func TestQueueAgainstAModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	q := newQueue()
	pushed, popped := 0, 0
	for range 500 {
		for range rng.IntN(ringSize) {
			if !q.push(numberedTask{n: pushed}) {
				t.Fatal("push refused")
			}
			pushed++
		}
		for range rng.IntN(ringSize) {
			if ready := q.ready(); ready != (popped < pushed) {
				t.Fatalf("ready() = %v with %d tasks in", ready, pushed-popped)
			}
			task := q.pop()
			if task == nil {
				if popped != pushed {
					t.Fatalf("pop gave nothing with %d tasks in", pushed-popped)
				}
				break
			}
			if got := task.(numberedTask).n; got != popped {
				t.Fatalf("popped %d, want %d", got, popped)
			}
			popped++
		}
	}
	q.close()
	if q.push(numberedTask{}) {
		t.Fatal("push to a closed queue")
	}
	for ; !q.drained(); popped++ {
		if got := q.pop().(numberedTask).n; got != popped {
			t.Fatalf("popped %d, want %d", got, popped)
		}
	}
	if popped != pushed || q.pop() != nil {
		t.Fatalf("pushed %d, popped %d", pushed, popped)
	}
}

// Producers run against a consumer that pauses at random, so that ring and overflow list alternate, and the queue is
// closed in the middle.
func TestQueueWithManyProducers(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 8 {
		q := newQueue()
		const producers, each = 8, 4000
		var accepted [producers]int
		var wg sync.WaitGroup
		for p := range producers {
			wg.Go(func() {
				for i := range each {
					if !q.push(numberedTask{p, i}) {
						return
					}
					accepted[p]++
				}
			})
		}
		var next [producers]int
		take := func() bool {
			task := q.pop()
			if task == nil {
				return false
			}
			nt := task.(numberedTask)
			if nt.n != next[nt.producer] {
				t.Fatalf("producer %d: popped %d, want %d", nt.producer, nt.n, next[nt.producer])
			}
			next[nt.producer]++
			return true
		}
		closeAt := rng.IntN(2 * producers * each)
		for n := 0; n < closeAt && n < producers*each; {
			if take() {
				n++
			} else if closeAt > producers*each/2 && n > closeAt/2 {
				break
			}
			if rng.IntN(500) == 0 {
				runtime.Gosched()
			}
		}
		q.close()
		for !q.drained() {
			take()
		}
		wg.Wait()
		for !q.drained() {
			take()
		}
		if next != accepted {
			t.Fatalf("accepted %v, popped %v", accepted, next)
		}
	}
}

// A long overflow list is given back once it has been worked off.
func TestQueueGivesBackALargeOverflow(t *testing.T) {
	q := newQueue()
	for range 3 {
		for i := range ringSize + 10*keepSpill {
			q.push(numberedTask{n: i})
		}
		for q.pop() != nil {
		}
	}
	for i := range 2 * ringSize {
		q.push(numberedTask{n: i})
	}
	for q.pop() != nil {
	}
	if cap(q.spill) > keepSpill || cap(q.overflow) > keepSpill {
		t.Errorf("kept %d and %d entries", cap(q.spill), cap(q.overflow))
	}
}
