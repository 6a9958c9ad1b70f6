package virtqueue

import (
	"errors"
	"math"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

func TestSizesAndAlignments(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		ok   bool
	}{
		{"split, 1", Config{Size: 1}, true},
		{"split, the largest", Config{Size: 32768}, true},
		{"split, none", Config{Size: 0}, false},
		{"split, no power of two", Config{Size: 6}, false},
		{"split, larger than allowed", Config{Size: 65535}, false},
		{"packed, 1", Config{Size: 1, Packed: true}, true},
		{"packed, no power of two", Config{Size: 77, Packed: true}, true},
		{"packed, the largest", Config{Size: 32768, Packed: true}, true},
		{"packed, larger than allowed", Config{Size: 32769, Packed: true}, false},
		{"packed, none", Config{Packed: true}, false},
		{"table not on 16", Config{Size: 4, Desc: 8}, false},
		{"available ring on 2", Config{Size: 4, Driver: 2}, true},
		{"available ring on an odd address", Config{Size: 4, Driver: 1}, false},
		{"used ring on 4", Config{Size: 4, Device: 4}, true},
		{"used ring on 2", Config{Size: 4, Device: 2}, false},
		{"packed ring not on 16", Config{Size: 4, Packed: true, Desc: 8}, false},
		{"driver events not on 4", Config{Size: 4, Packed: true, Driver: 2}, false},
		{"device events not on 4", Config{Size: 4, Packed: true, Device: 2}, false},
		{"table to the end of the address space", Config{Size: 4, Desc: math.MaxUint64 - 63}, true},
		{"table past the end of the address space", Config{Size: 4, Desc: math.MaxUint64 - 47}, false},
		{"used ring past the end of the address space", Config{Size: 4, Device: math.MaxUint64 - 3}, false},
		{"negative bound", Config{Size: 4, MaxChain: -1}, false},
	} {
		q, err := New(tc.cfg)
		if (err == nil) != tc.ok || (q != nil) != tc.ok || !tc.ok && !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// Where a ring may lie, and what Translate says if it lies elsewhere.
func TestTranslate(t *testing.T) {
	const rw = dma.ProtRead | dma.ProtWrite
	part := func(off, size int, p dma.Prot, fd bool) func(*guest) {
		return func(g *guest) {
			if fd {
				g.share(off, size, p)
			} else {
				must(g.t, g.table.Map(dma.Mapping{IOVA: base + uint64(off), Size: uint64(size), Prot: p, FD: -1}))
			}
		}
	}
	for _, tc := range []struct {
		name   string
		packed bool
		parts  []func(*guest)
		want   []error // none: it can be used
	}{
		{"a region for all", false, []func(*guest){part(0, memSize, rw, true)}, nil},
		{"a region for each area", false, []func(*guest){part(0, page, rw, true), part(0x4000, page, rw, true), part(0x6000, page, rw, true)}, nil},
		{"tables that the device may only read", false, []func(*guest){part(0, 0x6000, dma.ProtRead, true), part(0x6000, page, rw, true)}, nil},
		{"used ring in read-only memory", false, []func(*guest){part(0, memSize, dma.ProtRead, true)}, []error{ErrAddress, dma.ErrProt}},
		{"packed ring in read-only memory", true, []func(*guest){part(0, page, dma.ProtRead, true), part(0x4000, 0x4000, rw, true)}, []error{ErrAddress, dma.ErrProt}},
		{"available ring in write-only memory", false, []func(*guest){part(0, page, rw, true), part(0x4000, page, dma.ProtWrite, true), part(0x6000, page, rw, true)}, []error{ErrAddress, dma.ErrProt}},
		{"no memory", false, nil, []error{ErrAddress, dma.ErrNotMapped}},
		{"no memory for the used ring", false, []func(*guest){part(0, 0x6000, rw, true)}, []error{ErrAddress, dma.ErrNotMapped}},
		{"the end is not there", false, []func(*guest){part(0, page, rw, true), part(0x4000, 0x4000, rw, true)}, []error{ErrAddress, dma.ErrNotMapped}},
		{"all by message", false, []func(*guest){part(0, memSize, rw, false)}, []error{ErrRemote}},
		{"an area by message", true, []func(*guest){part(0, 0x4000, rw, true), part(0x4000, page, rw, false), part(0x5000, memSize-0x5000, rw, true)}, []error{ErrRemote}},
		{"an area in two regions", false, []func(*guest){part(0, page, rw, true), part(page, memSize-page, rw, true)}, []error{ErrRemote}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newGuest(t, memSize)
			for _, p := range tc.parts {
				p(g)
			}
			cfg := areas(Config{Size: 8, Packed: tc.packed})
			if tc.name == "the end is not there" || tc.name == "an area in two regions" {
				cfg.Desc += page - 2*spec.DescSize
			}
			q, err := New(cfg)
			must(t, err)
			g.r.Enter()
			defer g.r.Exit()
			err = q.Translate(g.r)
			for _, want := range tc.want {
				if !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			}
			if len(tc.want) == 0 {
				must(t, err)
			} else if n, err := q.Take(make([]Chain, 1)); n != 0 || err == nil {
				t.Error("it can be used all the same")
			}
		})
	}
}

func TestStateIsChecked(t *testing.T) {
	_, q := newSplit(t, Config{Size: 6, Packed: true})
	for _, state := range []uint16{6, 7, 6 | 0x8000, 0x7fff, 0xffff} {
		if err := q.Restore(state); !errors.Is(err, ErrConfig) {
			t.Errorf("%#x: %v", state, err)
		}
	}
	must(t, q.Restore(5))
	if s, err := q.State(); s != 5 || err != nil {
		t.Error(s, err)
	}
}
