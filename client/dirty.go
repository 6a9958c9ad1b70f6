package client

import (
	"context"
	"encoding/binary"
	"iter"
	"math/bits"

	"vfiouser/codec"
)

// DirtyBitmap tells which pages of a range of IOVAs the device has written.
type DirtyBitmap struct {
	IOVA     uint64
	Length   uint64   // bytes
	PageSize uint64   // bytes to a bit, a power of two
	Words    []uint64 // bit i%64 of word i/64 is the page at IOVA + i*PageSize
}

func newDirtyBitmap(iova, length, pageSize uint64) (*DirtyBitmap, error) {
	switch {
	case bits.OnesCount64(pageSize) != 1:
		return nil, invalid("page size %d is no power of two", pageSize)
	case length == 0 || iova+(length-1) < iova:
		return nil, invalid("range of %#x bytes at %#x", length, iova)
	case codec.BitmapBytes(length, pageSize) > maxDirtyBitmap:
		return nil, invalid("dirty bitmap of %#x bytes with a bit for %d", length, pageSize)
	}
	return &DirtyBitmap{
		IOVA: iova, Length: length, PageSize: pageSize,
		Words: make([]uint64, codec.BitmapBytes(length, pageSize)/8),
	}, nil
}

// maxDirtyBitmap bounds a bitmap in bytes: 128 TiB of memory in pages of 4 KiB.
const maxDirtyBitmap = 4 << 30

// pages is the number of pages in the range.
func (b *DirtyBitmap) pages() uint64 { return (b.Length-1)/b.PageSize + 1 }

// put stores bits as the wire has them, from a word on.
func (b *DirtyBitmap) put(word uint64, data []byte) {
	for ; len(data) > 0; data = data[8:] {
		b.Words[word] |= binary.NativeEndian.Uint64(data)
		word++
	}
}

// trim clears what lies outside of the range, which a server must leave 0.
func (b *DirtyBitmap) trim() {
	if n := b.pages() % 64; n != 0 {
		b.Words[len(b.Words)-1] &= 1<<n - 1
	}
}

// Contains says whether the page that holds iova was written.
func (b *DirtyBitmap) Contains(iova uint64) bool {
	off := iova - b.IOVA
	if iova < b.IOVA || off >= b.Length {
		return false
	}
	page := off / b.PageSize
	return b.Words[page/64]>>(page%64)&1 != 0
}

// Count is the number of pages that were written.
func (b *DirtyBitmap) Count() int {
	n := 0
	for _, w := range b.Words {
		n += bits.OnesCount64(w)
	}
	return n
}

// Pages yields the IOVA and the length in bytes of each page that was written, in ascending order. Only the last one of the
// range can be shorter than PageSize.
func (b *DirtyBitmap) Pages() iter.Seq2[uint64, uint64] {
	return func(yield func(iova, length uint64) bool) {
		for i, w := range b.Words {
			for ; w != 0; w &= w - 1 {
				off := (uint64(i)*64 + uint64(bits.TrailingZeros64(w))) * b.PageSize
				if !yield(b.IOVA+off, min(b.PageSize, b.Length-off)) {
					return
				}
			}
		}
	}
}

// StartDMALogging has the device log which memory it writes, in ranges, or everywhere if there are none. pageSize, in bytes, is
// a hint; what the device takes instead is returned.
func (d *Device) StartDMALogging(ctx context.Context, pageSize uint64, ranges ...codec.IOVARange) (uint64, error) {
	start := codec.DMALogging{PageSize: pageSize, Count: uint32(len(ranges))}
	for _, r := range ranges {
		start.Ranges = codec.AppendIOVARange(start.Ranges, r)
	}
	data, err := d.SetFeature(ctx, codec.FeatureDMALoggingStart, start.Append(nil))
	if err != nil {
		return 0, err
	}
	var got codec.DMALogging
	err = got.Decode(data)
	if err == nil && bits.OnesCount64(got.PageSize) == 1 {
		return got.PageSize, nil
	}
	return 0, d.breakOff(codec.CmdDeviceFeature, err, "logging with a page size of %d bytes", got.PageSize)
}

