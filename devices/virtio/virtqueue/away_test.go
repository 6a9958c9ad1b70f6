package virtqueue

import (
	"errors"
	"testing"

	"vfiouser/devices/virtio/spec"
)

// away is a Memory without the pages in which some address lies.
type away struct {
	*guest
	addr uint64 // 0: all there
}

var errAway = errors.New("taken away for a while")

func (a *away) ReadDMA(iova uint64, p []byte) error {
	if a.addr != 0 && iova/page == a.addr/page {
		return errAway
	}
	return a.guest.ReadDMA(iova, p)
}

func (a *away) WriteDMA(iova uint64, p []byte) error {
	if a.addr != 0 && iova/page == a.addr/page {
		return errAway
	}
	return a.guest.WriteDMA(iova, p)
}

// A client takes memory away while it changes its mappings: as long as nothing had to be
// written, nothing is lost.
func TestRingThatIsAwayForAWhile(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, eventIdx := range []bool{false, true} {
			g := newGuest(t, memSize)
			cfg := areas(Config{Size: 8, Packed: packed, EventIdx: eventIdx})
			// The areas in pages of their own.
			cfg.Driver, cfg.Device = base+16*page, base+17*page
			q, err := New(cfg)
			must(t, err)
			mem := &away{guest: g}
			q.SetRemote(mem)
			chains := make([]Chain, 1)

			// Arm says that there is something, and Take that it was not possible.
			mem.addr = cfg.Device
			if !q.Arm() {
				t.Error("armed")
			}
			if _, err := q.Take(chains); !errors.Is(err, errAway) || q.Err() != nil {
				t.Errorf("Take: %v, broken by %v", err, q.Err())
			}
			q.Disarm()
			mem.addr = 0
			if n, err := q.Take(chains); n != 0 || err != nil {
				t.Errorf("took %d, %v", n, err)
			}
			if q.Arm() {
				t.Error("something is there")
			}

			// What was published is published, though nobody knows who wants to hear of it.
			if packed {
				(&rawPacked{g: g, cfg: cfg}).put(0, spec.PackedDesc{Addr: base, Len: 1}, true)
			} else {
				s := &rawSplit{g: g, cfg: cfg}
				s.desc(0, spec.Desc{Addr: base, Len: 1})
				s.offer(0)
			}
			if n, err := q.Take(chains); n != 1 || err != nil {
				t.Fatalf("took %d, %v", n, err)
			}
			q.Push(&chains[0], 0)
			mem.addr = cfg.Driver
			if !q.Publish() || q.Err() != nil {
				t.Errorf("no interrupt, broken by %v", q.Err())
			}
		}
	}
}
