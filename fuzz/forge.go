package fuzz

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// The records of migration data, as the engine writes them (see engine.Migrator and
// docs/migration.md): kind, length, sequence and checksum, and the data.
const recordHeader = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// forge changes a byte of the device's state and makes its checksum right, so that the device
// gets to see it.
func (l *life) forge(state []byte) []byte {
	state = slices.Clone(state)
	for range 1 + l.s.Intn(4) {
		if len(state) == 0 {
			break
		}
		i := l.s.Edge(uint64(len(state))) % uint64(len(state))
		v := l.s.Uint8()
		for at := 0; at+recordHeader <= len(state); {
			h := state[at:]
			n := int(binary.LittleEndian.Uint32(h[4:]))
			if n > len(h)-recordHeader {
				break
			}
			if data := uint64(at) + recordHeader; i >= data && i < data+uint64(n) {
				state[i] ^= v
				sum := crc32.Update(crc32.Checksum(h[:12], castagnoli), castagnoli, h[recordHeader:recordHeader+n])
				binary.LittleEndian.PutUint32(h[12:], sum)
			}
			at += recordHeader + n
		}
	}
	return state
}
