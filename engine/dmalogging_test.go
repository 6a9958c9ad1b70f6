package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
)

const (
	startSet  = codec.FeatureDMALoggingStart | codec.FeatureSet
	stopSet   = codec.FeatureDMALoggingStop | codec.FeatureSet
	reportGet = codec.FeatureDMALoggingReport | codec.FeatureGet
)

// startLogging is a SET of DMA_LOGGING_START; ranges are pairs of address and length.
func startLogging(page uint64, ranges ...uint64) []byte {
	data := slices.Concat(u64(page), u32(uint32(len(ranges)/2), 0), u64(ranges...))
	return featureMsg(uint32(8+len(data)), startSet, data...)
}

func report(iova, length, page uint64) []byte {
	return featureMsg(uint32(32+codec.BitmapBytes(length, page)), reportGet, u64(iova, length, page)...)
}

// dirty reports a range, which is forgotten, and lists its bits.
func (c *raw) dirty(iova, length, page uint64) (list []int) {
	c.t.Helper()
	got := c.ok(codec.CmdDeviceFeature, report(iova, length, page))
	want := report(iova, length, page)
	if !bytes.Equal(got[:len(want)], want) || len(got) != len(want)+int(codec.BitmapBytes(length, page)) {
		c.t.Fatalf("report %x", got)
	}
	return setBits(got[len(want):])
}

func setBits(bitmap []byte) (list []int) {
	for i := range len(bitmap) * 8 {
		if binary.NativeEndian.Uint64(bitmap[i/64*8:])>>(i%64)&1 != 0 {
			list = append(list, i)
		}
	}
	return list
}

func (c *raw) wantDirty(iova, length, page uint64, want ...int) {
	c.t.Helper()
	if got := c.dirty(iova, length, page); !slices.Equal(got, want) {
		c.t.Errorf("pages %v of %#x are dirty, want %v", got, iova, want)
	}
}

func (b *bed) writeDMA(iova uint64, p []byte) {
	b.t.Helper()
	if err := b.device.session().WriteDMA(context.Background(), iova, p); err != nil {
		b.t.Error(err)
	}
}

func TestWritesAreLogged(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x10000, 0x10000), memfd(t, 0x10000))
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x20000, 0x10000)) // by message
	b.writeDMA(0x10000, make([]byte, 1))
	if got := conn.ok(codec.CmdDeviceFeature, startLogging(4096)); !bytes.Equal(got, startLogging(4096)) {
		t.Errorf("reply %x is not the request", got)
	}
	conn.wantDirty(0x10000, 0x20000, 4096)
	b.writeDMA(0x10fff, make([]byte, 2))
	if err := b.device.session().ReadDMA(context.Background(), 0x14000, make([]byte, 8)); err != nil {
		t.Error(err)
	}
	conn.wantDirty(0x10000, 0x20000, 4096, 0, 1)
	conn.wantDirty(0x10000, 0x20000, 4096) // forgotten

	written := make(chan struct{})
	go func() { b.writeDMA(0x22ff8, make([]byte, 16)); close(written) }()
	h, payload, _ := conn.read()
	if h.Command != codec.CmdDMAWrite {
		t.Fatalf("%+v", h)
	}
	conn.write(append(codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply, Size: 32}.Append(nil), payload[:16]...))
	<-written
	b.writeDMA(0x16000, make([]byte, 1))
	conn.wantDirty(0x10000, 0x20000, 8192, 3, 9)
	b.writeDMA(0x16000, make([]byte, 1))
	conn.wantDirty(0x16000, 0x1000, 1024, 0, 1, 2, 3)
	conn.ok(codec.CmdDeviceFeature, featureMsg(8, stopSet))
	conn.fails(unix.EINVAL, codec.CmdDeviceFeature, report(0x10000, 0x1000, 4096))
}

