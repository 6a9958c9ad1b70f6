package vnet

import "encoding/binary"

// HeaderSize is the size of a Header in bytes, with the number of buffers.
const HeaderSize = 12

// Flags of a Header (5.1.6).
const (
	FlagNeedsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	FlagDataValid     = 2 // VIRTIO_NET_HDR_F_DATA_VALID
)

// Kinds of segmentation (5.1.6).
const (
	GSONone  = 0
	GSOTCP4  = 1
	GSOTCP6  = 4
	GSOUDPL4 = 5    // UDP, each segment a datagram of its own (USO)
	GSOECN   = 0x80 // or-ed to a TCP kind
)

// MaxFrame is the most bytes that a frame may have: an IPv6 packet as long as one can be
// behind an Ethernet header with two VLAN tags.
const MaxFrame = etherLen + 2*tagLen + ip6Len + 65535

// Header says what is left to be done to a frame. The zero value is a complete frame.
type Header struct {
	Flags          uint8
	GSOType        uint8
	HeaderLen      uint16 // bytes of headers to be repeated in each segment; a hint
	GSOSize        uint16 // bytes of payload in each segment
	ChecksumStart  uint16 // first byte to be summed
	ChecksumOffset uint16 // where the sum goes, bytes behind ChecksumStart
}

// Get reads the first 10 bytes of p.
func (h *Header) Get(p []byte) {
	p = p[:10]
	h.Flags, h.GSOType = p[0], p[1]
	h.HeaderLen = binary.LittleEndian.Uint16(p[2:])
	h.GSOSize = binary.LittleEndian.Uint16(p[4:])
	h.ChecksumStart = binary.LittleEndian.Uint16(p[6:])
	h.ChecksumOffset = binary.LittleEndian.Uint16(p[8:])
}

// Put writes HeaderSize bytes to p. buffers is the number of receive buffers that the
// frame takes (num_buffers).
func (h *Header) Put(p []byte, buffers uint16) {
	p = p[:HeaderSize]
	p[0], p[1] = h.Flags, h.GSOType
	binary.LittleEndian.PutUint16(p[2:], h.HeaderLen)
	binary.LittleEndian.PutUint16(p[4:], h.GSOSize)
	binary.LittleEndian.PutUint16(p[6:], h.ChecksumStart)
	binary.LittleEndian.PutUint16(p[8:], h.ChecksumOffset)
	binary.LittleEndian.PutUint16(p[10:], buffers)
}

// Clean makes a header that came from outside fit to be handed on with its frame of length
// bytes: what does not belong into a request is taken out, FlagDataValid included (5.1.6.2.1:
// a driver cannot vouch for a frame), and the hint HeaderLen is brought into the frame. A
// header that lies about the frame is a reason to drop both. The frame's content is not
// looked at: Lower does that, and so does every receiver.
func (h *Header) Clean(length int) Reason {
	switch {
	case length < etherLen:
		return ReasonShort
	case length > MaxFrame:
		return ReasonLong
	case h.Flags&FlagNeedsChecksum == 0:
		if h.GSOType != GSONone {
			return ReasonNoChecksum
		}
		*h = Header{}
		return ReasonNone
	}
	h.Flags = FlagNeedsChecksum
	switch h.GSOType {
	case GSONone:
		h.GSOSize = 0
	case GSOTCP4, GSOTCP6, GSOTCP4 | GSOECN, GSOTCP6 | GSOECN, GSOUDPL4:
		if h.GSOSize == 0 {
			return ReasonSize
		}
	default:
		return ReasonKind
	}
	if h.ChecksumStart < etherLen || int(h.ChecksumStart)+int(h.ChecksumOffset)+2 > length {
		return ReasonChecksumRange
	}
	h.HeaderLen = uint16(min(int(h.HeaderLen), length))
	return ReasonNone
}

// Needs is what a receiver must be able to finish to get the frame as it is. Which version of
// IP a UDP frame has is not known without a look at it: it needs both.
func (h *Header) Needs() Offloads {
	if h.Flags&FlagNeedsChecksum == 0 && h.GSOType == GSONone {
		return OffloadNone
	}
	needs := OffloadChecksum
	switch h.GSOType &^ GSOECN {
	case GSOTCP4:
		needs |= OffloadTSO4
	case GSOTCP6:
		needs |= OffloadTSO6
	case GSOUDPL4:
		needs |= OffloadUSO4 | OffloadUSO6
	}
	if h.GSOType&GSOECN != 0 {
		needs |= OffloadECN
	}
	return needs
}
