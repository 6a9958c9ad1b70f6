package irq

import "syscall"

// Error is a refusal by a Set. It carries the errno that belongs into the reply;
// errors.Is finds the sentinels below and errors.As a syscall.Errno.
type Error struct {
	Errno  syscall.Errno
	Reason string
}

func (e *Error) Error() string { return "irq: " + e.Reason }

// Unwrap gives the errno.
func (e *Error) Unwrap() error { return e.Errno }

// What the methods of Set and Vector return.
var (
	// ErrRange: no such index, or the range leaves it.
	ErrRange error = &Error{syscall.EINVAL, "no such interrupt"}
	// ErrNotEventfd: a descriptor is not an eventfd; writing to it might block or do harm.
	ErrNotEventfd error = &Error{syscall.EINVAL, "descriptor is not an eventfd"}
	// ErrData: the number of booleans differs from the number of interrupts.
	ErrData error = &Error{syscall.EINVAL, "data does not match the count"}
	// ErrAction: ERR and REQ can be triggered only (as VFIO and libvfio-user have it).
	ErrAction error = &Error{syscall.EINVAL, "action is not supported for this index"}
	// ErrClosed: the set is closed, or its client made a write block.
	ErrClosed error = &Error{syscall.ESHUTDOWN, "set is closed"}
)
