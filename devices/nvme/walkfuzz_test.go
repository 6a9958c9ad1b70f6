package nvme

import (
	"encoding/binary"
	"slices"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
)

const transferError = spec.DataTransferError | spec.StatusDNR

// listMemory is memory with lists in some of its pages; the other pages are not there.
type listMemory struct {
	t     testing.TB
	pages map[uint64][]byte // by address
	// flips are the bits of an address that are others after it was read, as a hostile guest
	// has it.
	flips  uint64
	pieces []listPiece // that were read
	bytes  uint64
}

// listPiece is what a walker has read with one call.
type listPiece struct {
	iova  uint64
	bytes []byte
	st    spec.Status
}

func (m *listMemory) readList(iova uint64, p []byte) spec.Status {
	if len(p) == 0 || len(p) > pageSize {
		m.t.Fatalf("a piece of %d bytes of a list", len(p))
	}
	st := m.read(iova, p)
	m.bytes += uint64(len(p))
	m.pieces = append(m.pieces, listPiece{iova, slices.Clone(p), st})
	if st.OK() {
		for i := range p {
			at := iova + uint64(i)
			m.pages[at&^(pageSize-1)][at%pageSize] ^= byte(m.flips >> (8 * (at % 8)))
		}
	}
	return st
}

func (m *listMemory) read(iova uint64, p []byte) spec.Status {
	for i := range p {
		at := iova + uint64(i)
		page := m.pages[at&^(pageSize-1)]
		if page == nil || at < iova {
			return transferError
		}
		p[i] = page[at%pageSize]
	}
	return spec.Success
}

// slowWalk is what the specification says of data pointers, an entry at a time.
type slowWalk struct {
	m      *listMemory
	toHost bool
	left   uint64
	runs   []run
	// replays: it sees what another walker has read, and that it has read nothing twice.
	replays bool
	piece   int // of m.pieces, the next one
}

func (s *slowWalk) take(r run) {
	s.left -= r.n
	if last := len(s.runs) - 1; last >= 0 && !r.bucket && !s.runs[last].bucket && s.runs[last].iova+s.runs[last].n == r.iova {
		s.runs[last].n += r.n
		return
	}
	s.runs = append(s.runs, r)
}

// list begins a list, or a page of one that is read at once.
func (s *slowWalk) list() { s.piece++ }

// read reads a part of the list that has begun.
func (s *slowWalk) read(iova uint64, b []byte) spec.Status {
	if !s.replays {
		return s.m.read(iova, b)
	}
	if s.piece > len(s.m.pieces) {
		s.m.t.Fatalf("nobody has read a list at %#x: %d pieces", iova, len(s.m.pieces))
	}
	p := s.m.pieces[s.piece-1]
	if iova < p.iova || iova-p.iova+uint64(len(b)) > uint64(len(p.bytes)) {
		s.m.t.Fatalf("piece %d is %d bytes at %#x, want %d at %#x", s.piece-1, len(p.bytes), p.iova, len(b), iova)
	}
	copy(b, p.bytes[iova-p.iova:])
	return p.st
}

func (s *slowWalk) word(iova uint64) (uint64, spec.Status) {
	var b [8]byte
	st := s.read(iova, b[:])
	return binary.LittleEndian.Uint64(b[:]), st
}

// prps is Base 1.4, 4.3.
func (s *slowWalk) prps(prp1, prp2 uint64) spec.Status {
	const wrong = spec.InvalidPRPOffset | spec.StatusDNR
	if prp1%4 != 0 {
		return wrong
	}
	s.take(run{iova: prp1, n: min(s.left, pageSize-prp1%pageSize)})
	if s.left == 0 {
		return spec.Success
	}
	if s.left <= pageSize {
		if prp2%pageSize != 0 {
			return wrong
		}
		s.take(run{iova: prp2, n: s.left})
		return spec.Success
	}
	if prp2%8 != 0 {
		return wrong
	}
	s.list()
	for at := prp2; s.left > 0; at += 8 {
		v, st := s.word(at)
		if st.OK() && v%pageSize != 0 {
			st = wrong
		}
		if !st.OK() {
			return st
		}
		if at%pageSize == pageSize-8 && s.left > pageSize {
			s.list() // the last entry of a page leads to the next one
			at = v - 8
			continue
		}
		s.take(run{iova: v, n: min(s.left, pageSize)})
	}
	return spec.Success
}

