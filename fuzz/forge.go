package fuzz

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// The records of migration data, as the engine writes them (see engine.Migrator and
// docs/migration.md): kind, length, sequence and checksum, and the data.
const (
	recordHeader = 16
	recordDevice = 2 // the kind of what the device has written
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// forge changes bytes of the device's state, most of them near the beginning of a record's data, where
// numbers and lengths are, and makes its checksum right, so that the device gets to see it.
func (l *life) forge(state []byte) []byte {
	state = slices.Clone(state)
	for range 1 + l.s.Intn(4) {
		record, at, v := l.s.Uint8(), uint64(l.s.Uint8()), l.s.Uint8()
		if at >= 0x80 {
			at = l.s.Edge(uint64(len(state)))
		} else {
			at /= 2
		}
		heads := filled(state, record < 0x80)
		if len(heads) == 0 {
			break
		}
		head := heads[int(record)%len(heads)]
		data := state[head+recordHeader:][:recordSize(state[head:])]
		data[at%uint64(len(data))] ^= v
		sum := crc32.Update(crc32.Checksum(state[head:head+12], castagnoli), castagnoli, data)
		binary.LittleEndian.PutUint32(state[head+12:], sum)
	}
	return state
}

// filled gives where records begin that have data, perhaps only that of the device itself.
func filled(state []byte, device bool) (heads []int) {
	for at := 0; at+recordHeader <= len(state); {
		n := recordSize(state[at:])
		if n > len(state)-at-recordHeader {
			break
		}
		if n > 0 && (!device || binary.LittleEndian.Uint32(state[at:]) == recordDevice) {
			heads = append(heads, at)
		}
		at += recordHeader + n
	}
	return heads
}

func recordSize(record []byte) int { return int(binary.LittleEndian.Uint32(record[4:])) }
