package pci

// Advanced error reporting (7.8.4), version 2, without prefix logs.
const (
	aerSize            = 0x2c
	aerUncorrectable   = 0x04
	aerMask            = 0x08
	aerSeverity        = 0x0c
	aerCorrectable     = 0x10
	aerCorrectableMask = 0x14

	// What an endpoint detects: data link protocol, poisoned TLP, flow control,
	// completion time-out, completer abort, unexpected completion, receiver overflow,
	// malformed TLP, unsupported request.
	aerErrors = 1<<4 | 0x7f<<12 | 1<<20
	// Those of them that are fatal at power-on (7.8.4.4).
	aerFatal = 1<<4 | 1<<13 | 1<<17 | 1<<18
	// Receiver error, bad TLP, bad DLLP, replay rollover, replay time-out, advisory.
	aerCorrectables = 1 | 7<<6 | 1<<12 | aerAdvisory
	aerAdvisory     = 1 << 13 // masked at power-on (7.8.4.6)
)

// AddAER adds advanced error reporting and returns its offset. It needs AddExpress before
// it. A device shows an error in the status registers with Set.
func (s *Space) AddAER() (int, error) {
	if err := once(s.aer, "advanced error reporting"); err != nil {
		return 0, err
	}
	if err := s.needsExpress("advanced error reporting"); err != nil {
		return 0, err
	}
	off, err := s.addExtended(extCapAER, 2, aerSize)
	if err != nil {
		return 0, err
	}
	s.aer = off
	s.clear32(off+aerUncorrectable, aerErrors)
	s.allow32(off+aerMask, aerErrors)
	s.set32(off+aerSeverity, aerFatal)
	s.allow32(off+aerSeverity, aerErrors)
	s.clear32(off+aerCorrectable, aerCorrectables)
	s.set32(off+aerCorrectableMask, aerAdvisory)
	s.allow32(off+aerCorrectableMask, aerCorrectables)
	s.watchRange(off+aerUncorrectable, aerSize-aerUncorrectable, ChangedCapability)
	return off, nil
}

// AddARI adds alternative routing-ID interpretation (7.8.8), by which a device has up to
// 256 functions, and returns its offset. next is the number of the next function, 0 in
// the last.
func (s *Space) AddARI(next uint8) (int, error) {
	if err := once(s.ari, "alternative routing-ID"); err != nil {
		return 0, err
	}
	if err := s.needsExpress("alternative routing-ID"); err != nil {
		return 0, err
	}
	off, err := s.addExtended(extCapARI, 1, 8)
	if err != nil {
		return 0, err
	}
	s.ari = off
	s.set8(off+5, next)
	return off, nil
}

// ltrWritable is a latency tolerance (7.8.2.2): a value of ten bits and its scale.
const ltrWritable = 0x3ff | 7<<10

// AddLTR adds latency tolerance reporting (7.8.2) and returns its offset. It needs
// AddExpress before it, in whose registers it is said and enabled.
func (s *Space) AddLTR() (int, error) {
	if err := once(s.ltr, "latency tolerance"); err != nil {
		return 0, err
	}
	if err := s.needsExpress("latency tolerance"); err != nil {
		return 0, err
	}
	off, err := s.addExtended(extCapLTR, 1, 8)
	if err != nil {
		return 0, err
	}
	s.ltr = off
	s.allow16(off+4, ltrWritable)
	s.allow16(off+6, ltrWritable)
	s.watchRange(off+4, 4, ChangedCapability)
	s.set32(s.express+expDeviceCap2, devCap2Timeouts|devCap2LTR)
	s.allow16(s.express+expDeviceCtl2, devCtl2Writable|devCtl2LTR)
	return off, nil
}

func (s *Space) needsExpress(name string) error {
	if s.express == 0 {
		return configError("the %s capability needs AddExpress before it", name)
	}
	return nil
}
