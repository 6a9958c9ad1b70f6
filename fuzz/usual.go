package fuzz

import (
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
	for _, steps := range [][]Step{sweep(1), sweep(usualRing), moved(0), moved(0xa0)} {
		f.Add(Input(steps...))
	}
}

// usualRing is an IOVA in the memory that sweep maps. Memory begins at 0, for registers that
// nobody has written.
const usualRing = 0x1000

// sweep writes a value to each of the registers at the beginning of BAR0, and then 1 once more.
func sweep(value uint64) []Step {
	pattern := make([]byte, 64)
	for i := range pattern {
		pattern[i] = byte(i)
	}
	steps := []Step{
		Write(codec.RegionConfig, 4, 2, 6), // memory space and bus mastering
		Map(0, 0, 0, 0x10000), Store(0, pattern), Store(usualRing, pattern),
		Eventfds(codec.IRQINTx, 0, 1), Eventfds(codec.IRQMSIX, 0, 1),
	}
	for _, v := range []uint64{value, 1} {
		for off := uint32(0); off < 64; off += 4 {
			steps = append(steps, Write(0, off, 4, v))
		}
	}
	return append(steps, Settle(), Read(0, 0, 64))
}

// moved moves the device's state to the next client's device, as it is or, as the first byte
// of opMigWrite has it, with changes.
func moved(how uint8) []Step {
	write := WriteState()
	if how > 0 {
		write = step(opMigWrite, how)
	}
	return []Step{
		Write(0, 0, 4, 1), Migrate(codec.MigStopCopy), ReadState(), Settle(), Reconnect(false),
		Migrate(codec.MigResuming), write, Settle(), Migrate(codec.MigRunning), Settle(), Read(0, 0, 64),
	}
}
