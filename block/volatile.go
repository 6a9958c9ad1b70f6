package block

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// volatilePage is the unit, in bytes, in which the cache forgets. A block of a device
	// is never more, so no block is torn.
	volatilePage = 4096
	// volatileZeroes is the most that is zeroed within the cache, in bytes.
	volatileZeroes = 1 << 20
	// volatileSize is how much a cache holds by default, in bytes.
	volatileSize = 64 << 20
)

// VolatileOptions are the choices NewVolatile offers; the zero value is the default.
type VolatileOptions struct {
	// Keep is the probability, from 0 to 1, that a page outlives a power cut although it was
	// not flushed. The cache of a real disk keeps some too, in no order.
	Keep float64
	// Size is how many bytes the cache holds before it writes all of them; 0 means 64 MiB.
	Size int64
	// Seed makes the same choices for the same requests in the same order; 0 is a random one.
	Seed uint64
}

// Volatile is a write cache in front of a backend, which forgets what was not flushed when its
// power is cut. It does one request after the other.
type Volatile struct {
	inner  Backend
	info   Info
	direct bool // the inner backend touches no buffers within Submit
	opt    VolatileOptions
	crew   *crew
	once   sync.Once
	closed error

	mu    sync.Mutex // held while a request, a power cut or a change of the size is done
	shut  bool
	rng   *rand.Rand
	pages map[int64]*page // by offset
	free  []*page
	order []int64 // of writing; room for offsets
	spilt bool    // pages were written to make room since a request began
	part  [1][]byte
	req   Request
	ended chan error

	cached atomic.Int64 // bytes, for Stats
	cuts   atomic.Uint64
	dark   atomic.Bool // without power: requests that have not begun fail
}

// page is some sectors of the cache.
type page struct {
	data  [volatilePage]byte
	dirty uint8 // a bit for each sector
}

// NewVolatile puts a write cache in front of a backend, which then belongs to it. What is
// written is durable after a flush, or with FUA, or when the cache is full. Errors are
// *OpenError; the backend is then still the caller's.
func NewVolatile(b Backend, opt VolatileOptions) (*Volatile, error) {
	if err := opt.check(); err != nil {
		return nil, &OpenError{Spec: "volatile", Err: err}
	}
	if opt.Size == 0 {
		opt.Size = volatileSize
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	v := &Volatile{inner: b, info: b.Info(), direct: b.Info().Async, opt: opt,
		rng: rand.New(rand.NewPCG(opt.Seed, 0)), pages: map[int64]*page{}, ended: make(chan error, 1)}
	v.info.Async = true
	v.info.VolatileCache = !v.info.ReadOnly
	v.crew = newCrew(1, writeLinger, func(_ *worker, r *Request) error { return v.run(r) })
	return v, nil
}

func (opt VolatileOptions) check() error {
	if opt.Size != 0 && opt.Size < volatileZeroes {
		return because(ErrSpec, "a cache of %d bytes; it is 1M or more", opt.Size)
	}
	if !(opt.Keep >= 0 && opt.Keep <= 1) {
		return because(ErrSpec, "a cache that keeps %.10g%%; it is 0%% to 100%%", opt.Keep*100)
	}
	return nil
}

// readVolatile reads the settings of a cache: keep=PERCENT%, size=SIZE and seed=N.
func readVolatile(text string) (opt VolatileOptions, err error) {
	for part := range strings.SplitSeq(text, ":") {
		key, value, _ := strings.Cut(part, "=")
		var err error
		switch key {
		case "":
		case "keep":
			opt.Keep, err = strconv.ParseFloat(strings.TrimSuffix(value, "%"), 64)
			opt.Keep /= 100
		case "size":
			opt.Size, err = parseSize(value)
		case "seed":
			opt.Seed, err = positive(part, value)
		default:
			err = ErrSpec
		}
		if err != nil {
			return opt, &OpenError{Spec: "volatile:" + text,
				Err: because(ErrSpec, "what is %q? Write volatile[:keep=PERCENT%%][:size=SIZE][:seed=N]", part)}
		}
	}
	if err := opt.check(); err != nil {
		return opt, &OpenError{Spec: "volatile:" + text, Err: err}
	}
	return opt, nil
}

// Volatiles are the write caches in front of a backend, the outermost first.
func Volatiles(b Backend) (found []*Volatile) {
	for ; b != nil; b = behind(b) {
		if v, ok := b.(*Volatile); ok {
			found = append(found, v)
		}
	}
	return found
}

// Size is the inner backend's.
func (v *Volatile) Size() int64 { return v.inner.Size() }

// Info is the inner backend's, with a volatile cache.
func (v *Volatile) Info() Info { return v.info }

// Submit queues a request.
func (v *Volatile) Submit(r *Request) (bool, error) {
	if err := r.check(v.inner.Size(), v.info.ReadOnly); err != nil {
		return true, err
	}
	if r.Completer == nil {
		return true, ErrRequest
	}
	r.done = 0 // Cancel looks at it
	if err := v.crew.submit(r); err != nil {
		return true, err
	}
	return false, nil
}

// Claim claims the storage, if the inner backend is a Claimer.
func (v *Volatile) Claim() error {
	if c, ok := v.inner.(Claimer); ok {
		return c.Claim()
	}
	return nil
}

// Yield writes everything and lets another server have the storage, if the inner backend is a
// Claimer.
func (v *Volatile) Yield() error {
	v.mu.Lock()
	err := v.flush()
	v.mu.Unlock()
	if c, ok := v.inner.(Claimer); ok && err == nil {
		return c.Yield()
	}
	return err
}

// Close waits for requests in flight, gives what is in the cache to the inner backend and
// closes that.
func (v *Volatile) Close() error {
	v.once.Do(func() {
		v.crew.close()
		v.mu.Lock()
		v.shut = true
		err := v.writeOut(0, v.Size(), false)
		v.mu.Unlock()
		if v.closed = v.inner.Close(); v.closed == nil {
			v.closed = err
		}
	})
	return v.closed
}

// offsets are those of the cached pages that touch a range, in order.
func (v *Volatile) offsets(from, to int64) []int64 {
	v.order = v.order[:0]
	first := from &^ (volatilePage - 1)
	if (to-first)/volatilePage < int64(len(v.pages)) {
		for off := first; off < to; off += volatilePage {
			if v.pages[off] != nil {
				v.order = append(v.order, off)
			}
		}
		return v.order
	}
	for off := range v.pages {
		if off >= first && off < to {
			v.order = append(v.order, off)
		}
	}
	slices.Sort(v.order)
	return v.order
}

// drop takes a page out of the cache.
func (v *Volatile) drop(off int64) {
	p := v.pages[off]
	p.dirty = 0
	delete(v.pages, off)
	v.free = append(v.free, p)
}
