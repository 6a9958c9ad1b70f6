package virtionet

import (
	"encoding/binary"
	"net/netip"

	"vfiouser/link/vnet"
)

// packet describes a frame to be made for a test.
type packet struct {
	dst, src     string // MAC addresses; there are defaults
	vlan         int    // -1 and 0: no tag
	from, to     string // address and port
	proto        uint8
	exts         []ext // of IPv6
	fragment     uint16
	payload      int
	ip4Options   int // 32-bit words
	kind         uint16
	truncateTo   int
	doubleTagged bool
}

// ext is an extension header without its first two bytes; its length follows.
type ext struct {
	kind uint8
	body []byte
}

// mac is an address of six bytes that ends in last.
func mac(last byte) [6]byte { return [6]byte{2, 0, 0, 0, 0, last} }

// frame makes the frame.
func (p packet) frame() []byte {
	dst, src := mac(1), mac(2)
	b := append(append([]byte{}, dst[:]...), src[:]...)
	if p.dst != "" {
		copy(b, p.dst)
	}
	if p.src != "" {
		copy(b[macSize:], p.src)
	}
	if p.doubleTagged {
		b = binary.BigEndian.AppendUint16(b, typeQinQ)
		b = binary.BigEndian.AppendUint16(b, 77)
	}
	if p.vlan > 0 {
		b = binary.BigEndian.AppendUint16(b, typeVLAN)
		b = binary.BigEndian.AppendUint16(b, uint16(p.vlan))
	}
	if p.from == "" {
		b = binary.BigEndian.AppendUint16(b, max(p.kind, 1))
		return append(b, make([]byte, p.payload)...)
	}
	from, to := netip.MustParseAddrPort(p.from), netip.MustParseAddrPort(p.to)
	var l4 []byte
	l4 = binary.BigEndian.AppendUint16(l4, from.Port())
	l4 = binary.BigEndian.AppendUint16(l4, to.Port())
	l4 = append(l4, make([]byte, 16+p.payload)...)
	if from.Addr().Is4() {
		b = binary.BigEndian.AppendUint16(b, typeIPv4)
		ip := make([]byte, ipv4Size+4*p.ip4Options)
		ip[0] = 0x40 | byte(len(ip)/4)
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(l4)))
		binary.BigEndian.PutUint16(ip[6:], p.fragment)
		ip[8], ip[9] = 64, p.proto
		copy(ip[12:], from.Addr().AsSlice())
		copy(ip[16:], to.Addr().AsSlice())
		b = append(append(b, ip...), l4...)
	} else {
		b = binary.BigEndian.AppendUint16(b, typeIPv6)
		ip := make([]byte, ipv6Size)
		ip[0], ip[6], ip[7] = 0x60, p.proto, 64
		copy(ip[8:], from.Addr().AsSlice())
		copy(ip[24:], to.Addr().AsSlice())
		if len(p.exts) > 0 {
			ip[6] = p.exts[0].kind
		}
		var tail []byte
		for i, e := range p.exts {
			size := (2 + len(e.body) + 7) / 8 * 8
			h := make([]byte, size)
			h[1] = byte(size/8 - 1)
			if e.kind == extFragment {
				h[1] = 0
			}
			copy(h[2:], e.body)
			h[0] = p.proto
			if i+1 < len(p.exts) {
				h[0] = p.exts[i+1].kind
			}
			tail = append(tail, h...)
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(len(tail)+len(l4)))
		b = append(append(append(b, ip...), tail...), l4...)
	}
	if p.truncateTo > 0 {
		b = b[:p.truncateTo]
	}
	return b
}

// cut makes a frame of parts of the given sizes, the last with what remains.
func cut(data []byte, sizes ...int) vnet.Frame {
	f := vnet.Frame{Len: len(data)}
	for _, n := range sizes {
		n = min(n, len(data))
		f.Parts = append(f.Parts, data[:n:n])
		data = data[n:]
	}
	f.Parts = append(f.Parts, data)
	return f
}

// headOf reads the beginning of a frame.
func headOf(data []byte) *head {
	f := cut(data)
	h := &head{}
	h.read(&f)
	return h
}
