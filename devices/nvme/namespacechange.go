package nvme

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// Errors of the methods that change namespaces while hosts use them. They are compared with
// errors.Is.
var (
	// ErrNoNamespace: there is no namespace of this number.
	ErrNoNamespace = errors.New("nvme: no such namespace")
	// ErrFull: the subsystem has MaxNamespaces namespaces.
	ErrFull = errors.New("nvme: all namespace identifiers are taken")
	// ErrResize: the storage of the namespace cannot change its size.
	ErrResize = errors.New("nvme: the size of the storage is fixed")
)

// NamespaceInfo is what a subsystem says of a namespace.
type NamespaceInfo struct {
	ID          uint32
	Blocks      uint64    // size in logical blocks
	BlockSize   int       // bytes
	Format      Namespace // all of its format, without the backend
	Kind        string    // of its storage, as in block.Info
	Controllers []uint16  // that it is attached to
}

// Namespaces lists the namespaces, attached or not, in ascending order.
func (s *Subsystem) Namespaces() []NamespaceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []NamespaceInfo
	for _, ns := range s.namespaces {
		if ns != nil {
			list = append(list, NamespaceInfo{
				ID: ns.id, Blocks: ns.blocks, BlockSize: 1 << ns.shift, Kind: ns.info.Kind, Controllers: s.attachedTo(ns),
				Format: ns.format.config(),
			})
		}
	}
	return list
}

// attachedTo lists the identifiers of controllers. The caller holds mu.
func (s *Subsystem) attachedTo(ns *namespace) []uint16 {
	ids := []uint16{}
	for _, c := range s.controllers {
		if c != nil && ns.attached&c.bit() != 0 {
			ids = append(ids, c.id())
		}
	}
	return ids
}

// Backend is the storage of a namespace, with the filters in front of it. It stays the
// subsystem's. The error is ErrNoNamespace.
func (s *Subsystem) Backend(nsid uint32) (block.Backend, error) {
	ns := s.allocated(nsid)
	if ns == nil {
		return nil, noNamespace(nsid)
	}
	return ns.backend, nil
}

// AddNamespace makes a namespace, with the lowest number that is free, and attaches it to
// every controller; the hosts are told. The subsystem owns the backend if there is no error,
// which is ErrFull, ErrClosed or ErrConfig.
func (s *Subsystem) AddNamespace(n Namespace) (nsid uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns, err := s.allocate(n)
	if err != nil {
		return 0, err
	}
	ns.everywhere = true
	for _, c := range s.controllers {
		if c != nil {
			ns.attached |= c.bit()
		}
	}
	s.publish()
	s.noteChange(ns, ns.attached)
	return ns.id, nil
}

// allocate makes a namespace that is not attached. The caller holds mu.
func (s *Subsystem) allocate(n Namespace) (*namespace, error) {
	if s.closed {
		return nil, ErrClosed
	}
	i := slices.Index(s.namespaces[:], nil)
	if i < 0 {
		return nil, ErrFull
	}
	ns, err := s.newNamespace(uint32(i+1), n)
	if err == nil {
		s.namespaces[i] = ns
	}
	return ns, err
}

// RemoveNamespace removes a namespace when the I/O in flight on it has ended, closes its
// backend and tells the hosts. What it had in the pool is given back. It waits for the
// storage. The error is ErrNoNamespace, ErrClosed, or what the storage said.
func (s *Subsystem) RemoveNamespace(nsid uint32) error {
	found, err := s.changeable(nsid)
	if err != nil {
		return err
	}
	s.exclude(found.allocation, func(ns *namespace) {
		s.mu.Lock()
		switch {
		case ns == nil: // somebody else was quicker
			err = noNamespace(nsid)
		case s.closed:
			err = ErrClosed
		}
		if err != nil {
			s.mu.Unlock()
			return
		}
		s.selfTest.removed(ns.id)
		delete(s.protected, ns.id)
		s.retire(nsid)
		s.replace(ns, nil)
		s.noteChange(ns, ns.attached)
		s.keepLayout()
		s.mu.Unlock()
		err = ns.backend.Close()
		if ns.volume != "" {
			err = errors.Join(err, s.cfg.Pool.Remove(ns.volume))
		}
	})
	if found.protect.Load() != spec.WriteProtectNone {
		s.keepProtection()
	}
	return err
}

