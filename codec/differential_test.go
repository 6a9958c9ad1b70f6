package codec

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

// The fixed parts of the messages as C would declare them (QEMU's hw/vfio-user/protocol.h
// has the same fields), for a decoder that is slow, knows nothing of this package and has
// nothing to say about what the values mean.
type (
	cDMAMap struct {
		ArgSz, Flags       uint32
		Offset, Addr, Size uint64
	}
	cDMAUnmap struct {
		ArgSz, Flags uint32
		Addr, Size   uint64
	}
	cDMAUnmapBitmap struct {
		ArgSz, Flags       uint32
		Addr, Size         uint64
		PgSize, BitmapSize uint64
	}
	cFour struct{ A, B, C, D uint32 }

	cRegionInfo struct {
		ArgSz, Flags, Index, CapOffset uint32
		Size, Offset                   uint64
	}
	cSetIRQs struct{ ArgSz, Flags, Index, Start, Count uint32 }

	cRegionAccess struct {
		Offset        uint64
		Region, Count uint32
	}
	cDMAAccess  struct{ Addr, Count uint64 }
	cWriteMulti struct {
		Count uint64
		First cRegionAccess
		Data  [8]byte
	}
	cFeature struct{ ArgSz, Flags uint32 }
	cLogging struct {
		PageSize        uint64
		Count, Reserved uint32
		IOVA, Length    uint64
	}
	cReport  struct{ IOVA, Length, PageSize uint64 }
	cMigData struct{ ArgSz, Size uint32 }
	cIOFD    struct {
		ArgSz, Flags, Index, Count uint32
		Offset, Size               uint64
		FDIndex, Type, IOFlags     uint32
		ShadowFDIndex              uint32
		ShadowOffset, Data         uint64
	}
	cHeader struct {
		ID, Command        uint16
		Size, Flags, Errno uint32
	}
)

// slow decodes b into a structure without knowing its fields.
func slow[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzDifferential: what a form accepts it reads as the structures do.
func FuzzDifferential(f *testing.F) {
	for i, c := range differentials {
		for _, form := range forms() {
			if len(form.sample) >= c.size {
				f.Add(uint8(i), form.sample)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := differentials[int(which)%len(differentials)]
		if len(b) < c.size {
			return
		}
		if got, want, ok := c.read(t, b); ok && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, want)
		}
	})
}

