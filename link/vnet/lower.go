package vnet

import "encoding/binary"

const (
	// MaxSegments is the most that a frame may be cut into. A frame of 64 KiB at the
	// smallest segments that Linux accepts (48 bytes) stays below it.
	MaxSegments = 2048

	// maxHeaders is how many bytes of headers segmentation knows, from the frame's start.
	maxHeaders = 512
	// batch is the most frames that are handed out at once.
	batch = 32
)

// Scratch is the memory in which frames are finished: about 70 KiB, allocated with the first
// use. The zero value is ready. It is for one goroutine at a time.
type Scratch struct {
	*scratch
}

type scratch struct {
	frames [batch]Frame
	n      int // frames that wait to be handed out
	parts  [][]byte
	head   [maxHeaders]byte
	data   [MaxFrame + maxHeaders]byte
	used   int // bytes of data
}

// Lower finishes what a frame's receiver cannot, and hands the result to emit, in order, up
// to 32 frames at once: a frame that the receiver can take as it is, the same with its
// checksum filled in, or the segments that it asks for. emit returns false if it wants no
// more. The frames, and what they refer to, are good until emit returns.
//
// The sender may change the frame at any time. Its headers are copied once, then read.
// Payload that nothing is computed from stays where it is; payload that goes into a checksum
// is copied first, so that what is summed is what is sent. Nothing is allocated.
//
// A frame that lies is not emitted, not even in part, and the reason is returned. Segments
// are made of what the frame holds: lengths in its own headers are not believed.
func (s *Scratch) Lower(f *Frame, can Offloads, emit func([]Frame) bool) Reason {
	if s.scratch == nil {
		s.scratch = new(scratch)
	}
	s.reset()
	h := f.Header
	if r := h.Clean(f.Len); r != ReasonNone {
		return r
	}
	if h.Needs()&^can == 0 {
		s.frames[0] = *f
		if can&OffloadChecksum == 0 {
			s.frames[0].Header = Header{} // without FlagDataValid (5.1.6.4.1)
		}
		emit(s.frames[:1])
		return ReasonNone
	}
	if h.GSOType == GSONone {
		s.checksum(f, h)
		emit(s.frames[:s.n])
		return ReasonNone
	}
	c, r := s.cut(f, h, can&OffloadChecksum != 0)
	if r != ReasonNone {
		return r
	}
	for !c.done {
		if !s.fits(&c) {
			if !emit(s.frames[:s.n]) {
				return ReasonNone
			}
			s.reset()
		}
		s.segment(&c)
	}
	emit(s.frames[:s.n])
	return ReasonNone
}

func (s *scratch) reset() { s.n, s.used, s.parts = 0, 0, s.parts[:0] }

// take gives n bytes of the scratch's memory.
func (s *scratch) take(n int) []byte {
	p := s.data[s.used:][:n:n]
	s.used += n
	return p
}

// add appends a frame whose parts are those from the first on.
func (s *scratch) add(h Header, first, length int) {
	s.frames[s.n] = Frame{Header: h, Parts: s.parts[first:len(s.parts):len(s.parts)], Len: length}
	s.n++
}

// checksum makes a copy of the frame with its checksum.
func (s *scratch) checksum(f *Frame, h Header) {
	p := s.take(f.Len)
	f.CopyTo(p, 0)
	p = p[h.ChecksumStart:]
	var sum Sum
	sum.Add(p)
	binary.BigEndian.PutUint16(p[h.ChecksumOffset:], sum.finished())
	s.parts = append(s.parts, s.data[:f.Len])
	s.add(Header{}, 0, f.Len)
}
