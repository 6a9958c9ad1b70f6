package block

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Claimer is a Backend of which several servers know, and which one of them uses: a file
// to which a device's state moves from one process to the next. Requests to storage that is
// not claimed end with ErrUnclaimed.
type Claimer interface {
	Backend
	// Claim takes the storage, or fails with ErrInUse while another server has it. It does
	// not wait. Claiming what is claimed does nothing.
	Claim() error
	// Yield makes durable what was written and lets another server have the storage. No
	// request may be in flight.
	Yield() error
}

// claim is whether a file is claimed.
type claim struct {
	mu     sync.Mutex // claiming, yielding, closing, and changing the size
	held   atomic.Bool
	closed atomic.Bool
}

// Claim takes the lock on the file, now or not at all: it is called when a guest enables its
// controller, and what else the controller is asked for waits meanwhile.
func (f *file) Claim() error {
	if f.claim.held.Load() && !f.claim.closed.Load() { // without the lock, which a change of the size may have for long
		return nil
	}
	return f.take(0)
}

// take takes the lock, which it tries for that long.
func (f *file) take(patience time.Duration) error {
	f.claim.mu.Lock()
	defer f.claim.mu.Unlock()
	switch {
	case f.claim.closed.Load():
		return ErrClosed
	case f.claim.held.Load():
		return nil
	}
	if err := f.lock(f.info.ReadOnly, patience); err != nil {
		return &OpenError{Spec: "file:" + f.path, Err: err}
	}
	f.claim.held.Store(true)
	return nil
}

// Yield gives the lock back.
func (f *file) Yield() error {
	f.claim.mu.Lock()
	defer f.claim.mu.Unlock()
	if f.claim.closed.Load() || !f.claim.held.Load() {
		return nil
	}
	if !f.info.ReadOnly {
		if err := f.sync(); err != nil {
			return err
		}
	}
	f.claim.held.Store(false)
	return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
}
