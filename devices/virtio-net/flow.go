package virtionet

import (
	"encoding/binary"

	"vfiouser/link/vnet"
)

// headSize is how much of a frame is looked at: room for two VLAN tags, IPv6 with a few
// extension headers, and ports.
const headSize = 128

// head is the beginning of a frame in private memory: what is decided by it was read once.
type head struct {
	n    int // bytes
	data [headSize]byte
}

// read takes the beginning of a frame, as far as it fits.
func (h *head) read(f *vnet.Frame) {
	h.n = 0
	for _, part := range f.Parts {
		h.n += copy(h.data[h.n:], part)
		if h.n == headSize {
			return
		}
	}
}

const (
	macSize   = 6
	etherSize = 14 // two addresses and the type
	vlanSize  = 4

	typeIPv4  = 0x0800
	typeIPv6  = 0x86dd
	typeVLAN  = 0x8100
	typeQinQ  = 0x88a8
	protoTCP  = 6
	protoUDP  = 17
	ipv4Size  = 20
	ipv6Size  = 40
	maxVLANs  = 2
	portsSize = 4
)

// Extension headers of IPv6 (RFC 8200, 4).
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAuth        = 51
	extDestination = 60

	routingType2    = 2    // RFC 6275, 6.4
	optionPad1      = 0    // RFC 8200, 4.2
	optionHomeAddr  = 0xc9 // RFC 6275, 6.3
	ipv6AddressSize = 16
)

// flow is what a hash is made of: the addresses and ports of a frame.
type flow struct {
	proto uint8 // protoTCP or protoUDP if there are ports, else 0
	addr  int   // bytes of an address: 4, 16, or 0 for what is not IP
	ext   bool  // IPv6 with extension headers
	// input is the source and destination address and, if there are, ports, as they are hashed.
	input [2*ipv6AddressSize + portsSize]byte
	// mobile is the same with the addresses that extension headers give, for ext.
	mobile [2*ipv6AddressSize + portsSize]byte
}

// size is how many bytes of input are hashed, with or without ports.
func (f *flow) size(ports bool) int {
	if ports {
		return 2*f.addr + portsSize
	}
	return 2 * f.addr
}

// parse finds the flow of a frame. What is cut short has no ports, or no addresses.
func (f *flow) parse(h *head) {
	f.proto, f.addr, f.ext = 0, 0, false
	p := h.data[:h.n]
	if len(p) < etherSize {
		return
	}
	kind := binary.BigEndian.Uint16(p[2*macSize:])
	p = p[etherSize:]
	for range maxVLANs {
		if kind != typeVLAN && kind != typeQinQ || len(p) < vlanSize {
			break
		}
		kind = binary.BigEndian.Uint16(p[2:])
		p = p[vlanSize:]
	}
	switch {
	case kind == typeIPv4 && len(p) >= ipv4Size:
		f.ipv4(p)
	case kind == typeIPv6 && len(p) >= ipv6Size:
		f.ipv6(p)
	}
}

func (f *flow) ipv4(p []byte) {
	size := int(p[0]&0xf) * 4
	if p[0]>>4 != 4 || size < ipv4Size {
		return
	}
	f.addr = 4
	copy(f.input[:8], p[12:20])
	const fragment = 0x3fff // more fragments, or an offset: only the first has ports, so none counts
	if binary.BigEndian.Uint16(p[6:])&fragment != 0 || len(p) < size {
		return
	}
	f.ports(p[9], p[size:])
}

// ports takes those of TCP and UDP.
func (f *flow) ports(proto uint8, p []byte) {
	if proto != protoTCP && proto != protoUDP || len(p) < portsSize {
		return
	}
	f.proto = proto
	at := 2 * f.addr
	copy(f.input[at:at+portsSize], p)
	copy(f.mobile[at:at+portsSize], p)
}

func (f *flow) ipv6(p []byte) {
	if p[0]>>4 != 6 {
		return
	}
	f.addr = ipv6AddressSize
	copy(f.input[:2*ipv6AddressSize], p[8:ipv6Size])
	next := p[6]
	p = p[ipv6Size:]
	for {
		size := 8
		switch next {
		case extHopByHop, extRouting, extDestination, extAuth, extFragment:
		default:
			f.ports(next, p)
			return
		}
		if !f.ext {
			f.ext, f.mobile = true, f.input
		}
		if len(p) < 8 {
			return
		}
		switch next {
		case extAuth:
			size = 4 * (int(p[1]) + 2)
		case extFragment:
			if binary.BigEndian.Uint16(p[2:])&^6 != 0 {
				return // as for IPv4
			}
		default:
			size = 8 * (int(p[1]) + 1)
		}
		if len(p) < size {
			return
		}
		f.addresses(next, p[:size])
		next, p = p[0], p[size:]
	}
}

// addresses takes the address that an extension header has for the hash (5.1.6.4.3.4).
func (f *flow) addresses(kind uint8, ext []byte) {
	switch {
	case kind == extRouting && ext[2] == routingType2 && len(ext) >= 8+ipv6AddressSize:
		copy(f.mobile[ipv6AddressSize:2*ipv6AddressSize], ext[8:])
	case kind == extDestination:
		for opt := ext[2:]; len(opt) >= 2; {
			if opt[0] == optionPad1 {
				opt = opt[1:]
				continue
			}
			size := 2 + int(opt[1])
			if len(opt) < size {
				return
			}
			if opt[0] == optionHomeAddr && size == 2+ipv6AddressSize {
				copy(f.mobile[:ipv6AddressSize], opt[2:])
				return
			}
			opt = opt[size:]
		}
	}
}
