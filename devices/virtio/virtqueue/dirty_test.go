package virtqueue

import (
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// What the device writes to a ring and to buffers is in the log of writes, and nothing else.
func TestWritesAreLogged(t *testing.T) {
	const at = dataAt + 2*page
	for _, tc := range []struct {
		name  string
		cfg   Config
		do    func(q *Queue, chains []Chain)
		wrote []uint64
	}{
		{"split, take", Config{Size: 8}, func(q *Queue, c []Chain) { _, _ = q.Take(c) }, []uint64{at}},
		{"split, publish", Config{Size: 8}, round, []uint64{at, base + 0x6000}},
		{"split, publish in a large ring", Config{Size: 1024}, round, []uint64{at, base + 0x6000}},
		{"split, publish around the end", Config{Size: 1024}, func(q *Queue, c []Chain) {
			q.avail, q.used = 1023, 1023
			round(q, c)
		}, []uint64{at, at + page, base + 0x6000, base + 0x7000, base + 0x8000}},
		{"split, arm", Config{Size: 8}, func(q *Queue, _ []Chain) { q.Arm() }, []uint64{base + 0x6000}},
		{"split, arm the event index", Config{Size: 1024, EventIdx: true}, func(q *Queue, _ []Chain) { q.Arm() }, []uint64{base + 0x8000}},
		{"split, disarm", Config{Size: 8}, func(q *Queue, _ []Chain) { q.Disarm() }, []uint64{base + 0x6000}},
		{"split, disarm with the event index", Config{Size: 8, EventIdx: true}, func(q *Queue, _ []Chain) { q.Disarm() }, nil},
		{"packed, publish", Config{Size: 300, Packed: true}, round, []uint64{at, base}},
		{"packed, publish around the end", Config{Size: 300, Packed: true}, func(q *Queue, c []Chain) {
			q.avail, q.used = 299, 299
			round(q, c)
		}, []uint64{at, base, base + 0x1000}},
		{"packed, arm", Config{Size: 300, Packed: true}, func(q *Queue, _ []Chain) { q.Arm() }, []uint64{base + 0x6000}},
		{"packed, disarm", Config{Size: 300, Packed: true}, func(q *Queue, _ []Chain) { q.Disarm() }, []uint64{base + 0x6000}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, q := newSplit(t, tc.cfg)
			last := int(tc.cfg.Size) - 1
			if tc.cfg.Packed {
				p := rawPacked{s.g, s.cfg}
				d := spec.PackedDesc{Addr: at, Len: 4, Flags: write}
				p.put(0, d, true)
				p.put(last, d, true)
				p.put(0, d, tc.name != "packed, publish around the end")
			} else {
				s.desc(0, spec.Desc{Addr: at, Len: 4, Flags: write})
				s.desc(1, spec.Desc{Addr: at + page, Len: 4, Flags: write})
				s.offer(0)
				if tc.name == "split, publish around the end" {
					s.idx = 1023
					s.offer(0, 1)
				}
			}
			s.g.r.Exit()
			_, err := s.g.table.StartLogging(page, nil, nil)
			must(t, err)
			s.g.r.Enter()
			must(t, q.Translate(s.g.r))
			s.g.r.Exit()
			forget := make([]uint64, 1)
			all := dma.Range{IOVA: base, Size: memSize}
			must(t, s.g.table.ReportDirty(all, page, forget)) // Translate counts as a write
			s.g.r.Enter()
			tc.do(q, make([]Chain, 2))
			s.g.r.Exit()
			got := make([]uint64, 1)
			must(t, s.g.table.ReportDirty(all, page, got))
			var want uint64
			for _, addr := range tc.wrote {
				want |= 1 << ((addr - base) / page)
			}
			if got[0] != want {
				t.Errorf("pages %#x, want %#x", got[0], want)
			}
		})
	}
}

// round takes, pushes and publishes what there is.
func round(q *Queue, chains []Chain) {
	n, err := q.Take(chains)
	if n == 0 {
		panic(err)
	}
	for i := range chains[:n] {
		q.Push(&chains[i], 4)
	}
	q.Publish()
}
