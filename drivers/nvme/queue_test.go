package nvme

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

// loneQueue is a queue without a device: the test plays it in the queue's own memory.
func loneQueue(t testing.TB, cfg QueueConfig) (*Queue, *Namespace) {
	t.Helper()
	mem, err := client.NewMemory(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	c := &Controller{mem: mem, base: 1 << 32, dev: new(client.Device)}
	c.bells.stride = 4
	q := &Queue{c: c, id: 3}
	if err := q.prepare(cfg, cfg.Depth+1, 2*(cfg.Depth+1)); err != nil {
		t.Fatal(err)
	}
	q.sqBell.register, q.cqBell.register = new(atomic.Uint32), new(atomic.Uint32)
	return q, &Namespace{c: c, id: 7, shift: 9}
}

// loneDevice completes what was submitted, in order.
type loneDevice struct {
	q     *Queue
	head  uint32 // of the submission queue
	tail  uint32 // of the completion queue
	phase uint64
}

func newLoneDevice(q *Queue) *loneDevice { return &loneDevice{q: q, phase: phaseBit} }

// fetch returns the tag of the next submitted command.
func (d *loneDevice) fetch() (tag uint16, ok bool) {
	if d.head == d.q.sqBell.register.Load() {
		return 0, false
	}
	tag = uint16(d.q.sq[d.head][0] >> 16)
	if d.head++; d.head == uint32(len(d.q.sq)) {
		d.head = 0
	}
	return tag, true
}

func (d *loneDevice) complete(status spec.Status) {
	for tag, ok := d.fetch(); ok; tag, ok = d.fetch() {
		d.post(d.q.id, tag, status)
	}
}

func (d *loneDevice) post(queue, tag uint16, status spec.Status) {
	e := &d.q.cq[d.tail]
	e.lo = 42
	e.hi.Store(uint64(d.head) | uint64(queue)<<16 | uint64(tag)<<32 | uint64(status)<<49 | d.phase)
	if d.tail++; d.tail == uint32(len(d.q.cq)) {
		d.tail, d.phase = 0, d.phase^phaseBit
	}
}

func TestQueueGoesRoundManyTimes(t *testing.T) {
	q, n := loneQueue(t, QueueConfig{Depth: 5, BufferSize: 4096})
	d := newLoneDevice(q)
	done := make([]Completion, 3)
	for round := range 100 {
		for tag := range uint16(5) {
			if err := q.Read(tag, n, uint64(round), 1); err != nil {
				t.Fatal(err)
			}
		}
		if q.sqBell.register.Load() == q.tail {
			t.Fatal("the doorbell was rung before Ring")
		}
		if err := q.Ring(); err != nil {
			t.Fatal(err)
		}
		d.complete(spec.LBAOutOfRange)
		for want := uint16(0); want < 5; {
			k, err := q.Poll(done)
			if err != nil || k == 0 {
				t.Fatal(k, err)
			}
			for _, c := range done[:k] {
				if c.Tag != want || c.Result != 42 || !errors.Is(c.Err(), spec.LBAOutOfRange) {
					t.Fatalf("%+v", c)
				}
				want++
			}
		}
		if k, err := q.Poll(done); k != 0 || err != nil {
			t.Fatal(k, err)
		}
		// Taken entries are given back late, but never so late that the device runs out of free ones.
		taken := (d.tail + uint32(len(q.cq)) - q.cqBell.register.Load()) % uint32(len(q.cq))
		if q.head != d.tail || int(taken)+q.Depth() >= len(q.cq) {
			t.Fatalf("head %d, device at %d, %d entries not given back", q.head, d.tail, taken)
		}
	}
}

func TestSubmissionEntries(t *testing.T) {
	q, n := loneQueue(t, QueueConfig{Depth: 8, BufferSize: 16 << 10})
	base := q.IOVA(2)
	for _, test := range []struct {
		name   string
		submit func() error
		want   spec.SubmissionEntry
	}{
		{"a block", func() error { return q.Read(2, n, 0x123456789a, 1) },
			spec.SubmissionEntry{Opcode: 2, CID: 2, NSID: 7, PRP1: base, CDW10: 0x3456789a, CDW11: 0x12}},
		{"a page", func() error { return q.Write(2, n, 1, 8) },
			spec.SubmissionEntry{Opcode: 1, CID: 2, NSID: 7, PRP1: base, CDW10: 1, CDW12: 7}},
		{"a page and a block", func() error { return q.Write(2, n, 1, 9) },
			spec.SubmissionEntry{Opcode: 1, CID: 2, NSID: 7, PRP1: base, PRP2: base + 4096, CDW10: 1, CDW12: 8}},
		{"three pages", func() error { return q.Read(2, n, 1, 24) },
			spec.SubmissionEntry{Opcode: 2, CID: 2, NSID: 7, PRP1: base, PRP2: q.slots[2].list, CDW10: 1, CDW12: 23}},
		{"anything", func() error {
			return q.Submit(2, &spec.SubmissionEntry{Opcode: 9, Flags: 0x40, CID: 99, NSID: 3, CDW2: 4, CDW3: 5, MPTR: 6, PRP1: 7, PRP2: 8,
				CDW10: 10, CDW11: 11, CDW12: 12, CDW13: 13, CDW14: 14, CDW15: 15})
		}, spec.SubmissionEntry{Opcode: 9, Flags: 0x40, CID: 2, NSID: 3, CDW2: 4, CDW3: 5, MPTR: 6, PRP1: 7, PRP2: 8,
			CDW10: 10, CDW11: 11, CDW12: 12, CDW13: 13, CDW14: 14, CDW15: 15}},
	} {
		at := q.tail
		if err := test.submit(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, spec.SubmissionEntrySize)
		for i, w := range q.sq[at] {
			binary.LittleEndian.PutUint64(b[8*i:], w)
		}
		var got spec.SubmissionEntry
		got.Get(b)
		if got != test.want {
			t.Errorf("%s:\n got %+v\nwant %+v", test.name, got, test.want)
		}
		q.slots[2].busy = false
	}
}

func TestBuffersAndTheirPRPLists(t *testing.T) {
	for _, size := range []int{4 << 10, 8 << 10, 12 << 10, 20 << 10, 128 << 10, 2 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			q, _ := loneQueue(t, QueueConfig{Depth: 3, BufferSize: size})
			mem := q.c.mem.Bytes()
			for tag := range uint16(3) {
				p := q.Buffer(tag)
				p[0], p[size-1] = byte(tag+1), byte(tag+1)
				at := q.IOVA(tag) - q.c.base
				if len(p) != size || at%pageSize != 0 || mem[at] != byte(tag+1) || mem[at+uint64(size)-1] != byte(tag+1) {
					t.Fatalf("buffer %d of %d bytes at %#x", tag, len(p), at)
				}
				prp1, prp2 := q.PRPs(tag, size)
				if prp1 != q.IOVA(tag) {
					t.Errorf("PRP1 %#x", prp1)
				}
				switch pages := size / pageSize; {
				case pages == 1 && prp2 != 0, pages == 2 && prp2 != prp1+pageSize:
					t.Errorf("PRP2 %#x", prp2)
				case pages > 2:
					if prp2/pageSize != (prp2+uint64(pages-1)*8-1)/pageSize {
						t.Errorf("list of %d entries at %#x crosses a page", pages-1, prp2)
					}
					for i := 1; i < pages; i++ {
						if e := binary.LittleEndian.Uint64(mem[prp2-q.c.base+uint64(i-1)*8:]); e != prp1+uint64(i)*pageSize {
							t.Fatalf("entry %d is %#x", i-1, e)
						}
					}
				}
			}
		})
	}
}

