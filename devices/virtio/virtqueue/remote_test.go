package virtqueue

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// recorder is a Memory that keeps the writes and can fail.
type recorder struct {
	*guest
	writes []dma.Range
	fail   error
}

func (r *recorder) ReadDMA(iova uint64, p []byte) error {
	if r.fail != nil {
		return r.fail
	}
	return r.guest.ReadDMA(iova, p)
}

func (r *recorder) WriteDMA(iova uint64, p []byte) error {
	if r.fail != nil {
		return r.fail
	}
	r.writes = append(r.writes, dma.Range{IOVA: iova, Size: uint64(len(p))})
	return r.guest.WriteDMA(iova, p)
}

// mixedGuest has memory up to half with a descriptor, and without from there on.
func mixedGuest(t *testing.T, cfg Config) (*rawSplit, *Queue) {
	const rw = dma.ProtRead | dma.ProtWrite
	g := newGuest(t, memSize)
	g.share(0, memSize/2, rw)
	must(t, g.table.Map(dma.Mapping{IOVA: base + memSize/2, Size: memSize / 2, Prot: rw, FD: -1}))
	s := &rawSplit{g: g, cfg: areas(cfg)}
	q, err := New(s.cfg)
	must(t, err)
	g.r.Enter()
	must(t, q.Translate(g.r))
	return s, q
}

// A chain whose buffer, or whose table, is reached by message only: the queue goes over in the
// middle of what is in flight, and back.
func TestGoingOverToMessagesLosesNothing(t *testing.T) {
	const far = base + memSize/2 + 0x800
	for _, where := range []string{"buffer", "table"} {
		t.Run(where, func(t *testing.T) {
			s, q := mixedGuest(t, Config{Size: 8, Indirect: true})
			const near = tablesAt + 0x1000
			s.desc(0, spec.Desc{Addr: near, Len: 4, Flags: write})
			s.desc(1, spec.Desc{Addr: near + 20, Len: 1, Flags: next, Next: 2})
			s.desc(2, spec.Desc{Addr: far, Len: 1})
			if where == "table" {
				s.desc(2, spec.Desc{Addr: far + 1, Len: 16, Flags: indirect})
				s.g.desc(far+1, 0, spec.Desc{Addr: far, Len: 1})
			}
			s.desc(3, spec.Desc{Addr: near + 10, Len: 4, Flags: write})
			s.g.at(near+20, 1)[0], s.g.at(far, 1)[0] = 'a', 'b'
			s.offer(0, 1, 3)
			chains := make([]Chain, 4)
			n, err := q.Take(chains)
			if n != 1 || err != ErrRemote || q.Err() != nil {
				t.Fatalf("took %d, %v, %v", n, err, q.Err())
			}
			copy(chains[0].Writable[0], "near")
			s.g.r.Exit()
			q.SetRemote(s.g)
			if q.Available() != 2 {
				t.Errorf("%d available", q.Available())
			}
			c := take(t, q, chains[1:], 2)
			if got := string(c[0].Readable[0]) + string(c[0].Readable[1]); got != "ab" {
				t.Errorf("read %q", got)
			}
			copy(c[1].Writable[0], "far!")

			s.g.r.Enter()
			if err := q.Translate(s.g.r); err != ErrBusy {
				t.Errorf("Translate with copies in flight: %v", err)
			}
			q.Push(&chains[0], 4)
			q.Push(&chains[2], 4)
			q.Push(&chains[1], 0)
			must(t, q.Translate(s.g.r))
			if !q.Publish() {
				t.Error("no interrupt")
			}
			if got := string(s.g.at(near, 4)) + string(s.g.at(near+10, 4)); got != "nearfar!" {
				t.Errorf("wrote %q", got)
			}
			for i, head := range []uint32{0, 3, 1} {
				if id, _ := s.used(i); id != head {
					t.Errorf("used %d is head %d", i, id)
				}
			}
		})
	}
}

// Data is in the guest's memory before the driver can see that it is.
func TestOrderOfMessages(t *testing.T) {
	t.Run("split", func(t *testing.T) {
		s, q := newSplit(t, Config{Size: 4})
		r := &recorder{guest: s.g}
		q.SetRemote(r)
		s.desc(0, spec.Desc{Addr: dataAt, Len: 4, Flags: write | next, Next: 1})
		s.desc(1, spec.Desc{Addr: dataAt + 100, Len: 4, Flags: write})
		s.offer(0)
		c := take(t, q, make([]Chain, 1), 1)
		q.Push(&c[0], 6)
		q.Publish()
		want := []dma.Range{{IOVA: dataAt, Size: 4}, {IOVA: dataAt + 100, Size: 2}, {IOVA: s.cfg.Device + 4, Size: 8}, {IOVA: s.cfg.Device + 2, Size: 2}}
		if !slices.Equal(r.writes, want) {
			t.Errorf("wrote %x, want %x", r.writes, want)
		}
	})
	t.Run("packed", func(t *testing.T) {
		packed, q := newSplit(t, Config{Size: 4, Packed: true})
		s := rawPacked{packed.g, packed.cfg}
		r := &recorder{guest: s.g}
		q.SetRemote(r)
		for i := range 2 {
			s.put(i, spec.PackedDesc{Addr: dataAt, Len: 4, Flags: write}, true)
		}
		c := take(t, q, make([]Chain, 2), 2)
		q.Push(&c[0], 1)
		q.Push(&c[1], 0)
		q.Publish()
		want := []dma.Range{{IOVA: dataAt, Size: 1}, {IOVA: s.cfg.Desc + 8, Size: 6}, {IOVA: s.cfg.Desc + 24, Size: 8}, {IOVA: s.cfg.Desc + 14, Size: 2}}
		if !slices.Equal(r.writes, want) {
			t.Errorf("wrote %x, want %x", r.writes, want)
		}
	})
}

