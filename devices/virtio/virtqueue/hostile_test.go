package virtqueue

import (
	"errors"
	"math"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

const (
	next     = spec.DescNext
	write    = spec.DescWrite
	indirect = spec.DescIndirect
)

// breaks takes from a queue with one good chain before the broken one, and checks that the
// good one comes, then the error, which stays, and that the good one can still be used.
func breaks(t *testing.T, q *Queue, want ...error) {
	t.Helper()
	chains := make([]Chain, 4)
	n, err := q.Take(chains)
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Fatalf("error %v, want %v", err, w)
		}
	}
	var e *Error
	if !errors.As(err, &e) || e.At != 1 {
		t.Errorf("error %v is not about entry 1", err)
	}
	if n != 1 || chains[0].ReadableLen != 1 {
		t.Errorf("took %d chains, want the one that is good", n)
	}
	if m, again := q.Take(chains[1:]); m != 0 || !errors.Is(again, err) || q.Err() == nil {
		t.Errorf("then took %d, %v", m, again)
	}
	q.Push(&chains[0], 0)
	if !q.Publish() {
		t.Error("no interrupt for the good chain")
	}
}

func TestSplitRingRules(t *testing.T) {
	type desc = spec.Desc
	sd := func(addr uint64, n uint32, flags, next uint16) desc {
		return desc{Addr: addr, Len: n, Flags: flags, Next: next}
	}
	good := desc{Addr: dataAt, Len: 16}
	for _, tc := range []struct {
		name  string
		ring  []desc // from entry 1 of the table on, a chain's head; entry 0 is a good chain
		table []desc // at tablesAt
		want  error
	}{
		{"next outside the table", []desc{sd(dataAt, 1, next, 8)}, nil, ErrNext},
		{"next at the end of 16 bits", []desc{sd(dataAt, 1, next, 0xffff)}, nil, ErrNext},
		{"loop to itself", []desc{sd(dataAt, 1, next, 1)}, nil, ErrLoop},
		{"loop of two", []desc{sd(dataAt, 1, next, 2), sd(dataAt, 1, next, 1)}, nil, ErrLoop},
		{"loop of empty buffers", []desc{sd(0, 0, next, 1)}, nil, ErrLoop},
		{"readable after writable", []desc{sd(dataAt, 1, next|write, 2), good}, nil, ErrOrder},
		{"4 GiB in all", []desc{sd(dataAt, 16, next, 2), sd(dataAt, math.MaxUint32-15, 0, 0)}, nil, ErrLength},
		{"address outside memory", []desc{sd(1<<40, 1, 0, 0)}, nil, ErrAddress},
		{"end outside memory", []desc{sd(base+memSize-1, 2, 0, 0)}, nil, ErrAddress},
		{"address wraps", []desc{sd(math.MaxUint64, 2, 0, 0)}, nil, ErrAddress},
		{"length of 4 GiB", []desc{sd(dataAt, math.MaxUint32, write, 0)}, nil, ErrAddress},
		{"table of size 0", []desc{sd(tablesAt, 0, indirect, 0)}, nil, ErrTable},
		{"table of half a descriptor more", []desc{sd(tablesAt, 24, indirect, 0)}, []desc{good}, ErrTable},
		{"table above the bound", []desc{sd(tablesAt, 16*(defaultMaxChain+1), indirect, 0)}, []desc{good}, ErrTable},
		{"table of 4 GiB", []desc{sd(tablesAt, math.MaxUint32&^15, indirect, 0)}, []desc{good}, ErrTable},
		{"table outside memory", []desc{sd(1<<40, 16, indirect, 0)}, nil, ErrAddress},
		{"table wraps", []desc{sd(math.MaxUint64&^15, 32, indirect, 0)}, nil, ErrAddress},
		{"table in a table", []desc{sd(tablesAt, 16, indirect, 0)}, []desc{sd(tablesAt, 16, indirect, 0)}, ErrNested},
		{"table with next", []desc{sd(tablesAt, 16, indirect|next, 2), good}, []desc{good}, ErrIndirectNext},
		{"next outside the indirect table", []desc{sd(tablesAt, 32, indirect, 0)}, []desc{sd(dataAt, 1, next, 2), good}, ErrNext},
		{"loop in an indirect table", []desc{sd(tablesAt, 32, indirect, 0)}, []desc{sd(dataAt, 1, next, 1), sd(dataAt, 1, next, 0)}, ErrLoop},
		{"writable in the ring, readable in the table", []desc{sd(dataAt, 1, next|write, 2), sd(tablesAt, 16, indirect, 0)}, []desc{good}, ErrOrder},
	} {
		t.Run(tc.name, func(t *testing.T) {
			modes(t, Config{Size: 8, Indirect: true}, func(t *testing.T, s *rawSplit, q *Queue) {
				s.desc(0, desc{Addr: dataAt, Len: 1})
				for i, d := range tc.ring {
					s.desc(1+i, d)
				}
				for i, d := range tc.table {
					s.g.desc(tablesAt, i, d)
				}
				s.offer(0, 1)
				if tc.want == ErrAddress && q.mem != nil {
					lost(t, q)
					return
				}
				breaks(t, q, tc.want)
			})
		})
	}
}

