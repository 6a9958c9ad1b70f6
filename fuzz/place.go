package fuzz

import (
	"encoding/binary"

	"vfiouser/codec"
)

// place is an offset in a region.
type place struct {
	region uint32
	offset uint64
}

// exactly is how an input names something that a Step has said, rather than leaving it to
// chance.
const exactly = 0xff

// place chooses where to access the device.
func (l *life) place() place {
	regions := l.r.present
	switch sel := l.s.Uint8(); {
	case sel == exactly:
		return place{uint32(l.s.Uint8()), uint64(l.s.Uint32())}
	case sel < 0xa0:
		return l.r.registers[l.s.Intn(len(l.r.registers))]
	case sel < 0xb0:
		p := l.r.registers[l.s.Intn(len(l.r.registers))]
		p.offset += uint64(int8(l.s.Uint8()))
		return p
	case sel < 0xf0:
		r := regions[l.s.Intn(len(regions))]
		return place{r.Index, l.s.Edge(r.Size)}
	default:
		index := uint32(l.s.Uint8())
		return place{index, l.s.Edge(l.r.shape.region(index).Size)}
	}
}

// width chooses how many bytes to access at a place.
func (l *life) width(p place) uint32 {
	switch sel := l.s.Uint8(); {
	case sel == exactly:
		return uint32(l.s.Uint16())
	case sel < 0xd0:
		return 1 << (sel & 3)
	case sel < 0xf0:
		return uint32(l.s.Intn(65))
	default:
		n := uint32(l.s.Edge(l.r.shape.region(p.region).Size))
		if n > maxPayload && !l.spend(int(min(n, 1<<21))) {
			n &= 63
		}
		return n
	}
}

// data chooses what to write.
func (l *life) data(n uint32) []byte {
	p := make([]byte, n)
	if n > 8 {
		unit := l.s.Bytes(int(min(n, 256)))
		for i := 0; i < len(p); i += len(unit) {
			copy(p[i:], unit)
		}
		return p
	}
	switch sel := l.s.Uint8(); {
	case sel == exactly, sel < 0xa0:
		l.s.Fill(p)
	default:
		var v uint64
		if sel < 0xd0 {
			v = l.guestAddress()
		} else {
			v = l.s.Edge(1 << 32)
		}
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		copy(p, b[:])
	}
	return p
}

// guestAddress is an address in the client's memory, or at its edge.
func (l *life) guestAddress() uint64 {
	if n := len(l.c.maps); n > 0 {
		g := l.c.maps[l.s.Intn(min(n, 256))]
		if sel := l.s.Uint8(); sel < 0xc0 {
			return g.iova + uint64(sel)*4096%max(g.size, 1)
		}
		return g.iova + l.s.Edge(g.size)
	}
	return l.s.Edge(1 << 32)
}

// bits chooses a value that has mostly one or none of some bits.
func (l *life) bits(of ...uint32) uint32 {
	sel := l.s.Uint8()
	if sel >= 0xf0 {
		return l.s.Uint32()
	}
	v := of[int(sel&0xf)%len(of)]
	if sel&0x30 == 0x30 {
		v |= of[int(sel>>6)%len(of)]
	}
	return v
}

// argsz chooses how much room a client says it has.
func (l *life) argsz(usual uint32) uint32 {
	if l.s.Odds(4) {
		return uint32(l.s.Edge(uint64(usual)))
	}
	return usual
}

// flags are a header's: now and then no reply is wanted.
func (l *life) flags() codec.Flags {
	if l.s.Odds(8) {
		return codec.FlagNoReply
	}
	return 0
}
