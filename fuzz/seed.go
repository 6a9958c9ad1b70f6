package fuzz

import (
	"encoding/binary"

	"vfiouser/codec"
)

// Step is something that a client does, for Seed. An input that starts with steps does exactly
// what they say; what the fuzzer makes of them does nearly that.
type Step struct{ code []byte }

// Input is the input that does some steps.
func Input(steps ...Step) []byte {
	var b []byte
	for _, s := range steps {
		b = append(b, s.code...)
	}
	return b
}

func step(o opcode, fields ...any) Step {
	b := []byte{codes[o]}
	for _, f := range fields {
		b, _ = binary.Append(b, binary.LittleEndian, f) // fields have fixed sizes
	}
	return Step{b}
}

// Map maps size bytes of memory at an IOVA, from an offset on of one of the client's files: the
// files 0 to 3 have 2 MiB, 64 KiB, 10,000 and 4,096 bytes.
func Map(file uint8, offset uint32, iova uint64, size uint32) Step {
	return step(opMap, uint8(mapFile), file, iova, size, offset)
}

// MapByMessage is Map without a descriptor: the device asks for what is there with messages.
func MapByMessage(file uint8, offset uint32, iova uint64, size uint32) Step {
	return step(opMap, uint8(mapByMessage), file, iova, size, offset)
}

// Unmap takes a mapping away, which has exactly this IOVA and size in bytes.
func Unmap(iova uint64, size uint32) Step {
	return step(opUnmap, uint8(exactly), iova, size, uint8(0), uint8(0))
}

// Store writes to memory that is mapped at an IOVA, at most 255 bytes.
func Store(iova uint64, b []byte) Step {
	b = b[:min(len(b), 255)]
	return step(opStore, uint8(exactly), iova, uint8(exactly), uint8(len(b)), b)
}

// Write writes 1, 2, 4 or 8 bytes of a value to a region, as a driver writes a register.
func Write(region uint8, offset uint32, size uint8, value uint64) Step {
	b := binary.LittleEndian.AppendUint64(nil, value)
	return step(opWrite, uint8(0), uint8(exactly), region, offset, uint8(exactly), uint16(size), uint8(exactly), b[:min(size, 8)])
}

// Post is Write without a reply.
func Post(region uint8, offset uint32, size uint8, value uint64) Step {
	s := Write(region, offset, size, value)
	s.code[1] = 7 // see life.flags
	return s
}

// Read reads size bytes of a region from an offset on.
func Read(region uint8, offset uint32, size uint16) Step {
	return step(opRead, uint8(0), uint8(exactly), region, offset, uint8(exactly), size)
}

// Await reads a register of 4 bytes until the bits in mask have their value, or until all waiting
// together has taken 10 ms.
func Await(region uint8, offset uint32, mask, value uint32) Step {
	return step(opAwait, uint8(awaitRegister), uint8(exactly), region, offset, mask, value)
}

// AwaitMemory is Await for 4 bytes of mapped memory.
func AwaitMemory(iova uint64, mask, value uint32) Step {
	return step(opAwait, uint8(awaitMemory), iova, mask, value)
}

// Eventfds gives an eventfd to each of some of a type's vectors, at most 15.
func Eventfds(index codec.IRQIndex, start, count uint8) Step {
	return step(opEventfds, uint8(exactly), uint8(index), start, count)
}

// IOEventfds asks for the eventfds of a region (GET_REGION_IO_FDS), and waits for them.
func IOEventfds(region uint8) Step {
	s := step(opQuery, uint8(0), region, uint8(0), uint8(2), uint8(0))
	s.code = append(s.code, codes[opSettle])
	return s
}

// Signal signals one of the eventfds that came, instead of a write to the region.
func Signal(n uint8) Step { return step(opGift, uint8(1|signal<<1), n) }

// Settle waits for the replies to all commands.
func Settle() Step { return step(opSettle) }

// Reset resets the device.
func Reset() Step { return step(opReset, uint8(0)) }

// Migrate takes the device to a state of migration.
func Migrate(state codec.MigState) Step { return step(opMigrate, uint8(state)) }

// ReadState reads up to 64 KiB of the device's state, which the client keeps.
func ReadState() Step { return step(opMigRead, uint8(0), uint8(0), uint8(0), uint8(0)) }

// WriteState writes all that was read of the state.
func WriteState() Step { return step(opMigWrite, uint8(exactly)) }

// Reconnect settles, leaves, and connects again, with a twin socket or without.
func Reconnect(twin bool) Step {
	how := uint8(0x80)
	if twin {
		how |= 3
	}
	return step(opReconnect, how)
}
