package codec

import "strconv"

// IRQIndex is a type of interrupt, by the numbers of VFIO.
type IRQIndex uint32

// The indexes of a PCI device's interrupts (VFIO_PCI_*_IRQ_INDEX).
const (
	IRQINTx IRQIndex = iota
	IRQMSI
	IRQMSIX
	IRQErr
	IRQReq
	// NumIRQIndexes bounds an array that is indexed by type of interrupt.
	NumIRQIndexes = 5
)

// String gives the name of the type.
func (i IRQIndex) String() string {
	if i < NumIRQIndexes {
		return [NumIRQIndexes]string{"INTx", "MSI", "MSI-X", "ERR", "REQ"}[i]
	}
	return "interrupt index " + strconv.FormatUint(uint64(i), 10)
}
