package engine

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// Regions of the device's own follow those of PCI and are used like them.
func TestRegionsOfTheDevicesOwn(t *testing.T) {
	file := memfd(t, 8192)
	memory := make([]byte, 64)
	var desc Description
	desc.Extra = []Region{
		{
			Type: RegionType{Type: codec.RegionTypePCIVendor | 0x8086, Subtype: 1}, Size: 64,
			Read:  func(off uint64, p []byte) error { copy(p, memory[off:]); return nil },
			Write: func(off uint64, p []byte) error { copy(memory[off:], p); return nil },
		},
		{Type: RegionType{Type: 3, Subtype: 4}, Size: 8192, FD: file, Areas: []Area{{Offset: 4096, Size: 4096}}},
	}
	b, _ := newPlainBed(t, Config{}, desc)
	conn := b.attach()
	info := func(argsz, index uint32) []byte { return append(u32(argsz, 0, index, 0), u64(0, 0)...) }
	typeCap := func(kind, subtype uint32) []byte { return append(u32(1<<16|2, 0), u32(kind, subtype)...) }
	for _, c := range []struct {
		name    string
		cmd     codec.Command
		payload []byte
		want    []byte
		fds     int
	}{
		{"GET_INFO counts them", codec.CmdGetInfo, u32(16, 0, 0, 0), u32(16, 3, 11, 5), 0},
		{"GET_REGION_INFO without room for the type", codec.CmdGetRegionInfo, info(32, 9), append(u32(48, 11, 9, 32), u64(64, 0)...), 0},
		{"GET_REGION_INFO with the type", codec.CmdGetRegionInfo, info(48, 9), slices.Concat(u32(48, 11, 9, 32), u64(64, 0), typeCap(1<<31|0x8086, 1)), 0},
		{"GET_REGION_INFO without room for areas and type", codec.CmdGetRegionInfo, info(79, 10), append(u32(80, 12, 10, 32), u64(8192, 0)...), 0},
		{"GET_REGION_INFO with areas and type", codec.CmdGetRegionInfo, info(80, 10), slices.Concat(u32(80, 12, 10, 32), u64(8192, 0),
			u32(1<<16|1, 64, 1, 0), u64(4096, 4096), typeCap(3, 4)), 1},
		{"REGION_WRITE", codec.CmdRegionWrite, regionWrite(9, 60, 1, 2, 3, 4), regionRead(9, 60, 4), 0},
		{"REGION_READ", codec.CmdRegionRead, regionRead(9, 61, 3), append(regionRead(9, 61, 3), 2, 3, 4), 0},
		{"REGION_WRITE_MULTI", codec.CmdRegionWriteMulti, writeMultiOf(writeOf(9, 0, 9)), u64(1), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			h, got, fds := conn.call(c.cmd, c.payload)
			if h.Err() != nil || !bytes.Equal(got, c.want) || len(fds) != c.fds {
				t.Errorf("reply %v %x with %d descriptors, want %x with %d", h.Err(), got, len(fds), c.want, c.fds)
			}
			reactor.CloseFDs(fds)
		})
	}
	conn.t = t
	conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(9, 61, 4))
	conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(10, 0, 1)) // mappable only
	conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(11, 0, 1))
	conn.fails(unix.EINVAL, codec.CmdGetRegionInfo, info(32, 11))
}

func TestRegionsThatCannotBeAreRefused(t *testing.T) {
	kind := RegionType{Type: 1, Subtype: 1}
	b := newBed(t, Config{})
	for _, c := range []struct {
		name string
		desc Description
	}{
		{"own region without type", Description{Extra: []Region{{Size: 8}}}},
		{"type of a PCI region", Description{Regions: [NumRegions]Region{2: {Size: 8, Type: kind}}}},
		{"areas that are not made of pages", Description{Extra: []Region{{Type: kind, Size: 8192, Areas: []Area{{Size: 100}}}}}},
		{"areas beyond the end", Description{Extra: []Region{{Type: kind, Size: 4096, Areas: []Area{{Offset: 4096, Size: 4096}}}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := b.engine.Register(filepath.Join(t.TempDir(), "x"), &plainDevice{desc: c.desc}); err == nil {
				t.Error("registered")
			}
		})
	}
}
