package dma

import (
	"runtime"
	"syscall"
)

// Error is a refusal by a Table. It carries the errno that belongs into the
// reply; errors.Is finds the sentinels below and errors.As a syscall.Errno.
type Error struct {
	Errno  syscall.Errno
	Reason string
}

func (e *Error) Error() string { return "dma: " + e.Reason }

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

// What Map and Unmap refuse.
var (
	// ErrExists: the range overlaps a mapped region (specification, VFIO_USER_DMA_MAP).
	ErrExists = &Error{syscall.EEXIST, "range overlaps a mapped region"}
	// ErrInvalid: zero size, wrap-around, bad alignment or protection, or a
	// descriptor that cannot stand behind the region.
	ErrInvalid = &Error{syscall.EINVAL, "invalid mapping"}
	// ErrTooMany: the limit of regions, of mmaps or of mapped bytes is reached.
	ErrTooMany = &Error{syscall.ENOSPC, "too many mappings"}
	// ErrNotFound: no region with exactly this address and size.
	ErrNotFound = &Error{syscall.ENOENT, "no such region"}
	// ErrClosed: the table takes no more regions.
	ErrClosed = &Error{syscall.ESHUTDOWN, "table is closed"}
)

// What a translation refuses. The hot path returns these very values and never
// allocates.
var (
	// ErrNotMapped: no region holds all of the range.
	ErrNotMapped error = &Error{syscall.EFAULT, "address range is not mapped"}
	// ErrProt: the region does not allow this access.
	ErrProt error = &Error{syscall.EACCES, "region does not allow this access"}
	// ErrMessage: the region has no descriptor and is reached by message only.
	ErrMessage error = &Error{syscall.EOPNOTSUPP, "region is reached by message only"}
)

// IsFault tells whether v, recovered from a panic, is a memory fault of a
// goroutine that runs under debug.SetPanicOnFault(true), and at which local
// address. A client that truncates the file behind its memory causes such faults.
// A nil dereference is not one: it has no address and is a bug of the program.
func IsFault(v any) (addr uintptr, ok bool) {
	e, ok := v.(runtime.Error)
	if !ok {
		return 0, false
	}
	a, ok := e.(interface{ Addr() uintptr })
	if !ok {
		return 0, false
	}
	return a.Addr(), true
}
