package spec

import (
	"encoding/binary"
	"math/bits"
)

// KeySize is the size in bytes of a hash key that covers every kind of hash: 36 bytes of
// addresses and ports and a window of 32 bits. MinTable is the least number of entries of
// the indirection table that a card with RSS supports (5.1.4.1).
const (
	KeySize  = 40
	MinTable = 128
)

// RSSConfig is the data of MQRSSConfig (5.1.6.5.7.1). Queues are numbers of receive queues,
// counted from 0: bits 1 to 15 of a virtqueue's index.
type RSSConfig struct {
	HashTypes    uint32
	Unclassified uint16
	Table        []uint16 // a power of two of entries
	MaxTx        uint16   // transmit queues that the driver uses
	Key          []byte   // at most 255 bytes
}

// Append appends the wire form to b.
func (c *RSSConfig) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, c.HashTypes)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(c.Table)-1))
	b = binary.LittleEndian.AppendUint16(b, c.Unclassified)
	for _, q := range c.Table {
		b = binary.LittleEndian.AppendUint16(b, q)
	}
	b = binary.LittleEndian.AppendUint16(b, c.MaxTx)
	b = append(b, uint8(len(c.Key)))
	return append(b, c.Key...)
}

// Parse reads the wire form, with which b begins: Linux sends a byte of padding behind it.
func (c *RSSConfig) Parse(b []byte) error {
	if len(b) < 8 {
		return ErrCommand
	}
	types := binary.LittleEndian.Uint32(b)
	entries := int(binary.LittleEndian.Uint16(b[4:])) + 1
	unclassified := binary.LittleEndian.Uint16(b[6:])
	b = b[8:]
	if bits.OnesCount(uint(entries)) != 1 || len(b) < 2*entries+3 {
		return ErrCommand
	}
	table := make([]uint16, entries)
	for i := range table {
		table[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	b = b[2*entries:]
	if len(b) < 3+int(b[2]) {
		return ErrCommand
	}
	*c = RSSConfig{types, unclassified, table, binary.LittleEndian.Uint16(b), append([]byte(nil), b[3:3+int(b[2])]...)}
	return nil
}

// HashConfig is the data of MQHashConfig (5.1.6.5.6.4).
type HashConfig struct {
	HashTypes uint32
	Key       []byte // at most 255 bytes
}

// Append appends the wire form to b.
func (c *HashConfig) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, c.HashTypes)
	b = binary.LittleEndian.AppendUint64(b, 0) // reserved
	b = append(b, uint8(len(c.Key)))
	return append(b, c.Key...)
}

// Parse reads the wire form, with which b begins: Linux sends a byte of padding behind it.
func (c *HashConfig) Parse(b []byte) error {
	if len(b) < 13 || len(b) < 13+int(b[12]) {
		return ErrCommand
	}
	*c = HashConfig{binary.LittleEndian.Uint32(b), append([]byte(nil), b[13:13+int(b[12])]...)}
	return nil
}
