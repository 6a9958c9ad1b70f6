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
