package nvme

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

// slowGuard is a CRC by long division, bit for bit.
func slowGuard(g spec.Guard, p []byte) uint64 {
	if g == spec.Guard64 {
		crc := ^uint64(0)
		for _, b := range p {
			crc ^= uint64(b)
			for range 8 {
				crc = crc>>1 ^ crc&1*0x9a6c9329ac4bc9b5
			}
		}
		return ^crc
	}
	var crc uint16
	for _, b := range p {
		crc ^= uint16(b) << 8
		for range 8 {
			crc = crc<<1 ^ crc>>15*0x8bb7
		}
	}
	return uint64(crc)
}

// metadataFormats are a namespace each.
var metadataFormats = []device.Namespace{
	{Metadata: 8, Protection: 1},
	{Metadata: 8, Protection: 2, Extended: true},
	{Metadata: 8, Protection: 3, StorageTag: 16},
	{BlockSize: 4096, Metadata: 64, Protection: 1, Extended: true},
	{BlockSize: 4096, Metadata: 16, Protection: 1, Guard: 64},
	{BlockSize: 4096, Metadata: 16, Protection: 2, Guard: 64, StorageTag: 16, Extended: true},
	{BlockSize: 4096, Metadata: 64, Protection: 3, Guard: 64},
	{Metadata: 64},
	{Metadata: 16, Extended: true},
}

// eachFormat runs f on a namespace in each format.
func eachFormat(t *testing.T, f func(t *testing.T, n *Namespace)) {
	holdings.CheckLeaks(t)
	var cfg device.Config
	for _, n := range metadataFormats {
		n.Backend = memoryBackend(t)
		cfg.Namespaces = append(cfg.Namespaces, n)
	}
	c := newDisk(t, cfg).open(t)
	for i, want := range metadataFormats {
		t.Run(fmt.Sprintf("%+v", want), func(t *testing.T) {
			n := c.Namespace(uint32(i + 1))
			m := n.Metadata()
			if m.Size != want.Metadata || m.Extended != want.Extended || m.Protection != want.Protection || m.StorageTag != want.StorageTag ||
				m.Guard.Bits() != max(16, want.Guard) {
				t.Fatalf("%+v", m)
			}
			f(t, n)
		})
	}
}

// everything is checked.
func everything(m Metadata, lba uint64) Protection {
	p := Protection{CheckGuard: true, CheckAppTag: true, CheckRefTag: m.Protection != 3, CheckStorageTag: true,
		RefTag: lba, AppTag: 0x1234, AppMask: 0xffff}
	if m.StorageTag > 0 {
		p.StorageTag = 0xfeed
	}
	return p
}

func TestBlocksWithMetadata(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	eachFormat(t, func(t *testing.T, n *Namespace) {
		ctx, m := testContext(t), n.Metadata()
		const lba, blocks = 77, 300 // several commands
		data, metadata := make([]byte, blocks*n.BlockSize()), make([]byte, blocks*m.Size)
		for _, b := range [][]byte{data, metadata} {
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
		}
		p := everything(m, lba)
		m.Fill(data, metadata, p)
		if err := n.WriteBlocks(ctx, lba, data, metadata, p); err != nil {
			t.Fatal(err)
		}
		gotData, gotMetadata := make([]byte, len(data)), make([]byte, len(metadata))
		if err := n.ReadBlocks(ctx, lba, gotData, gotMetadata, p); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(gotData, data) || !bytes.Equal(gotMetadata, metadata) {
			t.Error("other blocks are read than were written")
		}
		if err := n.CompareBlocks(ctx, lba, data, metadata, p); err != nil {
			t.Error(err)
		}
		if err := n.VerifyBlocks(ctx, lba, blocks, p); err != nil {
			t.Error(err)
		}
		if m.Protection > 0 {
			checkTuples(t, n, data, metadata, p)
		}
		data[5*n.BlockSize()] ^= 1
		err := n.CompareBlocks(ctx, lba, data, metadata, Protection{})
		if !errors.Is(err, spec.CompareFailure) {
			t.Error(err)
		}
		for _, f := range []func() error{
			func() error { return n.ReadBlocks(ctx, lba, data[1:], metadata, p) },
			func() error { return n.ReadBlocks(ctx, lba, data, metadata[m.Size:], p) },
			func() error { return n.WriteBlocks(ctx, n.Blocks()-1, data, metadata, p) },
			func() error { return n.VerifyBlocks(ctx, n.Blocks()-1, 2, p) },
		} {
			if err := f(); !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
		}
	})
}

