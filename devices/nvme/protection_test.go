package nvme

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"vfiouser/devices/nvme/spec"
)

// everyFormat is all that Format NVM can ask for.
func everyFormat() (all []format) {
	for i := range blockFormats {
		for kind := uint8(0); kind <= maxProtection; kind++ {
			for _, extended := range []bool{false, true} {
				if f := (format{uint8(i), extended, kind}); f.possible() {
					all = append(all, f)
				}
			}
		}
	}
	return all
}

func (f format) String() string {
	b := &blockFormats[f.index]
	return fmt.Sprintf("%d+%d guard %d tag %d type %d extended %v", 1<<b.shift, b.metadata, b.guard.Bits(), b.storageTag, f.protection, f.extended)
}

func TestBlocksAndMetadataFillTheStorage(t *testing.T) {
	for _, f := range everyFormat() {
		b := &blockFormats[f.index]
		block := int64(1) << b.shift
		for size := int64(0); size < 1<<20; size += 512 {
			n := f.blocksIn(size)
			if used := int64(n+f.metadataBlocks(n)) * block; used > size {
				t.Fatalf("%v: %d blocks need %d bytes of %d", f, n, used, size)
			}
			if more := int64(n+1+f.metadataBlocks(n+1)) * block; more <= size {
				t.Fatalf("%v: %d blocks, %d would fit into %d bytes", f, n, n+1, size)
			}
		}
	}
}

func TestFormatsThatCannotBe(t *testing.T) {
	for _, f := range []format{
		{index: uint8(len(blockFormats))},
		{index: 255},
		{index: 0, protection: 1},
		{index: 1, protection: 3},
		{index: 2, protection: 4},
	} {
		if f.possible() {
			t.Errorf("%+v is possible", f)
		}
	}
}

func TestFormatsOfAConfiguration(t *testing.T) {
	for _, c := range []struct {
		n    Namespace
		want format
		ok   bool
	}{
		{Namespace{}, format{}, true},
		{Namespace{BlockSize: 4096}, format{index: 1}, true},
		{Namespace{Metadata: 8}, format{index: 2}, true},
		{Namespace{BlockSize: 4096, Metadata: 64, Extended: true, Protection: 2}, format{7, true, 2}, true},
		{Namespace{BlockSize: 4096, Metadata: 16, Protection: 1, Guard: 64}, format{8, false, 1}, true},
		{Namespace{BlockSize: 4096, Metadata: 16, Protection: 3, Guard: 64, StorageTag: 16}, format{12, false, 3}, true},
		{Namespace{Metadata: 7}, format{}, false},
		{Namespace{Protection: 1}, format{}, false},
		{Namespace{Metadata: 8, Protection: 4}, format{}, false},
		{Namespace{Metadata: 8, Protection: -1}, format{}, false},
		{Namespace{Metadata: 16, Protection: 1, Guard: 64}, format{}, false},
		{Namespace{Metadata: 8, Protection: 1, Guard: 32}, format{}, false},
		{Namespace{Metadata: 8, StorageTag: 1}, format{}, false},
	} {
		f, err := c.n.format()
		if (err == nil) != c.ok || c.ok && f != c.want {
			t.Errorf("%+v: %+v, %v", c.n, f, err)
		}
	}
}

// blocksOf makes random blocks with the protection information that is expected of them.
func blocksOf(rnd *rand.Rand, p *protection, n int, e *expectation) (data, metadata []byte) {
	data, metadata = make([]byte, n*p.blockSize), make([]byte, n*p.metadata)
	for _, b := range [][]byte{data, metadata} {
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
	}
	p.insert(e, data, metadata)
	return data, metadata
}

