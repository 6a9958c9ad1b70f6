package virtqueue

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// newPaged is newSplit with a region for each page from dataAt on.
func newPaged(t *testing.T, cfg Config) (*rawSplit, *Queue) {
	t.Helper()
	const rw = dma.ProtRead | dma.ProtWrite
	g := newGuest(t, memSize)
	g.share(0, dataAt-base, rw)
	for off := dataAt - base; off < memSize; off += page {
		g.share(off, page, rw)
	}
	s := &rawSplit{g: g, cfg: areas(cfg)}
	q, err := New(s.cfg)
	must(t, err)
	g.r.Enter()
	must(t, q.Translate(g.r))
	return s, q
}

func TestBufferAcrossRegions(t *testing.T) {
	s, q := newPaged(t, Config{Size: 8})
	data := bytes.Repeat([]byte("0123456789"), 900)
	copy(s.g.at(dataAt+10, len(data)), data)
	s.desc(0, spec.Desc{Addr: dataAt + 10, Len: uint32(len(data)), Flags: next, Next: 1})
	s.desc(1, spec.Desc{Addr: dataAt + 5*page - 1, Len: 2, Flags: write})
	s.offer(0)
	c := take(t, q, make([]Chain, 1), 1)[0]
	if len(c.Readable) != 3 || !bytes.Equal(bytes.Join(c.Readable, nil), data) || int(c.ReadableLen) != len(data) {
		t.Errorf("%d buffers, %d bytes", len(c.Readable), c.ReadableLen)
	}
	if len(c.Writable) != 2 || c.WritableLen != 2 {
		t.Errorf("%d buffers to write", len(c.Writable))
	}
}

func TestBufferInTooManyRegions(t *testing.T) {
	s, q := newPaged(t, Config{Size: 8, MaxChain: 3})
	s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
	s.desc(1, spec.Desc{Addr: dataAt, Len: 4 * page})
	s.offer(0, 1)
	breaks(t, q, ErrTooLong)
}

func TestTableAcrossRegions(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, off := range []uint64{16, 8, 40} { // of the boundary in the table
			s, q := newPaged(t, Config{Size: 8, Indirect: true, Packed: packed})
			table := uint64(dataAt + page - off)
			for i := range 4 {
				d := spec.Desc{Addr: dataAt + 2*page + uint64(i), Len: 1}
				if !packed && i < 3 {
					d.Flags, d.Next = next, uint16(i+1)
				}
				s.g.desc(table, i, d)
			}
			copy(s.g.at(dataAt+2*page, 4), "abcd")
			if packed {
				p := rawPacked{s.g, s.cfg}
				p.put(0, spec.PackedDesc{Addr: table, Len: 64, Flags: indirect}, true)
			} else {
				s.desc(0, spec.Desc{Addr: table, Len: 64, Flags: indirect})
				s.offer(0)
			}
			c := take(t, q, make([]Chain, 1), 1)[0]
			if got := string(bytes.Join(c.Readable, nil)); got != "abcd" {
				t.Errorf("packed %v, %d: %q", packed, off, got)
			}
		}
	}
}

// A table that begins in memory and goes on where there is none.
func TestTablePastTheEndOfMemory(t *testing.T) {
	s, q := newPaged(t, Config{Size: 8, Indirect: true})
	s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
	s.desc(1, spec.Desc{Addr: base + memSize - 16, Len: 32, Flags: indirect})
	s.offer(0, 1)
	breaks(t, q, ErrAddress, dma.ErrNotMapped)
}

// The largest queues there are, full at once and around the end.
func TestLargestQueues(t *testing.T) {
	const size = spec.MaxQueueSize
	for _, packed := range []bool{false, true} {
		g := newGuest(t, 1<<20)
		g.share(0, 1<<20, dma.ProtRead|dma.ProtWrite)
		cfg := Config{Size: size, Packed: packed, EventIdx: true, Desc: base, Driver: base + 0x80000, Device: base + 0xa0000}
		d := &benchDriver{cfg: cfg, meta: spec.PackedDesc{Len: 1}, desc: g.at(cfg.Desc, 16*size)}
		if !packed {
			d.avail, d.used = g.at(cfg.Driver, int(spec.AvailBytes(size))), g.at(cfg.Device, int(spec.UsedBytes(size)))
		}
		for i := range size {
			desc := spec.Desc{Addr: base, Len: 1}
			if packed {
				dma.Store64(d.desc, 16*i, base)
				continue
			}
			desc.Put(d.desc[16*i:])
			dma.Store16(d.avail, spec.AvailRing+2*i, uint16(i))
		}
		q, err := New(cfg)
		must(t, err)
		g.r.Enter()
		must(t, q.Translate(g.r))
		chains := make([]Chain, size)
		for round := range 3 {
			d.offer(size - round)
			take(t, q, chains, size-round)
			q.Untake(size - round)
			take(t, q, chains, size-round)
			for i := range chains[:size-round] {
				q.Push(&chains[i], 0)
			}
			// The used event is 0, which rounds 0 and 2 pass; a packed ring always wants one.
			if interrupt := q.Publish(); interrupt != (packed || round != 1) {
				t.Errorf("round %d: interrupt %v", round, interrupt)
			}
			if d.collect(); d.seen != d.next {
				t.Fatalf("packed %v, round %d: %d used of %d", packed, round, d.seen, d.next)
			}
		}
	}
}

func TestErrorSaysWhereAndWhy(t *testing.T) {
	s, q := newSplit(t, Config{Size: 8})
	s.desc(0, spec.Desc{Addr: 0x123456789, Len: 77})
	s.offer(0)
	_, err := q.Take(make([]Chain, 1))
	var e *Error
	if !errors.As(err, &e) || e.Addr != 0x123456789 || e.Len != 77 {
		t.Fatal(err)
	}
	for _, part := range []string{"entry 0", "77 bytes", "0x123456789", "not mapped"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestStateOfAQueueInUse(t *testing.T) {
	s, q := newSplit(t, Config{Size: 8})
	s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
	s.offer(0)
	c := take(t, q, make([]Chain, 1), 1)
	if _, err := q.State(); err != ErrBusy {
		t.Error("State with a chain taken:", err)
	}
	q.Push(&c[0], 0)
	if err := q.Restore(0); err != ErrBusy {
		t.Error("Restore with a chain pushed:", err)
	}
	q.Publish()
	if at, err := q.State(); at != 1 || err != nil {
		t.Error(at, err)
	}
}
