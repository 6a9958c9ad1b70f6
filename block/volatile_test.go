package block

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func newVolatile(t *testing.T, inner Backend, opt VolatileOptions) *Volatile {
	t.Helper()
	v, err := NewVolatile(inner, opt)
	return closing(t, v, err).(*Volatile)
}

func TestVolatileAgainstModel(t *testing.T) {
	for _, size := range []int64{volatileZeroes, volatileSize} {
		kinds(t, 2<<20, func(t *testing.T, b Backend) {
			v := newVolatile(t, b, VolatileOptions{Size: size})
			m := model{b: v, want: make([]byte, b.Size()), rng: rand.New(rand.NewPCG(8, 0))}
			if err := m.run(50); err != nil {
				t.Error(err)
			}
			// Parts of sectors.
			for off := int64(1); off < 20_000; off = off*3 + 1 {
				part := m.want[off : off+off/2+1]
				for i := range part {
					part[i] = byte(off)
				}
				must(t, write(v, off, bytes.Clone(part)))
			}
			if err := m.check(); err != nil {
				t.Error(err)
			}
			must(t, do(v, &Request{Op: Flush}))
			m.b = b
			if err := m.check(); err != nil {
				t.Errorf("behind the cache, after a flush: %v", err)
			}
		})
	}
}

// A power cut: what was made durable is there, and of the rest each page is as it was or
// as it became.
func TestVolatilePowerCut(t *testing.T) {
	const size, pages = 1 << 20, (1 << 20) / volatilePage
	m, err := Memory(size)
	must(t, err)
	v := newVolatile(t, m, VolatileOptions{Keep: 0.5, Seed: 3})
	rng := rand.New(rand.NewPCG(9, 0))
	durable, now := make([]byte, size), make([]byte, size)
	lost, kept := 0, 0
	for range 50 {
		for range rng.IntN(200) {
			off := int64(rng.IntN(pages)) * volatilePage
			part := now[off : off+volatilePage]
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
			r := &Request{Op: Write, FUA: rng.IntN(8) == 0, Offset: off, Length: volatilePage, Buffers: [][]byte{bytes.Clone(part)}}
			must(t, do(v, r))
			if r.FUA {
				copy(durable[off:], part)
			}
		}
		if rng.IntN(2) == 0 {
			must(t, do(v, &Request{Op: Flush}))
			copy(durable, now)
		}
		changed := 0
		for off := 0; off < size; off += volatilePage {
			if !bytes.Equal(now[off:off+volatilePage], durable[off:off+volatilePage]) {
				changed++
			}
		}
		forgotten, err := v.CutPower()
		must(t, err)
		if forgotten > changed {
			t.Fatalf("%d pages forgotten of %d that were not durable", forgotten, changed)
		}
		got := make([]byte, size)
		must(t, read(v, 0, got))
		gone := 0
		for off := 0; off < size; off += volatilePage {
			is, was, became := got[off:off+volatilePage], durable[off:off+volatilePage], now[off:off+volatilePage]
			switch {
			case bytes.Equal(is, became):
			case bytes.Equal(is, was):
				gone++
			default:
				t.Fatalf("the page at %d is neither what it was nor what it became", off)
			}
		}
		if gone != forgotten {
			t.Fatalf("%d pages are gone, %d forgotten", gone, forgotten)
		}
		lost, kept = lost+forgotten, kept+changed-forgotten
		copy(durable, got)
		copy(now, got)
	}
	if lost == 0 || kept == 0 {
		t.Errorf("%d pages lost, %d kept", lost, kept)
	}
}

func TestVolatileForgetsAll(t *testing.T) {
	b, err := Open("stats,volatile,mem:1M")
	closing(t, b, err)
	v := Volatiles(b)[0]
	if !b.Info().VolatileCache || !b.Info().Async {
		t.Errorf("%+v", b.Info())
	}
	must(t, write(b, 512, []byte("durable")))
	must(t, do(b, &Request{Op: Flush}))
	must(t, write(b, 512, []byte("forgets")))
	must(t, do(b, &Request{Op: WriteZeroes, Offset: 4096, Length: 512}))
	if n, err := v.CutPower(); n != 2 || err != nil {
		t.Errorf("%d forgotten, %v", n, err)
	}
	got := make([]byte, 7)
	must(t, read(b, 512, got))
	if string(got) != "durable" {
		t.Errorf("read %q", got)
	}
	if n, err := v.CutPower(); n != 0 || err != nil {
		t.Errorf("%d forgotten, %v", n, err)
	}
}

