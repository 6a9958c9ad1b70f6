package engine

import "io"

// Migrator is a Device whose state can be moved to a device of the same kind behind
// another endpoint, in this process or in another one. A device that does not implement
// it is refused the feature MIGRATION.
//
// What the engine owns it moves itself: the configuration space, and which interrupts
// are masked and pending. Guest memory is the client's, and so are eventfds: the client
// gives both to the other endpoint.
//
// The methods are called on a goroutine of the engine's, one at a time for a device.
// They may block, but not longer than s.Context() lives; Read and Write fail when the
// client gives up. A Write takes as long as the client leaves the stream unread, so no
// lock that the data path or the reactor needs may be held over it.
type Migrator interface {
	Device
	// SaveState writes the state of the device. The data path is held meanwhile, and
	// region handlers are not called. The device must be fit to go on afterwards: the
	// client may let it run again. Description.StateVersion says how the state is laid
	// out.
	SaveState(s *Session, w io.Writer) error
	// LoadState reads what PreCopy and SaveState of a device with the same identity
	// wrote, up to io.EOF, and takes it over; version is that device's StateVersion, at
	// most this one's. The data path is held, region handlers are not called, and the
	// device starts to act on its new state when the data path may go on. The bytes
	// come from a client: they have a valid checksum, and may hold anything. After an
	// error the device is reset before it is used again.
	LoadState(s *Session, version uint32, r io.Reader) error
}

// PreCopier is a Migrator with so much state that a part of it has to be moved while the
// device still runs (the state PRE_COPY).
type PreCopier interface {
	Migrator
	// PreCopy writes state beside the data path, which goes on. Round 0 writes all that
	// is worth it, and from then on the device keeps track of what changes; each later
	// round writes what has changed since the one before. A client asks for rounds until
	// they get small or do not any more, or not at all. SaveState then writes the rest,
	// into the same stream.
	PreCopy(s *Session, round int, w io.Writer) error
	// EndPreCopy tells that the device need not keep track any more: after SaveState, or
	// because the client gave up.
	EndPreCopy(s *Session)
}