// Remainders of single bytes, by long division.
var remainders16, remainders64 = func() (r16 [256]uint16, r64 [256]uint64) {
	for i := range 256 {
		r16[i], r64[i] = uint16(i)<<8, uint64(i)
		for range 8 {
			r16[i] = r16[i]<<1 ^ r16[i]>>15*0x8bb7
			r64[i] = r64[i]>>1 ^ r64[i]&1*0x9a6c9329ac4bc9b5
		}
	}
	return r16, r64
}()

// guardOf is the guard of a block, byte for byte.
func guardOf(g spec.Guard, p []byte) uint64 {
	if g == spec.Guard64 {
		crc := ^uint64(0)
		for _, b := range p {
			crc = crc>>8 ^ remainders64[byte(crc)^b]
		}
		return ^crc
	}
	var crc uint16
	for _, b := range p {
		crc = crc<<8 ^ remainders16[byte(crc>>8)^b]
	}
	return uint64(crc)
}

func protected() (all []format) {
	return slices.DeleteFunc(everyFormat(), func(f format) bool { return f.protection == 0 || f.extended })
}

func TestInsertedProtectionInformation(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, f := range protected() {
		p := f.protect()
		e := expectation{tag: 0x1234, space: p.space &^ 1} // the second tag is the last one, the third 0
		if p.kind == 1 {
			e.space = p.space&^p.reference | 0xfffe&p.reference
		}
		data, metadata := blocksOf(rnd, &p, 3, &e)
		for i := range 3 {
			var got spec.Protection
			got.Get(metadata[i*p.metadata+p.at:], p.guard)
			covered := slices.Concat(data[i*p.blockSize:][:p.blockSize], metadata[i*p.metadata:][:p.at])
			want := spec.Protection{Guard: guardOf(p.guard, covered), AppTag: 0x1234, Space: e.space}
			if p.kind != 3 {
				want.Space = e.space&^p.reference | (e.space+uint64(i))&p.reference
			}
			if got != want {
				t.Errorf("%v: block %d has %+v, want %+v", f, i, got, want)
			}
		}
	}
}

func TestProtectionChecks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, f := range protected() {
		p := f.protect()
		storage := p.space &^ p.reference
		lowStorage := storage & -storage
		const bad = 2
		for _, c := range []struct {
			name   string
			change func(tag *spec.Protection, data []byte)
			want   spec.Status // if all is checked
			of     func(e *expectation)
		}{
			{"nothing", func(*spec.Protection, []byte) {}, spec.Success, nil},
			{"data", func(_ *spec.Protection, data []byte) { data[7] ^= 4 }, spec.GuardCheck, func(e *expectation) { e.guard = false }},
			{"guard", func(p *spec.Protection, _ []byte) { p.Guard ^= 1 }, spec.GuardCheck, func(e *expectation) { e.guard = false }},
			{"application tag", func(p *spec.Protection, _ []byte) { p.AppTag ^= 0x100 }, spec.AppTagCheck, func(e *expectation) { e.app = false }},
			{"masked application tag", func(p *spec.Protection, _ []byte) { p.AppTag ^= 1 }, spec.Success, nil},
			{"reference tag", func(p *spec.Protection, _ []byte) { p.Space ^= 1 }, spec.RefTagCheck, func(e *expectation) { e.reference = false }},
			{"storage tag", func(p *spec.Protection, _ []byte) { p.Space ^= lowStorage }, spec.StorageTagCheck, func(e *expectation) { e.storage = false }},
		} {
			t.Run(fmt.Sprintf("%v/%s", f, c.name), func(t *testing.T) {
				e := expectation{guard: true, app: true, reference: true, storage: true, tag: 0x4321, unmask: 0xfffe, space: 77 | lowStorage}
				want := c.want
				if want == spec.StorageTagCheck && storage == 0 {
					want = spec.Success
				}
				data, metadata := blocksOf(rnd, &p, 4, &e)
				var tag spec.Protection
				at := metadata[bad*p.metadata+p.at:]
				tag.Get(at, p.guard)
				c.change(&tag, data[bad*p.blockSize:])
				tag.Put(at, p.guard)
				look := func(e *expectation, want spec.Status) {
					t.Helper()
					i, st := p.check(e, data, metadata)
					if st.Code() != want || !st.OK() && (i != bad || !st.DNR()) {
						t.Errorf("block %d: %v, want %v", i, st, want)
					}
				}
				look(&e, want)
				if c.of != nil {
					unchecked := e
					c.of(&unchecked)
					look(&unchecked, spec.Success)
				}
				tag.AppTag = spec.AppTagEscape
				tag.Put(at, p.guard)
				if p.kind == 3 {
					tag.Space |= p.reference
					if want.OK() {
						want = spec.AppTagCheck
					} else if want == spec.RefTagCheck || want == spec.StorageTagCheck {
						want = spec.AppTagCheck
					}
					look(&e, want)
					tag.Put(at, p.guard)
				}
				look(&e, spec.Success)
			})
		}
	}
}

