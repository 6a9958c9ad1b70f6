package nvme

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// layoutSubject is the file that the layout is kept in.
const layoutSubject = "namespaces"

// layoutRecord is the layout of the namespaces as it is kept. Namespaces that the program has
// added while the subsystem ran are not in it: the program has their storage.
type layoutRecord struct {
	// Namespaces are those from the pool, and those of the configuration that hosts have
	// changed, in ascending order.
	Namespaces []layoutEntry
	// Generations is how many namespaces each number has had before, if any.
	Generations map[uint32]uint32
}

type layoutEntry struct {
	ID         uint32
	Volume     string `json:",omitempty"` // in the pool; empty: of the configuration
	Deleted    bool   `json:",omitempty"` // that of the configuration
	Format     uint8
	Extended   bool `json:",omitempty"`
	Protection uint8
	Private    bool  `json:",omitempty"`
	Everywhere bool  `json:",omitempty"`
	Attached   uint8 // controllers, a bit each
}

// keepLayout writes the layout. The caller holds mu.
func (s *Subsystem) keepLayout() {
	r := layoutRecord{Generations: s.generations}
	for i := range s.namespaces {
		ns := s.namespaces[i]
		deleted := i < len(s.cfg.Namespaces) && (ns == nil || !ns.configured)
		switch {
		case ns != nil && (ns.volume != "" || ns.configured):
			r.Namespaces = append(r.Namespaces, layoutEntry{
				ID: ns.id, Volume: ns.volume, Deleted: deleted, Format: ns.format.index, Extended: ns.format.extended,
				Protection: ns.format.protection, Private: ns.private, Everywhere: ns.everywhere, Attached: ns.wanted,
			})
		case deleted:
			r.Namespaces = append(r.Namespaces, layoutEntry{ID: uint32(i + 1), Deleted: true})
		}
	}
	s.keep(layoutSubject, r)
}

// recallLayout makes the namespaces what they were. Those of the configuration are there; of
// one that a host has deleted the backend is closed.
func (s *Subsystem) recallLayout() error {
	var r layoutRecord
	found, err := s.state.recall(layoutSubject, &r)
	if err != nil || !found {
		return err
	}
	for id := range r.Generations {
		if id == 0 || id > MaxNamespaces {
			return fmt.Errorf("nvme: state: namespace %d", id)
		}
	}
	if r.Generations != nil {
		s.generations = r.Generations
	}
	last := uint32(0)
	for i := range r.Namespaces {
		e := &r.Namespaces[i]
		if e.ID <= last || e.ID > MaxNamespaces || !e.format().possible() {
			return fmt.Errorf("nvme: state: impossible namespace %+v", *e)
		}
		last = e.ID
		if err := s.recallNamespace(e); err != nil {
			return fmt.Errorf("nvme: namespace %d: %w", e.ID, err)
		}
	}
	s.removeOrphans()
	return nil
}

// removeOrphans gives back what deleted namespaces had in the pool, if the process has ended
// between the layout without them and that.
func (s *Subsystem) removeOrphans() {
	if s.cfg.Pool == nil {
		return
	}
	for id, g := range s.generations {
		if g == 0 {
			continue
		}
		name := volumeName(id, g-1)
		if err := s.cfg.Pool.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.cfg.Logger.Error("the storage of a namespace that was deleted stays", "volume", name, "err", err)
		}
	}
}

func (e *layoutEntry) format() format { return format{e.Format, e.Extended, e.Protection} }

func (s *Subsystem) recallNamespace(e *layoutEntry) error {
	place := &s.namespaces[e.ID-1]
	if ns := *place; ns != nil && e.Deleted {
		*place = nil
		if err := ns.backend.Close(); err != nil {
			return err
		}
	}
	switch {
	case e.Volume != "" && *place != nil:
		return errors.New("a host has made one of this number, which the configuration has too")
	case e.Volume != "" && s.cfg.Pool == nil:
		return errors.New("it is in a pool, and there is none")
	case e.Volume != "":
		b, err := s.cfg.Pool.Open(e.Volume)
		if err != nil {
			return err
		}
		a := s.newAllocation(e.ID, b)
		a.volume = e.Volume
		*place = a.newView(e.format())
		a.view.Store(*place)
	case *place == nil:
		return nil // deleted, or the configuration has it no more
	default:
		*place = (*place).newView(e.format())
		(*place).view.Store(*place)
	}
	ns := *place
	ns.private, ns.everywhere, ns.wanted = e.Private, e.Everywhere, e.Attached
	if ns.blocks == 0 {
		return configError("%d bytes are less than a block of %d", ns.backend.Size(), 1<<ns.shift)
	}
	return nil
}

// volumeName is the name of a namespace's storage in the pool.
func volumeName(id, generation uint32) string { return fmt.Sprintf("namespace-%d-%d", id, generation) }

// retire notes that a number has had a namespace, so that the next one has other identifiers.
// The caller holds mu.
func (s *Subsystem) retire(id uint32) { s.generations[id]++ }

// unique tells apart the namespaces that ever were.
func (s *Subsystem) unique(id uint32) uint32 {
	const idBits = 11
	return id | s.generations[id]<<idBits
}

// controllerSet is the controllers of a list, a bit each; false means that the list is not one of controllers that
// there are. The caller holds mu.
func (s *Subsystem) controllerSet(ids []uint16) (set uint8, ok bool) {
	for _, id := range ids {
		if id == 0 || id > MaxControllers || s.controllers[id-1] == nil {
			return 0, false
		}
		set |= 1 << (id - 1)
	}
	return set, len(ids) > 0 && slices.IsSorted(ids) && len(slices.Compact(slices.Clone(ids))) == len(ids)
}

// nextID is the lowest number that is free, 0 if there is none. The caller holds mu.
func (s *Subsystem) nextID() uint32 { return uint32(slices.Index(s.namespaces[:], nil) + 1) }

// capacity is the NVM capacity of the subsystem and what of it is not allocated, in bytes. With
// a pool it is the pool's: what is stored elsewhere does not become free when it is deleted.
func (s *Subsystem) capacity() (total, free uint64) {
	if s.cfg.Pool != nil {
		t, f := s.cfg.Pool.Capacity()
		return uint64(t), uint64(f)
	}
	for _, ns := range s.list() {
		total += uint64(ns.backend.Size())
	}
	return total, 0
}
