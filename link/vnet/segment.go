package vnet

import "encoding/binary"

// cutter is a frame on its way to become segments.
type cutter struct {
	packet
	head   []byte // its headers, private
	rest   [][]byte
	at     int  // bytes of rest[0] that are gone
	left   int  // bytes of payload to come
	size   int  // bytes of payload in each segment
	defers bool // the receiver sums
	pseudo Sum  // of the pseudo header, without length
	number uint32
	done   bool
}

// cut prepares f to be cut into segments. defers: the receiver can do the checksums.
func (s *scratch) cut(f *Frame, h Header, defers bool) (c cutter, r Reason) {
	head := s.head[:f.CopyTo(s.head[:], 0)]
	if c.packet, r = parse(head); r != ReasonNone {
		return c, r
	}
	kind, field := h.GSOType&^GSOECN, tcpChecksum
	switch {
	case kind == GSOTCP4 && c.proto == protoTCP && c.ip4:
	case kind == GSOTCP6 && c.proto == protoTCP && !c.ip4:
	case kind == GSOUDPL4 && c.proto == protoUDP:
		field = udpChecksum
	default:
		return c, ReasonProtocol
	}
	c.head, c.defers = head[:c.payload], defers
	c.left, c.size = f.Len-c.payload, int(h.GSOSize)
	longest := c.payload - c.network + min(c.left, c.size)
	if !c.ip4 {
		longest -= ip6Len // which its length does not count
	}
	switch {
	case int(h.ChecksumStart) != c.transport || int(h.ChecksumOffset) != field:
		return c, ReasonChecksumPlace
	case (c.left+c.size-1)/c.size > MaxSegments:
		return c, ReasonSegments
	case longest > 65535:
		return c, ReasonLong
	}
	c.sumPseudo(field)
	c.rest = f.Parts
	c.skip(c.payload)
	return c, ReasonNone
}

// sumPseudo sums the pseudo header but for the length. Where the last destination is hidden
// in a routing header it is what the sender has summed, less the length that it counted.
func (c *cutter) sumPseudo(field int) {
	switch sum := c.head[c.transport+field:]; {
	case c.routed:
		c.pseudo.Add(sum[:2])
		c.pseudo.AddUint16(^uint16(len(c.head) - c.transport + c.left))
		return
	case c.ip4:
		c.pseudo.Add(c.head[c.network+ip4Source:][:8])
	default:
		c.pseudo.Add(c.head[c.network+ip6Source:][:32])
	}
	c.pseudo.AddUint16(uint16(c.proto))
}

// skip leaves n bytes of the frame behind.
func (c *cutter) skip(n int) {
	c.at += n
	for len(c.rest) > 0 && c.at >= len(c.rest[0]) {
		c.at -= len(c.rest[0])
		c.rest = c.rest[1:]
	}
}

// fits tells whether there is room for one more segment. There always is in an empty scratch.
func (s *scratch) fits(c *cutter) bool {
	need := len(c.head)
	if !c.defers {
		need += min(c.left, c.size)
	}
	return s.n < batch && s.used+need <= len(s.data)
}

// segment makes the next one.
func (s *scratch) segment(c *cutter) {
	n, first := min(c.left, c.size), len(s.parts)
	head := s.take(len(c.head))
	copy(head, c.head)
	c.left -= n
	c.done = c.left == 0
	c.patch(head, n)
	h := Header{}
	if c.defers {
		h = c.deferChecksum(head, n)
		s.parts = append(s.parts, head)
		for n := n; n > 0; {
			p := c.rest[0][c.at:]
			p = p[:min(n, len(p))]
			s.parts = append(s.parts, p)
			c.skip(len(p))
			n -= len(p)
		}
	} else {
		payload := s.take(n)
		for n := 0; n < len(payload); {
			k := copy(payload[n:], c.rest[0][c.at:])
			c.skip(k)
			n += k
		}
		whole := s.data[s.used-n-len(head) : s.used]
		c.putChecksum(whole, n)
		s.parts = append(s.parts, whole)
	}
	s.add(h, first, len(head)+n)
	c.number++
}

// patch makes head that of the next segment, which has n bytes of payload, but for the
// checksum of the transport. number and done are those of this segment.
func (c *cutter) patch(head []byte, n int) {
	ip, transport := head[c.network:], head[c.transport:]
	if c.ip4 {
		binary.BigEndian.PutUint16(ip[ip4TotalLen:], uint16(len(ip)+n))
		binary.BigEndian.PutUint16(ip[ip4ID:], binary.BigEndian.Uint16(ip[ip4ID:])+uint16(c.number))
		binary.BigEndian.PutUint16(ip[ip4Checksum:], 0)
		var sum Sum
		sum.Add(ip[:c.transport-c.network])
		binary.BigEndian.PutUint16(ip[ip4Checksum:], sum.Checksum())
	} else {
		binary.BigEndian.PutUint16(ip[ip6Payload:], uint16(len(ip)-ip6Len+n))
	}
	if c.proto == protoUDP {
		binary.BigEndian.PutUint16(transport[udpLength:], uint16(udpLen+n))
		return
	}
	const fin, psh, cwr = 1, 8, 0x80
	sequence := binary.BigEndian.Uint32(transport[tcpSequence:]) + c.number*uint32(c.size)
	binary.BigEndian.PutUint32(transport[tcpSequence:], sequence)
	if !c.done {
		transport[tcpFlags] &^= fin | psh
	}
	if c.number > 0 {
		transport[tcpFlags] &^= cwr
	}
}

// field is where the transport's checksum is, from the frame's start.
func (c *cutter) field() int {
	if c.proto == protoUDP {
		return c.transport + udpChecksum
	}
	return c.transport + tcpChecksum
}

// sum is that of the pseudo header of a segment with n bytes of payload.
func (c *cutter) sum(n int) Sum {
	sum := c.pseudo
	sum.AddUint16(uint16(len(c.head) - c.transport + n))
	return sum
}

// deferChecksum leaves the checksum to the receiver.
func (c *cutter) deferChecksum(head []byte, n int) Header {
	sum := c.sum(n)
	binary.BigEndian.PutUint16(head[c.field():], sum.Folded())
	return Header{
		Flags:          FlagNeedsChecksum,
		HeaderLen:      uint16(len(head)),
		ChecksumStart:  uint16(c.transport),
		ChecksumOffset: uint16(c.field() - c.transport),
	}
}

// putChecksum computes it over a whole segment with n bytes of payload.
func (c *cutter) putChecksum(whole []byte, n int) {
	sum := c.sum(n)
	binary.BigEndian.PutUint16(whole[c.field():], 0)
	sum.Add(whole[c.transport:])
	binary.BigEndian.PutUint16(whole[c.field():], sum.finished())
}