func TestQueueRefuses(t *testing.T) {
	q, n := loneQueue(t, QueueConfig{Depth: 4, BufferSize: 4096})
	if err := q.Read(0, n, 0, 1); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ err, want error }{
		"a tag in use":                 {q.Read(0, n, 0, 1), ErrBusy},
		"a tag in use, raw":            {q.Submit(0, new(spec.SubmissionEntry)), ErrBusy},
		"a tag beyond the depth":       {q.Write(4, n, 0, 1), ErrInvalid},
		"more than the buffer":         {q.Read(1, n, 0, 9), ErrInvalid},
		"no blocks":                    {q.Read(1, n, 0, 0), ErrInvalid},
		"an overflowing transfer":      {q.Read(1, n, 0, 1<<31), ErrInvalid},
		"waiting without an interrupt": {q.Wait(t.Context()), ErrUnsupported},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v", name, test.err)
		}
	}
}

func TestHostileCompletions(t *testing.T) {
	for name, post := range map[string]func(d *loneDevice){
		"of a tag that does not exist": func(d *loneDevice) { d.post(3, 4, 0) },
		"of a tag not in use":          func(d *loneDevice) { d.post(3, 1, 0) },
		"of another queue":             func(d *loneDevice) { d.post(2, 0, 0) },
		"twice":                        func(d *loneDevice) { d.post(3, 0, 0); d.post(3, 0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			q, n := loneQueue(t, QueueConfig{Depth: 4, BufferSize: 4096})
			d := newLoneDevice(q)
			if err := errors.Join(q.Read(0, n, 0, 1), q.Ring()); err != nil {
				t.Fatal(err)
			}
			d.fetch()
			post(d)
			if _, err := q.Poll(make([]Completion, 4)); !errors.Is(err, ErrDevice) {
				t.Error(err)
			}
			if err := q.Read(2, n, 0, 1); !errors.Is(err, ErrDevice) {
				t.Error("the queue is used on:", err)
			}
			if err := q.Ring(); !errors.Is(err, ErrDevice) {
				t.Error(err)
			}
		})
	}
}