// lost checks what happens where the guest, who is asked, says that there is no such memory.
func lost(t *testing.T, q *Queue) {
	t.Helper()
	n, err := q.Take(make([]Chain, 4))
	if n != 1 || !errors.Is(err, ErrMemory) && !errors.Is(err, ErrAddress) && !errors.Is(err, ErrTooLong) {
		t.Errorf("took %d, %v", n, err)
	}
}

func TestSplitHeadOutsideTheTable(t *testing.T) {
	for _, head := range []uint16{8, 0x8000, 0xffff} {
		modes(t, Config{Size: 8}, func(t *testing.T, s *rawSplit, q *Queue) {
			s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
			s.offer(0, head)
			breaks(t, q, ErrHead)
		})
	}
}

func TestSplitIndexJumps(t *testing.T) {
	for _, tc := range []struct {
		name  string
		taken int
		jump  uint16
	}{
		{"past the queue's size", 0, 9},
		{"backwards", 0, 0xffff},
		{"over what the device still has", 3, 6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			modes(t, Config{Size: 8}, func(t *testing.T, s *rawSplit, q *Queue) {
				for i := range 8 {
					s.desc(i, spec.Desc{Addr: dataAt, Len: 1})
				}
				s.offer(0, 1, 2, 3, 4, 5, 6, 7)
				ring := s.g.at(s.cfg.Driver, 4)
				dma.Store16(ring, 2, uint16(tc.taken))
				take(t, q, make([]Chain, 8), tc.taken)
				dma.Store16(ring, 2, uint16(tc.taken)+tc.jump)
				if n, err := q.Take(make([]Chain, 8)); n != 0 || !errors.Is(err, ErrIndex) {
					t.Errorf("took %d, %v", n, err)
				}
			})
		})
	}
}

func TestSplitIndirectNotNegotiated(t *testing.T) {
	modes(t, Config{Size: 8}, func(t *testing.T, s *rawSplit, q *Queue) {
		s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
		s.desc(1, spec.Desc{Addr: tablesAt, Len: 16, Flags: indirect})
		s.g.desc(tablesAt, 0, spec.Desc{Addr: dataAt, Len: 1})
		s.offer(0, 1)
		breaks(t, q, ErrIndirect)
	})
}

// A buffer of no length is left out wherever it is, and its address means nothing: the
// specification neither allows nor forbids it, and nothing can go wrong.
func TestBuffersOfNoLengthAreLeftOut(t *testing.T) {
	modes(t, Config{Size: 8}, func(t *testing.T, s *rawSplit, q *Queue) {
		s.desc(0, spec.Desc{Addr: math.MaxUint64, Flags: next, Next: 1})
		s.desc(1, spec.Desc{Addr: dataAt, Len: 3, Flags: next | write, Next: 2})
		s.desc(2, spec.Desc{Addr: 1, Flags: next, Next: 3})
		s.desc(3, spec.Desc{Flags: write})
		s.desc(4, spec.Desc{})
		s.offer(0, 4)
		chains := take(t, q, make([]Chain, 2), 2)
		if c := chains[0]; len(c.Readable) != 0 || len(c.Writable) != 1 || c.WritableLen != 3 {
			t.Errorf("readable %d, writable %d", len(c.Readable), len(c.Writable))
		}
		if c := chains[1]; len(c.Readable)+len(c.Writable) != 0 {
			t.Error("buffers in an empty chain")
		}
		q.Push(&chains[0], 3)
		q.Push(&chains[1], 0)
		if !q.Publish() || q.Err() != nil {
			t.Error(q.Err())
		}
	})
}

func TestChainAboveTheBound(t *testing.T) {
	modes(t, Config{Size: 8, Indirect: true, MaxChain: 3}, func(t *testing.T, s *rawSplit, q *Queue) {
		s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
		for i := range 4 {
			s.desc(1+i, spec.Desc{Addr: dataAt, Len: 1, Flags: next, Next: uint16(2 + i)})
		}
		s.desc(4, spec.Desc{Addr: dataAt, Len: 1})
		s.offer(0, 1)
		breaks(t, q, ErrTooLong)
	})
}

// A used element says no more than the buffers hold, whatever the device says.
func TestWrittenIsBounded(t *testing.T) {
	modes(t, Config{Size: 8}, func(t *testing.T, s *rawSplit, q *Queue) {
		s.desc(0, spec.Desc{Addr: dataAt, Len: 5, Flags: write})
		s.offer(0)
		c := take(t, q, make([]Chain, 1), 1)
		q.Push(&c[0], 100)
		q.Publish()
		if _, n := s.used(0); n != 5 {
			t.Errorf("used with %d bytes", n)
		}
	})
}
