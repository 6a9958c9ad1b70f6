package pci

// Command is the command register (7.5.1.1.3).
type Command uint16

const (
	commandIO          Command = 1 << 0
	commandMemory      Command = 1 << 1
	commandBusMaster   Command = 1 << 2
	commandParity      Command = 1 << 6
	commandSERR        Command = 1 << 8
	commandINTxDisable Command = 1 << 10
)

// IOEnable is true if the function answers to I/O space.
func (c Command) IOEnable() bool { return c&commandIO != 0 }

// MemoryEnable is true if the function answers to memory space.
func (c Command) MemoryEnable() bool { return c&commandMemory != 0 }

// BusMaster is true if the function may read and write memory and send MSIs.
func (c Command) BusMaster() bool { return c&commandBusMaster != 0 }

// INTxDisable is true if the function must not assert its interrupt pin.
func (c Command) INTxDisable() bool { return c&commandINTxDisable != 0 }

// Bits of the status register (7.5.1.1.4).
const (
	statusInterrupt    = 1 << 3
	statusCapabilities = 1 << 4
	statusErrors       = 0xf900 // parity, aborts, system error: all RW1C
)

// setCommand makes writable what the function has: the enable bit of a space in
// which there is neither BAR nor ROM is hardwired to 0.
func (s *Space) setCommand() {
	mask := commandBusMaster | commandParity | commandSERR | commandINTxDisable
	for _, b := range s.bars {
		switch {
		case b.Size == 0:
		case b.Type == IO:
			mask |= commandIO
		default:
			mask |= commandMemory
		}
	}
	if s.romSize != 0 {
		mask |= commandMemory
	}
	s.allow16(offCommand, uint16(mask))
	s.watchRange(offCommand, 2, ChangedCommand)
	s.clear16(offStatus, statusErrors)
}

// Command returns the command register.
func (s *Space) Command() Command { return Command(s.get16(offCommand)) }

// SetInterruptStatus shows in the status register whether the function wants to
// assert its interrupt pin, whatever INTxDisable says.
func (s *Space) SetInterruptStatus(pending bool) {
	if pending {
		s.now[offStatus] |= statusInterrupt
	} else {
		s.now[offStatus] &^= statusInterrupt
	}
}
