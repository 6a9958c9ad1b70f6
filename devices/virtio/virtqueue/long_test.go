package virtqueue

import (
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// longTable is the number of descriptors of a long chain, of which every second has no length.
const longTable = 1500

// A batch of unusually long chains ends early, and the next one goes on behind it.
func TestLongChainsEndABatch(t *testing.T) {
	check := func(t *testing.T, q *Queue) {
		chains := make([]Chain, 8)
		for taken := 0; taken < 8; {
			n, err := q.Take(chains)
			if err != nil || n != 2 {
				t.Fatalf("took %d, %v", n, err)
			}
			for i := range chains[:n] {
				c := &chains[i]
				if c.WritableLen != longTable/2 || len(c.Writable) != longTable/2 {
					t.Fatalf("%d bytes in %d buffers", c.WritableLen, len(c.Writable))
				}
				q.Push(c, 1)
			}
			if walked := q.Walked(); walked < 2*longTable {
				t.Errorf("%d descriptors", walked)
			}
			if !q.Publish() {
				t.Error("no interrupt")
			}
			taken += n
		}
		for i := range chains[2:] {
			if cap(chains[2+i].Writable) > 0 {
				t.Error("an unused chain has room for many buffers")
			}
		}
	}
	t.Run("split", func(t *testing.T) {
		modes(t, Config{Size: 8, Indirect: true, MaxChain: longTable}, func(t *testing.T, s *rawSplit, q *Queue) {
			for i := range longTable {
				d := spec.Desc{Addr: dataAt, Len: uint32(i & 1), Flags: write | next, Next: uint16(i + 1)}
				if i == longTable-1 {
					d.Flags = write
				}
				s.g.desc(tablesAt, i, d)
			}
			for i := range 8 {
				s.desc(i, spec.Desc{Addr: tablesAt, Len: longTable * spec.DescSize, Flags: indirect})
				s.offer(uint16(i))
			}
			check(t, q)
		})
	})
	t.Run("packed", func(t *testing.T) {
		modes(t, Config{Size: 8, Packed: true, Indirect: true, MaxChain: longTable}, func(t *testing.T, s *rawSplit, q *Queue) {
			for i := range longTable {
				d := spec.PackedDesc{Addr: dataAt, Len: uint32(i & 1), Flags: write}
				d.Put(s.g.at(tablesAt+uint64(i)*spec.DescSize, spec.DescSize))
			}
			for i := range 8 {
				d := spec.PackedDesc{Addr: tablesAt, Len: longTable * spec.DescSize, ID: uint16(i), Flags: indirect | spec.DescAvail}
				d.Put(s.g.at(s.cfg.Desc+spec.DescBytes(uint16(i)), spec.DescSize))
			}
			dma.Store32(s.g.at(s.cfg.Driver, 4), 0, spec.EventWord(0, spec.EventEnable))
			check(t, q)
		})
	})
}

// What is wrong behind a long chain is found when it is its turn.
func TestErrorBehindLongChains(t *testing.T) {
	modes(t, Config{Size: 8, Indirect: true, MaxChain: 4096}, func(t *testing.T, s *rawSplit, q *Queue) {
		for i := range 4096 {
			s.g.desc(tablesAt, i, spec.Desc{Flags: write | next, Next: uint16(i+1) % 4096})
		}
		s.g.desc(tablesAt, 4095, spec.Desc{Addr: dataAt, Len: 1, Flags: write})
		s.desc(0, spec.Desc{Addr: tablesAt, Len: 4096 * spec.DescSize, Flags: indirect})
		s.offer(0, 9)
		chains := make([]Chain, 4)
		if n, _ := q.Take(chains); n != 1 || chains[0].WritableLen != 1 {
			t.Fatalf("took %d", n)
		}
		q.Push(&chains[0], 1)
		q.Publish()
		if n, err := q.Take(make([]Chain, 4)); n != 0 || err == nil || q.Err() == nil {
			t.Errorf("took %d, %v", n, err)
		}
	})
}
