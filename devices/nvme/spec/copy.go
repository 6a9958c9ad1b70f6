package spec

import "encoding/binary"

// CopyRangeSize is the size of a source range of Copy in format 0.
const CopyRangeSize = 32

// CopyRange is a source range of Copy in format 0 (NVM command set 1.0, figure 37)
// without its protection information.
type CopyRange struct {
	LBA    uint64
	Blocks uint32 // 1 to 65,536
}

// Put writes the 32 bytes of the range.
func (r *CopyRange) Put(b []byte) {
	b = b[:CopyRangeSize]
	clear(b)
	binary.LittleEndian.PutUint64(b[8:], r.LBA)
	binary.LittleEndian.PutUint16(b[16:], uint16(r.Blocks-1))
}

// Get reads the 32 bytes of the range.
func (r *CopyRange) Get(b []byte) {
	b = b[:CopyRangeSize]
	r.LBA = binary.LittleEndian.Uint64(b[8:])
	r.Blocks = uint32(binary.LittleEndian.Uint16(b[16:])) + 1
}
