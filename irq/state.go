package irq

import "fmt"

const savedBits = stateMasked | statePending

// Save tells which vectors are masked and which are pending, a byte for each in the order
// of their indexes, for Restore. The level of an INTx line is the device's to save.
func (s *Set) Save() []byte {
	var p []byte
	for i := range s.vectors {
		for k := range s.vectors[i] {
			p = append(p, byte(s.vectors[i][k].state.Load()&savedBits))
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
	for k, b := range p {
		if b&^savedBits != 0 {
			return fmt.Errorf("%w: %#x for interrupt %d", ErrData, b, k)
		}
	}
	for i := range s.vectors {
		for k := range s.vectors[i] {
			st := &s.vectors[i][k].state
			st.And(^uint32(savedBits))
			st.Or(uint32(p[k]))
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