func TestLoggingStart(t *testing.T) {
	b := newBed(t, Config{})
	for _, c := range []struct {
		name string
		req  []byte
		want uint64 // page size; 0: refused with EINVAL
	}{
		{"all", startLogging(4096), 4096},
		{"larger pages", startLogging(2 << 20), 2 << 20},
		{"smaller pages than the server's", startLogging(512), 4096},
		{"no power of two", startLogging(10_000), 8192},
		{"ranges", startLogging(4096, 0, 4096, 1<<40, 1<<30), 4096},
		{"page size 0", startLogging(0), 0},
		{"an empty range", startLogging(4096, 0, 0), 0},
		{"a range that wraps around", startLogging(4096, 1<<63, 1<<63+1), 0},
		{"fewer ranges than it says", featureMsg(24, startSet, slices.Concat(u64(4096), u32(1, 0))...), 0},
		{"data that is cut", featureMsg(16, startSet, u64(4096)...), 0},
		{"argsz smaller than the request", featureMsg(8, startSet, startLogging(4096)[8:]...), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			conn := b.attach()
			if c.want == 0 {
				conn.fails(unix.EINVAL, codec.CmdDeviceFeature, c.req)
			} else {
				want := bytes.Clone(c.req)
				binary.NativeEndian.PutUint64(want[8:], c.want)
				if got := conn.ok(codec.CmdDeviceFeature, c.req); !bytes.Equal(got, want) {
					t.Errorf("reply %x, want %x", got, want)
				}
				// Once more is allowed, with the page size that the log has.
				conn.ok(codec.CmdDeviceFeature, startLogging(c.want))
				conn.fails(unix.EINVAL, codec.CmdDeviceFeature, startLogging(c.want*2))
			}
			conn.close()
			b.settled()
		})
	}
}

// Logging starts when no section is left that does not know of it; the session waits, the
// reactor does not.
func TestLoggingStartsAfterSectionsInUse(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x10000, 0x10000), memfd(t, 0x10000))
	r := b.device.session().Memory().NewReader()
	r.Enter()
	if _, err := r.Bytes(0x10000, 1, dma.ProtWrite); err != nil {
		t.Fatal(err)
	}
	conn.write(conn.frame(codec.CmdDeviceFeature, 0, startLogging(4096)))
	conn.write(conn.frame(codec.CmdDeviceFeature, 0, featureMsg(8, codec.FeatureDMALoggingStart|codec.FeatureProbe)))
	eventually(t, "logging", func() bool { return b.device.session().Memory().LogPageSize() != 0 })
	b.do(func() {
		if !b.device.session().backlog.pending {
			t.Error("logging has started while a section does not know of it")
		}
	})
	r.Close()
	for _, want := range []codec.FeatureFlags{startSet, codec.FeatureDMALoggingStart | codec.FeatureProbe} {
		h, got, _ := conn.read()
		if h.Err() != nil || binary.NativeEndian.Uint32(got[4:]) != uint32(want) {
			t.Errorf("%+v, %x", h, got)
		}
	}
}

func TestReportsAreBounded(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	conn.ok(codec.CmdDeviceFeature, startLogging(4096, 0, 1<<40))
	b.device.session().Memory().MarkDirty(0x5000, 1)
	for _, c := range []struct {
		name string
		req  []byte
	}{
		{"a bitmap above max_data_xfer_size", report(0, 32<<30+1, 4096)},
		{"all there is", report(0, ^uint64(0), 1)},
		{"no room for the bitmap", featureMsg(39, reportGet, u64(0, 4096, 4096)...)},
		{"an empty range", report(0, 0, 4096)},
		{"a range that wraps around", featureMsg(4096, reportGet, u64(4096, ^uint64(0), 1<<50)...)},
		{"page size 0", featureMsg(4096, reportGet, u64(0, 4096, 0)...)},
		{"no power of two", featureMsg(4096, reportGet, u64(0, 4096, 12288)...)},
		{"data that is cut", featureMsg(4096, reportGet, u64(0, 4096)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			conn.fails(unix.EINVAL, codec.CmdDeviceFeature, c.req)
		})
	}
	conn.t = t
	conn.wantDirty(0, ^uint64(0), 1<<62, 0) // of which nothing was forgotten till now
	b.device.session().Memory().MarkDirty(0x5000, 1)
	conn.wantDirty(0, 32<<30, 4096, 5)
}

