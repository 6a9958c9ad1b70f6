package block

import (
	"container/heap"
	"errors"
	"slices"
)

// ErrCanceled is what a caller makes of a request that it took back with Cancel. No backend
// ends a request with it.
var ErrCanceled = errors.New("block: request cancelled")

// Canceler is a backend that can give requests back which it has not begun.
type Canceler interface {
	// Cancel takes back a request that Submit left in flight. With true it has not touched
	// and will not touch the storage or its buffers, its Completer is not called, and it
	// belongs to the caller again. With false it goes on, or has ended. The request must
	// not have been submitted again since it ended. Cancel does not block.
	Cancel(r *Request) bool
}

// Cancel takes back a request, see Canceler; backends that are none never give one back.
func Cancel(b Backend, r *Request) bool {
	c, ok := b.(Canceler)
	return ok && c.Cancel(r)
}

// Cancel takes back a request that waits in this filter, or in the backend behind it.
func (f *Filter) Cancel(r *Request) bool {
	f.mu.Lock()
	i := slices.IndexFunc(f.calls, func(c *call) bool { return c.outer == r })
	if i < 0 {
		f.mu.Unlock()
		return false
	}
	c := f.calls[i]
	// (under the lock, so that the call is not used for another request meanwhile; no backend
	// has a lock of its own while it calls a Completer)
	taken := f.unhold(c) || Cancel(f.inner, &c.Request)
	f.mu.Unlock()
	if taken {
		_ = c.rule.after(c, ErrCanceled)
		f.put(c)
	}
	return taken
}

// unhold takes a call from those that wait; f.mu is held.
func (f *Filter) unhold(c *call) bool {
	i := slices.Index(f.held, c)
	if i < 0 {
		return false
	}
	heap.Remove(&f.held, i)
	return true
}

// cancel takes back a request that waits for a worker and of which nothing was done.
func (c *crew) cancel(r *Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var before *Request
	for x := c.head; x != nil; before, x = x, x.next {
		if x != r {
			continue
		}
		if r.done > 0 {
			return false
		}
		if before == nil {
			c.head = r.next
		} else {
			before.next = r.next
		}
		if c.tail == r {
			c.tail = before
		}
		r.next = nil
		c.queued.Store(c.head != nil)
		return true
	}
	return false
}

// Cancel takes back a request that waits for a worker.
func (f *file) Cancel(r *Request) bool {
	return f.crew.cancel(r) || f.writer != f.crew && f.writer.cancel(r)
}

// Cancel takes back a request that waits for those before it.
func (v *Volatile) Cancel(r *Request) bool { return v.crew.cancel(r) }