// sgl is Base 1.4, 4.4. d is the descriptor of a segment that is alone in the command.
func (s *slowWalk) sgl(d spec.SGLDescriptor) spec.Status {
	if kind := d.Type(); kind == spec.SGLDataBlock || kind == spec.SGLBitBucket {
		if kind == spec.SGLBitBucket && !s.toHost || uint64(d.Length()) < s.left {
			return spec.DataSGLLengthInvalid | spec.StatusDNR
		}
		if kind == spec.SGLBitBucket {
			s.take(run{n: s.left, bucket: true})
		} else {
			s.take(run{iova: d.Address, n: s.left})
		}
		return spec.Success
	}
	for descriptors := uint32(0); ; {
		last := d.Type() == spec.SGLLastSegment
		count := d.Length() / 16
		switch {
		case !last && d.Type() != spec.SGLSegment:
			return spec.SGLDescriptorTypeInvalid | spec.StatusDNR
		case d.Length()%16 != 0 || count == 0:
			return spec.InvalidSGLSegment | spec.StatusDNR
		case descriptors+count > maxDescriptors:
			return spec.InvalidNumberOfSGLDescriptors | spec.StatusDNR
		}
		descriptors += count
		next, st := s.segment(d.Address, count, last)
		switch {
		case !st.OK() || s.left == 0:
			return st
		case last:
			return spec.DataSGLLengthInvalid | spec.StatusDNR
		case next.Type() != spec.SGLSegment && next.Type() != spec.SGLLastSegment:
			return spec.InvalidSGLSegment | spec.StatusDNR
		}
		d = next
	}
}

func (s *slowWalk) segment(at uint64, count uint32, last bool) (d spec.SGLDescriptor, st spec.Status) {
	for i := range count {
		// A page's worth is read at a time, and has to be all there.
		if i%(pageSize/16) == 0 {
			s.list()
			if st := s.read(at, make([]byte, min(count-i, pageSize/16)*16)); !st.OK() {
				return d, st
			}
		}
		var b [16]byte
		if st := s.read(at, b[:]); !st.OK() {
			return d, st
		}
		at += 16
		d = spec.GetSGLDescriptor(b[:])
		n := min(uint64(d.Length()), s.left)
		switch d.Type() {
		case spec.SGLDataBlock:
			if n > 0 {
				s.take(run{iova: d.Address, n: n})
			}
		case spec.SGLBitBucket:
			if n > 0 && s.toHost {
				s.take(run{n: n, bucket: true})
			}
		case spec.SGLSegment, spec.SGLLastSegment:
			if i != count-1 || last {
				return d, spec.InvalidSGLSegment | spec.StatusDNR
			}
		default:
			return d, spec.SGLDescriptorTypeInvalid | spec.StatusDNR
		}
		if s.left == 0 {
			return d, spec.Success
		}
	}
	if d.Type() != spec.SGLSegment && d.Type() != spec.SGLLastSegment {
		return spec.SGLDescriptor{}, spec.Success
	}
	return d, spec.Success
}

// Lists lie in pages 0x1000 to 0x8000, of which some are not there.
const listPages = 8

func listAddress(s *choice.Source) uint64 {
	page := uint64(1+s.Intn(listPages+1)) * pageSize
	switch s.Intn(6) {
	case 0:
		return page + uint64(s.Intn(pageSize))
	case 1:
		return page + pageSize - uint64(8*s.Intn(8))
	case 2:
		return page + uint64(16*s.Intn(pageSize/16))
	case 3:
		return s.Edge(1 << 32)
	}
	return page
}

func descriptor(s *choice.Source) spec.SGLDescriptor {
	length := choice.Pick(s, pageSize, uint32(16*(1+s.Intn(pageSize/16))))
	kind := choice.Pick(s, spec.SGLDataBlock, spec.SGLDataBlock, spec.SGLSegment, spec.SGLLastSegment, spec.SGLBitBucket, uint8(s.Intn(16)))
	address := listAddress(s)
	switch s.Intn(8) {
	case 0:
		length = uint32(s.Edge(1 << 20))
	case 1:
		length = 16 * maxDescriptors
	case 2:
		length = uint32(16 * s.Intn(4))
	case 3: // a page of descriptors
		address, length = address&^(pageSize-1), pageSize
	}
	d := spec.NewSGLDescriptor(kind, address, length)
	if s.Odds(64) {
		d.Word |= uint64(s.Intn(16)) << 56 // a sub type
	}
	return d
}

