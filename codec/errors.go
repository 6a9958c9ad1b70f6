package codec

import (
	"errors"
	"syscall"
)

// What is wrong with a message. Every error of this package is an [*Error] that
// errors.Is finds under one of these and under its errno.
var (
	ErrShort  = errors.New("message too short")
	ErrSize   = errors.New("sizes contradict each other")
	ErrFlags  = errors.New("invalid flags")
	ErrRange  = errors.New("value out of range")
	ErrJSON   = errors.New("invalid version data")
	ErrRemote = errors.New("peer reported an error")
)

// Error says why a message was refused, or what a peer's error reply held.
type Error struct {
	Command Command
	Errno   syscall.Errno // what goes into the error reply
	Kind    error         // one of the Err values above
	Reason  string        // for people
}

func (e *Error) Error() string {
	return e.Command.String() + ": " + e.Kind.Error() + ": " + e.Reason
}

// Unwrap makes errors.Is and errors.As find both the kind and the errno.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Errno} }

// invalid is a refusal with EINVAL, which is what libvfio-user answers to every
// malformed payload.
func invalid(c Command, kind error, reason string) error {
	return &Error{Command: c, Errno: syscall.EINVAL, Kind: kind, Reason: reason}
}
