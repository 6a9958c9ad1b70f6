package block

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultWorkers is how many requests to one file the kernel works on at
	// the same time.
	defaultWorkers = 32
	// maxIovecs is how many buffers go into one system call; IOV_MAX is 1,024.
	maxIovecs = 512
	// maxInline is the largest transfer, in bytes, that is tried in the
	// caller's goroutine: copying it takes about 10 µs.
	maxInline = 64 << 10
	// writeLinger is how long the writer looks for more work.
	writeLinger = 50 * time.Microsecond
)

// Engine is how requests to a file are carried out.
type Engine uint8

const (
	// EngineAuto: io_uring where the kernel has it, otherwise goroutines.
	EngineAuto Engine = iota
	// EngineURing: io_uring; where there is none, File fails.
	EngineURing
	// EngineThreads: goroutines with a blocking system call each.
	EngineThreads
)

// FileOptions are the choices File offers; the zero value is the default.
type FileOptions struct {
	// ReadOnly opens the file for reading only. Several readers may share it.
	ReadOnly bool
	// Unclaimed opens the file without its lock: another server has it, and the backend
	// is of use once Claim has succeeded (see Claimer).
	Unclaimed bool
	// Direct goes past the page cache, with O_DIRECT. Requests whose buffers or ranges are not aligned
	// as the file asks for (mostly to 512 bytes) go through the cache, which stays coherent.
	Direct bool
	// Engine is how the work is done.
	Engine Engine
	// Workers bounds the goroutines that do what io_uring does not; 0 means 32.
	Workers int
}

// file reads and writes straight from and to the caller's buffers.
type file struct {
	openedFile
	size     atomic.Int64
	info     Info
	volume   *volume // nil: not of a pool
	kernel   kernel
	ring     *ring // nil: there is none
	crew     *crew
	writer   *crew // for plain writes
	claim    claim
	once     sync.Once
	closeErr error

	// noInline[op]: the file cannot be asked for op without waiting.
	noInline [2]atomic.Bool
	// broken is the first failure to reach stable storage. The kernel reports
	// such a failure once and forgets the data, so all later flushes fail too.
	broken atomic.Pointer[Error]
}

// File returns a backend on an existing regular file or a block device. The
// size is the file's. It is a Resizer and a Claimer, and holds a lock: where another backend,
// or a QEMU, has the file open for writing it fails with ErrInUse (file systems
// without locks excepted). Errors are *OpenError.
//
// Reads that the page cache can serve end within Submit. Others, flushes and so on are handed
// to the kernel through an io_uring, and the backend is a Poller, or to a bounded number of goroutines
// where there is none.
func File(path string, opt FileOptions) (Backend, error) {
	return openBackend(path, opt, systemKernel())
}

func openBackend(path string, opt FileOptions, k kernel) (Backend, error) {
	opened, err := openFile(path, opt.ReadOnly, opt.Direct)
	if err != nil {
		return nil, &OpenError{Spec: "file:" + path, Err: err}
	}
	if opt.Workers <= 0 {
		opt.Workers = defaultWorkers
	}
	f := &file{openedFile: opened, kernel: k}
	f.size.Store(opened.found)
	f.info = Info{
		Kind:          "file",
		Async:         true,
		ReadOnly:      opt.ReadOnly,
		VolatileCache: !opt.ReadOnly,
		CanDiscard:    !opt.ReadOnly && opened.canPunch(),
	}
	if !opt.Unclaimed {
		if err := f.take(lockPatience); err != nil {
			_ = f.release()
			return nil, err
		}
	}
	if err := f.startRing(opt.Engine); err != nil {
		_ = f.release()
		return nil, &OpenError{Spec: "file:" + path, Err: err}
	}
	f.crew = newCrew(opt.Workers, 0, f.run)
	f.writer = f.crew
	if f.ring == nil && !opened.device && opened.direct < 0 {
		// The kernel lets one writer at a time into a regular file. More of
		// them only wait for each other (3.5 µs against 4.5 µs for 4 KiB).
		f.writer = newCrew(1, writeLinger, f.run)
	}
	return f, nil
}

func (f *file) Size() int64 { return f.size.Load() }

func (f *file) Info() Info { return f.info }

func (f *file) Submit(r *Request) (bool, error) {
	if err := r.check(f.size.Load(), f.info.ReadOnly); err != nil {
		return true, err
	}
	switch {
	case r.Completer == nil:
		return true, ErrRequest
	case !f.claim.held.Load():
		return true, ErrUnclaimed
	}
	if r.Op == Flush {
		if f.info.ReadOnly {
			return true, nil
		}
	} else if r.Length == 0 {
		return true, nil
	}
	r.done = 0
	crew, small := f.crew, r.Op == Flush || r.Length <= maxInline
	switch {
	case f.resident && small:
		if w := crew.borrow(); w != nil {
			err := f.run(w, r)
			crew.giveBack(w)
			return true, err
		}
	case r.Op == Read || r.Op == Write && !r.FUA:
		if small && !f.batches(r) && f.tryInline(r) {
			return true, nil
		}
		if r.Op == Write {
			crew = f.writer
		}
	}
	var err error
	if f.ring != nil && !(r.Op == WriteZeroes && r.FUA) { // that is two calls
		if r.Op == Flush || r.Op == Write && r.FUA {
			if err := f.broken.Load(); err != nil {
				return true, err
			}
		}
		err = f.ring.submit(r)
	} else {
		err = crew.submit(r)
	}
	return err != nil, err
}

// batches tells whether a request is not the first one of its round, so that a system call of
// its own would cost more (1.1 µs against 0.6 µs for 4 KiB out of the page cache).
func (f *file) batches(r *Request) bool { return r.Batch && f.ring != nil && f.ring.begun.Swap(true) }

// tryInline transfers what can be had without waiting, and reports whether
// that was all. What is left, and every error, is for the crew.
func (f *file) tryInline(r *Request) bool {
	// Past the page cache every request waits for the disk.
	if f.noInline[r.Op].Load() || f.direct >= 0 {
		return false
	}
	w := f.crew.borrow()
	if w == nil {
		return false
	}
	n, errno := f.vector(w, r, unix.RWF_NOWAIT)
	f.crew.giveBack(w)
	if errno == syscall.EOPNOTSUPP {
		f.noInline[r.Op].Store(true)
	}
	r.done = int64(n)
	return r.done == r.Length
}

// run does one request in a goroutine of the crew.
func (f *file) run(w *worker, r *Request) error {
	switch r.Op {
	case Flush:
		return f.sync()
	case WriteZeroes:
		return f.writeZeroes(w, r)
	case Discard:
		return f.discard(r)
	}
	return f.transfer(w, r)
}

// Close waits for requests in flight and closes the file. What was not flushed
// stays in the page cache and is written in the kernel's own time.
func (f *file) Close() error {
	f.once.Do(func() {
		if f.ring != nil {
			f.ring.close()
		}
		f.writer.close()
		f.crew.close()
		f.claim.mu.Lock()
		defer f.claim.mu.Unlock()
		f.claim.closed.Store(true)
		if f.volume != nil {
			f.volume.close()
		}
		if err := f.release(); err != nil {
			f.closeErr = fmt.Errorf("block: closing file:%s: %w", f.path, err)
		}
	})
	return f.closeErr
}
