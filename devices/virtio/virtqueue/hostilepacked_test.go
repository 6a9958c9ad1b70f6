package virtqueue

import (
	"errors"
	"math"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

func TestPackedRingRules(t *testing.T) {
	type desc = spec.PackedDesc
	pd := func(addr uint64, n uint32, flags uint16) desc { return desc{Addr: addr, Len: n, Flags: flags} }
	good := desc{Addr: dataAt, Len: 16}
	type table = []spec.Desc
	buffer := spec.Desc{Addr: dataAt, Len: 16}
	for _, tc := range []struct {
		name  string
		ring  []desc // from entry 1 on; entry 0 is a good chain
		table table
		want  error
	}{
		{"chain without end", []desc{pd(dataAt, 1, next), pd(dataAt, 1, next), pd(dataAt, 1, next), pd(dataAt, 1, next), pd(dataAt, 1, next)}, nil, ErrIndex},
		{"readable after writable", []desc{pd(dataAt, 1, next|write), good}, nil, ErrOrder},
		{"4 GiB in all", []desc{pd(dataAt, 16, next), pd(dataAt, math.MaxUint32-15, 0)}, nil, ErrLength},
		{"address outside memory", []desc{pd(1<<40, 1, 0)}, nil, ErrAddress},
		{"end outside memory", []desc{pd(base+memSize-1, 2, 0)}, nil, ErrAddress},
		{"address wraps", []desc{pd(math.MaxUint64, 2, 0)}, nil, ErrAddress},
		{"table of size 0", []desc{pd(tablesAt, 0, indirect)}, nil, ErrTable},
		{"table of half a descriptor more", []desc{pd(tablesAt, 24, indirect)}, table{buffer}, ErrTable},
		{"table above the bound", []desc{pd(tablesAt, 16*(defaultMaxChain+1), indirect)}, table{buffer}, ErrTable},
		{"table outside memory", []desc{pd(1<<40, 16, indirect)}, nil, ErrAddress},
		{"table with next", []desc{pd(tablesAt, 16, indirect|next), good}, table{buffer}, ErrIndirectNext},
		{"table at the end of a chain", []desc{pd(dataAt, 1, next), pd(tablesAt, 16, indirect)}, table{buffer}, ErrIndirectNext},
		{"readable after writable in a table", []desc{pd(tablesAt, 32, indirect)}, table{buffer, buffer}, ErrOrder},
	} {
		t.Run(tc.name, func(t *testing.T) {
			packedModes(t, Config{Size: 6, Indirect: true}, func(t *testing.T, s *rawPacked, q *Queue) {
				s.put(0, desc{Addr: dataAt, Len: 1}, true)
				for i, d := range tc.ring {
					s.put(1+i, d, true)
				}
				for i, d := range tc.table {
					if tc.want == ErrOrder && i == 0 {
						d.Next = write // the flags of a packed descriptor lie there
					}
					s.g.desc(tablesAt, i, d)
				}
				if tc.want == ErrAddress && q.mem != nil {
					lost(t, q)
					return
				}
				breaks(t, q, tc.want)
			})
		})
	}
}

func TestPackedChainLongerThanTheRing(t *testing.T) {
	packedModes(t, Config{Size: 5}, func(t *testing.T, s *rawPacked, q *Queue) {
		for i := range 5 {
			s.put(i, spec.PackedDesc{Addr: dataAt, Len: 1, Flags: next}, true)
		}
		if n, err := q.Take(make([]Chain, 2)); n != 0 || !errors.Is(err, ErrLoop) {
			t.Errorf("took %d, %v", n, err)
		}
	})
}

// The driver makes descriptors available again that the device still has.
func TestPackedRingOverrun(t *testing.T) {
	packedModes(t, Config{Size: 3}, func(t *testing.T, s *rawPacked, q *Queue) {
		for i := range 3 {
			s.put(i, spec.PackedDesc{Addr: dataAt, Len: 1}, true)
		}
		take(t, q, make([]Chain, 3), 3)
		s.put(0, spec.PackedDesc{Addr: dataAt, Len: 1}, false)
		if n, err := q.Take(make([]Chain, 3)); n != 0 || !errors.Is(err, ErrIndex) {
			t.Errorf("took %d, %v", n, err)
		}
	})
}

func TestPackedIndirectNotNegotiated(t *testing.T) {
	packedModes(t, Config{Size: 3}, func(t *testing.T, s *rawPacked, q *Queue) {
		s.put(0, spec.PackedDesc{Addr: dataAt, Len: 1}, true)
		s.put(1, spec.PackedDesc{Addr: tablesAt, Len: 16, Flags: indirect}, true)
		s.g.desc(tablesAt, 0, spec.Desc{Addr: dataAt, Len: 1})
		breaks(t, q, ErrIndirect)
	})
}

// The reserved value of the driver's event flags, and the one that was not negotiated, lose
// no interrupt.
func TestPackedEventFlagsOutOfRange(t *testing.T) {
	for _, flags := range []uint32{spec.EventDesc, 3} {
		packedModes(t, Config{Size: 3}, func(t *testing.T, s *rawPacked, q *Queue) {
			dma.Store32(s.g.at(s.cfg.Driver, 4), 0, spec.EventWord(2, flags))
			s.put(0, spec.PackedDesc{Addr: dataAt, Len: 1}, true)
			c := take(t, q, make([]Chain, 1), 1)
			q.Push(&c[0], 0)
			if !q.Publish() {
				t.Error("no interrupt")
			}
		})
	}
}
