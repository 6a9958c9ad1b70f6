package engine

import (
	"vfiouser/irq"
	"vfiouser/pci"
)

// What the function's own registers say of its interrupts holds for the vectors: the
// command register's Interrupt Disable, the function mask of MSI-X, the mask bits of MSI
// (PCI Express Base 6.0, 7.5.1.1.3, 7.7.1, 7.7.2). The mask bits of MSI-X are in msix.go.

// followConfig closes and opens gates after a write to the configuration space.
func (s *Session) followConfig(what pci.Changed) {
	config := s.ep.desc.Config
	if what&pci.ChangedCommand != 0 {
		s.gateFunction(irq.INTx, config.Command().INTxDisable())
	}
	if what&pci.ChangedMSIX != 0 {
		s.gateFunction(irq.MSIX, config.MSIXFunctionMasked())
	}
	if what&pci.ChangedMSI != 0 && config.MSIMaskable() {
		mask := config.MSIMask()
		for v := range s.irqs.Count(irq.MSI) {
			_ = s.irqs.SetGate(irq.MSI, v, 1, irq.GateVector, v < 32 && mask>>v&1 != 0) // fails only when the session has ended
		}
	}
}

func (s *Session) gateFunction(i irq.Index, closed bool) {
	if n := s.irqs.Count(i); n > 0 {
		_ = s.irqs.SetGate(i, 0, n, irq.GateFunction, closed) // likewise
	}
}

// takeOver makes the function one that no driver has enabled: the last client's is gone.
func (s *Session) takeOver() {
	changed := s.ep.desc.Config.Release()
	if changed != 0 && s.ep.desc.ConfigWritten != nil {
		s.ep.desc.ConfigWritten(changed)
	}
	s.settleGates()
}

// settleGates makes all gates what the registers say: for a new client, and after a reset.
func (s *Session) settleGates() {
	if t := s.ep.desc.MSIX; t != nil {
		t.Reset()
		_ = s.irqs.SetGate(irq.MSIX, 0, t.Vectors(), irq.GateVector, false) // likewise
	}
	s.followConfig(pci.ChangedCommand | pci.ChangedMSI | pci.ChangedMSIX)
}

// showPending puts into the configuration space what it shows of interrupts that wait:
// the status register's bit for the pin, whether that is disabled or not (7.5.1.1.4), and
// the pending bits of MSI.
func (s *Session) showPending() {
	config := s.ep.desc.Config
	if pin := s.irqs.Vector(irq.INTx, 0); pin != nil {
		config.SetInterruptStatus(pin.Pending())
	}
	if !config.MSIMaskable() {
		return
	}
	var pending uint32
	for v := range min(s.irqs.Count(irq.MSI), 32) {
		if s.irqs.Vector(irq.MSI, v).Pending() {
			pending |= 1 << v
		}
	}
	config.SetMSIPending(pending)
}
