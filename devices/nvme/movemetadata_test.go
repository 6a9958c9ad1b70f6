package nvme

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"vfiouser/block"
	"vfiouser/fuzz/choice"
)

// Blocks keep their metadata whatever size the storage gets, and new ones were never written.
func TestMetadataOfStorageThatChangesItsSize(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	for _, f := range []format{separate8, extended8, plain64, {index: 7, protection: 2}, {index: 0}} {
		g, q := formatted(t, rig{backends: []block.Backend{memory(t, 256<<10)}}, f)
		r := newModelRun(t, g, q, choice.FromSeed(9, 0))
		r.nsid = 1
		if blockFormats[f.index].metadata > 0 {
			r.blockModel = newBlockModel(f.config(), int(g.c.namespace(1).blocks))
			for lba := uint64(0); lba+modelBlocks < uint64(len(r.data)); lba += modelBlocks {
				r.write(lba, modelBlocks, asked{action: true, refTag: lba, tag: uint16(lba)})
			}
		}
		for range 12 {
			// Often by little, so that old and new metadata overlap.
			size := g.c.namespace(1).backend.Size() + 512*(rnd.Int64N(200)-100)
			if rnd.IntN(3) == 0 {
				size = 512 * (20 + rnd.Int64N(1000))
			}
			noError(t, g.c.subsystem.ResizeNamespace(1, size))
			n := int(g.c.namespace(1).blocks)
			if want := int(f.blocksIn(size)); n != want {
				t.Fatalf("%v: %d blocks in %d bytes, want %d", f, n, size, want)
			}
			if r.blockModel == nil {
				continue
			}
			r.resized(n)
			r.readAll()
			lba := rnd.Uint64N(uint64(n))
			r.write(lba, 1, asked{action: true, refTag: lba})
		}
	}
}

// Storage that does not get smaller keeps what it can keep.
func TestMetadataOfStorageThatKeepsItsSize(t *testing.T) {
	b := &stubborn{memory(t, 1<<20).(block.Resizer)}
	g, q := formatted(t, rig{backends: []block.Backend{b}}, separate8)
	r := newModelRun(t, g, q, choice.FromSeed(9, 0))
	r.nsid, r.blockModel = 1, newBlockModel(separate8.config(), 100)
	for lba := uint64(0); lba+modelBlocks < 100; lba += modelBlocks {
		r.write(lba, modelBlocks, asked{action: true, refTag: lba})
	}
	for _, size := range []int64{512 << 10, 1<<20 - 512, 2 << 20} {
		if err := g.c.subsystem.ResizeNamespace(1, size); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("%d bytes: %v", size, err)
		}
		for lba := uint64(0); lba+modelBlocks < 100; lba += modelBlocks {
			r.read(lba, modelBlocks, asked{guard: true, ref: true, refTag: lba})
		}
	}
}

// stubborn does not change its size.
type stubborn struct{ block.Resizer }

func (s *stubborn) Resize(int64) error { return syscall.EBUSY }

// Metadata of several pieces moves by less than its size, on storage that is full of garbage.
func TestLongMetadataMoves(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 7))
	const size = 8 << 20
	image := make([]byte, size)
	for i := range image {
		image[i] = byte(rnd.Uint32())
	}
	b := memory(t, size)
	t.Cleanup(func() { _ = b.Close() })
	access := func(op block.Op, p []byte, off int64) {
		_, err := b.Submit(&block.Request{Op: op, Offset: off, Length: int64(len(p)), Buffers: [][]byte{p}})
		noError(t, err)
	}
	a := &allocation{backend: b}
	small, large := a.viewOf(plain64, size-512*70), a.viewOf(plain64, size)
	for _, c := range []struct{ from, to *namespace }{{small, large}, {large, small}} {
		access(block.Write, image, 0)
		noError(t, moveMetadata(c.from, c.to))
		got, blocks := make([]byte, size), min(c.from.blocks, c.to.blocks)
		access(block.Read, got, 0)
		used := int64(c.from.metadataBytes(blocks))
		start, old := c.to.bytes(c.to.blocks), c.from.bytes(c.from.blocks)
		if !bytes.Equal(got[start:][:used], image[old:][:used]) {
			t.Errorf("%d to %d blocks: other metadata", c.from.blocks, c.to.blocks)
		}
		rest := got[start+used : c.to.stored()]
		if !bytes.Equal(rest, make([]byte, len(rest))) {
			t.Errorf("%d to %d blocks: metadata that was never written is not", c.from.blocks, c.to.blocks)
		}
		if old < start && !bytes.Equal(got[old:start], make([]byte, start-old)) {
			t.Errorf("%d to %d blocks: data that was never written is not", c.from.blocks, c.to.blocks)
		}
		if !bytes.Equal(got[:min(start, old)], image[:min(start, old)]) {
			t.Errorf("%d to %d blocks: other data", c.from.blocks, c.to.blocks)
		}
	}
}
