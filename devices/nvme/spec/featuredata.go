package spec

import "encoding/binary"

// Sizes of the data structures of features in bytes.
const (
	TimestampSize       = 8
	AutonomousPowerSize = 256
	HostBehaviorSize    = 512
	HostIdentifierSize  = 16 // or 8, without EXHID
	LBARangeSize        = 64
	LBARanges           = 64 // in the data structure of LBA Range Type
)

// HostBehavior is the data structure of Host Behavior Support (Base 2.0, 5.27.1.18).
type HostBehavior struct {
	AdvancedRetry         bool   // ACRE: the host looks at CRD
	ExtendedTelemetryData bool   // ETDAS: area 4 of the telemetry logs
	ExtendedLBAFormats    bool   // LBAFEE: more than 16 formats
	CopyFormats           uint16 // CDFE: formats of Copy descriptors beyond 1, bit n is format n
}

// Put writes the 512 bytes of the structure.
func (h *HostBehavior) Put(b []byte) {
	b = b[:HostBehaviorSize]
	clear(b)
	for i, on := range []bool{h.AdvancedRetry, h.ExtendedTelemetryData, h.ExtendedLBAFormats} {
		if on {
			b[i] = 1
		}
	}
	binary.LittleEndian.PutUint16(b[4:], h.CopyFormats)
}

// Get reads the 512 bytes of the structure.
func (h *HostBehavior) Get(b []byte) {
	b = b[:HostBehaviorSize]
	*h = HostBehavior{b[0] == 1, b[1] == 1, b[2] == 1, binary.LittleEndian.Uint16(b[4:])}
}

// LBARangeOverwritable is the attribute that the range may be overwritten.
const LBARangeOverwritable = 1 << 0

// LBARange is an entry of LBA Range Type (NVM command set 1.0, 4.1.3.2).
type LBARange struct {
	Type       uint8
	Attributes uint8
	LBA        uint64
	Blocks     uint64 // not zero based
	GUID       [16]byte
}

// Put writes the 64 bytes of the entry.
func (r *LBARange) Put(b []byte) {
	b = b[:LBARangeSize]
	clear(b)
	b[0], b[1] = r.Type, r.Attributes
	binary.LittleEndian.PutUint64(b[16:], r.LBA)
	binary.LittleEndian.PutUint64(b[24:], r.Blocks-1)
	copy(b[32:], r.GUID[:])
}

// Get reads the 64 bytes of the entry.
func (r *LBARange) Get(b []byte) {
	b = b[:LBARangeSize]
	*r = LBARange{
		Type: b[0], Attributes: b[1],
		LBA: binary.LittleEndian.Uint64(b[16:]), Blocks: binary.LittleEndian.Uint64(b[24:]) + 1,
		GUID: [16]byte(b[32:48]),
	}
}
