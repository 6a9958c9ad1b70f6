package block

import (
	"container/heap"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FilterOptions are the choices Wrap offers; the zero value is the default.
type FilterOptions struct {
	// Seed makes the same choices for the same requests in the same order; 0 is a random
	// one. seed=N of the settings goes before it.
	Seed uint64
	// Logger is where the filter "log" writes; nil: slog.Default().
	Logger *slog.Logger
}

// Filter is a backend in front of another one: it delays requests, has them fail, and so on.
// What it does can be changed at any time. It hides no Claimer behind it.
type Filter struct {
	kind  *filterKind
	inner Backend
	info  Info
	// direct: the inner backend touches no buffers within Submit.
	direct bool
	opt    FilterOptions
	start  time.Time

	hits atomic.Uint64

	mu       sync.Mutex
	quiet    sync.Cond // nothing is in flight
	settings string
	rule     rule
	rng      *rand.Rand
	free     *call
	calls    []*call // all there are
	inflight int
	held     calls
	turn     uint64 // of the next held call
	timer    *time.Timer
	closed   bool
}

// rule is what a filter does with a request. The rule that was there when a request came sees
// its end too.
type rule interface {
	// before says how long a request has to wait, or with which error it ends at once.
	// f.mu is held.
	before(f *Filter, c *call) (wait time.Duration, err error)
	// after turns a request's result into what the caller is told. Any goroutine.
	after(c *call, err error) error
}

// call is a request on its way through a filter.
type call struct {
	Request // as the inner backend sees it
	f       *Filter
	rule    rule
	outer   *Request
	since   time.Duration // on the filter's clock
	due     time.Duration
	turn    uint64
	flip    int64    // the bit that is to be flipped, from the request's start; -1: none
	spoilt  []byte   // data of a write with that bit flipped
	one     [][]byte // for spoilt
	marked  bool     // by the rule's before, for its after
	next    *call
}

// Wrap puts a filter in front of a backend, which then belongs to the filter. spec is
// KIND:SETTINGS without a backend, for example "delay:2ms+1ms"; docs/backends.md has them all.
// Errors are *OpenError; the backend is then still the caller's.
func Wrap(b Backend, spec string, opt FilterOptions) (*Filter, error) {
	name, settings, _ := strings.Cut(spec, ":")
	kind := findFilter(name)
	if kind == nil {
		return nil, &OpenError{Spec: spec, Err: because(ErrSpec, "unknown kind of filter %q; known are %s", name, filterNames())}
	}
	f := &Filter{kind: kind, inner: b, info: b.Info(), direct: b.Info().Async, opt: opt, start: time.Now()}
	f.quiet.L = &f.mu
	f.info.Async = f.info.Async || kind.holds
	seed := opt.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	f.rng = rand.New(rand.NewPCG(seed, 0))
	f.timer = time.AfterFunc(time.Hour, f.release)
	f.timer.Stop()
	if err := f.Set(settings); err != nil {
		return nil, err
	}
	return f, nil
}

// Filters are the filters in front of a backend, the outermost first.
func Filters(b Backend) (found []*Filter) {
	for ; b != nil; b = behind(b) {
		if f, ok := b.(*Filter); ok {
			found = append(found, f)
		}
	}
	return found
}

// Stack is a backend and what is behind it: filters, the outermost first, and the storage last.
func Stack(b Backend) (all []Backend) {
	for ; b != nil; b = behind(b) {
		all = append(all, b)
	}
	return all
}

// behind is the backend behind a filter; nil if b is none.
func behind(b Backend) Backend {
	switch b := b.(type) {
	case *Filter:
		return b.inner
	case *Volatile:
		return b.inner
	}
	return nil
}

// Kind is the filter's kind, for example "delay".
func (f *Filter) Kind() string { return f.kind.name }

// Settings is what was set last.
func (f *Filter) Settings() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settings
}

// Hits is how many requests the filter has changed something about so far.
func (f *Filter) Hits() uint64 { return f.hits.Load() }

// Set changes what happens to requests from now on; "off" lets them pass. Those that wait
// already go on when they would have. After an error, an *OpenError, all is as it was.
func (f *Filter) Set(settings string) error {
	r, seed, err := f.kind.read(f, settings)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if seed != 0 {
		f.rng = rand.New(rand.NewPCG(seed, 0))
	}
	f.rule, f.settings = r, settings
	return nil
}

// Size is the inner backend's.
func (f *Filter) Size() int64 { return f.inner.Size() }

// Info is the inner backend's, but for Async.
func (f *Filter) Info() Info { return f.info }

