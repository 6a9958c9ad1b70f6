package pci

import (
	"errors"
	"fmt"
	"syscall"
)

// Every error of this package is an [*Error] that errors.Is finds under one of these
// and under its errno.
var (
	ErrRange  = errors.New("access outside of the configuration space")
	ErrConfig = errors.New("invalid description")
	ErrNoRoom = errors.New("no room for the capability")
	ErrChain  = errors.New("broken list of capabilities")
)

// Error says what was wrong with a description or an access.
type Error struct {
	Kind   error // one of the Err values above
	Errno  syscall.Errno
	Reason string
}

func (e *Error) Error() string { return "pci: " + e.Kind.Error() + ": " + e.Reason }

// Unwrap makes errors.Is and errors.As find both the kind and the errno.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Errno} }

func configError(format string, args ...any) error {
	return &Error{Kind: ErrConfig, Errno: syscall.EINVAL, Reason: fmt.Sprintf(format, args...)}
}

func rangeError(off, n, size int) error {
	return &Error{Kind: ErrRange, Errno: syscall.EINVAL, Reason: fmt.Sprintf("%d bytes at %#x of %d", n, off, size)}
}
