package client

import (
	"errors"
	"fmt"

	"vfiouser/codec"
)

// Why a session ended, or why a call was refused without asking the server. What the server refuses is a
// [*codec.Error] of kind codec.ErrRemote, in which errors.Is finds the errno as well.
var (
	// ErrClosed: Close was called.
	ErrClosed = errors.New("client: device is closed")
	// ErrDisconnected: the server has closed the connection or is gone.
	ErrDisconnected = errors.New("client: server disconnected")
	// ErrProtocol: the server broke the protocol. The error found under it is a *ProtocolError.
	ErrProtocol = errors.New("client: server broke the protocol")
	// ErrUnread: the server asks for memory but does not read the answers.
	ErrUnread = errors.New("client: server does not read its replies")
	// ErrUndo: DMA_MAP failed in part, and what had succeeded could not be undone.
	ErrUndo = errors.New("client: mappings could not be undone")

	// ErrShortTransfer: the server moved less data than was asked for.
	ErrShortTransfer = errors.New("client: short transfer")
	// ErrNotMappable: the region, or this part of it, cannot be mmapped.
	ErrNotMappable = errors.New("client: region cannot be mapped")
	// ErrInvalid: an argument makes no sense.
	ErrInvalid = errors.New("client: invalid argument")
	// ErrOverlap: a DMA region overlaps one that is mapped already.
	ErrOverlap = errors.New("client: DMA regions overlap")
	// ErrNoSpace: a Memory has no free range that is large enough.
	ErrNoSpace = errors.New("client: no memory left")
)

// ProtocolError says how a server broke the protocol. It ends the session.
type ProtocolError struct {
	Command codec.Command // 0 if the message was not recognised
	Reason  string
	Cause   error // may be nil
}

func (e *ProtocolError) Error() string {
	s := ErrProtocol.Error() + ": "
	if e.Command != 0 {
		s += e.Command.String() + ": "
	}
	s += e.Reason
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap makes errors.Is find ErrProtocol and the cause.
func (e *ProtocolError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrProtocol}
	}
	return []error{ErrProtocol, e.Cause}
}

func broken(c codec.Command, cause error, format string, args ...any) error {
	return &ProtocolError{Command: c, Reason: fmt.Sprintf(format, args...), Cause: cause}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}