// torn is a Memory whose first message copies a descriptor while the driver makes it
// available: it finds the new flags and the old address.
type torn struct {
	*guest
	first bool
}

func (m *torn) ReadDMA(iova uint64, p []byte) error {
	if err := m.guest.ReadDMA(iova, p); err != nil {
		return err
	}
	if !m.first && len(p) >= 16 {
		m.first = true
		binary.LittleEndian.PutUint64(p, 1<<40)
	}
	return nil
}

func TestPackedDescriptorTornByAMessage(t *testing.T) {
	packed, q := newSplit(t, Config{Size: 4, Packed: true})
	s := rawPacked{packed.g, packed.cfg}
	s.put(0, spec.PackedDesc{Addr: dataAt, Len: 4}, true)
	q.SetRemote(&torn{guest: s.g})
	take(t, q, make([]Chain, 1), 1)
}

// A message that reads and fails costs nothing; one that writes may have lost data.
func TestMessagesThatFail(t *testing.T) {
	modes := []bool{false, true}
	for _, packed := range modes {
		s, q := newSplit(t, Config{Size: 4, Packed: packed})
		r := &recorder{guest: s.g, fail: errors.New("gone")}
		q.SetRemote(r)
		if packed {
			p := rawPacked{s.g, s.cfg}
			p.put(0, spec.PackedDesc{Addr: dataAt, Len: 4, Flags: write}, true)
		} else {
			s.desc(0, spec.Desc{Addr: dataAt, Len: 4, Flags: write})
			s.offer(0)
		}
		chains := make([]Chain, 1)
		if q.Available() != 1 {
			t.Error("a look that fails has to lead to Take")
		}
		if n, err := q.Take(chains); n != 0 || !errors.Is(err, ErrMemory) || !errors.Is(err, r.fail) {
			t.Errorf("took %d, %v", n, err)
		}
		fail := r.fail
		r.fail = nil
		take(t, q, chains, 1)
		r.fail = fail
		q.Push(&chains[0], 4)
		if q.Publish() || !errors.Is(q.Err(), ErrMemory) {
			t.Errorf("after a write that failed: %v", q.Err())
		}
		if n, err := q.Take(chains); n != 0 || !errors.Is(err, fail) {
			t.Errorf("took %d, %v", n, err)
		}
	}
}

// What is copied is bounded, by chain and by batch, and nothing of one chain is seen in the
// next.
func TestCopiesAreBounded(t *testing.T) {
	const size = 1 << 20
	g := newGuest(t, 2*size)
	s := &rawSplit{g: g, cfg: areas(Config{Size: 8})}
	q, err := New(s.cfg)
	must(t, err)
	q.SetRemote(g)
	for i := range 6 {
		s.desc(i, spec.Desc{Addr: base, Len: size})
	}
	s.desc(6, spec.Desc{Addr: base, Len: size + 1})
	s.desc(7, spec.Desc{Addr: base, Len: 100, Flags: write})
	s.offer(0, 1, 2, 3, 4, 5, 7, 6)
	chains := make([]Chain, 8)
	take(t, q, chains, maxCopied/size)
	take(t, q, chains[:2], 2)
	chains[0].Readable[0][0] = 1
	n, err := q.Take(chains)
	if n != 1 || !errors.Is(err, ErrTooLong) {
		t.Fatalf("took %d, %v", n, err)
	}
	if cap(chains[0].copies) > keptCopies {
		t.Error("a large buffer is kept for a small chain")
	}
}

// The device sees nothing of another chain in a buffer that it is to write, so that nothing
// of it can get to the guest.
func TestCopiesToWriteAreClear(t *testing.T) {
	s, q := newSplit(t, Config{Size: 8})
	q.SetRemote(s.g)
	copy(s.g.at(dataAt, 6), "secret")
	s.desc(0, spec.Desc{Addr: dataAt, Len: 6})
	s.desc(1, spec.Desc{Addr: dataAt + 100, Len: 6, Flags: write})
	chains := make([]Chain, 1)
	s.offer(0, 1)
	take(t, q, chains, 1)
	if take(t, q, chains, 1); string(chains[0].Writable[0]) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("%q", chains[0].Writable[0])
	}
}
