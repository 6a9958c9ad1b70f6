package nvme

import (
	"encoding/binary"
	"math/bits"
)

const (
	pageSize  = 4096 // CC.MPS 0
	pageShift = 12
	// maxSlot is the largest buffer that one PRP list without chaining describes, rounded down to a power of two.
	maxSlot = pageSize / 8 * pageSize
)

// prepareSlots allocates the buffers of a queue and writes a PRP list for each that is longer than two pages, once: a
// transfer uses as much of it as it needs.
func (q *Queue) prepareSlots(depth, size int) error {
	q.slots = make([]slot, depth)
	q.size = uint32(size)
	if size == 0 {
		return nil
	}
	data, err := q.alloc(uint64(depth) * uint64(size))
	if err != nil {
		return err
	}
	pages := size / pageSize
	// A list is a power of two long, so that it does not cross a page (Base 2.0, 4.3.1).
	listSize := 0
	if pages > 2 {
		listSize = 8 << bits.Len(uint(pages-2))
	}
	var lists []byte
	var listsAt uint64
	if listSize > 0 {
		c, err := q.alloc(uint64(depth) * uint64(listSize))
		if err != nil {
			return err
		}
		lists, listsAt = c.Bytes, q.c.iova(c)
	}
	for i := range q.slots {
		s := &q.slots[i]
		off := i * size
		s.iova = q.c.iova(data) + uint64(off)
		s.data = data.Bytes[off : off+size : off+size]
		if listSize == 0 {
			continue
		}
		s.list = listsAt + uint64(i*listSize)
		for p := 1; p < pages; p++ {
			binary.LittleEndian.PutUint64(lists[i*listSize+(p-1)*8:], s.iova+uint64(p)*pageSize)
		}
	}
	return nil
}
