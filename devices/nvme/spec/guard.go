package spec

import (
	"encoding/binary"
	"math/bits"
)

// Polynomials of the guards: CRC-16 T10-DIF, most significant bit first, and CRC-64/NVME,
// which is reflected (NVM command set 1.0, 5.2.1.1 and 5.2.1.3.4).
const (
	crc16Poly = 0x8bb7
	crc64Poly = 0xad93d23594c93659
)

// Table k has what a byte does that k more bytes follow, so that eight bytes are taken at
// a time.
var (
	crc16Table = makeCRC16()
	crc64Table = makeCRC64()
)

func makeCRC16() (t [8][256]uint16) {
	for i := range t[0] {
		crc := uint16(i) << 8
		for range 8 {
			top := crc >> 15
			crc = crc<<1 ^ top*crc16Poly
		}
		t[0][i] = crc
	}
	for k := 1; k < len(t); k++ {
		for i, crc := range t[k-1] {
			t[k][i] = crc<<8 ^ t[0][crc>>8]
		}
	}
	return t
}

func makeCRC64() (t [8][256]uint64) {
	poly := bits.Reverse64(crc64Poly)
	for i := range t[0] {
		crc := uint64(i)
		for range 8 {
			crc = crc>>1 ^ crc&1*poly
		}
		t[0][i] = crc
	}
	for k := 1; k < len(t); k++ {
		for i, crc := range t[k-1] {
			t[k][i] = crc>>8 ^ t[0][crc&0xff]
		}
	}
	return t
}

// crc16 goes on with a CRC-16 T10-DIF; the first one is 0.
func crc16(crc uint16, p []byte) uint16 {
	t := &crc16Table
	for len(p) >= 8 {
		w := binary.BigEndian.Uint64(p) ^ uint64(crc)<<48
		crc = t[7][w>>56] ^ t[6][w>>48&0xff] ^ t[5][w>>40&0xff] ^ t[4][w>>32&0xff] ^
			t[3][w>>24&0xff] ^ t[2][w>>16&0xff] ^ t[1][w>>8&0xff] ^ t[0][w&0xff]
		p = p[8:]
	}
	for _, b := range p {
		crc = crc<<8 ^ t[0][byte(crc>>8)^b]
	}
	return crc
}

// crc64 goes on with the register of a CRC-64/NVME, which is inverted before and after.
func crc64(crc uint64, p []byte) uint64 {
	t := &crc64Table
	for len(p) >= 8 {
		w := binary.LittleEndian.Uint64(p) ^ crc
		crc = t[7][w&0xff] ^ t[6][w>>8&0xff] ^ t[5][w>>16&0xff] ^ t[4][w>>24&0xff] ^
			t[3][w>>32&0xff] ^ t[2][w>>40&0xff] ^ t[1][w>>48&0xff] ^ t[0][w>>56]
		p = p[8:]
	}
	for _, b := range p {
		crc = crc>>8 ^ t[0][byte(crc)^b]
	}
	return crc
}