var differentials = []struct {
	name string
	size int // that the structure takes, bytes
	read func(t *testing.T, b []byte) (got, want any, ok bool)
}{
	{"header", 16, func(t *testing.T, b []byte) (any, any, bool) {
		m, err := DecodeHeader(b)
		return cHeader{m.ID, uint16(m.Command), m.Size, uint32(m.Flags), m.Errno}, slow[cHeader](t, b), err == nil
	}},
	{"DMA_MAP", 32, func(t *testing.T, b []byte) (any, any, bool) {
		var m DMAMap
		err := m.Decode(b)
		return cDMAMap{m.ArgSz, uint32(m.Flags), m.Offset, m.Addr, m.Size}, slow[cDMAMap](t, b), err == nil
	}},
	{"DMA_UNMAP", 24, func(t *testing.T, b []byte) (any, any, bool) {
		var m DMAUnmap
		err := m.DecodeRequest(b)
		return cDMAUnmap{m.ArgSz, uint32(m.Flags), m.Addr, m.Size}, slow[cDMAUnmap](t, b), err == nil
	}},
	{"DMA_UNMAP with a bitmap", 40, func(t *testing.T, b []byte) (any, any, bool) {
		var m DMAUnmap
		err := m.DecodeReply(b)
		return cDMAUnmapBitmap{m.ArgSz, uint32(m.Flags), m.Addr, m.Size, m.Bitmap.PgSize, m.Bitmap.Size},
			slow[cDMAUnmapBitmap](t, b), err == nil && m.Flags&UnmapFlagGetDirtyBitmap != 0
	}},
	{"GET_INFO", 16, func(t *testing.T, b []byte) (any, any, bool) {
		var m DeviceInfo
		err := m.Decode(b)
		return cFour{m.ArgSz, uint32(m.Flags), m.NumRegions, m.NumIRQs}, slow[cFour](t, b), err == nil
	}},
	{"GET_REGION_INFO request", 32, func(t *testing.T, b []byte) (any, any, bool) {
		var m RegionInfo
		err := m.DecodeRequest(b)
		return cRegionInfo{m.ArgSz, uint32(m.Flags), m.Index, m.CapOffset, m.Size, m.Offset}, slow[cRegionInfo](t, b), err == nil
	}},
	{"GET_REGION_INFO reply", 32, func(t *testing.T, b []byte) (any, any, bool) {
		var m RegionInfo
		err := m.DecodeReply(b)
		return cRegionInfo{m.ArgSz, uint32(m.Flags), m.Index, m.CapOffset, m.Size, m.Offset}, slow[cRegionInfo](t, b), err == nil
	}},
	{"GET_REGION_IO_FDS request", 16, func(t *testing.T, b []byte) (any, any, bool) {
		var m IOFDs
		err := m.DecodeRequest(b)
		return cFour{m.ArgSz, m.Flags, m.Index, m.Count}, slow[cFour](t, b), err == nil
	}},
	{"GET_REGION_IO_FDS reply as libvfio-user has it", 64, func(t *testing.T, b []byte) (any, any, bool) {
		var m IOFDs
		err := m.DecodeReply(b)
		if err != nil || len(m.Regions) == 0 || (m.ArgSz-16)/m.Count != 48 || m.Regions[0].Type == IORegionfd {
			return nil, nil, false
		}
		want, r := slow[cIOFD](t, b), m.Regions[0]
		if r.Type != IOEventfdShadow { // then it is padding
			want.ShadowFDIndex, want.ShadowOffset = 0, 0
		}
		return cIOFD{m.ArgSz, m.Flags, m.Index, m.Count, r.Offset, r.Size, r.FDIndex, uint32(r.Type), r.Flags,
			r.ShadowFDIndex, r.ShadowOffset, r.Data}, want, true
	}},
	{"GET_IRQ_INFO", 16, func(t *testing.T, b []byte) (any, any, bool) {
		var m IRQInfo
		err := m.Decode(b)
		return cFour{m.ArgSz, uint32(m.Flags), uint32(m.Index), m.Count}, slow[cFour](t, b), err == nil
	}},
	{"SET_IRQS", 20, func(t *testing.T, b []byte) (any, any, bool) {
		var m SetIRQs
		err := m.Decode(b)
		return cSetIRQs{m.ArgSz, uint32(m.Flags), uint32(m.Index), m.Start, m.Count}, slow[cSetIRQs](t, b), err == nil
	}},
	{"REGION_READ request", 16, func(t *testing.T, b []byte) (any, any, bool) {
		var m RegionAccess
		err := m.DecodeReadRequest(b)
		return cRegionAccess{m.Offset, m.Region, m.Count}, slow[cRegionAccess](t, b), err == nil
	}},
	{"REGION_WRITE request", 16, func(t *testing.T, b []byte) (any, any, bool) {
		var m RegionAccess
		err := m.DecodeWriteRequest(b)
		return cRegionAccess{m.Offset, m.Region, m.Count}, slow[cRegionAccess](t, b), err == nil
	}},
	{"DMA_READ reply", 16, func(t *testing.T, b []byte) (any, any, bool) {
		var m DMAAccess
		err := m.DecodeReadReply(b)
		return cDMAAccess{m.Addr, m.Count}, slow[cDMAAccess](t, b), err == nil
	}},
	{"DMA_WRITE reply", 16, func(t *testing.T, b []byte) (any, any, bool) {
		var m DMAAccess
		err := m.DecodeWriteReply(b)
		return cDMAAccess{m.Addr, m.Count}, slow[cDMAAccess](t, b), err == nil
	}},
	{"REGION_WRITE_MULTI", 32, func(t *testing.T, b []byte) (any, any, bool) {
		var m WriteMulti
		if m.DecodeRequest(b) != nil {
			return nil, nil, false
		}
		a, want := m.Write(0), slow[cWriteMulti](t, b)
		got := cWriteMulti{m.Count, cRegionAccess{a.Offset, a.Region, a.Count}, want.Data}
		copy(got.Data[:], a.Data)
		return got, want, len(a.Data) == int(want.First.Count)
	}},
	{"DEVICE_FEATURE", 8, func(t *testing.T, b []byte) (any, any, bool) {
		var m Feature
		err := m.Decode(b)
		return cFeature{m.ArgSz, uint32(m.Flags)}, slow[cFeature](t, b), err == nil
	}},
	{"DMA_LOGGING_START", 32, func(t *testing.T, b []byte) (any, any, bool) {
		var m DMALogging
		if m.Decode(b) != nil || m.Count == 0 {
			return nil, nil, false
		}
		want, r := slow[cLogging](t, b), m.Range(0)
		return cLogging{m.PageSize, m.Count, want.Reserved, r.IOVA, r.Length}, want, true
	}},
	{"DMA_LOGGING_REPORT", 24, func(t *testing.T, b []byte) (any, any, bool) {
		var m DMALoggingReport
		err := m.DecodeRequest(b)
		return cReport{m.IOVA, m.Length, m.PageSize}, slow[cReport](t, b), err == nil
	}},
	{"MIG_DATA_READ", 8, func(t *testing.T, b []byte) (any, any, bool) {
		var m MigData
		err := m.DecodeReadRequest(b)
		return cMigData{m.ArgSz, m.Size}, slow[cMigData](t, b), err == nil
	}},
}