// hostileLists makes memory full of lists.
func hostileLists(t testing.TB, s *choice.Source) *listMemory {
	m := &listMemory{t: t, pages: map[uint64][]byte{}}
	for i := range uint64(listPages) {
		how := s.Intn(8)
		if how == 0 {
			continue
		}
		page := make([]byte, pageSize)
		m.pages[(1+i)*pageSize] = page
		if how < 4 {
			// Entries of a PRP list: pages one after the other, or one and the same.
			first, step := uint64(s.Intn(32))*pageSize, uint64(s.Intn(2))*pageSize
			for at := uint64(0); at < pageSize; at += 8 {
				binary.LittleEndian.PutUint64(page[at:], first+at/8*step)
			}
			if s.Bool() {
				binary.LittleEndian.PutUint64(page[pageSize-8:], listAddress(s))
			}
			for range s.Intn(4) {
				binary.LittleEndian.PutUint64(page[8*s.Intn(pageSize/8):], listAddress(s))
			}
			continue
		}
		d := descriptor(s)
		if how == 7 { // of small pieces, so that the list has to be long
			d = spec.NewSGLDescriptor(spec.SGLDataBlock, d.Address, uint32(s.Intn(64)))
		}
		for at := 0; at < pageSize; at += 16 {
			d.Put(page[at:])
		}
		if how == 7 {
			kind := choice.Pick[uint8](s, spec.SGLSegment, spec.SGLLastSegment)
			spec.NewSGLDescriptor(kind, uint64(1+s.Intn(listPages))*pageSize, pageSize).Put(page[pageSize-16:])
			continue
		}
		for range s.Intn(8) {
			d := descriptor(s)
			d.Put(page[16*s.Intn(pageSize/16):])
		}
		if s.Bool() { // the segment leads on
			d := descriptor(s)
			d.Word = d.Word&(1<<60-1) | uint64(choice.Pick(s, spec.SGLSegment, spec.SGLLastSegment))<<60
			d.Put(page[pageSize-16:])
		}
	}
	return m
}

// FuzzDataPointers walks PRP lists and SGL segments that lie in hostile memory, which changes between
// two reads. What comes out is what a slow walker makes of what was read, takes a bounded number of
// reads, and nothing is read twice.
//
//fuzz:covers devices/nvme/datapointer.go devices/nvme/prp.go devices/nvme/sgl.go
func FuzzDataPointers(f *testing.F) {
	for seed := range uint64(256) {
		s := choice.FromSeed(seed, 0)
		f.Add(s.Bytes(400))
	}
	var w dataWalker // as a queue uses it, for one command after the other
	f.Fuzz(func(t *testing.T, b []byte) {
		s := choice.FromBytes(b)
		m := hostileLists(t, s)
		m.flips = choice.Pick[uint64](s, 0, 0, 0x1000, 0x7000, 1, s.Uint64())
		for range 4 {
			e := spec.SubmissionEntry{Opcode: choice.Pick[uint8](s, spec.NVMWrite, spec.NVMRead), PRP1: listAddress(s), PRP2: listAddress(s)}
			n := choice.Pick(s, 1, 512, pageSize, 2*pageSize, 3*pageSize, 64<<10, 1<<20, maxMDTS, 1+s.Edge(maxMDTS-1)%maxMDTS)
			var first spec.SGLDescriptor
			if s.Bool() {
				e.Flags = choice.Pick[uint8](s, spec.PSDTSGL, spec.PSDTSGLSegment) << 6
				first = descriptor(s)
				e.PRP1, e.PRP2 = first.Address, first.Word
			}
			m.pieces, m.bytes = nil, 0
			st := w.walk(&e, n, m)
			slow, want := &slowWalk{m: m, toHost: e.Opcode == spec.NVMRead, left: n, replays: true}, spec.Success
			if e.Flags == 0 {
				want = slow.prps(e.PRP1, e.PRP2)
			} else {
				want = slow.sgl(first)
			}
			if st != want || slow.piece != len(m.pieces) {
				t.Fatalf("%d bytes at %#x, %#x, flags %#x: %v, want %v; %d lists, want %d", n, e.PRP1, e.PRP2, e.Flags, st, want, len(m.pieces), slow.piece)
			}
			if most := n/pageSize + 3; e.Flags == 0 && m.bytes > 8*(most+most/511) {
				t.Fatalf("%d bytes of lists for %d bytes", m.bytes, n)
			} else if len(m.pieces) > maxDescriptors || m.bytes > maxDescriptors*16 {
				t.Fatalf("%d reads of %d bytes", len(m.pieces), m.bytes)
			}
			if !st.OK() {
				continue
			}
			if slow.left != 0 || !slices.Equal(w.runs, slow.runs) {
				t.Fatalf("%d bytes at %#x, %#x, flags %#x: %v, want %v", n, e.PRP1, e.PRP2, e.Flags, w.runs, slow.runs)
			}
			if w.buckets != slices.ContainsFunc(w.runs, func(r run) bool { return r.bucket }) {
				t.Fatalf("bit buckets %v in %v", w.buckets, w.runs)
			}
		}
	})
}
