package spec

import (
	"encoding/binary"
	"math/bits"
)

// Kinds of hash, bits of the supported and of the enabled hash types (5.1.6.4.3.1).
const (
	HashIPv4  uint32 = 1 << 0
	HashTCPv4 uint32 = 1 << 1
	HashUDPv4 uint32 = 1 << 2
	HashIPv6  uint32 = 1 << 3
	HashTCPv6 uint32 = 1 << 4
	HashUDPv6 uint32 = 1 << 5
	HashIPEx  uint32 = 1 << 6 // IPv6 with extension headers
	HashTCPEx uint32 = 1 << 7
	HashUDPEx uint32 = 1 << 8

	HashAll = HashIPv4 | HashTCPv4 | HashUDPv4 | HashIPv6 | HashTCPv6 | HashUDPv6 | HashIPEx | HashTCPEx | HashUDPEx
)

// Values of the hash report of a received frame (5.1.6.4.4). That of a kind of hash is the
// number of its bit plus 1.
const (
	ReportNone   uint16 = 0
	ReportIPv4   uint16 = 1
	ReportTCPv4  uint16 = 2
	ReportUDPv4  uint16 = 3
	ReportIPv6   uint16 = 4
	ReportTCPv6  uint16 = 5
	ReportUDPv6  uint16 = 6
	ReportIPv6Ex uint16 = 7
	ReportTCPEx  uint16 = 8
	ReportUDPEx  uint16 = 9
)

// Sizes of the header in front of a frame, both ways, in bytes (5.1.6.1).
const (
	HeaderSize     = 12 // without HASH_REPORT
	HeaderSizeHash = 20 // with it
)

// HashReport is what HASH_REPORT adds to the header: the bytes from HeaderSize on.
type HashReport struct {
	Value  uint32
	Report uint16
}

// Put writes 8 bytes.
func (h *HashReport) Put(p []byte) {
	p = p[:HeaderSizeHash-HeaderSize]
	binary.LittleEndian.PutUint32(p, h.Value)
	binary.LittleEndian.PutUint32(p[4:], uint32(h.Report)) // and the reserved bytes
}

// Get reads 8 bytes.
func (h *HashReport) Get(p []byte) {
	p = p[:HeaderSizeHash-HeaderSize]
	h.Value = binary.LittleEndian.Uint32(p)
	h.Report = binary.LittleEndian.Uint16(p[4:])
}

// Report is the hash report of one kind of hash.
func Report(kind uint32) uint16 { return uint16(bits.Len32(kind)) }
