package block

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxRetries bounds how often EAGAIN, which a file should never give, is
// believed.
const maxRetries = 1000

// zeroes is never written.
var zeroes [64 << 10]byte

// fail makes a request's error out of an errno.
func (r *Request) fail(errno error) error {
	if errno == syscall.EFAULT {
		return ErrMemory
	}
	return &Error{Op: r.Op, Offset: r.Offset, Length: r.Length, Err: errno}
}

// transfer reads or writes what r.done leaves to be done.
func (f *file) transfer(w *worker, r *Request) error {
	flags := 0
	if r.Op == Write && r.FUA {
		if err := f.broken.Load(); err != nil {
			return err
		}
		flags = unix.RWF_DSYNC
	}
	for tries := 0; r.done < r.Length; {
		n, errno := f.vector(w, r, flags)
		switch {
		case errno == 0 && n > 0:
			r.done += int64(n)
		case errno == 0 && r.Op == Read:
			// Somebody has shortened the file. What is gone reads as zeroes,
			// as it would had the file been extended again.
			return zeroBuffers(r.Buffers, r.done, r.Length-r.done)
		case errno == 0:
			return r.fail(syscall.EIO)
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN && tries < maxRetries:
			tries++
			runtime.Gosched()
		case errno == syscall.EOPNOTSUPP && flags != 0:
			flags = 0
		case errno == syscall.EIO && r.FUA && r.Op == Write:
			return f.breakdown(r.fail(errno).(*Error))
		default:
			return r.fail(errno)
		}
	}
	if r.Op == Write && r.FUA && flags == 0 {
		return f.sync()
	}
	return nil
}

// vector makes one system call for the rest of r, or as much as fits.
func (f *file) vector(w *worker, r *Request, flags int) (int, syscall.Errno) {
	if w.iov == nil {
		w.iov = make([]unix.Iovec, 0, maxIovecs)
	}
	iov := appendVector(w.iov[:0], r.Buffers, r.done, r.Length-r.done)
	call := f.kernel.preadv2
	if r.Op == Write {
		call = f.kernel.pwritev2
	}
	fd := f.descriptor(iov, r)
	n, errno := call(fd, iov, r.Offset+r.done, flags)
	if errno == syscall.EINVAL && fd != f.fd {
		// What is below the file system may ask for more than it says.
		n, errno = call(f.fd, iov, r.Offset+r.done, flags)
	}
	// A worker at rest must not keep the caller's buffers alive.
	clear(iov)
	return n, errno
}

// sync makes durable what was written.
func (f *file) sync() error {
	if err := f.broken.Load(); err != nil {
		return err
	}
	for {
		err := f.kernel.fdatasync(f.fd)
		switch err {
		case nil:
			return nil
		case syscall.EINTR:
		default:
			return f.breakdown(&Error{Op: Flush, Err: err})
		}
	}
}

// breakdown remembers that data may be lost and returns the first such error.
func (f *file) breakdown(err *Error) error {
	f.broken.CompareAndSwap(nil, err)
	return f.broken.Load()
}

// allocate calls fallocate(2) for a request's range.
func (f *file) allocate(r *Request, mode uint32) error {
	for tries := 0; ; tries++ {
		err := f.kernel.fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, r.Offset, r.Length)
		if err == syscall.EINTR || err == syscall.EAGAIN && tries < maxRetries {
			runtime.Gosched()
			continue
		}
		return err
	}
}

// unsupported tells whether fallocate(2) says that the file cannot do it at
// all. EINVAL is what a block device gives for a range that is not a multiple
// of its own blocks.
func unsupported(err error) bool {
	switch err {
	case syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.ENODEV, syscall.EINVAL:
		return true
	}
	return false
}

// discard gives a range back. It is a hint: where that is unsupported the data
// stays.
func (f *file) discard(r *Request) error {
	if err := f.allocate(r, unix.FALLOC_FL_PUNCH_HOLE); err != nil && !unsupported(err) {
		return r.fail(err)
	}
	return nil
}

// writeZeroes zeroes a range in the cheapest way that the file knows.
func (f *file) writeZeroes(w *worker, r *Request) error {
	modes := [...]uint32{unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_PUNCH_HOLE}
	if r.Deallocate {
		modes[0], modes[1] = modes[1], modes[0]
	}
	err := f.allocate(r, modes[0])
	if unsupported(err) {
		err = f.allocate(r, modes[1])
	}
	if unsupported(err) {
		return f.writeZeroBytes(w, r)
	}
	if err != nil {
		return r.fail(err)
	}
	if r.FUA {
		return f.sync()
	}
	return nil
}

// writeZeroBytes writes the zeroes of a request as data.
func (f *file) writeZeroBytes(w *worker, r *Request) error {
	const chunk = int64(len(zeroes))
	write := Request{Op: Write, Offset: r.Offset, Buffers: make([][]byte, 0, 16)}
	for end := r.Offset + r.Length; write.Offset < end; write.Offset += write.Length {
		write.Buffers, write.Length, write.done = write.Buffers[:0], 0, 0
		for len(write.Buffers) < cap(write.Buffers) && write.Offset+write.Length < end {
			n := min(chunk, end-write.Offset-write.Length)
			write.Buffers = append(write.Buffers, zeroes[:n])
			write.Length += n
		}
		if err := f.transfer(w, &write); err != nil {
			return err
		}
	}
	if r.FUA {
		return f.sync()
	}
	return nil
}
