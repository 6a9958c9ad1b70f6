package nvme

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// allocation is what stays of a namespace while it is formatted and resized.
type allocation struct {
	id      uint32
	unique  uint32 // among all namespaces that there ever were
	backend block.Backend
	poller  block.Poller // the same; nil if it is none
	eui64   [8]byte
	nguid   [16]byte
	uuid    [16]byte
	gate    gate
	protect atomic.Uint32 // write protection, spec.WriteProtect*
	refusal atomic.Uint32 // status of every command, by a sanitize operation
	stripes stripes
	view    atomic.Pointer[namespace] // what holds, nil once the namespace is gone

	volume     string // of the pool, empty without
	configured bool   // it is one of SubsystemConfig
	private    bool   // one controller at a time may have it (NMIC)

	formatting atomic.Bool   // Format NVM has begun
	formatted  atomic.Uint32 // how far it is, in percent

	// Under Subsystem.mu.
	attached   uint8 // controllers, a bit each
	wanted     uint8 // the same, and controllers that are not there now
	everywhere bool  // controllers that come later have it too

	reservation reservation   // under reservations.mu
	barred      atomic.Uint64 // controllers that it keeps away, see bar
	era         atomic.Uint32 // preemptions that have aborted commands
}

// namespace is a view of a namespace: its format and its size, for which there is another
// view when they change. Only what Write Uncorrectable has marked changes.
type namespace struct {
	*allocation
	info       block.Info
	prefetch   block.Prefetcher // of the backend; nil without
	format     format
	protection protection
	shift      uint8  // a logical block has 1 << shift bytes
	blocks     uint64 // size in logical blocks

	inUse rangeLock // blocks with metadata, by commands

	bad []extent // blocks that cannot be read, ascending and apart: of uncorrectable
	// readable is how many blocks from 0 on need no closer look than their number.
	readable atomic.Uint64
	unmarked atomic.Uint64 // how many there are from 0 on that are not in bad
}

// newNamespace takes a backend in.
func (s *Subsystem) newNamespace(id uint32, n Namespace) (*namespace, error) {
	if n.Backend == nil {
		return nil, configError("namespace %d has no backend", id)
	}
	f, err := n.format()
	if err != nil {
		return nil, configError("namespace %d: %v", id, err)
	}
	a := s.newAllocation(id, n.Backend)
	ns := a.newView(f)
	if ns.blocks == 0 {
		return nil, configError("namespace %d: %d bytes are less than a block of %d", id, n.Backend.Size(), 1<<ns.shift)
	}
	a.view.Store(ns)
	return ns, nil
}

// newAllocation takes a backend in. The caller holds mu, once there is more than one goroutine.
func (s *Subsystem) newAllocation(id uint32, b block.Backend) *allocation {
	a := &allocation{id: id, unique: s.unique(id), backend: b}
	a.poller, _ = b.(block.Poller)
	a.gate.ended = make(chan struct{}, 1)
	a.protect.Store(s.protected[id])
	st := s.sanitize.get()
	a.refusal.Store(uint32(st.refusal()))
	a.identifyBy(s.cfg.Serial)
	return a
}

// newView is the namespace in a format that is possible, with the size that its backend has
// now.
func (a *allocation) newView(f format) *namespace { return a.viewOf(f, a.backend.Size()) }

// viewOf is newView for a size that the backend is to have.
func (a *allocation) viewOf(f format, size int64) *namespace {
	ns := &namespace{allocation: a, info: a.backend.Info(), format: f, protection: f.protect(), shift: blockFormats[f.index].shift}
	ns.info.ReadOnly = ns.info.ReadOnly || a.protect.Load() != spec.WriteProtectNone
	ns.prefetch, _ = a.backend.(block.Prefetcher)
	ns.blocks = f.blocksIn(size)
	ns.cleanTo()
	return ns
}

// identifyBy makes the namespace's identifiers.
func (a *allocation) identifyBy(serial string) {
	sum := identity(serial, a.unique)
	copy(a.eui64[:], sum[:8])
	a.eui64[0] = a.eui64[0]&^1 | 2 // a locally administered, individual address
	copy(a.nguid[:], sum[8:24])
	a.nguid[8] = a.nguid[8]&^1 | 2
	a.uuid = uuid(identity(serial, a.unique|1<<31))
}

// identifiers are those of a namespace.
func (s *Subsystem) identifiers(ns *namespace) *spec.NamespaceDescriptors {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &spec.NamespaceDescriptors{EUI64: ns.eui64, NGUID: ns.nguid, UUID: ns.uuid}
}

// identity is what the identifiers of a drive are made of: the same serial number
// gives the same ones, another one others.
func identity(serial string, n uint32) [32]byte {
	return sha256.Sum256(binary.LittleEndian.AppendUint32([]byte("vfiouser nvme "+serial+" "), n))
}

// uuid makes a UUID of version 8 (RFC 9562, 5.8) out of a hash.
func uuid(sum [32]byte) (id [16]byte) {
	copy(id[:], sum[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// nqn is the name of the subsystem that the controller is (Base 1.4, 7.9).
func nqn(serial string) string {
	u := uuid(identity(serial, 0))
	return fmt.Sprintf("nqn.2014-08.org.nvmexpress:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// statusOf is how the failure of a backend is told to the host.
func statusOf(op block.Op, err error) spec.Status {
	switch {
	case err == nil:
		return spec.Success
	case errors.Is(err, block.ErrMemory):
		return spec.DataTransferError | spec.StatusDNR
	case errors.Is(err, block.ErrReadOnly):
		return spec.NamespaceWriteProtected | spec.StatusDNR
	case errors.Is(err, block.ErrRange):
		return spec.LBAOutOfRange | spec.StatusDNR
	case errors.Is(err, block.ErrRequest), errors.Is(err, block.ErrClosed):
		return spec.InternalError | spec.StatusDNR
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return spec.CapacityExceeded | spec.StatusDNR
	case op == block.Read:
		return spec.UnrecoveredRead
	}
	return spec.WriteFault
}
