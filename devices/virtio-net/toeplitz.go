package virtionet

import "encoding/binary"

// toeplitz is the hash function of RSS under one key: for each half byte of the input, the
// part of the sum that its 16 values make. Half bytes, because the tables for the 12 bytes of
// the usual frame then take a small part of the first cache.
type toeplitz [2 * (2*ipv6AddressSize + portsSize)][16]uint32

// newToeplitz makes the tables. A key that is too short goes on with zeros.
func newToeplitz(key []byte) *toeplitz {
	// The window of 32 bits that belongs to bit i of the input is bits i to i+31 of the key.
	var padded [len(toeplitz{})/2 + 8]byte
	copy(padded[:], key)
	t := new(toeplitz)
	for i := range t {
		word := binary.BigEndian.Uint64(padded[i/2:]) << (i % 2 * 4)
		for v := range uint32(16) {
			for bit := range 4 {
				if v&(8>>bit) != 0 {
					t[i][v] ^= uint32(word << bit >> 32)
				}
			}
		}
	}
	return t
}

// sum hashes input, of at most 36 bytes.
func (t *toeplitz) sum(input []byte) (sum uint32) {
	for i, b := range input {
		pair := t[2*i : 2*i+2 : 2*i+2]
		sum ^= pair[0][b>>4] ^ pair[1][b&15]
	}
	return sum
}
