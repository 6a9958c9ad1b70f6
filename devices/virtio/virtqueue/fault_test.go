package virtqueue

import (
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// guarded runs f as a worker does and gives what it panicked with.
func guarded(f func()) (v any) {
	done := make(chan any)
	go func() {
		debug.SetPanicOnFault(true)
		defer func() { done <- recover() }()
		f()
	}()
	return <-done
}

// A client truncates the file behind its memory: whatever the queue does then panics with a
// memory fault, which costs the client its session. The queue can be dropped, and another
// one goes on.
func TestTruncatedMemory(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for _, tc := range []struct {
			name string
			do   func(q *Queue, chains []Chain)
		}{
			{"take", func(q *Queue, chains []Chain) { _, _ = q.Take(chains[1:]) }},
			{"publish", func(q *Queue, chains []Chain) { q.Push(&chains[0], 0); q.Publish() }},
			{"arm", func(q *Queue, _ []Chain) { q.Arm() }},
			{"disarm", func(q *Queue, _ []Chain) { q.Disarm() }},
			{"look", func(q *Queue, _ []Chain) { q.Available() }},
			{"buffer", func(_ *Queue, chains []Chain) { chains[0].Readable[0][0]++ }},
		} {
			t.Run(map[bool]string{false: "split, ", true: "packed, "}[packed]+tc.name, func(t *testing.T) {
				s, q := newSplit(t, Config{Size: 8, Packed: packed})
				other, healthy := newSplit(t, Config{Size: 8})
				for _, s := range []*rawSplit{s, other} {
					s.desc(0, spec.Desc{Addr: dataAt, Len: 1})
				}
				if packed {
					p := rawPacked{s.g, s.cfg}
					p.put(0, spec.PackedDesc{Addr: dataAt, Len: 1}, true)
				} else {
					s.offer(0)
				}
				chains := make([]Chain, 4)
				take(t, q, chains, 1)
				must(t, unix.Ftruncate(s.g.fd, 0))
				if _, ok := dma.IsFault(guarded(func() { tc.do(q, chains) })); !ok {
					t.Error("no fault")
				}
				s.g.r.Exit()

				other.offer(0)
				c := take(t, healthy, chains, 1)
				healthy.Push(&c[0], 0)
				if !healthy.Publish() {
					t.Error("the other queue does not work")
				}
			})
		}
	}
}

// flipping is a Memory in which a value is another one each time it is read.
type flipping struct {
	*guest
	at    uint64
	other []byte
	reads int
}

func (f *flipping) ReadDMA(iova uint64, p []byte) error {
	if err := f.guest.ReadDMA(iova, p); err != nil {
		return err
	}
	if f.at >= iova && f.at < iova+uint64(len(p)) {
		if f.reads++; f.reads%2 == 0 {
			dma.Copy(p[f.at-iova:], f.other)
		}
	}
	return nil
}

// The driver changes a descriptor between two looks at it: the device has only one, or does
// not believe the second. Here every second look finds a buffer that is longer than memory.
func TestMemoryThatChangesBetweenLooks(t *testing.T) {
	huge := make([]byte, 16)
	for _, packed := range []bool{false, true} {
		cfg := Config{Size: 8, Packed: packed}
		s, q := newSplit(t, cfg)
		s.g.r.Exit()
		if packed {
			d := spec.PackedDesc{Addr: dataAt, Len: 1 << 31, Flags: spec.PackedAvail(true)}
			d.Put(huge)
			p := rawPacked{s.g, s.cfg}
			p.put(0, spec.PackedDesc{Addr: dataAt, Len: 4}, true)
		} else {
			d := spec.Desc{Addr: dataAt, Len: 1 << 31}
			d.Put(huge)
			s.desc(0, spec.Desc{Addr: dataAt, Len: 4})
			s.offer(0)
		}
		q.SetRemote(&flipping{guest: s.g, at: s.cfg.Desc, other: huge})
		chains := make([]Chain, 1)
		switch n, err := q.Take(chains); {
		case err != nil && n == 0: // saw the huge one
		case n == 1 && chains[0].ReadableLen == 4 && len(chains[0].Readable[0]) == 4: // saw the other
		default:
			t.Errorf("packed %v: %d, %v", packed, n, err)
		}
	}
}

