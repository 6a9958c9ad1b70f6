package spec

import "encoding/binary"

// Log page identifiers (Base 2.0, figure 202).
const (
	LogSupportedPages      = 0x00
	LogErrors              = 0x01
	LogSmart               = 0x02
	LogFirmware            = 0x03
	LogChangedNS           = 0x04
	LogEffects             = 0x05
	LogSelfTest            = 0x06
	LogHostTelemetry       = 0x07
	LogControllerTelemetry = 0x08
	LogEnduranceGroup      = 0x09
	LogPersistentEvents    = 0x0d
	LogEnduranceEvents     = 0x0f
	LogFeatureEffects      = 0x12
	LogManagementEffects   = 0x13 // of NVMe-MI commands
	LogSanitize            = 0x81
)

// Sizes of log pages in bytes.
const (
	ErrorEntrySize        = 64
	SmartSize             = 512
	FirmwareSize          = 512
	EffectsSize           = 4096
	SupportedPagesSize    = 1024
	FeatureEffectsSize    = 1024
	ManagementEffectsSize = 4096
	EnduranceGroupSize    = 512
	EnduranceEventsSize   = 8 // without entries
)

// LogSupported is the bit of a log page in SupportedPages.
const LogSupported = 1 << 0

// SupportedPages is the supported log pages log, by page.
type SupportedPages [256]uint32

// Put writes the 1,024 bytes of the log.
func (l *SupportedPages) Put(b []byte) { putWords(b[:SupportedPagesSize], l[:]) }

// Get reads the 1,024 bytes of the log.
func (l *SupportedPages) Get(b []byte) { getWords(b[:SupportedPagesSize], l[:]) }

// FeatureEffects is the feature identifiers supported and effects log, by feature. The bits are
// those of a command's entry in the effects log, and a scope.
type FeatureEffects [256]uint32

// Put writes the 1,024 bytes of the log.
func (l *FeatureEffects) Put(b []byte) { putWords(b[:FeatureEffectsSize], l[:]) }

// Get reads the 1,024 bytes of the log.
func (l *FeatureEffects) Get(b []byte) { getWords(b[:FeatureEffectsSize], l[:]) }

