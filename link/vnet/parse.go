package vnet

import "encoding/binary"

// Lengths of headers, bytes.
const (
	etherLen = 14
	tagLen   = 4 // IEEE 802.1Q
	ip4Len   = 20
	ip6Len   = 40
	udpLen   = 8
	tcpLen   = 20
)

// Values of EtherType and of IP's protocol field.
const (
	etherIP4  = 0x0800
	etherIP6  = 0x86dd
	etherTag  = 0x8100 // customer VLAN
	etherSTag = 0x88a8 // service VLAN, the outer one of two (QinQ)

	protoHopByHop    = 0
	protoTCP         = 6
	protoUDP         = 17
	protoRouting     = 43
	protoFragment    = 44
	protoDestination = 60
)

// Where the fields are that segmentation changes.
const (
	ip4TotalLen = 2
	ip4ID       = 4
	ip4Fragment = 6
	ip4Checksum = 10
	ip4Source   = 12 // and the destination behind it
	ip6Payload  = 4
	ip6Source   = 8 // and the destination behind it
	tcpSequence = 4
	tcpOffset   = 12
	tcpFlags    = 13
	tcpChecksum = 16
	udpLength   = 4
	udpChecksum = 6
)

// packet is what the headers of a TCP or UDP packet say.
type packet struct {
	ip4       bool
	proto     uint8 // protoTCP or protoUDP
	routed    bool  // a routing header: the last destination is not in the IPv6 header
	network   int   // where the IP header begins, bytes from the frame's start
	transport int   // where the TCP or UDP header begins
	payload   int   // where it ends
}

// parse reads the headers in b, which is private memory.
func parse(b []byte) (p packet, r Reason) {
	if len(b) < etherLen {
		return p, ReasonShort
	}
	kind := binary.BigEndian.Uint16(b[etherLen-2:])
	p.network = etherLen
	for tags := 0; tags < 2 && (kind == etherTag || kind == etherSTag); tags++ {
		if len(b) < p.network+tagLen {
			return p, ReasonHeaders
		}
		kind = binary.BigEndian.Uint16(b[p.network+2:])
		p.network += tagLen
	}
	switch kind {
	case etherIP4:
		r = p.parseIP4(b)
	case etherIP6:
		r = p.parseIP6(b)
	default:
		return p, ReasonProtocol
	}
	if r != ReasonNone {
		return p, r
	}
	switch rest := b[p.transport:]; p.proto {
	case protoTCP:
		if len(rest) < tcpLen {
			return p, ReasonHeaders
		}
		words := int(rest[tcpOffset] >> 4)
		if 4*words < tcpLen || 4*words > len(rest) {
			return p, ReasonHeaders
		}
		p.payload = p.transport + 4*words
	case protoUDP:
		if len(rest) < udpLen {
			return p, ReasonHeaders
		}
		p.payload = p.transport + udpLen
	default:
		return p, ReasonProtocol
	}
	return p, ReasonNone
}

func (p *packet) parseIP4(b []byte) Reason {
	ip := b[p.network:]
	if len(ip) < ip4Len || ip[0]>>4 != 4 {
		return ReasonHeaders
	}
	n := 4 * int(ip[0]&15)
	if n < ip4Len || n > len(ip) {
		return ReasonHeaders
	}
	if binary.BigEndian.Uint16(ip[ip4Fragment:])&0x3fff != 0 {
		return ReasonFragment
	}
	p.ip4, p.proto, p.transport = true, ip[9], p.network+n
	return ReasonNone
}

func (p *packet) parseIP6(b []byte) Reason {
	ip := b[p.network:]
	if len(ip) < ip6Len || ip[0]>>4 != 6 {
		return ReasonHeaders
	}
	next, at := ip[6], ip6Len
	for next == protoHopByHop || next == protoRouting || next == protoDestination {
		if len(ip) < at+8 {
			return ReasonHeaders
		}
		p.routed = p.routed || next == protoRouting && ip[at+3] != 0 // segments left
		next, at = ip[at], at+8+8*int(ip[at+1])
	}
	switch {
	case next == protoFragment:
		return ReasonFragment
	case at > len(ip):
		return ReasonHeaders
	}
	p.proto, p.transport = next, p.network+at
	return ReasonNone
}
