package spec

import "encoding/binary"

// PowerStateSize is the size of a power state descriptor in bytes.
const PowerStateSize = 32

// Scales of the idle and of the active power.
const (
	PowerTenthMilliwatts = 1
	PowerCentiwatts      = 2
)

// PowerState is a power state descriptor (Base 2.0, figure 276).
type PowerState struct {
	MaxPower       uint16 // centiwatts, or with MaxScale tenths of a milliwatt
	MaxScale       bool   // MXPS
	NonOperational bool   // NOPS: no I/O command is executed
	EntryLatency   uint32 // µs
	ExitLatency    uint32 // µs

	// Relative to the other states, 0 is the best one.
	RelativeRead, RelativeReadLatency, RelativeWrite, RelativeWriteLatency uint8

	IdlePower      uint16
	IdleScale      uint8 // 0: the idle power is not reported
	ActivePower    uint16
	ActiveScale    uint8 // 0: the active power is not reported
	ActiveWorkload uint8
}

// Put writes the 32 bytes of the descriptor.
func (p *PowerState) Put(b []byte) {
	b = b[:PowerStateSize]
	clear(b)
	le := binary.LittleEndian
	le.PutUint16(b[0:], p.MaxPower)
	if p.MaxScale {
		b[3] |= 1 << 0
	}
	if p.NonOperational {
		b[3] |= 1 << 1
	}
	le.PutUint32(b[4:], p.EntryLatency)
	le.PutUint32(b[8:], p.ExitLatency)
	b[12] = p.RelativeRead & 0x1f
	b[13] = p.RelativeReadLatency & 0x1f
	b[14] = p.RelativeWrite & 0x1f
	b[15] = p.RelativeWriteLatency & 0x1f
	le.PutUint16(b[16:], p.IdlePower)
	b[18] = p.IdleScale & 3 << 6
	le.PutUint16(b[20:], p.ActivePower)
	b[22] = p.ActiveWorkload&7 | p.ActiveScale&3<<6
}

// Get reads the 32 bytes of the descriptor.
func (p *PowerState) Get(b []byte) {
	b = b[:PowerStateSize]
	le := binary.LittleEndian
	*p = PowerState{
		MaxPower: le.Uint16(b[0:]), MaxScale: b[3]&1 != 0, NonOperational: b[3]&2 != 0,
		EntryLatency: le.Uint32(b[4:]), ExitLatency: le.Uint32(b[8:]),
		RelativeRead: b[12] & 0x1f, RelativeReadLatency: b[13] & 0x1f,
		RelativeWrite: b[14] & 0x1f, RelativeWriteLatency: b[15] & 0x1f,
		IdlePower: le.Uint16(b[16:]), IdleScale: b[18] >> 6,
		ActivePower: le.Uint16(b[20:]), ActiveScale: b[22] >> 6, ActiveWorkload: b[22] & 7,
	}
}
