package codec

import (
	"encoding/binary"
	"reflect"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzCapabilities: a GET_REGION_INFO reply is what the oracle takes it for, whatever capabilities
// it has: in any order, with gaps, cut, in one another, or linked round in circles.
//
//fuzz:covers codec/regioninfo.go
func FuzzCapabilities(f *testing.F) {
	choice.Fuzz(f, 100, 300, func(t *testing.T, s *choice.Source) {
		payload := capabilityList(s)
		checkOracle(t, formOf("GET_REGION_INFO reply"), payload)
		checkStable(t, "GET_REGION_INFO reply", payload)
	})
}

// capabilityList is a reply whose capabilities are right but for one thing in many.
func capabilityList(s *choice.Source) []byte {
	size := s.Edge(1 << 20)
	b := make([]byte, RegionInfoSize)
	at := []int{0} // where capabilities stand, the first one in place of the structure
	for i := 0; i < 8 && s.More(); i++ {
		b = append(b, make([]byte, 8*(s.Intn(8)/7))...)
		at = append(at, len(b))
		id := choice.Pick[uint16](s, capSparseMmap, capSparseMmap, capType, 3)
		b = pack(b, id, uint16(1), uint32(0))
		switch id {
		case capSparseMmap:
			n := s.Intn(5)
			said := uint64(n)
			if s.Odds(32) {
				said = s.Edge(said)
			}
			b = pack(b, uint32(said), uint32(0))
			for range n {
				b = pack(b, anyArea(s, size))
			}
		case capType:
			b = pack(b, s.Uint32(), s.Uint32())
		}
	}
	for i, off := range at {
		link := 0
		if i+1 < len(at) {
			link = at[i+1]
		}
		switch s.Intn(32) {
		case 29:
			link = int(s.Edge(uint64(len(b))))
		case 30:
			link = choice.Pick(s, at...) + choice.Pick(s, 8, 16, 32, 4)
		case 31:
			link = choice.Pick(s, at...)
		}
		field := off + 4
		if off == 0 {
			field = 12 // CapOffset
		}
		binary.NativeEndian.PutUint32(b[field:], uint32(link))
	}
	argsz := uint64(len(b))
	if s.Odds(32) {
		argsz = s.Edge(argsz)
	}
	copy(b, pack(uint32(argsz), uint32(RegionFlagCaps)))
	binary.NativeEndian.PutUint64(b[16:], size)
	return b
}

// anyArea is one that lies in a region, mostly; as a capability it would be one of those above.
func anyArea(s *choice.Source, size uint64) []byte {
	switch s.Intn(16) {
	case 13:
		return pack(s.Edge(size), s.Edge(size))
	case 14, 15:
		return pack(uint64(1+s.Intn(2)), uint64(s.Intn(3)))
	}
	off := min(s.Edge(size), size)
	return pack(off, min(s.Edge(size-off), size-off))
}

// FuzzReplyRoom: a reply that was built is as long as it says and reads as the same; where the
// request has no room for it, it is cut to what says how much there has to be.
//
//fuzz:covers codec/regioninfo.go codec/iofds.go
func FuzzReplyRoom(f *testing.F) {
	choice.Fuzz(f, 60, 300, func(t *testing.T, s *choice.Source) {
		if s.Bool() {
			regionInfoRoom(t, s)
		} else {
			ioFDsRoom(t, s)
		}
	})
}

func regionInfoRoom(t *testing.T, s *choice.Source) {
	t.Helper()
	m := RegionInfo{Flags: RegionFlags(s.Intn(16)), Index: s.Uint32(), Size: s.Edge(1 << 40), Offset: s.Uint64(), CapOffset: s.Uint32()}
	whole := RegionInfoSize
	for range s.Intn(12) {
		off := min(s.Edge(m.Size), m.Size)
		m.Sparse = append(m.Sparse, Area{off, min(s.Edge(m.Size-off), m.Size-off)})
	}
	if n := len(m.Sparse); n > 0 {
		whole += 16 + 16*n
	}
	if s.Bool() {
		m.Type = RegionType{1 + s.Uint32()>>1, s.Uint32()}
		whole += 16
	}
	room := s.Edge(uint64(whole))
	b := m.AppendReply(nil, uint32(room))
	var got RegionInfo
	if err := got.DecodeReply(b); err != nil {
		t.Fatalf("%+v: %v", m, err)
	}
	if whole > RegionInfoSize && uint64(uint32(room)) < uint64(whole) {
		if len(b) != RegionInfoSize || !got.Truncated(len(b)) || got.ArgSz != uint32(whole) || got.Sparse != nil || got.Type != (RegionType{}) {
			t.Fatalf("%d bytes for %d of %d: %+v", len(b), uint32(room), whole, got)
		}
		return
	}
	if len(b) != whole || got.Truncated(len(b)) || !reflect.DeepEqual(got, m) {
		t.Fatalf("%d bytes, want %d: %+v, want %+v", len(b), whole, got, m)
	}
	checkOracle(t, formOf("GET_REGION_INFO reply"), b)
}

func ioFDsRoom(t *testing.T, s *choice.Source) {
	t.Helper()
	m := IOFDs{Index: s.Uint32()}
	each := 40
	for range s.Intn(8) {
		r := IOFD{Offset: s.Uint64(), Size: s.Edge(8), FDIndex: s.Uint32(), Type: IOFDType(s.Intn(4)), Flags: s.Uint32(), Data: s.Uint64()}
		if r.Type == IOEventfdShadow {
			each = 48
			r.ShadowFDIndex, r.ShadowOffset = s.Uint32(), s.Uint64()
		}
		m.Regions = append(m.Regions, r)
	}
	whole := 16 + each*len(m.Regions)
	room := s.Edge(uint64(whole))
	b := m.AppendReply(nil, uint32(room))
	var got IOFDs
	if err := got.DecodeReply(b); err != nil {
		t.Fatalf("%+v: %v", m, err)
	}
	if whole > IOFDsSize && uint64(uint32(room)) < uint64(whole) {
		if len(b) != IOFDsSize || !got.Truncated(len(b)) || got.ArgSz != uint32(whole) || int(got.Count) != len(m.Regions) || got.Regions != nil {
			t.Fatalf("%d bytes for %d of %d: %+v", len(b), uint32(room), whole, got)
		}
		return
	}
	if len(b) != whole || got.Truncated(len(b)) || !reflect.DeepEqual(got, m) {
		t.Fatalf("%d bytes, want %d: %+v, want %+v", len(b), whole, got, m)
	}
	checkOracle(t, formOf("GET_REGION_IO_FDS reply"), b)
}
