package pci

// Power management capability (7.5.2).
const (
	pmSize      = 8
	pmPMC       = 2
	pmControl   = 4
	pmVersion   = 3
	pmCapD1     = 1 << 9
	pmCapD2     = 1 << 10
	pmCapPME    = 11 // shift, five bits
	pmStateMask = 3
	pmNoReset   = 1 << 3 // No_Soft_Reset: D3hot to D0 keeps the registers
	pmPMEEnable = 1 << 8
	pmPMEStatus = 1 << 15 // RW1C
)

// Power states.
const (
	D0 = iota
	D1
	D2
	D3hot
)

// PME is a set of power states from which a function can signal a power management event.
type PME uint8

const (
	PMED0 PME = 1 << iota
	PMED1
	PMED2
	PMED3hot
	PMED3cold
)

// PM describes power management. The zero value has D0 and D3hot, no PME, and keeps its
// registers in D3hot.
type PM struct {
	D1, D2 bool // the states between D0 and D3hot
	PME    PME
	// SoftReset: going from D3hot to D0 resets the function (No_Soft_Reset is 0), and
	// Write tells RequestedReset.
	SoftReset bool
}

// AddPM adds power management and returns the capability's offset.
func (s *Space) AddPM(p PM) (int, error) {
	if err := once(s.pm, "power management"); err != nil {
		return 0, err
	}
	switch {
	case p.PME > PMED0|PMED1|PMED2|PMED3hot|PMED3cold:
		return 0, configError("power management: PME from unknown states, %#x", p.PME)
	case p.PME&PMED1 != 0 && !p.D1, p.PME&PMED2 != 0 && !p.D2:
		return 0, configError("power management: PME from a state that is not there, %#x", p.PME)
	}
	off, err := s.addCapability(capPM, pmSize)
	if err != nil {
		return 0, err
	}
	s.pm = off
	s.pmStates = 1<<D0 | 1<<D3hot
	capabilities := uint16(pmVersion) | uint16(p.PME)<<pmCapPME
	if p.D1 {
		capabilities |= pmCapD1
		s.pmStates |= 1 << D1
	}
	if p.D2 {
		capabilities |= pmCapD2
		s.pmStates |= 1 << D2
	}
	s.set16(off+pmPMC, capabilities)
	s.pmSoftReset = p.SoftReset
	if !p.SoftReset {
		s.set16(off+pmControl, pmNoReset)
	}
	s.allow16(off+pmControl, pmStateMask)
	if p.PME != 0 {
		s.allow16(off+pmControl, pmStateMask|pmPMEEnable)
		s.clear16(off+pmControl, pmPMEStatus)
	}
	s.watchRange(off+pmControl, 2, ChangedCapability)
	s.watchRange(off+pmControl, 1, ChangedPM)
	return off, nil
}

// PowerState is D0, D1, D2 or D3hot.
func (s *Space) PowerState() int {
	if s.pm == 0 {
		return D0
	}
	return int(s.now[s.pm+pmControl] & pmStateMask)
}

// settlePower takes back a write that asked for a state which the function does not
// have; such writes are discarded (7.5.2.2). It tells what the write means in the end.
func (s *Space) settlePower(old int) Changed {
	state := s.PowerState()
	switch {
	case s.pmStates&(1<<state) == 0:
		s.now[s.pm+pmControl] = s.now[s.pm+pmControl]&^pmStateMask | byte(old)
		return 0
	case s.pmSoftReset && old == D3hot && state == D0:
		return ChangedPM | RequestedReset
	}
	return ChangedPM
}
