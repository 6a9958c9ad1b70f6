package client

import (
	"fmt"
	"slices"
)

// Chunk is a part of a Memory that Alloc has handed out. Its address for a device is Mapping.IOVA + Offset.
type Chunk struct {
	Offset uint64 // in the memory, bytes
	Bytes  []byte
}

// free space of a Memory: ascending, never adjacent.
type span struct{ off, size uint64 }

// Alloc hands out size bytes at a multiple of align (a power of two; 0 means the page size), zeroed. Several users of one
// memory, such as the drivers of two devices, do not get into each other's way so. ErrNoSpace if there is no
// free range that is large enough.
func (m *Memory) Alloc(size, align uint64) (Chunk, error) {
	if align == 0 {
		align = pageSize
	}
	if size == 0 || align&(align-1) != 0 {
		return Chunk{}, invalid("%d bytes aligned to %d", size, align)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Chunk{}, fmt.Errorf("client: memory: %w", ErrClosed)
	}
	for i, s := range m.free {
		off := (s.off + align - 1) &^ (align - 1)
		end := s.off + s.size
		if off < s.off || off > end || size > end-off {
			continue
		}
		var left []span
		if off > s.off {
			left = append(left, span{s.off, off - s.off})
		}
		if off+size < end {
			left = append(left, span{off + size, end - off - size})
		}
		m.free = slices.Replace(m.free, i, i+1, left...)
		c := Chunk{off, m.bytes[off : off+size : off+size]}
		clear(c.Bytes)
		return c, nil
	}
	return Chunk{}, fmt.Errorf("%w: %d bytes aligned to %d", ErrNoSpace, size, align)
}

// Free takes back what Alloc handed out, once. The zero Chunk is ignored.
func (m *Memory) Free(c Chunk) {
	if len(c.Bytes) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := span{c.Offset, uint64(len(c.Bytes))}
	i, _ := slices.BinarySearchFunc(m.free, s.off, func(f span, off uint64) int {
		if f.off < off {
			return -1
		}
		return 1
	})
	if i < len(m.free) && s.off+s.size > m.free[i].off || i > 0 && m.free[i-1].off+m.free[i-1].size > s.off {
		panic("client: memory freed twice")
	}
	j := i
	if i < len(m.free) && s.off+s.size == m.free[i].off {
		s.size += m.free[i].size
		j++
	}
	if i > 0 && m.free[i-1].off+m.free[i-1].size == s.off {
		i--
		s = span{m.free[i].off, m.free[i].size + s.size}
	}
	m.free = slices.Replace(m.free, i, j, s)
}