// StopDMALogging ends StartDMALogging.
func (d *Device) StopDMALogging(ctx context.Context) error {
	_, err := d.SetFeature(ctx, codec.FeatureDMALoggingStop, nil)
	return err
}

// DirtyBitmap reports what the device has written in a range since the last report, or since logging was started, and begins a
// new log of it. pageSize is the granularity of the report in bytes, a power of two.
//
// A range whose bitmap exceeds a message is reported in parts. What the device reported before an error is returned with the
// error: the device has forgotten it.
func (d *Device) DirtyBitmap(ctx context.Context, iova, length, pageSize uint64) (*DirtyBitmap, error) {
	b, err := newDirtyBitmap(iova, length, pageSize)
	if err != nil {
		return nil, err
	}
	words := uint64(d.bitmapRoom() / 8)
	for word := uint64(0); word < uint64(len(b.Words)) && err == nil; word += words {
		off := word * 64 * pageSize
		part := length - off
		if word+words < uint64(len(b.Words)) {
			part = words * 64 * pageSize
		}
		err = d.reportDirty(ctx, b, word, part)
	}
	b.trim()
	return b, err
}

// reportDirty asks for length bytes, whose bits begin at a word of b.
func (d *Device) reportDirty(ctx context.Context, b *DirtyBitmap, word, length uint64) error {
	ask := codec.DMALoggingReport{IOVA: b.IOVA + word*64*b.PageSize, Length: length, PageSize: b.PageSize}
	room := codec.DMALoggingReportSize + int(codec.BitmapBytes(length, b.PageSize))
	data, err := d.GetFeature(ctx, codec.FeatureDMALoggingReport, ask.AppendHead(nil), room)
	if err != nil {
		return err
	}
	var got codec.DMALoggingReport
	if err := got.DecodeReply(data); err != nil {
		return d.breakOff(codec.CmdDeviceFeature, err, "bad report of dirty memory")
	}
	if got.IOVA != ask.IOVA || got.Length != ask.Length || got.PageSize != ask.PageSize {
		return d.breakOff(codec.CmdDeviceFeature, nil, "report of another range: %#x bytes at %#x, %d to a bit",
			got.Length, got.IOVA, got.PageSize)
	}
	b.put(word, got.Bitmap)
	return nil
}

// bitmapRoom is how many bytes a bitmap can have in one message, a multiple of 8.
func (d *Device) bitmapRoom() int {
	room := uint64(max(d.chunk-codec.DMALoggingReportSize, 8))
	if m := d.peer.Migration; m != nil && m.MaxBitmapSize != 0 {
		room = min(room, m.MaxBitmapSize)
	}
	return int(max(room&^7, 8))
}

// UnmapDirtyDMA is UnmapDMA that also reports what the device has written, which must fit into one message: about 32 GiB of
// memory in pages of 4 KiB with the default WithMaxTransfer; ask for more with DirtyBitmap beforehand. A server may demand that
// logging is on.
func (d *Device) UnmapDirtyDMA(ctx context.Context, iova, size, pageSize uint64) (*DirtyBitmap, error) {
	b, err := newDirtyBitmap(iova, size, pageSize)
	if err != nil {
		return nil, err
	}
	room := len(b.Words) * 8
	if room > d.bitmapRoom() {
		return nil, invalid("dirty bitmap of %d bytes, %d fit into a message", room, d.bitmapRoom())
	}
	ask := codec.DMAUnmap{
		ArgSz: codec.DMAUnmapSize + codec.BitmapSize + uint32(room), Flags: codec.UnmapFlagGetDirtyBitmap, Addr: iova, Size: size,
		Bitmap: codec.Bitmap{PgSize: pageSize, Size: uint64(room)},
	}
	got, err := d.unmapRegion(ctx, &ask)
	if err != nil {
		return nil, err
	}
	b.put(0, got.Bitmap.Data)
	b.trim()
	return b, nil
}