func unmapBitmap(argsz uint32, addr, size, page, bytes uint64) []byte {
	return append(u32(argsz, 1), u64(addr, size, page, bytes)...)
}

func TestUnmapReportsWhatWasWritten(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	ram := func() { conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x10000, 0x10000), memfd(t, 0x10000)) }
	ram()
	conn.fails(unix.EINVAL, codec.CmdDMAUnmap, unmapBitmap(48, 0x10000, 0x10000, 4096, 8)) // nothing is logged
	conn.ok(codec.CmdDeviceFeature, startLogging(4096))
	b.writeDMA(0x11000, make([]byte, 4097))
	for _, c := range []struct {
		name  string
		req   []byte
		errno unix.Errno
	}{
		{"page size 0", unmapBitmap(48, 0x10000, 0x10000, 0, 8), unix.EINVAL},
		{"no power of two", unmapBitmap(48, 0x10000, 0x10000, 5000, 8), unix.EINVAL},
		{"a bitmap that is short", unmapBitmap(48, 0x10000, 0x10000, 4096, 0), unix.EINVAL},
		{"a bitmap that is long", unmapBitmap(56, 0x10000, 0x10000, 4096, 16), unix.EINVAL},
		{"a bitmap that overflows", unmapBitmap(40, 0x10000, 0x10000, 4096, ^uint64(0)-32), unix.EINVAL},
		{"no room", unmapBitmap(47, 0x10000, 0x10000, 4096, 8), unix.EINVAL},
		{"argsz above max_data_xfer_size", unmapBitmap(1<<20+1, 0x10000, 0x10000, 4096, 8), unix.EINVAL},
		{"a bitmap above max_data_xfer_size", unmapBitmap(1<<20, 0, 1<<40, 4096, 32<<20), unix.EINVAL},
		{"a region that is not there", unmapBitmap(48, 0x20000, 0x10000, 4096, 8), unix.ENOENT},
		{"all", append(u32(48, 3), u64(0, 0, 4096, 8)...), unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			conn.fails(c.errno, codec.CmdDMAUnmap, c.req)
		})
	}
	conn.t = t
	req := unmapBitmap(48, 0x10000, 0x10000, 4096, 8)
	got := conn.ok(codec.CmdDMAUnmap, req)
	if want := append(bytes.Clone(req), u64(0b110)...); !bytes.Equal(got, want) {
		t.Errorf("reply %x, want %x", got, want)
	}
	ram()
	conn.wantDirty(0x10000, 0x10000, 4096) // reported, so forgotten
	b.writeDMA(0x1f000, make([]byte, 1))
	conn.ok(codec.CmdDMAUnmap, dmaUnmap(2, 0, 0))
	conn.wantDirty(0x10000, 0x10000, 4096, 15)

	// The reply waits for I/O in flight, whose writes it reports.
	ram()
	r := b.device.session().Memory().NewReader()
	r.Enter()
	_, pin, err := r.Pin(0x13000, 1, dma.ProtWrite)
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	conn.wantDirty(0x10000, 0x10000, 4096, 3)
	conn.write(conn.frame(codec.CmdDMAUnmap, 0, req))
	eventually(t, "unmap", func() bool { return b.device.session().Memory().Stats().Retired == 1 })
	pin.Release()
	if h, got, _ := conn.read(); h.Err() != nil || !slices.Equal(setBits(got[40:]), []int{3}) {
		t.Errorf("%+v, %x", h, got)
	}
}
