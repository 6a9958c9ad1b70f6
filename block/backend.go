package block

import (
	"errors"
	"fmt"
)

// SectorSize is the unit, in bytes, of which every backend's size is a multiple.
const SectorSize = 512

// Op is what a Request asks for.
type Op uint8

// Operations. Flush takes no range and no buffers, WriteZeroes and Discard
// take a range and no buffers.
const (
	Read Op = iota
	Write
	Flush
	WriteZeroes
	Discard
)

var opNames = [...]string{"read", "write", "flush", "write zeroes", "discard"}

// String returns the operation in words, for example "write zeroes".
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

// Errors that a request can end with. They are compared with errors.Is.
// Failures of the storage itself carry their syscall.Errno (ENOSPC, EIO, ...)
// inside an *Error.
var (
	// ErrRange: the range is negative or ends beyond the backend's size.
	ErrRange = errors.New("block: range outside the backend")
	// ErrRequest: unknown operation, buffers that do not add up to Length, or
	// no Completer where one is needed.
	ErrRequest = errors.New("block: malformed request")
	// ErrMemory: the caller's buffers could not be touched, which is what a
	// guest causes that truncates its memory. The storage is not to blame.
	ErrMemory = errors.New("block: the request's memory cannot be accessed")
	// ErrReadOnly: a request that changes data, on a backend opened read-only.
	ErrReadOnly = errors.New("block: backend is read-only")
	// ErrUnclaimed: the storage is another server's, see Claimer.
	ErrUnclaimed = errors.New("block: storage is not claimed")
	// ErrClosed: the backend has been closed.
	ErrClosed = errors.New("block: backend is closed")
)

// Error is a failure of the storage behind a backend.
type Error struct {
	Op             Op
	Offset, Length int64 // bytes
	Err            error // a syscall.Errno, or what errors.As finds one in
}

// Error says which operation failed, where, and why.
func (e *Error) Error() string {
	if e.Op == Flush {
		return fmt.Sprintf("block: flush: %v", e.Err)
	}
	return fmt.Sprintf("block: %v of %d bytes at %d: %v", e.Op, e.Length, e.Offset, e.Err)
}

// Unwrap returns the cause, in which errors.As finds a syscall.Errno.
func (e *Error) Unwrap() error { return e.Err }

// Completer is told when a request that Submit left in flight has ended.
type Completer interface {
	// CompleteBlock is called once, from any goroutine, with the request's
	// result; from then on the request belongs to the caller again and may be
	// submitted at once, also from here. It must be short, must not block, and
	// must not touch guest memory: a fault in the backend's goroutine would
	// end the process. It must not call the backend's Close.
	CompleteBlock(r *Request, err error)
}

// Request is one operation. It belongs to the caller, who reuses it; while it
// is in flight neither it nor its buffers may be touched.
type Request struct {
	Op Op
	// FUA: a Write or WriteZeroes is durable when it ends.
	FUA bool
	// Deallocate allows WriteZeroes to give the storage back, as long as the
	// range then reads as zeroes.
	Deallocate bool
	// Batch: the caller calls Poll of the backend, which is a Poller, when he
	// has submitted what he has; the request may wait for that.
	Batch bool
	// Offset and Length are in bytes; Flush ignores both.
	Offset, Length int64
	// Buffers is the memory of a Read or Write, in order; the lengths add up
	// to Length.
	Buffers [][]byte
	// Completer is told of the end if Submit returns false.
	Completer Completer
	// Owner is the caller's; backends leave it alone.
	Owner any

	next *Request // the crew's queue, while in flight
	done int64    // bytes transferred so far, while in flight
	born uint32   // when it was submitted, on the clock of an NBD backend
}

// Info describes a backend to the device in front of it.
type Info struct {
	Kind string // "mem", "file", "null", "nbd"
	// Async: a Read or Write may end after Submit has returned, so its buffers
	// must stay mapped until then. Without it only requests that have no
	// buffers may do so.
	Async bool
	// ReadOnly: requests that change data end with ErrReadOnly.
	ReadOnly bool
	// VolatileCache: a write is durable only after a Flush, or with FUA.
	VolatileCache bool
	// Private: the contents are in this process and nowhere else; they are lost with it.
	Private bool
	// CanDiscard: Discard gives storage back, and what was given back reads
	// as zeroes.
	CanDiscard bool
}

// Backend is the storage. All methods may be called from any goroutine.
type Backend interface {
	// Size returns the size in bytes, a multiple of SectorSize. It changes
	// only by Resize, see Resizer.
	Size() int64
	// Info describes the backend; it does not change.
	Info() Info
	// Submit starts a request and never blocks for long. With done the request
	// has ended and err is its result; otherwise err is nil and r.Completer
	// will be called once, possibly before Submit returns.
	//
	// Requests in flight at the same time have no order between them. A Flush
	// covers every write that had ended when it was submitted. A Discard is a
	// hint: it succeeds where the storage cannot give anything back.
	//
	// A synchronous backend copies in the caller's goroutine, so there a fault
	// on guest memory is the caller's (see debug.SetPanicOnFault); the backend
	// itself stays usable. An asynchronous one reports ErrMemory.
	Submit(r *Request) (done bool, err error)
	// Close waits for requests in flight and releases the storage. It does
	// not flush. Closing again does nothing.
	Close() error
}

// check validates a request, which may come from a hostile guest, against a
// backend of size bytes.
func (r *Request) check(size int64, readOnly bool) error {
	switch r.Op {
	case Flush:
		return nil
	case Read, Write, WriteZeroes, Discard:
	default:
		return ErrRequest
	}
	if r.Offset < 0 || r.Length < 0 || r.Offset > size || r.Length > size-r.Offset {
		return ErrRange
	}
	if readOnly && r.Op != Read {
		return ErrReadOnly
	}
	if r.Op > Write {
		return nil
	}
	rest := r.Length
	for _, b := range r.Buffers {
		rest -= int64(len(b))
		if rest < 0 {
			return ErrRequest
		}
	}
	if rest != 0 {
		return ErrRequest
	}
	return nil
}
