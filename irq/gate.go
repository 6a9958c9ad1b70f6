package irq

// Gate is a reason of the function's own, beside the client's mask, for which a vector does
// not fire. What is raised meanwhile stays pending. A set of bits.
type Gate uint32

const (
	// GateFunction is for all vectors of an index: the command register's Interrupt
	// Disable, the function mask of MSI-X.
	GateFunction Gate = 1 << (16 + iota)
	// GateVector is for one vector: its mask bit in the MSI-X table or among those of MSI.
	GateVector
)

const allGates = uint32(GateFunction | GateVector)

// SetGate closes or opens a gate of vectors. One that is pending, or whose line is up, fires
// when its last gate opens and the client has not masked it.
func (s *Set) SetGate(i Index, start, count int, g Gate, closed bool) error {
	vs, err := s.span(i, start, count)
	switch {
	case err != nil:
		return err
	case i > MSIX || uint32(g)&^allGates != 0:
		return ErrAction
	}
	for k := range vs {
		v := &vs[k]
		if closed {
			v.state.Or(uint32(g))
			continue
		}
		if v.state.And(^uint32(g))&uint32(g) == 0 {
			continue // it was open
		}
		if err := v.flush(); err != nil {
			return err
		}
	}
	return nil
}

// Gated tells whether a gate of the vector is closed.
func (v *Vector) Gated() bool { return v.state.Load()&allGates != 0 }
