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
	reads int
	bytes uint64
}

func (m *listMemory) readList(iova uint64, p []byte) spec.Status {
	m.reads++
	m.bytes += uint64(len(p))
	if len(p) == 0 || len(p) > pageSize {
		m.t.Fatalf("a piece of %d bytes of a list", len(p))
	}
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
}

func (s *slowWalk) take(r run) {
	s.left -= r.n
	if last := len(s.runs) - 1; last >= 0 && !r.bucket && !s.runs[last].bucket && s.runs[last].iova+s.runs[last].n == r.iova {
		s.runs[last].n += r.n
		return
	}
	s.runs = append(s.runs, r)
}

func (s *slowWalk) word(iova uint64) (uint64, spec.Status) {
	page := s.m.pages[iova&^(pageSize-1)]
	if page == nil {
		return 0, transferError
	}
	return binary.LittleEndian.Uint64(page[iova%pageSize:]), spec.Success
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
	for at := prp2; s.left > 0; at += 8 {
		v, st := s.word(at)
		if st.OK() && v%pageSize != 0 {
			st = wrong
		}
		if !st.OK() {
			return st
		}
		if at%pageSize == pageSize-8 && s.left > pageSize {
			at = v - 8 // the last entry of a page leads to the next list
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
			if st := s.m.readList(at, make([]byte, min(count-i, pageSize/16)*16)); !st.OK() {
				return d, st
			}
		}
		var b [16]byte
		if st := s.m.readList(at, b[:]); !st.OK() {
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

// FuzzDataPointers walks PRP lists and SGL segments that lie in hostile memory. What comes out
// is what a slow walker says, and takes a bounded number of reads.
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
		for range 4 {
			e := spec.SubmissionEntry{Opcode: choice.Pick[uint8](s, spec.NVMWrite, spec.NVMRead), PRP1: listAddress(s), PRP2: listAddress(s)}
			n := choice.Pick(s, 1, 512, pageSize, 2*pageSize, 3*pageSize, 64<<10, 1<<20, maxMDTS, 1+s.Edge(maxMDTS-1)%maxMDTS)
			slow := &slowWalk{m: m, toHost: e.Opcode == spec.NVMRead, left: n}
			var want spec.Status
			if s.Bool() {
				want = slow.prps(e.PRP1, e.PRP2)
			} else {
				e.Flags = choice.Pick[uint8](s, spec.PSDTSGL, spec.PSDTSGLSegment) << 6
				d := descriptor(s)
				e.PRP1, e.PRP2 = d.Address, d.Word
				want = slow.sgl(d)
			}
			m.reads, m.bytes = 0, 0
			st := w.walk(&e, n, m)
			if st != want {
				t.Fatalf("%d bytes at %#x, %#x, flags %#x: %v, want %v", n, e.PRP1, e.PRP2, e.Flags, st, want)
			}
			if most := n/pageSize + 3; e.Flags == 0 && m.bytes > 8*(most+most/511) {
				t.Fatalf("%d bytes of lists for %d bytes", m.bytes, n)
			} else if m.reads > maxDescriptors || m.bytes > maxDescriptors*16 {
				t.Fatalf("%d reads of %d bytes", m.reads, m.bytes)
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
