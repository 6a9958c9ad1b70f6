package pci

import (
	"encoding/binary"
	"slices"
)

// Vector control, the fourth word of an entry (7.7.2.10).
const (
	msixEntryControl = 12
	msixEntryMask    = 1
)

// MSIXTable is the memory behind an MSI-X table and its pending bits. Read, Write and
// ReadPBA take offsets from the start of table and PBA and can serve a BAR of their
// own: what lies behind the last entry reads 0 and ignores writes, and the error is
// always nil. One owner at a time.
//
// QEMU and cloud-hypervisor keep the table to themselves and mask with SET_IRQS; a
// vector is masked in here at power-on, which must not keep it from being signalled.
// Act on OnMask instead, as the engine does with the table of a device's description.
type MSIXTable struct {
	OnMask  func(vector int, masked bool) // a write has changed a vector's mask bit; may be nil
	Pending func(vector int) bool         // is asked when pending bits are read; nil: none

	entries []byte
	vectors int
}

// NewMSIXTable makes a table of 1 to 2,048 vectors, all masked.
func NewMSIXTable(vectors int) (*MSIXTable, error) {
	if vectors < 1 || vectors > maxMSIX {
		return nil, configError("MSI-X: %d vectors is not from 1 to %d", vectors, maxMSIX)
	}
	t := &MSIXTable{entries: make([]byte, vectors*MSIXEntrySize), vectors: vectors}
	t.Reset()
	return t, nil
}

// Vectors is the number of entries.
func (t *MSIXTable) Vectors() int { return t.vectors }

// Reset puts every entry back to its state at power-on, without calling OnMask.
func (t *MSIXTable) Reset() {
	clear(t.entries)
	for v := range t.vectors {
		t.entries[v*MSIXEntrySize+msixEntryControl] = msixEntryMask
	}
}

// Masked is a vector's mask bit.
func (t *MSIXTable) Masked(vector int) bool {
	return t.entries[vector*MSIXEntrySize+msixEntryControl]&msixEntryMask != 0
}

// Message is what the guest wants to be written, and where, for a vector.
func (t *MSIXTable) Message(vector int) (address uint64, data uint32) {
	e := t.entries[vector*MSIXEntrySize:]
	return binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint32(e[8:])
}

// Save gives a copy of the table, for Restore.
func (t *MSIXTable) Save() []byte { return slices.Clone(t.entries) }

// Restore makes the table what Save gave, of this or another of as many vectors, without
// calling OnMask. Bits without a meaning stay 0.
func (t *MSIXTable) Restore(saved []byte) error {
	if len(saved) != len(t.entries) {
		return configError("MSI-X: a table of %d bytes cannot be restored from %d", len(t.entries), len(saved))
	}
	for i, v := range saved {
		t.entries[i] = v & msixEntryWritable(i%MSIXEntrySize)
	}
	return nil
}

// Read fills p from the table.
func (t *MSIXTable) Read(off uint64, p []byte) error {
	clear(p)
	if off < uint64(len(t.entries)) {
		copy(p, t.entries[off:])
	}
	return nil
}

// Write stores p in the table. Bits without a meaning stay 0.
func (t *MSIXTable) Write(off uint64, p []byte) error {
	if off >= uint64(len(t.entries)) {
		return nil
	}
	for i, v := range p[:min(len(p), len(t.entries)-int(off))] {
		i += int(off)
		old := t.entries[i]
		v &= msixEntryWritable(i % MSIXEntrySize)
		t.entries[i] = v
		if i%MSIXEntrySize == msixEntryControl && v != old && t.OnMask != nil {
			t.OnMask(i/MSIXEntrySize, v != 0)
		}
	}
	return nil
}

// msixEntryWritable is the write mask of a byte of an entry: messages go to multiples
// of four, and of the vector control only the mask bit is in use.
func msixEntryWritable(i int) byte {
	switch {
	case i == 0:
		return 0xfc
	case i < msixEntryControl:
		return 0xff
	case i == msixEntryControl:
		return msixEntryMask
	default:
		return 0
	}
}

// ReadPBA fills p from the pending bits, one for each vector. They cannot be written.
func (t *MSIXTable) ReadPBA(off uint64, p []byte) error {
	clear(p)
	bytes := uint64(t.vectors+7) / 8
	if t.Pending == nil || off >= bytes {
		return nil
	}
	for i := range p[:min(uint64(len(p)), bytes-off)] {
		first := (int(off) + i) * 8
		for v := first; v < min(first+8, t.vectors); v++ {
			if t.Pending(v) {
				p[i] |= 1 << (v - first)
			}
		}
	}
	return nil
}
