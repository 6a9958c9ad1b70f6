package virtio

import (
	"errors"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// hostileRing is a ring with two chains under way, tokens 7 and 8 with room for 100 and 200 bytes.
func hostileRing(t *testing.T, cfg RingConfig) *pair {
	t.Helper()
	cfg.Size = 4
	p := newPair(t, cfg, 4096)
	if err := errors.Join(p.ring.AddWritable(7, p.addr, 100), p.ring.AddWritable(8, p.addr, 200)); err != nil {
		t.Fatal(err)
	}
	p.ring.Publish()
	return p
}

// setUsed has the device use chains of a split ring: index is that of the used ring afterwards.
func (p *pair) setUsed(index uint16, elements ...usedElement) {
	used := p.ring.device
	for i, e := range elements {
		dma.StoreRelease32(used, spec.UsedRing+spec.UsedEntrySize*i, e.id)
		dma.StoreRelease32(used, spec.UsedRing+spec.UsedEntrySize*i+4, e.length)
	}
	dma.StoreRelease16(used, spec.UsedIndex, index)
}

// setUsedDesc has the device use a chain of a packed ring in its first round.
func (p *pair) setUsedDesc(at int, id uint16, length uint32) {
	d := spec.PackedDesc{Len: length, ID: id, Flags: spec.PackedUsed(true) | spec.DescWrite}
	dma.StoreRelease64(p.mem, at*spec.DescSize+8, d.Word())
}

func TestDeviceThatLies(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  RingConfig
		lie  func(p *pair)
	}{
		{"index jumps", RingConfig{}, func(p *pair) { p.setUsed(3, usedElement{0, 1}, usedElement{1, 1}) }},
		{"index goes back", RingConfig{}, func(p *pair) { p.setUsed(0xffff) }},
		{"no such chain", RingConfig{}, func(p *pair) { p.setUsed(1, usedElement{4, 1}) }},
		{"no number at all", RingConfig{}, func(p *pair) { p.setUsed(1, usedElement{0x1_0000, 1}) }},
		{"chain not under way", RingConfig{}, func(p *pair) { p.setUsed(1, usedElement{2, 1}) }},
		{"chain twice", RingConfig{}, func(p *pair) { p.setUsed(2, usedElement{0, 1}, usedElement{0, 1}) }},
		{"too many bytes", RingConfig{}, func(p *pair) { p.setUsed(1, usedElement{0, 101}) }},
		{"in order, index jumps", RingConfig{InOrder: true}, func(p *pair) { p.setUsed(3, usedElement{1, 1}) }},
		{"in order, no such chain", RingConfig{InOrder: true}, func(p *pair) { p.setUsed(1, usedElement{9, 1}) }},
		{"in order, chain not under way", RingConfig{InOrder: true}, func(p *pair) { p.setUsed(1, usedElement{3, 1}) }},
		{"in order, batch beyond the index", RingConfig{InOrder: true}, func(p *pair) { p.setUsed(1, usedElement{1, 1}) }},
		{"in order, too many bytes", RingConfig{InOrder: true}, func(p *pair) { p.setUsed(2, usedElement{1, 201}) }},
		{"in order, chain twice", RingConfig{InOrder: true}, func(p *pair) { p.setUsed(2, usedElement{0, 1}, usedElement{0, 1}) }},
		{"packed, no such chain", RingConfig{Packed: true}, func(p *pair) { p.setUsedDesc(0, 4, 1) }},
		{"packed, chain not under way", RingConfig{Packed: true}, func(p *pair) { p.setUsedDesc(0, 2, 1) }},
		{"packed, chain twice", RingConfig{Packed: true}, func(p *pair) { p.setUsedDesc(0, 1, 1); p.setUsedDesc(1, 1, 1) }},
		{"packed, too many bytes", RingConfig{Packed: true}, func(p *pair) { p.setUsedDesc(0, 0, 101) }},
		{"packed, in order, no such chain", RingConfig{Packed: true, InOrder: true}, func(p *pair) { p.setUsedDesc(0, 99, 1) }},
		{"packed, in order, chain twice", RingConfig{Packed: true, InOrder: true}, func(p *pair) { p.setUsedDesc(0, 1, 1); p.setUsedDesc(2, 1, 1) }},
		{"packed, in order, too many bytes", RingConfig{Packed: true, InOrder: true}, func(p *pair) { p.setUsedDesc(0, 1, 201) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := hostileRing(t, c.cfg)
			c.lie(p)
			done := make([]Used, 1)
			var err error
			for range 4 {
				if _, err = p.ring.Reap(done); err != nil {
					break
				}
			}
			if !errors.Is(err, ErrDevice) {
				t.Fatal(err)
			}
			// It is for good.
			if _, again := p.ring.Reap(done); again != err {
				t.Error(again)
			}
			if again := p.ring.AddReadable(1, p.addr, 1); again != err {
				t.Error(again)
			}
			if p.ring.Publish() {
				t.Error("notifies")
			}
		})
	}
}