func TestReferenceTagsThatATypeDoesNotHave(t *testing.T) {
	for _, f := range protected() {
		p := f.protect()
		const lba = 0x1_2345_6789_abcd
		for _, c := range []struct {
			name  string
			space uint64
			check bool
			ok    [maxProtection + 1]bool
		}{
			{"of the block", lba & p.reference, true, [...]bool{1: true, 2: true, 3: false}},
			{"of another block", (lba + 1) & p.reference, true, [...]bool{2: true, 3: false}},
			{"with a storage tag", (lba & p.reference) | p.space&^p.reference, true, [...]bool{1: true, 2: true, 3: false}},
			{"not checked", 5, false, [...]bool{1: true, 2: true, 3: true}},
		} {
			want := spec.Success
			if !c.ok[p.kind] {
				want = spec.InvalidProtectionInfo | spec.StatusDNR
			}
			if st := p.validate(&expectation{reference: c.check, space: c.space}, lba); st != want {
				t.Errorf("%v, %s: %v", f, c.name, st)
			}
		}
	}
}

// Any bit that is flipped in a block, or in metadata that is covered, is found, in the
// block where it is.
func TestEveryFlippedBitIsFound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	for _, f := range protected() {
		p := f.protect()
		e := expectation{guard: true, app: true, unmask: 0xffff, reference: p.kind != 3, storage: true, tag: 9, space: 50}
		data, metadata := blocksOf(rnd, &p, 8, &e)
		for range 200 {
			b, of := data, p.blockSize
			if rnd.IntN(4) == 0 {
				b, of = metadata, p.metadata
			}
			i, bit := rnd.IntN(len(b)), byte(1)<<rnd.IntN(8)
			b[i] ^= bit
			at, st := p.check(&e, data, metadata)
			b[i] ^= bit
			unprotected := p.kind == 3 && of == p.metadata && i%of >= of-bits.OnesCount64(p.reference)/8
			if st.OK() != unprotected || !st.OK() && at != i/of {
				t.Fatalf("%v: byte %d of %d: block %d, %v", f, i, of, at, st)
			}
		}
		if _, st := p.check(&e, data, metadata); !st.OK() {
			t.Errorf("%v: %v", f, st)
		}
	}
}

func TestStorageThatWasNeverWrittenIsNotChecked(t *testing.T) {
	for _, f := range protected() {
		p := f.protect()
		data, metadata := make([]byte, 2*p.blockSize), make([]byte, 2*p.metadata)
		p.invert(metadata)
		e := expectation{guard: true, app: true, unmask: 0xffff, reference: true, storage: true, tag: 1, space: 5}
		if _, st := p.check(&e, data, metadata); !st.OK() {
			t.Errorf("%v: %v", f, st)
		}
		want := append(make([]byte, p.at), bytes.Repeat([]byte{0xff}, p.guard.Size())...)
		if !bytes.Equal(metadata[p.metadata:], want) {
			t.Errorf("%v: % x", f, metadata)
		}
	}
}
