package virtqueue

import (
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// With IN_ORDER one used element stands for chains in a row that have nothing to write: it
// names the last and lies where the first was (2.7.9). Lengths of others are told.
func TestInOrderOneElementForMany(t *testing.T) {
	modes(t, Config{Size: 8, InOrder: true}, func(t *testing.T, s *rawSplit, q *Queue) {
		for i := range 5 {
			s.desc(i, spec.Desc{Addr: dataAt, Len: 9, Flags: map[bool]uint16{true: write}[i == 3]})
		}
		for i := range 8 {
			s.g.at(s.cfg.Device+4+8*uint64(i), 8)[0] = 0xaa
		}
		s.offer(0, 1, 2, 3, 4)
		chains := make([]Chain, 5)
		take(t, q, chains, 5)
		for i := range chains {
			q.Push(&chains[i], 7)
		}
		if !q.Publish() || s.used16(spec.UsedIndex) != 5 {
			t.Errorf("index %d", s.used16(spec.UsedIndex))
		}
		for i, want := range []struct{ id, n uint32 }{{2, 0}, {0xaa, 0}, {0xaa, 0}, {3, 7}, {4, 0}, {0xaa, 0}} {
			if id, n := s.used(i); id != want.id || n != want.n {
				t.Errorf("element %d: head %d, %d bytes", i, id, n)
			}
		}
	})
}

func TestPackedInOrderOneDescriptorForMany(t *testing.T) {
	packedModes(t, Config{Size: 8, InOrder: true}, func(t *testing.T, s *rawPacked, q *Queue) {
		put := func(i int, id, flags uint16) {
			s.put(i, spec.PackedDesc{Addr: dataAt, Len: 9, ID: id, Flags: flags}, true)
		}
		put(0, 50, 0)
		put(1, 60, next)
		put(2, 61, 0)
		put(3, 70, write)
		put(4, 80, 0)
		chains := make([]Chain, 5)
		take(t, q, chains, 4)
		for i := range chains[:4] {
			q.Push(&chains[i], 7)
		}
		q.Publish()
		used := spec.PackedUsed(true)
		for i, want := range map[int]spec.PackedDesc{
			0: {ID: 61, Flags: used}, 1: {Len: 9, ID: 60, Flags: next | spec.DescAvail},
			3: {Len: 7, ID: 70, Flags: used | write}, 4: {ID: 80, Flags: used},
		} {
			got := spec.PackedDescOf(0, dma.Load64(s.g.at(s.cfg.Desc+16*uint64(i), 16), 8))
			if got != want {
				t.Errorf("descriptor %d: %+v, want %+v", i, got, want)
			}
		}
	})
}

// What is published does not join what was.
func TestInOrderJoinsOnlyWhatIsPublishedTogether(t *testing.T) {
	modes(t, Config{Size: 8, InOrder: true}, func(t *testing.T, s *rawSplit, q *Queue) {
		s.desc(0, spec.Desc{Addr: dataAt, Len: 9})
		s.desc(1, spec.Desc{Addr: dataAt, Len: 9})
		s.offer(0, 1)
		chains := make([]Chain, 2)
		take(t, q, chains, 2)
		for i := range chains {
			q.Push(&chains[i], 0)
			q.Publish()
			if id, _ := s.used(i); int(id) != i || int(s.used16(spec.UsedIndex)) != i+1 {
				t.Errorf("head %d, index %d", id, s.used16(spec.UsedIndex))
			}
		}
	})
}
