package spec

import "encoding/binary"

// Sizes of a source range of Copy in format 0, for guards of 16 bits, and in format 1.
const (
	CopyRangeSize   = 32
	CopyRange64Size = 40
)

// CopyRange is a source range of Copy (NVM command set 1.0, figures 34 and 35).
type CopyRange struct {
	LBA    uint64
	Blocks uint32 // 1 to 65,536

	// What the protection information is expected to be.
	Space           uint64 // storage tag and initial reference tag
	AppTag, AppMask uint16
}

// Put writes the 32 bytes of the range in format 0.
func (r *CopyRange) Put(b []byte) {
	b = b[:CopyRangeSize]
	r.putBlocks(b)
	binary.LittleEndian.PutUint32(b[24:], uint32(r.Space))
	r.putTags(b[28:])
}

// Get reads the 32 bytes of the range in format 0.
func (r *CopyRange) Get(b []byte) {
	b = b[:CopyRangeSize]
	r.getBlocks(b)
	r.Space = uint64(binary.LittleEndian.Uint32(b[24:]))
	r.getTags(b[28:])
}

// Put64 writes the 40 bytes of the range in format 1, where the tags are big-endian.
func (r *CopyRange) Put64(b []byte) {
	b = b[:CopyRange64Size]
	r.putBlocks(b)
	binary.BigEndian.PutUint64(b[28:], r.Space)
	r.putTags(b[36:])
}

// Get64 reads the 40 bytes of the range in format 1, of whose tags a guard of 64 bits has
// the last 48 bits.
func (r *CopyRange) Get64(b []byte) {
	b = b[:CopyRange64Size]
	r.getBlocks(b)
	r.Space = binary.BigEndian.Uint64(b[28:]) & (1<<48 - 1)
	r.getTags(b[36:])
}

func (r *CopyRange) putBlocks(b []byte) {
	clear(b)
	binary.LittleEndian.PutUint64(b[8:], r.LBA)
	binary.LittleEndian.PutUint16(b[16:], uint16(r.Blocks-1))
}

func (r *CopyRange) getBlocks(b []byte) {
	r.LBA = binary.LittleEndian.Uint64(b[8:])
	r.Blocks = uint32(binary.LittleEndian.Uint16(b[16:])) + 1
}

func (r *CopyRange) putTags(b []byte) {
	binary.LittleEndian.PutUint16(b, r.AppTag)
	binary.LittleEndian.PutUint16(b[2:], r.AppMask)
}

func (r *CopyRange) getTags(b []byte) {
	r.AppTag, r.AppMask = binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:])
}
