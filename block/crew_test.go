package block

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// collector notes in which order requests end.
type collector struct {
	mu    sync.Mutex
	ended []*Request
	wait  sync.WaitGroup
}

func (c *collector) CompleteBlock(r *Request, err error) {
	c.mu.Lock()
	c.ended = append(c.ended, r)
	c.mu.Unlock()
	c.wait.Done()
}

func (c *collector) submit(t *testing.T, p *crew, rs []Request) {
	t.Helper()
	for i := range rs {
		rs[i].Completer = c
		c.wait.Add(1)
		must(t, p.submit(&rs[i]))
	}
}

func TestCrewIsBounded(t *testing.T) {
	const workers, n = 4, 100
	var running, most atomic.Int64
	gate := make(chan struct{})
	entered := make(chan struct{}, n)
	p := newCrew(workers, 0, func(*worker, *Request) error {
		now := running.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		entered <- struct{}{}
		<-gate
		running.Add(-1)
		return nil
	})
	var c collector
	c.submit(t, p, make([]Request, n))
	for range workers { // all of them work before the first has ended
		<-entered
	}
	close(gate)
	c.wait.Wait()
	p.close()
	if most.Load() != workers {
		t.Errorf("%d requests ran at once, want %d", most.Load(), workers)
	}
}

func TestCrewIsFair(t *testing.T) {
	gate := make(chan struct{})
	p := newCrew(1, 0, func(*worker, *Request) error { <-gate; return nil })
	rs := make([]Request, 50)
	var c collector
	c.submit(t, p, rs)
	close(gate)
	c.wait.Wait()
	p.close()
	for i, r := range c.ended {
		if r != &rs[i] {
			t.Fatalf("another request ended in the place of number %d", i)
		}
	}
}

// Requests that come back at once, from within CompleteBlock.
type again struct {
	p    *crew
	left atomic.Int64
	done chan struct{}
}

func (a *again) CompleteBlock(r *Request, _ error) {
	if a.left.Add(-1) <= 0 {
		a.done <- struct{}{}
	} else if err := a.p.submit(r); err != nil {
		panic(err)
	}
}

func TestCrewTakesRequestsFromCompletions(t *testing.T) {
	for _, linger := range []time.Duration{0, 50 * time.Microsecond} {
		for _, workers := range []int{1, 3} {
			p := newCrew(workers, linger, func(*worker, *Request) error { return nil })
			a := &again{p: p, done: make(chan struct{})}
			a.left.Store(10_000)
			rs := make([]Request, 8)
			for i := range rs {
				rs[i].Completer = a
				must(t, p.submit(&rs[i]))
			}
			for range rs {
				<-a.done
			}
			p.close()
		}
	}
}

func TestCrewCloseWaits(t *testing.T) {
	gate, entered := make(chan struct{}), make(chan struct{})
	p := newCrew(2, 0, func(*worker, *Request) error { entered <- struct{}{}; <-gate; return nil })
	rs := make([]Request, 10)
	var c collector
	c.submit(t, p, rs)
	<-entered
	<-entered
	closed := make(chan int)
	for range 2 {
		go func() {
			p.close()
			c.mu.Lock()
			defer c.mu.Unlock()
			closed <- len(c.ended)
		}()
	}
	// Once it refuses requests, close has begun.
	extra := Request{Completer: result(nil)}
	for {
		p.mu.Lock()
		refuses := p.closed
		p.mu.Unlock()
		if refuses {
			break
		}
		runtime.Gosched()
	}
	if err := p.submit(&extra); err != ErrClosed {
		t.Errorf("submit while closing: %v", err)
	}
	select {
	case <-closed:
		t.Error("closed with requests in flight")
	default:
	}
	close(gate)
	for range len(rs) - 2 {
		<-entered
	}
	for range 2 {
		if n := <-closed; n != len(rs) {
			t.Errorf("closed when %d of %d requests had ended", n, len(rs))
		}
	}
}

func TestCrewBorrow(t *testing.T) {
	ran := make(chan struct{}, 1)
	p := newCrew(1, 0, func(*worker, *Request) error { ran <- struct{}{}; return nil })
	w := p.borrow()
	if w == nil || p.borrow() != nil {
		t.Fatal("one worker was to be had, no more and no less")
	}
	var c collector
	c.submit(t, p, make([]Request, 1)) // nobody can do it yet
	select {
	case <-ran:
		t.Error("the borrowed worker ran a request")
	default:
	}
	p.giveBack(w)
	c.wait.Wait()
	p.close()
	if p.borrow() != nil {
		t.Error("a closed crew lends")
	}
}

func TestCrewRestsWithoutGoroutines(t *testing.T) {
	p := newCrew(8, 10*time.Microsecond, func(*worker, *Request) error { return nil })
	for range 20 {
		var c collector
		c.submit(t, p, make([]Request, 20))
		c.wait.Wait()
		for {
			p.mu.Lock()
			busy := p.busy
			p.mu.Unlock()
			if busy == 0 {
				break
			}
			runtime.Gosched()
		}
	}
	p.close()
}
