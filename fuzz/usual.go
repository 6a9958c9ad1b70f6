package fuzz

import (
	"encoding/binary"
	"testing"

	"vfiouser/codec"
	"vfiouser/fuzz/choice"
)

// usual adds inputs that get somewhere with many a device: programs that are drawn at random, and
// what drivers do without knowing the device. With nothing to start from, the fuzzer would have
// to find out first that there is a protocol.
func usual(f *testing.F) {
	f.Helper()
	choice.Corpus(f, 8, 300)
	for _, input := range usualInputs() {
		f.Add(input)
	}
}

// usualInputs are those that are not drawn at random.
func usualInputs() (inputs [][]byte) {
	pattern := make([]byte, 64)
	for i := range pattern {
		pattern[i] = byte(i)
	}
	programs := [][]Step{sweep(pattern, 1), sweep(pattern, usualRing), moved(WriteState())}
	for _, width := range []uint8{4, 8} {
		programs = append(programs, driven(records(64), width), driven(records(usualData), width))
	}
	for at := range uint8(8) {
		programs = append(programs, moved(forged(0, 2*at+1, 0x7f)))
	}
	for _, p := range programs {
		inputs = append(inputs, Input(p...))
	}
	return inputs
}

// IOVAs in the memory that the programs map. Memory begins at 0, for registers that nobody has
// written. The data goes on to the end of it.
const (
	usualRing   = 0x1000
	usualData   = 0x2000
	usualMemory = 0x10000
)

// begun maps memory, with the same at 0 and at usualRing, and sets the interrupts up.
func begun(memory []byte) []Step {
	return []Step{
		Write(codec.RegionConfig, 4, 2, 6), // memory space and bus mastering
		Map(0, 0, 0, usualMemory), Store(0, memory), Store(usualRing, memory),
		Eventfds(codec.IRQINTx, 0, 1), Eventfds(codec.IRQMSIX, 0, 1),
	}
}

// usualRegisters is how many bytes of BAR0 the programs write.
const usualRegisters = 64

// sweep writes a value to each of the registers at the beginning of BAR0, and then 1 once more.
func sweep(memory []byte, value uint64) []Step {
	steps := begun(memory)
	for _, v := range []uint64{value, 1} {
		for off := uint32(0); off < usualRegisters; off += 4 {
			steps = append(steps, Write(0, off, 4, v))
		}
	}
	return append(steps, Settle(), Read(0, 0, usualRegisters))
}

// records are those that devices find in memory: an address of 8 bytes, a length and flags of 4
// each.
func records(length uint32) (memory []byte) {
	for i := range uint64(8) {
		memory = binary.LittleEndian.AppendUint64(memory, usualData+i*0x100)
		memory = binary.LittleEndian.AppendUint32(memory, length)
		memory = binary.LittleEndian.AppendUint32(memory, 1)
	}
	return memory
}

// driven writes an address to each of the registers of 8 bytes at the beginning of BAR0, with accesses
// of 4 or 8. Then each is a doorbell once: it is written with 1, and what it was again.
func driven(memory []byte, width uint8) []Step {
	was := func(off uint32) uint64 {
		if off%8 == 0 {
			return usualRing
		}
		return 0 // the upper half
	}
	steps := begun(memory)
	for off := uint32(0); off < usualRegisters; off += uint32(width) {
		steps = append(steps, Write(0, off, width, was(off)))
	}
	for off := uint32(0); off < usualRegisters; off += uint32(width) {
		steps = append(steps, Write(0, off, width, 1), Write(0, off, width, was(off)))
	}
	return append(steps, Settle(), Read(0, 0, usualRegisters))
}

// forged writes the state with a byte of one of its records changed: see life.forge.
func forged(record, at, by uint8) Step {
	return step(opMigWrite, uint8(0xa0), uint8(0), record, at, by)
}

// moved moves the device's state to the next client's device, in one way or another.
func moved(write Step) []Step {
	return []Step{
		Write(0, 0, 4, 1), Migrate(codec.MigStopCopy), ReadState(), Settle(), Reconnect(false),
		Migrate(codec.MigResuming), write, Settle(), Migrate(codec.MigRunning), Settle(), Read(0, 0, 64),
	}
}
