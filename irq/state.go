package irq

import "fmt"

// What a saved byte says of a vector.
const (
	savedMasked = 1 << iota
	savedPending
	savedGateFunction
	savedGateVector
	savedAll = 1<<iota - 1
)

// savedBits are the bits of a vector's state in the order of those of a saved byte.
var savedBits = [...]uint32{stateMasked, statePending, uint32(GateFunction), uint32(GateVector)}

// Save tells which vectors are masked, pending and gated, a byte for each in the order of
// their indexes, for Restore. The level of an INTx line is the device's to save.
func (s *Set) Save() []byte {
	var p []byte
	for i := range s.vectors {
		for k := range s.vectors[i] {
			state, b := s.vectors[i][k].state.Load(), byte(0)
			for n, bit := range savedBits {
				if state&bit != 0 {
					b |= 1 << n
				}
			}
			p = append(p, b)
		}
	}
	return p
}

// Restore takes over what Save gave of a set with the same counts. What is pending does
// not fire before Flush. Eventfds stay.
func (s *Set) Restore(p []byte) error {
	n := 0
	for i := range s.vectors {
		n += len(s.vectors[i])
	}
	if len(p) != n {
		return fmt.Errorf("%w: %d bytes for %d interrupts", ErrData, len(p), n)
	}
	rest := p
	for i := range s.vectors {
		allowed := byte(savedAll)
		if Index(i) > MSIX {
			allowed = savedPending // there is no way to undo the others
		}
		for k, b := range rest[:len(s.vectors[i])] {
			if b&^allowed != 0 {
				return fmt.Errorf("%w: %#x for %v %d", ErrData, b, Index(i), k)
			}
		}
		rest = rest[len(s.vectors[i]):]
	}
	for i := range s.vectors {
		for k := range s.vectors[i] {
			st := &s.vectors[i][k].state
			for n, bit := range savedBits {
				if p[k]>>n&1 != 0 {
					st.Or(bit)
				} else {
					st.And(^bit)
				}
			}
		}
		p = p[len(s.vectors[i]):]
	}
	return nil
}

// Flush fires what is pending, not masked and assigned.
func (s *Set) Flush() {
	for i := range s.vectors {
		for k := range s.vectors[i] {
			_ = s.vectors[i][k].flush() // only a closed set cannot
		}
	}
}
