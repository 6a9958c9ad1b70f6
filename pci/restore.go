package pci

import (
	"hash/fnv"
	"slices"
)

// Layout tells spaces apart that differ at power-on or in what can be written: those that
// Restore cannot take the contents of.
func (s *Space) Layout() uint64 {
	h := fnv.New64a()
	for _, b := range [][]byte{s.initial, s.writable, s.clear} {
		_, _ = h.Write(b) // cannot fail
	}
	return h.Sum64()
}

// Snapshot is what the space holds, for Restore.
func (s *Space) Snapshot() []byte { return slices.Clone(s.now) }

// Restore takes over what was written to another space of the same layout, of which p is
// the snapshot, and tells what that changed. Bits that cannot be written stay as they
// are: they are the function's own.
func (s *Space) Restore(p []byte) (Changed, error) {
	if len(p) != len(s.now) {
		return 0, rangeError(0, len(p), len(s.now))
	}
	if s.pm != 0 {
		if state := p[s.pm+pmControl] & pmStateMask; s.pmStates>>state&1 == 0 {
			return 0, configError("power state D%d", state)
		}
	}
	var changed Changed
	for i, v := range p {
		taken := s.writable[i] | s.clear[i]
		b := s.now[i]&^taken | v&taken
		if b != s.now[i] {
			changed |= s.watch[i]
		}
		s.now[i] = b
	}
	return changed, nil
}
