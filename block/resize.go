package block

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrFixedSize: the backend cannot change its size.
var ErrFixedSize = fmt.Errorf("block: backend of fixed size: %w", errors.ErrUnsupported)

// Resizer is a Backend whose size can change while requests are in flight.
type Resizer interface {
	Backend
	// Resize sets the size, in bytes, a multiple of SectorSize. What is new reads as zeroes,
	// but on a block device, which has to have that size already. What is cut off is gone for
	// good. Requests beyond the new end must have ended before; others go on undisturbed.
	//
	// It fails with ErrFixedSize, an error that has ErrSpec for a size that none can have,
	// ErrPoolFull, or what the storage says (ENOSPC, ENOMEM, ...); all is then as it was.
	Resize(size int64) error
}

// resize is Resize of a backend that may be no Resizer.
func resize(b Backend, size int64) error {
	if r, ok := b.(Resizer); ok {
		return r.Resize(size)
	}
	return ErrFixedSize
}

// Resize sets the size, which costs nothing.
func (n *null) Resize(size int64) error {
	if n.closed.Load() {
		return ErrClosed
	}
	if err := checkSize(size); err != nil {
		return err
	}
	n.size.Store(size)
	return nil
}

// Resize fails: the size is the server's.
func (b *nbd) Resize(int64) error { return ErrFixedSize }

// Resize changes the inner backend.
func (f *Filter) Resize(size int64) error {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return resize(f.inner, size)
}

// Resize changes the inner backend. What the cache holds behind the new end is forgotten.
func (v *Volatile) Resize(size int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shut {
		return ErrClosed
	}
	before := v.inner.Size()
	if err := resize(v.inner, size); err != nil {
		return err
	}
	for _, off := range v.offsets(size, before) {
		p := v.pages[off]
		if off < size {
			p.dirty &= sectors(0, int(size-off))
		}
		if off >= size || p.dirty == 0 {
			v.drop(off)
		}
	}
	return nil
}

// Resize sets the length of a regular file, durably, or uses so much of a block device.
func (f *file) Resize(size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	f.claim.mu.Lock()
	defer f.claim.mu.Unlock()
	switch {
	case f.claim.closed.Load():
		return ErrClosed
	case f.info.ReadOnly:
		return ErrReadOnly
	case !f.claim.held.Load():
		return ErrUnclaimed
	case f.device:
		return f.resizeDevice(size)
	}
	return f.volume.resize(size, func() error {
		before := f.size.Load()
		f.size.Store(min(before, size))
		err := unix.Ftruncate(f.fd, size)
		if err == nil {
			// Where nothing reaches stable storage any more, what was cut off is gone all
			// the same; the next flush tells.
			if err = f.sync(); err != nil && size > before {
				_ = unix.Ftruncate(f.fd, before)
			} else {
				err = nil
			}
		}
		if err != nil {
			f.size.Store(before)
			return because(err, "cannot set the length of %s to %d bytes: %v", f.path, size, err)
		}
		f.size.Store(size)
		return nil
	})
}

func (f *file) resizeDevice(size int64) error {
	has, err := blockDeviceSize(f.fd)
	if err != nil {
		return because(err, "cannot find the size of %s: %v", f.path, err)
	}
	if size > has {
		return because(syscall.ENOSPC, "%s has %d bytes; make it larger first", f.path, has)
	}
	f.size.Store(size)
	return nil
}
