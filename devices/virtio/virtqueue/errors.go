package virtqueue

import (
	"errors"
	"fmt"
)

// ErrConfig: a size, an alignment or an address that no virtqueue has.
var ErrConfig = errors.New("virtqueue: invalid configuration")

// ErrRemote: memory of the ring or of a chain is reached by message only, or the ring's
// parts are not in one region each. Nothing is lost, the chain is available again: go on
// with SetRemote.
var ErrRemote = errors.New("virtqueue: memory is reached by message only")

// ErrBusy: chains are in flight that the wanted change would lose.
var ErrBusy = errors.New("virtqueue: chains are in flight")

// ErrMemory: a message that reads or writes guest memory failed. It comes with the cause.
var ErrMemory = errors.New("virtqueue: access to guest memory failed")

// What a driver can break. Take returns each in an Error.
var (
	// ErrIndex: more chains, or packed descriptors, available than the ring has room for.
	ErrIndex = errors.New("more is available than the ring can hold")
	// ErrHead: an entry of the available ring names a descriptor outside the table (2.7.6).
	ErrHead = errors.New("head is outside the descriptor table")
	// ErrNext: a chain leaves its table (2.7.5).
	ErrNext = errors.New("next descriptor is outside the table")
	// ErrLoop: a chain is longer than the table that it is in, so it has a loop or, in a packed
	// ring, no end (2.7.5.2, 2.8.22).
	ErrLoop = errors.New("chain has a loop or no end")
	// ErrTooLong: a chain has more buffers than Config.MaxChain, or by message more bytes than
	// Config.MaxBytes.
	ErrTooLong = errors.New("chain is too long")
	// ErrIndirect: an indirect descriptor, which was not negotiated (2.7.5.3.1).
	ErrIndirect = errors.New("indirect descriptor was not negotiated")
	// ErrNested: an indirect descriptor in an indirect table (2.7.5.3.1).
	ErrNested = errors.New("indirect descriptor inside an indirect table")
	// ErrIndirectNext: an indirect descriptor with DescNext (2.7.5.3.1) or, in a packed ring,
	// in a chain (2.8.23).
	ErrIndirectNext = errors.New("indirect descriptor is chained")
	// ErrTable: an indirect table that is empty, too large or no multiple of a descriptor.
	ErrTable = errors.New("invalid size of an indirect table")
	// ErrOrder: a buffer to read after one to write (2.7.4.2, 2.8.22).
	ErrOrder = errors.New("readable buffer after a writable one")
	// ErrLength: a chain of 4 GiB or more (2.7.5.2).
	ErrLength = errors.New("chain has 4 GiB or more")
	// ErrAddress: a buffer, table or ring outside the guest's memory, or memory that does not
	// allow the access. It comes with the cause, dma.ErrNotMapped or dma.ErrProt.
	ErrAddress = errors.New("address is not accessible")
)

// Error tells which rule a driver broke, and where. errors.Is finds both the rule and
// the cause.
type Error struct {
	Rule  error
	Cause error  // may be nil
	At    uint16 // entry of the available ring, or of the packed ring
	Addr  uint64 // guest address, if the rule is about one
	Len   uint64 // bytes
}

func (e *Error) Error() string {
	s := fmt.Sprintf("virtqueue: entry %d: %v", e.At, e.Rule)
	if e.Addr != 0 || e.Len != 0 {
		s += fmt.Sprintf(" (%d bytes at %#x)", e.Len, e.Addr)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives the rule and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Rule}
	}
	return []error{e.Rule, e.Cause}
}
