package codec

import (
	"encoding/binary"
	"math/bits"
)

const (
	dmaLoggingSize      = 16
	dmaLoggingRangeSize = 16
	// DMALoggingReportSize is the size in bytes of what precedes the bits of a report.
	DMALoggingReportSize = 24
)

// DMALogging is the data of FeatureDMALoggingStart: which writes are to be logged. The
// reply tells the page size that the device took. FeatureDMALoggingStop has no data.
type DMALogging struct {
	PageSize uint64 // bytes; a hint
	Count    uint32 // ranges; 0: all addresses
	Ranges   []byte // see Range and AppendIOVARange
}

// IOVARange is a range of I/O virtual addresses; both are bytes.
type IOVARange struct{ IOVA, Length uint64 }

// Decode reads it; Ranges aliases b. That a range wraps around is refused, what else it
// holds is the caller's to judge.
func (m *DMALogging) Decode(b []byte) error {
	if len(b) < dmaLoggingSize {
		return invalid(CmdDeviceFeature, ErrShort, "DMA_LOGGING_START needs 16 bytes")
	}
	m.PageSize = binary.NativeEndian.Uint64(b[0:])
	m.Count = binary.NativeEndian.Uint32(b[8:])
	m.Ranges = b[dmaLoggingSize:]
	if uint64(m.Count)*dmaLoggingRangeSize != uint64(len(m.Ranges)) {
		return invalid(CmdDeviceFeature, ErrSize, "number of ranges differs from the length of the data")
	}
	for i := range int(m.Count) {
		if r := m.Range(i); r.Length == 0 || r.IOVA+(r.Length-1) < r.IOVA {
			return invalid(CmdDeviceFeature, ErrRange, "a range to log is empty or wraps around")
		}
	}
	return nil
}

// Range is range i. It panics if there is no such range.
func (m *DMALogging) Range(i int) IOVARange {
	_ = m.Ranges[(i+1)*dmaLoggingRangeSize-1] // what lies behind may have capacity
	b := m.Ranges[i*dmaLoggingRangeSize:]
	return IOVARange{binary.NativeEndian.Uint64(b[0:]), binary.NativeEndian.Uint64(b[8:])}
}

// Append appends it.
func (m *DMALogging) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint64(dst, m.PageSize)
	dst = binary.NativeEndian.AppendUint32(dst, m.Count)
	dst = binary.NativeEndian.AppendUint32(dst, 0)
	return append(dst, m.Ranges...)
}

// AppendIOVARange appends one range to the Ranges of a DMALogging.
func AppendIOVARange(dst []byte, r IOVARange) []byte {
	dst = binary.NativeEndian.AppendUint64(dst, r.IOVA)
	return binary.NativeEndian.AppendUint64(dst, r.Length)
}

// DMALoggingReport is the data of FeatureDMALoggingReport: a range and, in the reply,
// its dirty bitmap.
type DMALoggingReport struct {
	IOVA     uint64
	Length   uint64 // bytes
	PageSize uint64 // bytes to a bit, a power of two
	Bitmap   []byte // of a reply, BitmapBytes long
}

// DecodeRequest reads a request, which has no bitmap.
func (m *DMALoggingReport) DecodeRequest(b []byte) error {
	if len(b) < DMALoggingReportSize {
		return invalid(CmdDeviceFeature, ErrShort, "DMA_LOGGING_REPORT needs 24 bytes")
	}
	m.IOVA = binary.NativeEndian.Uint64(b[0:])
	m.Length = binary.NativeEndian.Uint64(b[8:])
	m.PageSize = binary.NativeEndian.Uint64(b[16:])
	m.Bitmap = nil
	switch {
	case bits.OnesCount64(m.PageSize) != 1:
		return invalid(CmdDeviceFeature, ErrRange, "page size is not a power of two")
	case m.Length == 0 || m.IOVA+(m.Length-1) < m.IOVA:
		return invalid(CmdDeviceFeature, ErrRange, "range to report is empty or wraps around")
	}
	return nil
}

// DecodeReply reads a reply; Bitmap aliases b.
func (m *DMALoggingReport) DecodeReply(b []byte) error {
	if err := m.DecodeRequest(b); err != nil {
		return err
	}
	m.Bitmap = b[DMALoggingReportSize:]
	if uint64(len(m.Bitmap)) != BitmapBytes(m.Length, m.PageSize) {
		return invalid(CmdDeviceFeature, ErrSize, "bitmap is not as long as the range demands")
	}
	return nil
}

// AppendHead appends the request, or what precedes the bitmap of a reply.
func (m *DMALoggingReport) AppendHead(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint64(dst, m.IOVA)
	dst = binary.NativeEndian.AppendUint64(dst, m.Length)
	return binary.NativeEndian.AppendUint64(dst, m.PageSize)
}

// Append appends the reply with its bitmap.
func (m *DMALoggingReport) Append(dst []byte) []byte { return append(m.AppendHead(dst), m.Bitmap...) }

// BitmapBytes is the size in bytes of a dirty bitmap of length bytes of memory: a bit for
// each page of pageSize bytes, in words of eight bytes. pageSize is a power of two.
func BitmapBytes(length, pageSize uint64) uint64 {
	pages := length / pageSize
	if length%pageSize != 0 {
		pages++
	}
	words := pages / 64
	if pages%64 != 0 {
		words++
	}
	return words * 8
}