// Claim claims the storage, if the inner backend is a Claimer.
func (f *Filter) Claim() error {
	if c, ok := f.inner.(Claimer); ok {
		return c.Claim()
	}
	return nil
}

// Yield lets another server have the storage, if the inner backend is a Claimer.
func (f *Filter) Yield() error {
	if c, ok := f.inner.(Claimer); ok {
		return c.Yield()
	}
	return nil
}

func (f *Filter) now() time.Duration { return time.Since(f.start) }

// Submit passes a request on, at once or later, or ends it.
func (f *Filter) Submit(r *Request) (bool, error) {
	if err := r.check(f.inner.Size(), f.info.ReadOnly); err != nil {
		return true, err
	}
	if r.Completer == nil && f.info.Async {
		return true, ErrRequest
	}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return true, ErrClosed
	}
	c := f.take(r)
	wait, err := c.rule.before(f, c)
	if wait > 0 && err == nil {
		f.hold(c, wait)
		f.mu.Unlock()
		return false, nil
	}
	f.mu.Unlock()
	if err != nil {
		f.put(c)
		return true, err
	}
	done, err := f.forward(c)
	if done {
		err = c.rule.after(c, err)
		f.put(c)
	}
	return done, err
}

// take makes a call of a request; f.mu is held.
func (f *Filter) take(r *Request) *call {
	c := f.free
	if c == nil {
		c = &call{f: f, one: make([][]byte, 1)}
		f.calls = append(f.calls, c)
	} else {
		f.free = c.next
	}
	f.inflight++
	c.next, c.rule, c.outer, c.since, c.flip, c.marked = nil, f.rule, r, f.now(), -1, false
	c.Request = Request{Op: r.Op, FUA: r.FUA, Deallocate: r.Deallocate, Offset: r.Offset, Length: r.Length, Buffers: r.Buffers}
	if r.Completer != nil {
		c.Completer = c
	}
	return c
}

// put ends a call.
func (f *Filter) put(c *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.Request, c.outer, c.rule, c.spoilt, c.one[0] = Request{}, nil, nil, nil, nil
	c.next, f.free = f.free, c
	if f.inflight--; f.inflight == 0 && f.closed {
		f.quiet.Broadcast()
	}
}

// forward submits a call to the inner backend. Where that copies in the caller's goroutine a
// fault is ErrMemory: it must not unwind the filter, and that may be the caller itself.
func (f *Filter) forward(c *call) (done bool, err error) {
	if err := c.spoil(); err != nil {
		return true, err
	}
	if f.direct {
		return f.inner.Submit(&c.Request)
	}
	var failed error
	if err := touch(func() { done, failed = f.inner.Submit(&c.Request) }); err != nil {
		return true, err
	}
	return done, failed
}

// CompleteBlock is for the inner backend.
func (c *call) CompleteBlock(_ *Request, err error) { c.end(err) }

// end tells the caller that a request which was left in flight has ended.
func (c *call) end(err error) {
	err = c.rule.after(c, err)
	outer := c.outer
	c.f.mu.Lock()
	c.outer = nil // the caller may submit it again
	c.f.mu.Unlock()
	outer.Completer.CompleteBlock(outer, err)
	c.f.put(c)
}

// hold keeps a call for a while; f.mu is held.
func (f *Filter) hold(c *call, wait time.Duration) {
	c.due, c.turn = c.since+wait, f.turn
	f.turn++
	heap.Push(&f.held, c)
	if f.held[0] == c {
		f.timer.Reset(wait)
	}
}

// release lets go on what is due.
func (f *Filter) release() {
	for {
		f.mu.Lock()
		now := f.now()
		if len(f.held) == 0 || !f.closed && f.held[0].due > now {
			if len(f.held) > 0 {
				f.timer.Reset(f.held[0].due - now)
			}
			f.mu.Unlock()
			return
		}
		c := heap.Pop(&f.held).(*call)
		f.mu.Unlock()
		if done, err := f.forward(c); done {
			c.end(err)
		}
	}
}

// Close lets go on at once what waits, waits for requests in flight and closes the inner backend.
func (f *Filter) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.release()
	f.mu.Lock()
	for f.inflight != 0 {
		f.quiet.Wait()
	}
	f.mu.Unlock()
	f.timer.Stop()
	return f.inner.Close()
}

// calls is a heap of held calls, the one that is due first in front.
type calls []*call

func (h calls) Len() int { return len(h) }
func (h calls) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].turn < h[j].turn
}
func (h calls) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *calls) Push(c any) { *h = append(*h, c.(*call)) }

// Pop is for package heap.
func (h *calls) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return c
}