// The same at full speed: descriptors, heads and indexes change before the device takes and
// while it does. It gets an error or a chain that fits together, and never more than there is.
func TestMemoryThatChangesAllTheTime(t *testing.T) {
	for _, packed := range []bool{false, true} {
		s, q := newSplit(t, Config{Size: 8, Packed: packed, Indirect: true})
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			f := newFlipper(s, packed, 1)
			for {
				select {
				case <-stop:
					return
				default:
					f.flip()
				}
			}
		}()
		took, broken := 0, 0
		f := newFlipper(s, packed, 2)
		chains := make([]Chain, 8)
		for range 5000 {
			for range 10 {
				f.flip()
			}
			n, err := q.Take(chains)
			for i := range chains[:n] {
				c := &chains[i]
				var r, w int
				for _, b := range c.Readable {
					r += len(b)
				}
				for _, b := range c.Writable {
					w += len(b)
				}
				if r != int(c.ReadableLen) || w != int(c.WritableLen) {
					t.Errorf("%d and %d bytes, told %d and %d", r, w, c.ReadableLen, c.WritableLen)
				}
				q.Push(c, c.WritableLen)
			}
			q.Publish()
			took += n
			if err == nil {
				continue
			}
			broken++
			state := dma.Load16(s.g.at(s.cfg.Driver, 4), spec.AvailIndex)
			if packed {
				state = spec.Position(q.avail, q.availWrap)
			}
			q, err = New(s.cfg)
			must(t, err)
			must(t, q.Restore(state))
			must(t, q.Translate(s.g.r))
		}
		close(stop)
		<-done
		if took == 0 || broken == 0 {
			t.Errorf("packed %v: took %d chains, broke %d queues", packed, took, broken)
		}
	}
}

// flipper changes a ring at random.
type flipper struct {
	rng          *rand.Rand
	table, ring  []byte
	words, addrs []uint64
	packed       bool
}

func newFlipper(s *rawSplit, packed bool, seed uint64) *flipper {
	return &flipper{
		rng:   rand.New(rand.NewPCG(seed, 0)),
		table: s.g.at(s.cfg.Desc, 16*8), ring: s.g.at(s.cfg.Driver, int(spec.AvailBytes(8))),
		words: flips(packed), addrs: []uint64{dataAt, dataAt + 100, tablesAt, base + memSize - 20, 1 << 40}, packed: packed,
	}
}

func (f *flipper) flip() {
	dma.Store64(f.table, f.rng.IntN(8)*16+8, f.words[f.rng.IntN(len(f.words))])
	dma.Store64(f.table, f.rng.IntN(8)*16, f.addrs[f.rng.IntN(len(f.addrs))])
	if !f.packed {
		dma.Store16(f.ring, spec.AvailRing+2*f.rng.IntN(8), uint16(f.rng.IntN(9)))
		dma.Store16(f.ring, spec.AvailIndex, dma.Load16(f.ring, spec.AvailIndex)+uint16(f.rng.IntN(2)))
	}
}

// flips are the upper words of descriptors of all kinds.
func flips(packed bool) (words []uint64) {
	for _, n := range []uint32{0, 1, 20, 48, 1 << 31} {
		for flags := range uint16(8) {
			if packed {
				for _, wrap := range []bool{false, true} {
					d := spec.PackedDesc{Len: n, Flags: flags | spec.PackedAvail(wrap)}
					words = append(words, d.Word())
				}
				continue
			}
			for _, next := range []uint64{0, 3, 7, 8} {
				words = append(words, uint64(n)|uint64(flags)<<32|next<<48)
			}
		}
	}
	return words
}
