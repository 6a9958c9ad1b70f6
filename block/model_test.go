package block

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// model is what a part of a backend ought to hold.
type model struct {
	b    Backend
	base int64
	want []byte
	rng  *rand.Rand
}

// split cuts b into buffers of random lengths, some of them empty.
func (m *model) split(b []byte) (bufs [][]byte) {
	for len(b) > 0 {
		n := min(len(b), []int{0, 1, 512, 4096, m.rng.IntN(20_000)}[m.rng.IntN(5)])
		bufs, b = append(bufs, b[:n:n]), b[n:]
	}
	return bufs
}

// step does one random operation and compares.
func (m *model) step() error {
	const unit = 512
	units := len(m.want) / unit
	at := m.rng.IntN(units) * unit
	most := min(units-at/unit, []int{1, 8, 128, units}[m.rng.IntN(4)])
	n := (1 + m.rng.IntN(most)) * unit
	part := m.want[at : at+n]
	r := Request{Offset: m.base + int64(at), Length: int64(n), FUA: m.rng.IntN(20) == 0, Deallocate: m.rng.IntN(2) == 0}
	switch p := m.rng.IntN(100); {
	case p < 40:
		got := make([]byte, n)
		r.Op, r.Buffers = Read, m.split(got)
		if err := do(m.b, &r); err != nil {
			return err
		}
		if !bytes.Equal(got, part) {
			return fmt.Errorf("%d bytes at %d are not what was written", n, r.Offset)
		}
		return nil
	case p < 80:
		for i := range part {
			part[i] = byte(m.rng.Uint32())
		}
		r.Op, r.Buffers = Write, m.split(bytes.Clone(part))
	case p < 88:
		clear(part)
		r.Op = WriteZeroes
	case p < 97 && m.b.Info().CanDiscard:
		clear(part)
		r.Op = Discard
	default:
		r.Op = Flush
	}
	return do(m.b, &r)
}

// check compares everything.
func (m *model) check() error {
	got := make([]byte, len(m.want))
	if err := read(m.b, m.base, got); err != nil {
		return err
	}
	if !bytes.Equal(got, m.want) {
		return fmt.Errorf("the %d bytes at %d are not what was written", len(got), m.base)
	}
	return nil
}

func (m *model) run(steps int) error {
	for i := range steps {
		if err := m.step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return m.check()
}

func TestAgainstModel(t *testing.T) {
	kinds(t, 5<<20, func(t *testing.T, b Backend) {
		for seed := range uint64(3) {
			m := model{b: b, want: make([]byte, b.Size()), rng: rand.New(rand.NewPCG(seed, 0))}
			must(t, do(b, &Request{Op: WriteZeroes, Length: b.Size()}))
			if err := m.run(60); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	})
}

// TestManySubmitters gives each goroutine a part of its own; the parts meet
// within pages and huge pages.
func TestManySubmitters(t *testing.T) {
	const submitters, part = 6, 1<<20 - 512
	kinds(t, 6<<20, func(t *testing.T, b Backend) {
		var wait sync.WaitGroup
		for i := range submitters {
			wait.Go(func() {
				m := model{b: b, base: int64(i) * part, want: make([]byte, part), rng: rand.New(rand.NewPCG(uint64(i), 1))}
				if err := m.run(50); err != nil {
					t.Errorf("submitter %d: %v", i, err)
				}
			})
		}
		wait.Wait()
	})
}

func TestCloseWaitsForRequests(t *testing.T) {
	for _, kind := range []string{"mem:64M", "file:" + newPath(t, 64<<20)} {
		b, err := Open(kind)
		must(t, err)
		var c collector
		buf := make([]byte, 128<<10)
		for i := range int64(64) {
			r := &Request{Op: Write, Offset: i * int64(len(buf)), Length: int64(len(buf)), Buffers: [][]byte{buf}, Completer: &c}
			if i%8 == 0 {
				r = &Request{Op: Discard, Offset: 32 << 20, Length: 32 << 20, Completer: &c}
			}
			c.wait.Add(1)
			if done, err := b.Submit(r); done {
				c.CompleteBlock(r, err)
			}
		}
		must(t, b.Close())
		if len(c.ended) != 64 {
			t.Errorf("%s: closed when %d of 64 requests had ended", kind, len(c.ended))
		}
	}
}