func TestPassed(t *testing.T) {
	for _, test := range []struct {
		event, old, v uint32
		want          bool
	}{
		{0, 0, 1, true},    // the device waits for what is new
		{5, 5, 6, true},    //
		{4, 5, 6, false},   // it has not said so since
		{6, 5, 6, false},   // it looks on its own until 6
		{6, 5, 8, true},    // passed in one batch
		{7, 5, 8, true},    //
		{8, 5, 8, false},   //
		{30, 31, 2, false}, // around the end of the queue, as Linux calculates it
		{31, 31, 2, true},
	} {
		if got := passed(test.event, test.old, test.v); got != test.want {
			t.Errorf("event %d, doorbell from %d to %d: %v", test.event, test.old, test.v, got)
		}
	}
}

func TestShadowDoorbellIsRungWhenAskedFor(t *testing.T) {
	q, n := loneQueue(t, QueueConfig{Depth: 8, BufferSize: 4096})
	register := q.sqBell.register
	q.sqBell.shadow, q.sqBell.event = new(atomic.Uint32), new(atomic.Uint32)
	for i, rung := range []bool{true, false, false, true} {
		if i == 3 {
			q.sqBell.event.Store(3) // the device goes to sleep at 3
		}
		before := register.Load()
		if err := errors.Join(q.Read(uint16(i), n, 0, 1), q.Ring()); err != nil {
			t.Fatal(err)
		}
		if got := register.Load() != before; got != rung || q.sqBell.shadow.Load() != uint32(i+1) {
			t.Errorf("command %d: register %d, shadow %d", i, register.Load(), q.sqBell.shadow.Load())
		}
	}
	before := register.Load()
	if err := q.Ring(); err != nil || register.Load() != before {
		t.Error("ringing with nothing new is not free")
	}
}

func TestQueueDoesNotAllocate(t *testing.T) {
	q, n := loneQueue(t, QueueConfig{Depth: 32, BufferSize: 16 << 10})
	d := newLoneDevice(q)
	done := make([]Completion, 32)
	cmd := &spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1}
	if allocs := testing.AllocsPerRun(1000, func() {
		if q.Read(0, n, 0, 8) != nil || q.Write(1, n, 0, 32) != nil || q.Submit(2, cmd) != nil || q.Ring() != nil {
			t.Fatal("submission failed")
		}
		d.complete(0)
		if k, err := q.Poll(done); k != 3 || err != nil {
			t.Fatal(k, err)
		}
		if k, err := q.Poll(done); k != 0 || err != nil {
			t.Fatal(k, err)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
