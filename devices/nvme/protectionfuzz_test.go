package nvme

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
)

// someProtection chooses what a command asks for, often what a block has.
func someProtection(s *choice.Source, m *blockModel) asked {
	bits := s.Uint8()
	a := asked{
		action: bits&1 != 0, guard: bits&2 != 0, app: bits&4 != 0, ref: bits&8 != 0, storage: bits&16 != 0,
		tag: choice.Pick[uint16](s, 0x1234, 0, 0xffff, s.Uint16()), mask: choice.Pick[uint16](s, 0xffff, 0, 0xff00, s.Uint16()),
		refTag: s.Edge(1<<m.refBits-1) % (1 << m.refBits),
	}
	if m.StorageTag > 0 {
		a.storageTag = s.Edge(0xffff) & 0xffff
	}
	return a
}

// FuzzProtectionInformation makes and checks protection information of blocks in any format, and
// compares with a model that does it byte for byte.
//
//fuzz:covers devices/nvme/protection.go devices/nvme/spec/protection.go devices/nvme/spec/guard.go
func FuzzProtectionInformation(f *testing.F) {
	formats := protected()
	for i := range formats {
		f.Add(append([]byte{byte(i)}, choice.FromSeed(uint64(i), 0).Bytes(100)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := choice.FromBytes(b)
		format := formats[s.Intn(len(formats))]
		p, m := format.protect(), newBlockModel(format.config(), 0)
		n := 1 + s.Intn(3)
		data, metadata := make([]byte, n*p.blockSize), make([]byte, n*p.metadata)
		for i := 0; i < len(data); i += p.blockSize {
			pattern(data[i:i+p.blockSize], s.Uint8())
		}
		for i := 0; i < len(metadata); i += 4 {
			binary.LittleEndian.PutUint32(metadata[i:], uint32(i)*2654435761)
		}
		block := func(i int) (data_, metadata_ []byte) {
			return data[i*p.blockSize:][:p.blockSize], metadata[i*p.metadata:][:p.metadata]
		}
		expects := func(a asked) expectation {
			e := m.entry(spec.NVMWrite, 1, a.refTag, n, a)
			return p.expects(&e)
		}

		written := someProtection(s, m)
		before := slices.Clone(metadata)
		x := expects(written)
		p.insert(&x, data, metadata)
		for i := range n {
			d, md := block(i)
			if want := m.tuple(written, i, d, before[i*p.metadata:][:p.metadata]); !bytes.Equal(md[p.at:], want) || !bytes.Equal(md[:p.at], before[i*p.metadata:][:p.at]) {
				t.Fatalf("%v: block %d of %+v has % x, want % x", format, i, written, md, want)
			}
		}
		stored := slices.Clone(metadata)
		if p.invert(metadata); bytes.Equal(metadata, stored) {
			t.Fatalf("%v: % x is stored as it is", format, metadata)
		}
		if p.invert(metadata); !bytes.Equal(metadata, stored) {
			t.Fatalf("%v: % x comes back as % x", format, stored, metadata)
		}

		for range 4 {
			// What was written, with something else in it, or in what is asked for.
			read := written
			if s.Bool() {
				read = someProtection(s, m)
			}
			read.guard, read.app, read.ref, read.storage = s.Bool(), s.Bool(), s.Bool(), s.Bool()
			spoilt, at := metadata, s.Intn(len(metadata))
			switch s.Intn(4) {
			case 0:
				spoilt, at = data, s.Intn(len(data))
				fallthrough
			case 1:
				spoilt[at] ^= 1 << s.Intn(8)
			case 2: // what is not to be checked
				_, md := block(s.Intn(n))
				copy(md[p.at:], m.unwritten()[p.at:])
			}
			want, bad := spec.Success, 0
			for i := 0; i < n && want.OK(); i++ {
				d, md := block(i)
				want, bad = m.wrong(read, i, d, md), i
			}
			x := expects(read)
			if got, st := p.check(&x, data, metadata); st.Code() != want || !want.OK() && (got != bad || !st.DNR()) {
				t.Fatalf("%v: written %+v, read %+v: %v at block %d, want %v at %d", format, written, read, st, got, want, bad)
			}
			e := m.entry(spec.NVMRead, 1, s.Edge(1<<48), n, read)
			invalid := read.ref && 1<<m.refBits > 1 && (m.Protection == 3 || m.Protection == 1 && (read.refTag^e.LBA())%(1<<m.refBits) != 0)
			if st := p.admits(&e); st.OK() == invalid {
				t.Fatalf("%v: %+v of block %d: %v", format, read, e.LBA(), st)
			}
		}
	})
}