func TestVolatileErrors(t *testing.T) {
	m, err := Memory(1 << 20)
	must(t, err)
	f, err := Wrap(m, "error:write:times=2", FilterOptions{})
	must(t, err)
	v := newVolatile(t, f, VolatileOptions{Keep: 1})
	must(t, write(v, 0, []byte("data")))
	if err := do(v, &Request{Op: Flush}); !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	if n, err := v.CutPower(); n != 1 || !errors.Is(err, syscall.EIO) {
		t.Errorf("cut: %d, %v", n, err)
	}
	mem := truncated(t)
	for range 3 {
		if err := write(v, 0, mem); err != ErrMemory {
			t.Errorf("write: %v", err)
		}
		if err := read(v, 0, mem); err != ErrMemory {
			t.Errorf("read: %v", err)
		}
	}
	must(t, do(v, &Request{Op: Flush}))
	for _, spec := range []string{"volatile:keep=2%:x", "volatile:keep=101%", "volatile:keep=x", "volatile:size=512", "volatile:seed=0"} {
		if _, err := Open(spec + ",mem:1M"); !errors.Is(err, ErrSpec) || !strings.HasPrefix(err.Error(), "block: volatile") {
			t.Errorf("%s: %v", spec, err)
		}
	}
	if _, err := Open("volatile"); !errors.Is(err, ErrSpec) {
		t.Error(err)
	}
}

// What was not flushed is not lost where nobody cuts the power.
func TestVolatileClose(t *testing.T) {
	path := newPath(t, 1<<20)
	for i, want := range []string{"\x00\x00\x00\x00", "data"} {
		b, err := Open("volatile,file:" + path)
		must(t, err)
		got := make([]byte, 4)
		must(t, read(b, 4096, got))
		if string(got) != want {
			t.Errorf("open %d: read %q", i, got)
		}
		must(t, write(b, 4096, []byte("data")))
		must(t, b.Close())
		must(t, b.Close())
		if err := write(b, 0, got); err != ErrClosed {
			t.Error(err)
		}
	}
}