func TestBatchOfOrderedRing(t *testing.T) {
	for name, c := range map[string]struct {
		cfg RingConfig
		use func(p *pair)
	}{
		"split":  {RingConfig{InOrder: true}, func(p *pair) { p.setUsed(2, usedElement{1, 5}) }},
		"packed": {RingConfig{InOrder: true, Packed: true}, func(p *pair) { p.setUsedDesc(0, 1, 5) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := hostileRing(t, c.cfg)
			c.use(p)
			done := make([]Used, 1)
			if n, err := p.ring.Reap(done); n != 1 || err != nil || done[0] != (Used{7, 100}) {
				t.Error(n, err, done) // what is before the one that is named was used entirely
			}
			if !p.ring.EnableInterrupts() {
				t.Error("nothing is left of the batch")
			}
			if n, err := p.ring.Reap(done); n != 1 || err != nil || done[0] != (Used{8, 5}) {
				t.Error(n, err, done)
			}
			if n, err := p.ring.Reap(done); n != 0 || err != nil || p.ring.InFlight() != 0 {
				t.Error(n, err)
			}
		})
	}
}

func TestRingLimits(t *testing.T) {
	for name, cfg := range map[string]RingConfig{
		"no entries": {}, "no power of two": {Size: 3}, "too large": {Size: 32769, Packed: true},
		"chains": {Size: 4, Segments: MaxSegments + 1}, "negative": {Size: 4, Segments: -1},
	} {
		if _, err := cfg.MemorySize(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewRing(cfg, make([]byte, 1<<20), 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := newPair(t, RingConfig{Size: 4, Segments: 8}, 4096)
	for name, mem := range map[string][]byte{"short": p.mem[:64], "not aligned": p.mem[8:]} {
		if _, err := NewRing(RingConfig{Size: 4}, mem, 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	segments := make([]Segment, 8)
	if err := p.ring.Add(0, nil, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := p.ring.Add(0, segments[:5], nil); !errors.Is(err, ErrInvalid) {
		t.Error(err) // more than there are descriptors
	}
	if err := p.ring.Add(0, nil, []Segment{{0, 1 << 31}, {0, 1 << 31}}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if err := p.ring.Add(0, segments[:3], segments[:1]); err != nil || p.ring.Room() != 0 || p.ring.InFlight() != 1 {
		t.Error(err, p.ring.Room())
	}
	for _, err := range []error{p.ring.AddReadable(0, 0, 1), p.ring.AddWritable(0, 0, 1), p.ring.Add(0, segments[:1], nil)} {
		if !errors.Is(err, ErrFull) {
			t.Error(err)
		}
	}
}

func TestRingAllocatesNothing(t *testing.T) {
	p := newPair(t, RingConfig{Size: 256, InOrder: true}, 4096)
	done := make([]Used, 64)
	index := uint16(0)
	if n := testing.AllocsPerRun(1000, func() {
		for i := range 64 {
			if err := p.ring.AddReadable(uint32(i), p.addr, 64); err != nil {
				t.Error(err)
			}
		}
		p.ring.Publish()
		at := int(index) % 256
		index += 64
		dma.StoreRelease32(p.ring.device, spec.UsedRing+spec.UsedEntrySize*at, uint32(index-1)%256)
		dma.StoreRelease16(p.ring.device, spec.UsedIndex, index)
		if n, err := p.ring.Reap(done); n != 64 || err != nil {
			t.Error(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