func putWords(b []byte, words []uint32) {
	for i, w := range words {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
}

func getWords(b []byte, words []uint32) {
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
}

// EnduranceGroup is the endurance group log. The 128-bit fields are kept to 64 bits here.
type EnduranceGroup struct {
	CriticalWarning   uint8
	AvailableSpare    uint8 // %
	SpareThreshold    uint8 // %
	PercentageUsed    uint8
	Estimate          uint64 // 10^9 bytes that can be written; 0: not reported
	UnitsRead         uint64 // 10^9 bytes, rounded up
	UnitsWritten      uint64
	MediaUnitsWritten uint64
	HostReads         uint64
	HostWrites        uint64
	MediaErrors       uint64
	ErrorEntries      uint64
	Capacity          [2]uint64 // bytes
	Unallocated       [2]uint64
}

// Put writes the 512 bytes of the log.
func (g *EnduranceGroup) Put(b []byte) {
	b = b[:EnduranceGroupSize]
	clear(b)
	b[0], b[3], b[4], b[5] = g.CriticalWarning, g.AvailableSpare, g.SpareThreshold, g.PercentageUsed
	for i, v := range g.counters() {
		binary.LittleEndian.PutUint64(b[32+16*i:], *v)
	}
	for i := range 2 {
		binary.LittleEndian.PutUint64(b[160+8*i:], g.Capacity[i])
		binary.LittleEndian.PutUint64(b[176+8*i:], g.Unallocated[i])
	}
}

// Get reads the 512 bytes of the log.
func (g *EnduranceGroup) Get(b []byte) {
	b = b[:EnduranceGroupSize]
	*g = EnduranceGroup{CriticalWarning: b[0], AvailableSpare: b[3], SpareThreshold: b[4], PercentageUsed: b[5]}
	for i, v := range g.counters() {
		*v = binary.LittleEndian.Uint64(b[32+16*i:])
	}
	for i := range 2 {
		g.Capacity[i] = binary.LittleEndian.Uint64(b[160+8*i:])
		g.Unallocated[i] = binary.LittleEndian.Uint64(b[176+8*i:])
	}
}

// counters lists the 128-bit fields in the order of the log, from byte 32.
func (g *EnduranceGroup) counters() [8]*uint64 {
	return [8]*uint64{&g.Estimate, &g.UnitsRead, &g.UnitsWritten, &g.MediaUnitsWritten,
		&g.HostReads, &g.HostWrites, &g.MediaErrors, &g.ErrorEntries}
}

// ErrorEntry is one entry of the error log.
type ErrorEntry struct {
	Count     uint64 // ascending, 0: unused entry
	SQID      uint16
	CID       uint16
	Status    Status
	Phase     bool
	Parameter uint16 // byte in bits 7:0, bit in 10:8 of the field in error; ffffh: none
	LBA       uint64
	NSID      uint32
	Vendor    uint8
	Transport uint8
	Opcode    uint8
	Specific  uint64
	Version   uint8 // of the entry: 1 has Opcode
}

// Put writes the 64 bytes of the entry.
func (e *ErrorEntry) Put(b []byte) {
	b = b[:ErrorEntrySize]
	clear(b)
	le := binary.LittleEndian
	le.PutUint64(b[0:], e.Count)
	le.PutUint16(b[8:], e.SQID)
	le.PutUint16(b[10:], e.CID)
	st := uint16(e.Status) << 1
	if e.Phase {
		st |= 1
	}
	le.PutUint16(b[12:], st)
	le.PutUint16(b[14:], e.Parameter)
	le.PutUint64(b[16:], e.LBA)
	le.PutUint32(b[24:], e.NSID)
	b[28] = e.Vendor
	b[29] = e.Transport
	b[31] = e.Opcode
	b[63] = e.Version
	le.PutUint64(b[32:], e.Specific)
}

// Get reads the 64 bytes of the entry.
func (e *ErrorEntry) Get(b []byte) {
	b = b[:ErrorEntrySize]
	le := binary.LittleEndian
	st := le.Uint16(b[12:])
	*e = ErrorEntry{
		Count:     le.Uint64(b[0:]),
		SQID:      le.Uint16(b[8:]),
		CID:       le.Uint16(b[10:]),
		Status:    Status(st >> 1),
		Phase:     st&1 != 0,
		Parameter: le.Uint16(b[14:]),
		LBA:       le.Uint64(b[16:]),
		NSID:      le.Uint32(b[24:]),
		Vendor:    b[28],
		Transport: b[29],
		Opcode:    b[31],
		Version:   b[63],
		Specific:  le.Uint64(b[32:]),
	}
}

// Smart is the SMART / health information log. The 128-bit counters are kept
// to 64 bits here.
type Smart struct {
	CriticalWarning  uint8
	Temperature      uint16 // K
	AvailableSpare   uint8  // %
	SpareThreshold   uint8  // %
	PercentageUsed   uint8
	EnduranceWarning uint8
	UnitsRead        uint64 // thousands of 512 bytes, rounded up
	UnitsWritten     uint64
	HostReads        uint64
	HostWrites       uint64
	BusyMinutes      uint64
	PowerCycles      uint64
	PowerOnHours     uint64
	UnsafeShutdowns  uint64
	MediaErrors      uint64
	ErrorEntries     uint64
	WarningMinutes   uint32
	CriticalMinutes  uint32
	Sensors          [8]uint16 // K, 0: not there

	// Host controlled thermal management, by TMT1 and TMT2.
	ThermalTransitions [2]uint32
	ThermalSeconds     [2]uint32
}

// Put writes the 512 bytes of the log.
func (s *Smart) Put(b []byte) {
	b = b[:SmartSize]
	clear(b)
	le := binary.LittleEndian
	b[0] = s.CriticalWarning
	le.PutUint16(b[1:], s.Temperature)
	b[3] = s.AvailableSpare
	b[4] = s.SpareThreshold
	b[5] = s.PercentageUsed
	b[6] = s.EnduranceWarning
	for i, v := range s.counters() {
		le.PutUint64(b[32+16*i:], *v)
	}
	le.PutUint32(b[192:], s.WarningMinutes)
	le.PutUint32(b[196:], s.CriticalMinutes)
	for i, v := range s.Sensors {
		le.PutUint16(b[200+2*i:], v)
	}
	for i := range s.ThermalTransitions {
		le.PutUint32(b[216+4*i:], s.ThermalTransitions[i])
		le.PutUint32(b[224+4*i:], s.ThermalSeconds[i])
	}
}

// Get reads the 512 bytes of the log.
func (s *Smart) Get(b []byte) {
	b = b[:SmartSize]
	le := binary.LittleEndian
	*s = Smart{
		CriticalWarning:  b[0],
		Temperature:      le.Uint16(b[1:]),
		AvailableSpare:   b[3],
		SpareThreshold:   b[4],
		PercentageUsed:   b[5],
		EnduranceWarning: b[6],
		WarningMinutes:   le.Uint32(b[192:]),
		CriticalMinutes:  le.Uint32(b[196:]),
	}
	for i, v := range s.counters() {
		*v = le.Uint64(b[32+16*i:])
	}
	for i := range s.Sensors {
		s.Sensors[i] = le.Uint16(b[200+2*i:])
	}
	for i := range s.ThermalTransitions {
		s.ThermalTransitions[i] = le.Uint32(b[216+4*i:])
		s.ThermalSeconds[i] = le.Uint32(b[224+4*i:])
	}
}

// counters lists the 128-bit fields in the order of the log, from byte 32.
func (s *Smart) counters() [10]*uint64 {
	return [10]*uint64{
		&s.UnitsRead, &s.UnitsWritten, &s.HostReads, &s.HostWrites, &s.BusyMinutes,
		&s.PowerCycles, &s.PowerOnHours, &s.UnsafeShutdowns, &s.MediaErrors, &s.ErrorEntries,
	}
}

// FirmwareLog is the firmware slot information log.
type FirmwareLog struct {
	ActiveSlot uint8
	NextSlot   uint8
	Revisions  [7]string // 8 ASCII characters each, empty: unused
}

// Put writes the 512 bytes of the log.
func (f *FirmwareLog) Put(b []byte) {
	b = b[:FirmwareSize]
	clear(b)
	b[0] = f.ActiveSlot&7 | f.NextSlot&7<<4
	for i, r := range f.Revisions {
		if r != "" {
			putText(b[8+8*i:16+8*i], r)
		}
	}
}

// Get reads the 512 bytes of the log.
func (f *FirmwareLog) Get(b []byte) {
	b = b[:FirmwareSize]
	*f = FirmwareLog{ActiveSlot: b[0] & 7, NextSlot: b[0] >> 4 & 7}
	for i := range f.Revisions {
		f.Revisions[i] = text(b[8+8*i : 16+8*i])
	}
}

// Bits of a command's entry in the effects log.
const (
	EffectSupported         = 1 << 0 // CSUPP
	EffectLogicalBlocks     = 1 << 1 // LBCC: changes data
	EffectNamespaceCaps     = 1 << 2 // NCC
	EffectNamespaceSet      = 1 << 3 // NIC
	EffectControllerCaps    = 1 << 4 // CCC
	EffectExecutionExclNS   = 1 << 16
	EffectExecutionExclCtrl = 2 << 16
)

// EffectsLog is the commands supported and effects log, indexed by opcode.
type EffectsLog struct {
	Admin [256]uint32
	IO    [256]uint32
}

// Put writes the 4,096 bytes of the log.
func (l *EffectsLog) Put(b []byte) {
	b = b[:EffectsSize]
	clear(b)
	for i := range l.Admin {
		binary.LittleEndian.PutUint32(b[4*i:], l.Admin[i])
		binary.LittleEndian.PutUint32(b[1024+4*i:], l.IO[i])
	}
}

// Get reads the 4,096 bytes of the log.
func (l *EffectsLog) Get(b []byte) {
	b = b[:EffectsSize]
	for i := range l.Admin {
		l.Admin[i] = binary.LittleEndian.Uint32(b[4*i:])
		l.IO[i] = binary.LittleEndian.Uint32(b[1024+4*i:])
	}
}