func TestVolatileAllocatesNothing(t *testing.T) {
	m, err := Memory(1 << 20)
	must(t, err)
	v := newVolatile(t, m, VolatileOptions{})
	c := make(result, 1)
	for _, op := range []Op{Read, Write, Flush, WriteZeroes} {
		r := Request{Op: op, Length: 8192, Completer: c}
		if op <= Write {
			r.Buffers = [][]byte{make([]byte, 8192)}
		}
		if n := testing.AllocsPerRun(100, func() {
			if _, err := v.Submit(&r); err != nil {
				t.Error(err)
			}
			if err := <-c; err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%v allocates %v times", op, n)
		}
	}
}

// Without power nothing works, and with it again the disk is as the power cut left it.
func TestVolatileWithoutPower(t *testing.T) {
	m, err := Memory(1 << 20)
	must(t, err)
	v := newVolatile(t, m, VolatileOptions{})
	must(t, write(v, 0, []byte("durable")))
	must(t, do(v, &Request{Op: Flush}))
	must(t, write(v, 0, []byte("but not")))
	must(t, write(v, 8192, []byte("this")))
	if st := v.Stats(); st != (VolatileStats{Cached: 2 * volatilePage}) {
		t.Errorf("before: %+v", st)
	}
	if n, err := v.PowerOff(); n != 2 || err != nil {
		t.Errorf("%d pages forgotten: %v", n, err)
	}
	for _, op := range []Op{Read, Write, Flush, WriteZeroes, Discard} {
		r := &Request{Op: op, Length: 512}
		if op <= Write {
			r.Buffers = [][]byte{make([]byte, 512)}
		}
		if err := do(v, r); !errors.Is(err, syscall.ENODEV) {
			t.Errorf("%v without power: %v", op, err)
		}
	}
	if n, err := v.PowerOff(); n != 0 || err != nil {
		t.Errorf("a second time: %d pages forgotten: %v", n, err)
	}
	if st := v.Stats(); st != (VolatileStats{Off: true, Cuts: 2}) {
		t.Errorf("without: %+v", st)
	}
	v.PowerOn()
	got := make([]byte, 7)
	must(t, read(v, 0, got))
	if string(got) != "durable" {
		t.Errorf("read %q", got)
	}
	must(t, write(v, 0, got))
}

// parked is a backend whose flush waits for the test.
type parked struct {
	Backend
	begun, let chan struct{}
}

func (p *parked) Info() Info {
	i := p.Backend.Info()
	i.VolatileCache = true
	return i
}

func (p *parked) Submit(r *Request) (bool, error) {
	if r.Op == Flush {
		close(p.begun)
		<-p.let
	}
	return p.Backend.Submit(r)
}

// The power of several disks fails at one moment, though one of them has to end a request before it
// forgets.
func TestPowerOfSeveralDisks(t *testing.T) {
	memory := func() Backend {
		m, err := Memory(1 << 20)
		must(t, err)
		return m
	}
	slow := &parked{memory(), make(chan struct{}), make(chan struct{})}
	a := newVolatile(t, slow, VolatileOptions{})
	b, err := Open("volatile:keep=100%,stats,volatile,mem:1M") // what the outer one keeps, the inner one forgets
	closing(t, b, err)
	plain := closing(t, memory(), nil)
	let := sync.OnceFunc(func() { close(slow.let) })
	t.Cleanup(let)
	must(t, write(a, 0, make([]byte, 512)))
	must(t, write(b, 0, []byte("lost")))
	flushed, cut := make(chan error), make(chan struct{})
	go func() { flushed <- do(a, &Request{Op: Flush}) }()
	<-slow.begun
	var caches, forgotten int
	go func() {
		defer close(cut)
		caches, forgotten, err = PowerOff(a, plain, b)
	}()
	for deadline := time.Now().Add(10 * time.Second); write(b, 0, []byte("late")) == nil; {
		if time.Now().After(deadline) {
			t.Fatal("the second disk has power while the first one waits")
		}
	}
	let()
	must(t, <-flushed) // it had begun
	<-cut
	if caches != 3 || forgotten != 1 || err != nil {
		t.Errorf("%d caches have forgotten %d pages: %v", caches, forgotten, err)
	}
	must(t, write(plain, 0, make([]byte, 512)))
	if n := PowerOn(a, plain, b); n != 3 {
		t.Errorf("%d caches have power again", n)
	}
	got := make([]byte, 4)
	must(t, read(b, 0, got))
	if string(got) != "\x00\x00\x00\x00" {
		t.Errorf("read %q", got)
	}
}

// durables remembers which sectors are durable.
type durables struct {
	Backend
	mu    sync.Mutex
	plain map[int64]bool // written, and neither flushed nor with FUA
}

func (d *durables) Info() Info {
	i := d.Backend.Info()
	i.VolatileCache = true
	return i
}

func (d *durables) Submit(r *Request) (bool, error) {
	d.mu.Lock()
	switch {
	case r.Op == Flush:
		clear(d.plain)
	case r.Op == Write:
		for at := int64(0); at < r.Length; at += SectorSize {
			if r.FUA {
				delete(d.plain, r.Offset+at)
			} else {
				d.plain[r.Offset+at] = true
			}
		}
	}
	d.mu.Unlock()
	return d.Backend.Submit(r)
}

// A write with FUA that does not fit into the cache, which is written in between, is durable
// all the same.
func TestVolatileSpillsDurably(t *testing.T) {
	for _, r := range []Request{
		{Op: Write, FUA: true, Length: 2 * volatileZeroes, Buffers: [][]byte{make([]byte, 2*volatileZeroes)}},
		{Op: WriteZeroes, FUA: true, Offset: 4096, Length: volatileZeroes},
	} {
		m, err := Memory(4 << 20)
		must(t, err)
		d := &durables{Backend: m, plain: map[int64]bool{}}
		v := newVolatile(t, d, VolatileOptions{Size: volatileZeroes})
		must(t, write(v, 3<<20, make([]byte, 64<<10)))
		must(t, do(v, &r))
		for off := range d.plain {
			if off >= r.Offset && off < r.Offset+r.Length {
				t.Errorf("%v: the sector at %d is not durable", r.Op, off)
				break
			}
		}
	}
}
