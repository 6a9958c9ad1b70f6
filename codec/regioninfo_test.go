package codec

import (
	"reflect"
	"testing"
)

func regionHead(argsz uint32, flags RegionFlags, capOffset uint32, size uint64) []byte {
	return pack(argsz, uint32(flags), uint32(0), capOffset, size, uint64(0))
}

func sparseCap(next uint32, areas ...Area) []byte {
	b := pack(uint16(1), uint16(1), next, uint32(len(areas)), uint32(0))
	for _, a := range areas {
		b = pack(b, a.Offset, a.Size)
	}
	return b
}

func TestRegionInfoRequest(t *testing.T) {
	for _, tt := range []struct {
		name  string
		argsz uint32
		tail  int
		kind  error
	}{
		{"QEMU's first", 32, 0, nil},
		{"QEMU's second", 64, 0, nil},
		{"SPDK's, as long as the reply may be", 4064, 4032, nil},
		{"argsz smaller than the structure", 31, 0, ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := RegionInfo{Sparse: []Area{{1, 2}}}
			err := m.DecodeRequest(pack(tt.argsz, uint32(0), uint32(4), make([]byte, 20+tt.tail)))
			wantError(t, err, CmdGetRegionInfo, tt.kind)
			if m.ArgSz != tt.argsz || m.Index != 4 || len(m.Sparse) != 0 {
				t.Errorf("got %+v", m)
			}
		})
	}
}

func TestRegionInfoReplyInTwoSteps(t *testing.T) {
	area := Area{0x1000, 0x1000}
	info := func() RegionInfo {
		return RegionInfo{Flags: RegionFlagRead | RegionFlagWrite | RegionFlagMmap, Index: 0, Size: 0x4000,
			Sparse: []Area{area}}
	}
	short := regionHead(64, 0xf, 32, 0x4000)
	full := pack(short, sparseCap(0, area))
	for _, tt := range []struct {
		argsz uint32
		want  []byte
	}{
		{32, short}, {63, short}, {64, full}, {4064, full},
	} {
		m := info()
		b := m.AppendReply(nil, tt.argsz)
		wantBytes(t, b, tt.want)

		var got RegionInfo
		wantError(t, got.DecodeReply(b), CmdGetRegionInfo, nil)
		if cut := len(tt.want) < 64; got.Truncated(len(b)) != cut || cut != (len(got.Sparse) == 0) {
			t.Errorf("argsz %d: truncated %v, areas %v", tt.argsz, got.Truncated(len(b)), got.Sparse)
		}
		if got.ArgSz != 64 || got.CapOffset != 32 {
			t.Errorf("argsz %d: answers %d with capabilities at %d", tt.argsz, got.ArgSz, got.CapOffset)
		}
	}
}

func TestRegionInfoReplyWithoutAreas(t *testing.T) {
	m := RegionInfo{ArgSz: 99, Flags: RegionFlagRead | RegionFlagCaps, Index: 7, CapOffset: 99, Size: 4096, Offset: 5}
	wantBytes(t, m.AppendReply(nil, 4096),
		pack(uint32(32), uint32(RegionFlagRead), uint32(7), uint32(0), uint64(4096), uint64(5)))
}

func TestRegionInfoCapabilities(t *testing.T) {
	const size = 0x10000
	a, b := Area{0, 0x1000}, Area{0x8000, 0x8000}
	unknown := func(next uint32) []byte { return pack(uint16(3), uint16(1), next, uint64(0)) }
	for _, tt := range []struct {
		name  string
		reply []byte
		want  []Area
		kind  error
	}{
		{"two areas", pack(regionHead(80, RegionFlagCaps, 32, size), sparseCap(0, a, b)), []Area{a, b}, nil},
		{"no areas", pack(regionHead(48, RegionFlagCaps, 32, size), sparseCap(0)), nil, nil},
		{"behind an unknown one", pack(regionHead(80, RegionFlagCaps, 32, size), unknown(48), sparseCap(0, a)), []Area{a}, nil},
		{"two capabilities", pack(regionHead(96, RegionFlagCaps, 32, size), sparseCap(64, a), sparseCap(0, b)), []Area{a, b}, nil},
		{"not flagged", pack(regionHead(64, 0, 32, size), sparseCap(0, a)), nil, nil},
		{"offset 0", pack(regionHead(64, RegionFlagCaps, 0, size), sparseCap(0, a)), nil, nil},
		{"payload longer than argsz", pack(regionHead(64, RegionFlagCaps, 32, size), sparseCap(0, a), "more"), []Area{a}, nil},
		{"in the structure", pack(regionHead(64, RegionFlagCaps, 16, size), sparseCap(0, a)), nil, ErrRange},
		{"behind the end", pack(regionHead(64, RegionFlagCaps, 64, size), sparseCap(0, a)), nil, ErrRange},
		{"header cut", pack(regionHead(64, RegionFlagCaps, 57, size), sparseCap(0, a)), nil, ErrRange},
		{"far away", pack(regionHead(64, RegionFlagCaps, ^uint32(0), size), sparseCap(0, a)), nil, ErrRange},
		{"linked to itself", pack(regionHead(48, RegionFlagCaps, 32, size), unknown(32)), nil, ErrRange},
		{"linked backwards", pack(regionHead(64, RegionFlagCaps, 48, size), unknown(0), unknown(32)), nil, ErrRange},
		{"linked into itself", pack(regionHead(48, RegionFlagCaps, 32, size), unknown(36)), nil, ErrRange},
		{"area that is a capability", pack(regionHead(80, RegionFlagCaps, 32, size), sparseCap(48, Area{1, 1}, Area{0, 0})), nil, ErrRange},
		{"next to the areas", pack(regionHead(72, RegionFlagCaps, 32, size), sparseCap(64, a), unknown(0)[:8]), []Area{a}, nil},
		{"areas cut", pack(regionHead(64, RegionFlagCaps, 32, size), pack(uint16(1), uint16(1), uint32(0), uint32(2), uint32(0), uint64(0), uint64(0))), nil, ErrSize},
		{"areas by the billion", pack(regionHead(48, RegionFlagCaps, 32, size), pack(uint16(1), uint16(1), uint32(0), ^uint32(0), uint32(0))), nil, ErrSize},
		{"count cut", pack(regionHead(40, RegionFlagCaps, 32, size), pack(uint16(1), uint16(1), uint32(0))), nil, ErrShort},
		{"area outside of the region", pack(regionHead(64, RegionFlagCaps, 32, size), sparseCap(0, Area{0x8000, 0x9000})), nil, ErrRange},
		{"area that overflows", pack(regionHead(64, RegionFlagCaps, 32, size), sparseCap(0, Area{0x1000, ^uint64(0)})), nil, ErrRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := RegionInfo{Sparse: []Area{{9, 9}}}
			err := m.DecodeReply(tt.reply)
			wantError(t, err, CmdGetRegionInfo, tt.kind)
			if err == nil && len(m.Sparse)+len(tt.want) > 0 && !reflect.DeepEqual(m.Sparse, tt.want) {
				t.Errorf("got %v, want %v", m.Sparse, tt.want)
			}
		})
	}
}

