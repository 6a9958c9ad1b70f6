package pci

// Power management capability (7.5.2).
const (
	pmSize      = 8
	pmPMC       = 2
	pmControl   = 4
	pmVersion   = 3
	pmStateMask = 3
	pmNoReset   = 1 << 3 // No_Soft_Reset: D3hot to D0 keeps the registers
)

// Power states that a function with AddPM can be in.
const (
	D0    = 0
	D3hot = 3
)

// AddPM adds power management with D0 and D3hot, without PME, and returns its
// offset. Going back to D0 does not reset the function.
func (s *Space) AddPM() (int, error) {
	if err := once(s.pm, "power management"); err != nil {
		return 0, err
	}
	off, err := s.addCapability(capPM, pmSize)
	if err != nil {
		return 0, err
	}
	s.pm = off
	s.set16(off+pmPMC, pmVersion)
	s.set16(off+pmControl, pmNoReset)
	s.allow8(off+pmControl, pmStateMask)
	s.watchRange(off+pmControl, 1, ChangedPM)
	return off, nil
}

// PowerState is D0 or D3hot.
func (s *Space) PowerState() int {
	if s.pm == 0 {
		return D0
	}
	return int(s.now[s.pm+pmControl] & pmStateMask)
}

// settlePower takes back a write that asked for a state which the function does not
// have; such writes are discarded (7.5.2.2). It tells whether the state is a new one.
func (s *Space) settlePower(old int) bool {
	if state := s.PowerState(); state != D0 && state != D3hot {
		s.now[s.pm+pmControl] = s.now[s.pm+pmControl]&^pmStateMask | byte(old)
	}
	return s.PowerState() != old
}
