package virtionet

import (
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link/vnet"
)

// Buffer is a frame, or a part of one, in memory that the device accesses itself. It belongs to a queue pair.
type Buffer struct {
	// Header says what is left to be done to the frame. The program sets it before Send; Recv sets it. It counts in the first
	// buffer of a frame.
	Header vnet.Header
	// Next is where the frame goes on, nil if it does not.
	Next *Buffer
	// Hash is set by Recv, with HASH_REPORT.
	Hash spec.HashReport

	token  uint32
	owner  owner
	start  uint32 // of the frame's bytes in mem
	length uint32 // of them
	header uint32 // bytes before a frame
	mem    []byte
	addr   uint64      // of mem for the device
	put    vnet.Header // what mem has
	home   *pool
}

// owner is who may use a buffer.
type owner uint8

const (
	inPool owner = iota
	byProgram
	byDevice
)

// Bytes are the bytes of the frame, or of its part, in this buffer.
func (b *Buffer) Bytes() []byte { return b.mem[b.start : b.start+b.length : b.start+b.length] }

// Room is all the room for a frame's first part. To send, fill it and call SetLen.
func (b *Buffer) Room() []byte { return b.mem[b.header:] }

// SetLen says that the frame, or its part, is the first n bytes of Room. It panics if there are fewer.
func (b *Buffer) SetLen(n int) {
	if n < 0 || n > len(b.mem)-int(b.header) {
		panic("virtio-net: length beyond the buffer")
	}
	b.start, b.length = b.header, uint32(n)
}

// Len is the length of the whole frame in bytes, with what follows in Next.
func (b *Buffer) Len() int {
	n := 0
	for ; b != nil; b = b.Next {
		n += int(b.length)
	}
	return n
}

// CopyTo copies the frame to p, as much as it has room for, and returns the number of bytes.
func (b *Buffer) CopyTo(p []byte) int {
	n := 0
	for ; b != nil && n < len(p); b = b.Next {
		n += copy(p[n:], b.Bytes())
	}
	return n
}

// pool holds buffers that are not in use, the oldest first: so each of them meets the same entries of the ring in every round.
type pool struct {
	ring []*Buffer
	head uint32
	n    uint32
}

func newPool(all []Buffer) *pool {
	p := &pool{ring: make([]*Buffer, len(all)), n: uint32(len(all))}
	for i := range all {
		all[i].home = p
		p.ring[i] = &all[i]
	}
	return p
}

func (p *pool) get() *Buffer {
	b := p.ring[p.head]
	if p.head++; p.head == uint32(len(p.ring)) {
		p.head = 0
	}
	p.n--
	return b
}

func (p *pool) give(b *Buffer) {
	at := p.head + p.n
	if at >= uint32(len(p.ring)) {
		at -= uint32(len(p.ring))
	}
	p.ring[at] = b
	p.n++
	b.owner = inPool
}
