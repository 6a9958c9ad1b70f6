package block

import "syscall"

// startRing makes the file's io_uring, if it may have one.
func (f *file) startRing(e Engine) (err error) {
	if e == EngineThreads {
		return nil
	}
	if f.ring, err = newRing(f); err != nil && e == EngineURing {
		return because(err, "no io_uring: %v; leave out engine=uring, or allow it (sysctl kernel.io_uring_disabled, RLIMIT_MEMLOCK, seccomp)", err)
	}
	return nil
}

// outcome makes a request's result of what the ring says. done is false if the crew has to do
// what is left.
func (f *file) outcome(r *Request, res int32) (done bool, err error) {
	errno := syscall.Errno(-res)
	if res >= 0 {
		if r.Op > Write {
			return true, nil
		}
		// The crew also knows what to make of the end of the file.
		r.done += int64(res)
		return r.done == r.Length, nil
	}
	switch errno {
	case syscall.EINTR, syscall.EAGAIN, syscall.ECANCELED:
		// ECANCELED: the thread that submitted it has ended.
		return false, nil
	case syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EFAULT:
	default:
		// Maybe there is another way.
		if r.Op != Flush {
			return false, nil
		}
	}
	switch {
	case r.Op == Flush:
		return true, f.breakdown(&Error{Op: Flush, Err: errno})
	case errno == syscall.EIO && r.Op == Write && r.FUA:
		return true, f.breakdown(r.fail(errno).(*Error))
	}
	return true, r.fail(errno)
}

// Poll is for somebody who spins, see Poller; without a ring it does nothing.
func (f *file) Poll() {
	if f.ring != nil {
		f.ring.poll()
	}
}

// Rest ends Poll.
func (f *file) Rest() {
	if f.ring != nil {
		f.ring.rest()
	}
}
