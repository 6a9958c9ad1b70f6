package codec

import (
	"encoding/binary"
	"math/bits"
)

// SetIRQsSize is the size of SET_IRQS without data in bytes. Its reply has no payload.
const SetIRQsSize = 20

// IRQSetFlags hold exactly one DATA and one ACTION bit (VFIO_IRQ_SET_*).
type IRQSetFlags uint32

const (
	IRQSetDataNone      IRQSetFlags = 1 << 0 // act on the whole range
	IRQSetDataBool      IRQSetFlags = 1 << 1 // act where the byte in Data is not 0
	IRQSetDataEventfd   IRQSetFlags = 1 << 2 // set eventfds; no descriptors: de-assign
	IRQSetActionMask    IRQSetFlags = 1 << 3
	IRQSetActionUnmask  IRQSetFlags = 1 << 4
	IRQSetActionTrigger IRQSetFlags = 1 << 5

	IRQSetDataBits   = IRQSetDataNone | IRQSetDataBool | IRQSetDataEventfd
	IRQSetActionBits = IRQSetActionMask | IRQSetActionUnmask | IRQSetActionTrigger
)

// SetIRQs acts on the vectors Start to Start+Count-1 of an interrupt index.
// Count 0 (then NONE|TRIGGER, Start 0) disables the index.
type SetIRQs struct {
	ArgSz uint32 // at least SetIRQsSize
	Flags IRQSetFlags
	Index IRQIndex
	Start uint32
	Count uint32
	Data  []byte // BOOL: one byte for each vector, else nil
}

// Decode reads a request; Data aliases b. What the index has and how many
// descriptors came is for the caller to check.
func (m *SetIRQs) Decode(b []byte) error {
	if len(b) < SetIRQsSize {
		return invalid(CmdSetIRQs, ErrShort, "payload needs 20 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = IRQSetFlags(binary.NativeEndian.Uint32(b[4:]))
	m.Index = IRQIndex(binary.NativeEndian.Uint32(b[8:]))
	m.Start = binary.NativeEndian.Uint32(b[12:])
	m.Count = binary.NativeEndian.Uint32(b[16:])
	m.Data = nil
	if m.ArgSz < SetIRQsSize {
		return invalid(CmdSetIRQs, ErrSize, "argsz is smaller than 20")
	}
	if m.Flags&^(IRQSetDataBits|IRQSetActionBits) != 0 ||
		bits.OnesCount32(uint32(m.Flags&IRQSetDataBits)) != 1 ||
		bits.OnesCount32(uint32(m.Flags&IRQSetActionBits)) != 1 {
		return invalid(CmdSetIRQs, ErrFlags, "flags must hold one DATA and one ACTION bit")
	}
	if m.Start > ^uint32(0)-m.Count {
		return invalid(CmdSetIRQs, ErrRange, "start and count overflow")
	}
	if m.Count == 0 && (m.Start != 0 || m.Flags != IRQSetDataNone|IRQSetActionTrigger) {
		return invalid(CmdSetIRQs, ErrRange, "count 0 goes with start 0, NONE and TRIGGER only")
	}
	if m.Flags&IRQSetDataBool != 0 {
		m.Data = b[SetIRQsSize:]
		if uint64(len(m.Data)) != uint64(m.Count) {
			return invalid(CmdSetIRQs, ErrSize, "BOOL data is not one byte for each vector")
		}
	}
	return nil
}

// Append appends the request.
func (m *SetIRQs) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Flags))
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Index))
	dst = binary.NativeEndian.AppendUint32(dst, m.Start)
	dst = binary.NativeEndian.AppendUint32(dst, m.Count)
	return append(dst, m.Data...)
}