func TestRegionInfoRequestBytes(t *testing.T) {
	m := RegionInfo{ArgSz: 32, Index: 7}
	wantBytes(t, m.AppendRequest(nil), pack(uint32(32), uint32(0), uint32(7), uint32(0), uint64(0), uint64(0)))
}

func typeCap(next uint32, t RegionType) []byte {
	return pack(uint16(2), uint16(1), next, t.Type, t.Subtype)
}

func TestRegionInfoTypes(t *testing.T) {
	const size = 0x10000
	area, gfx := Area{0, 0x1000}, RegionType{RegionTypePCIVendor | 0x8086, 1}
	for _, tt := range []struct {
		name   string
		reply  []byte
		want   RegionType
		sparse int
		kind   error
	}{
		{"a type", pack(regionHead(48, RegionFlagCaps, 32, size), typeCap(0, gfx)), gfx, 0, nil},
		{"no type", regionHead(32, 0, 0, size), RegionType{}, 0, nil},
		{"behind areas", pack(regionHead(80, RegionFlagCaps, 32, size), sparseCap(64, area), typeCap(0, gfx)), gfx, 1, nil},
		{"before areas", pack(regionHead(80, RegionFlagCaps, 32, size), typeCap(48, gfx), sparseCap(0, area)), gfx, 1, nil},
		{"the last one counts", pack(regionHead(64, RegionFlagCaps, 32, size), typeCap(48, RegionType{1, 1}), typeCap(0, gfx)), gfx, 0, nil},
		{"inside of another type", pack(regionHead(56, RegionFlagCaps, 32, size), typeCap(40, RegionType{2, 0}), uint64(0)), RegionType{}, 0, ErrRange},
		{"a gap between capabilities", pack(regionHead(56, RegionFlagCaps, 40, size), uint64(0), typeCap(0, gfx)), gfx, 0, nil},
		{"cut by a byte", pack(regionHead(47, RegionFlagCaps, 32, size), typeCap(0, gfx)), RegionType{}, 0, ErrShort},
		{"cut to its header", pack(regionHead(40, RegionFlagCaps, 32, size), typeCap(0, gfx)), RegionType{}, 0, ErrShort},
		{"cut reply: ask again", pack(regionHead(48, RegionFlagCaps, 32, size), typeCap(0, gfx)[:15]), RegionType{}, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := RegionInfo{Type: RegionType{9, 9}}
			err := m.DecodeReply(tt.reply)
			wantError(t, err, CmdGetRegionInfo, tt.kind)
			if err == nil && (m.Type != tt.want || len(m.Sparse) != tt.sparse) {
				t.Errorf("got %+v", m)
			}
		})
	}
}

func TestRegionInfoReplyWithTypeAndAreas(t *testing.T) {
	area, vendor := Area{0x1000, 0x1000}, RegionType{RegionTypePCIVendor | 0x1af4, 1}
	for _, tt := range []struct {
		name  string
		info  RegionInfo
		argsz uint32
		want  []byte
	}{
		{"type", RegionInfo{Size: 0x4000, Type: vendor}, 48,
			pack(regionHead(48, RegionFlagCaps, 32, 0x4000), typeCap(0, vendor))},
		{"a subtype alone is a type", RegionInfo{Size: 0x4000, Type: RegionType{0, 1}}, 48,
			pack(regionHead(48, RegionFlagCaps, 32, 0x4000), typeCap(0, RegionType{0, 1}))},
		{"areas, then type", RegionInfo{Size: 0x4000, Sparse: []Area{area}, Type: vendor}, 80,
			pack(regionHead(80, RegionFlagCaps, 32, 0x4000), sparseCap(64, area), typeCap(0, vendor))},
		{"room for the areas only is no room", RegionInfo{Size: 0x4000, Sparse: []Area{area}, Type: vendor}, 79,
			regionHead(80, RegionFlagCaps, 32, 0x4000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantBytes(t, tt.info.AppendReply(nil, tt.argsz), tt.want)
		})
	}
}