// checkTuples compares protection information with its definition.
func checkTuples(t *testing.T, n *Namespace, data, metadata []byte, p Protection) {
	t.Helper()
	m := n.Metadata()
	at := m.Size - m.Guard.Size()
	for i := range len(metadata) / m.Size {
		own := metadata[i*m.Size:][:m.Size]
		var got spec.Protection
		got.Get(own[at:], m.Guard)
		ref := p.RefTag
		if m.Protection != 3 {
			ref += uint64(i)
		}
		covered := append(bytes.Clone(data[i*n.BlockSize():][:n.BlockSize()]), own[:at]...)
		want := spec.Protection{Guard: slowGuard(m.Guard, covered), AppTag: p.AppTag, Space: p.StorageTag<<(m.Guard.SpaceBits()-m.StorageTag) | ref}
		if got != want {
			t.Fatalf("block %d has %+v, want %+v", i, got, want)
		}
	}
}

// The controller makes what Fill makes, and finds any bit that is not what it was.
func TestProtectionByTheController(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	eachFormat(t, func(t *testing.T, n *Namespace) {
		ctx, m := testContext(t), n.Metadata()
		if m.Protection == 0 {
			return
		}
		const lba, blocks = 40, 6
		data, metadata := make([]byte, blocks*n.BlockSize()), make([]byte, blocks*m.Size)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		p := everything(m, lba)
		write := p
		write.Action = true
		given := metadata
		if m.stripped(&write) {
			given = nil
		}
		if err := n.WriteBlocks(ctx, lba, data, given, write); err != nil {
			t.Fatal(err)
		}
		if err := n.ReadBlocks(ctx, lba, data, metadata, p); err != nil {
			t.Fatal(err)
		}
		checkTuples(t, n, data, metadata, p)
		for range 20 {
			spoilt, bit := rnd.IntN(len(data)), byte(1)<<rnd.IntN(8)
			data[spoilt] ^= bit
			if err := n.WriteBlocks(ctx, lba, data, metadata, p); !errors.Is(err, spec.GuardCheck) {
				t.Fatal(err)
			}
			if err := n.WriteBlocks(ctx, lba, data, metadata, Protection{}); err != nil {
				t.Fatal(err)
			}
			if err := n.VerifyBlocks(ctx, lba, blocks, p); !errors.Is(err, spec.GuardCheck) {
				t.Fatal(err)
			}
			bad := uint64(spoilt / n.BlockSize())
			if err := n.VerifyBlocks(ctx, lba, bad, p); err != nil {
				t.Fatalf("before block %d: %v", bad, err)
			}
			data[spoilt] ^= bit
		}
		for _, c := range []struct {
			change func(*Protection)
			want   spec.Status
			of     bool
		}{
			{func(p *Protection) { p.AppTag ^= 1 }, spec.AppTagCheck, true},
			{func(p *Protection) { p.StorageTag ^= 1 }, spec.StorageTagCheck, m.StorageTag > 0},
			{func(p *Protection) { p.RefTag++ }, spec.RefTagCheck, m.Protection == 2},
			{func(p *Protection) { p.RefTag++ }, spec.InvalidProtectionInfo, m.Protection == 1},
			{func(p *Protection) { p.CheckRefTag = true }, spec.InvalidProtectionInfo, m.Protection == 3},
		} {
			q := p
			c.change(&q)
			q.CheckGuard = false
			if err := n.ReadBlocks(ctx, lba, data, metadata, q); c.of && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		}
	})
}

// Where metadata is nothing but protection information, or there is none, the namespace is a
// disk like any other.
func TestProtectedDisks(t *testing.T) {
	eachFormat(t, func(t *testing.T, n *Namespace) {
		ctx, m := testContext(t), n.Metadata()
		data := make([]byte, 200<<10)
		pattern(data, 3)
		automatic := m.automatic(0)
		if !m.stripped(&automatic) {
			for _, f := range []func() error{
				func() error { _, err := n.WriteAt(data, 0); return err },
				func() error { _, err := n.ReadAt(data, 0); return err },
				func() error { return n.Compare(ctx, data[:4096], 0) },
			} {
				if err := f(); !errors.Is(err, ErrUnsupported) {
					t.Error(err)
				}
			}
			return
		}
		const off = 123_457
		if _, err := n.WriteAt(data, off); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := n.ReadAt(got, off); err != nil || !bytes.Equal(got, data) {
			t.Error("not what was written:", err)
		}
		if err := n.WriteZeroes(ctx, 131072, 8192); err != nil {
			t.Error(err)
		}
		copy(data[131072-off:], make([]byte, 8192))
		const to = 8 << 20
		if err := n.Copy(ctx, to, Range{131072, 65536}, Range{131072, 8192}); err != nil {
			t.Fatal(err)
		}
		want := append(bytes.Clone(data[131072-off:][:65536]), make([]byte, 8192)...)
		if _, err := n.ReadAt(got[:len(want)], to); err != nil || !bytes.Equal(got[:len(want)], want) {
			t.Error("not what was copied:", err)
		}
		if err := n.Deallocate(ctx, Range{0, 1 << 20}); err != nil {
			t.Error(err)
		}
		if _, err := n.ReadAt(got, off); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
			t.Error("not zeroes:", err)
		}
	})
}
