package vnet

import (
	"encoding/binary"
	"math/bits"
)

// Sum is the Internet checksum of bytes that come in pieces of any length (RFC 1071). The
// zero value has summed nothing.
type Sum struct {
	sum uint64 // ones' complement; bytes of even positions are the lower ones of its words
	odd bool   // an odd number of bytes was added
}

// Add sums p, which follows what was added before.
func (s *Sum) Add(p []byte) {
	sum := sumBytes(p)
	if s.odd {
		sum = bits.RotateLeft64(sum, 8)
	}
	s.sum = add(s.sum, sum)
	s.odd = s.odd != (len(p)&1 != 0)
}

// AddUint16 sums a number as it would stand in the packet. The bytes before it are even in
// number.
func (s *Sum) AddUint16(v uint16) { s.sum = add(s.sum, uint64(bits.ReverseBytes16(v))) }

// Folded returns the sum itself, which is what stands in the checksum field of a packet
// whose sum is still to be finished.
func (s *Sum) Folded() uint16 {
	v := s.sum>>32 + s.sum&0xffff_ffff // 33 bits
	v = v>>32 + v&0xffff_ffff
	v = v>>16 + v&0xffff // 17 bits
	v = v>>16 + v&0xffff
	return bits.ReverseBytes16(uint16(v))
}

// Checksum returns the complement of the sum, which is what stands in a finished packet.
func (s *Sum) Checksum() uint16 { return ^s.Folded() }

// finished is the checksum as UDP sends it, for which 0 means that there is none. To all
// others both values are the same.
func (s *Sum) finished() uint16 {
	if c := s.Checksum(); c != 0 {
		return c
	}
	return 0xffff
}

// add is ones' complement addition.
func add(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	return sum + carry
}

// sumBytes sums p as 64-bit words. What is modulo 1<<64-1 here is so modulo 1<<16-1, too.
func sumBytes(p []byte) uint64 {
	var sum, c uint64
	for len(p) >= 64 {
		w := p[:64]
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[0:]), c)
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[8:]), c)
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[16:]), c)
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[24:]), c)
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[32:]), c)
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[40:]), c)
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[48:]), c)
		sum, c = bits.Add64(sum, binary.LittleEndian.Uint64(w[56:]), c)
		p = p[64:]
	}
	sum = add(sum, c)
	for len(p) >= 8 {
		sum = add(sum, binary.LittleEndian.Uint64(p))
		p = p[8:]
	}
	var last [8]byte
	copy(last[:], p)
	return add(sum, binary.LittleEndian.Uint64(last[:]))
}