// ResizeNamespace gives the storage of a namespace another size in bytes, and tells the
// hosts. What lies behind a smaller size is lost; I/O in flight ends before. It waits for
// the storage. The error is ErrNoNamespace, ErrResize, ErrClosed, ErrConfig for a size that is
// less than a block, or what the storage says.
func (s *Subsystem) ResizeNamespace(nsid uint32, bytes int64) error {
	found, err := s.changeable(nsid)
	if err != nil {
		return err
	}
	s.exclude(found.allocation, func(ns *namespace) {
		if err = noNamespace(nsid); ns != nil {
			err = s.resize(ns, bytes)
		}
	})
	return err
}

func noNamespace(nsid uint32) error { return fmt.Errorf("%w: %d", ErrNoNamespace, nsid) }

// changeable finds a namespace of a subsystem that is not closed.
func (s *Subsystem) changeable(nsid uint32) (*namespace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch i := nsid - 1; {
	case s.closed:
		return nil, ErrClosed
	case i >= MaxNamespaces || s.namespaces[i] == nil:
		return nil, noNamespace(nsid)
	default:
		return s.namespaces[i], nil
	}
}

// resize is for an excluded namespace.
func (s *Subsystem) resize(ns *namespace, bytes int64) error {
	storage, ok := ns.backend.(block.Resizer)
	switch {
	case !ok:
		return fmt.Errorf("%w: namespace %d is on %s", ErrResize, ns.id, ns.info.Kind)
	case bytes < 1<<ns.shift || bytes%block.SectorSize != 0 || ns.format.blocksIn(bytes) == 0:
		return configError("namespace %d: a size of %d bytes with blocks of %d", ns.id, bytes, 1<<ns.shift)
	}
	next := ns.viewOf(ns.format, bytes)
	if err := resizeStorage(storage, ns, next, bytes); err != nil {
		return err
	}
	s.uncorrectable.keep(ns, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replace(ns, next)
	s.noteChange(next, next.attached)
	return nil
}

// noteChange tells the hosts of controllers, a bit each, that something about a namespace
// is not what it was.
func (s *Subsystem) noteChange(ns *namespace, controllers uint8) {
	s.live.Lock()
	defer s.live.Unlock()
	for h := range s.live.hosts {
		if controllers&h.c.bit() != 0 {
			h.changed.add(ns.id)
			h.events.Or(1 << eventNamespaces)
			h.signal()
		}
	}
}

// changedNamespaces is the changed namespace list of a host (Base 2.0, 5.16.1.5).
type changedNamespaces struct {
	mu   sync.Mutex
	bits [MaxNamespaces / 64]uint64
	late [MaxNamespaces / 64]uint64 // of them, those that have changed since the list was read
}

func (l *changedNamespaces) add(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bit := uint64(1) << ((id - 1) % 64)
	l.bits[(id-1)/64] |= bit
	l.late[(id-1)/64] |= bit
}

// list returns the numbers in ascending order.
func (l *changedNamespaces) list() []uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.late[:])
	var ids []uint32
	for id := uint32(1); id <= MaxNamespaces; id++ {
		if l.bits[(id-1)/64]>>((id-1)%64)&1 != 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// clear forgets them.
func (l *changedNamespaces) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.bits[:])
	clear(l.late[:])
}

// forget forgets those that the last list had.
func (l *changedNamespaces) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bits = l.late
}

func (h *host) changedPage() []byte {
	b := make([]byte, spec.IdentifySize)
	spec.PutNamespaceList(b, h.changed.list())
	return b
}
