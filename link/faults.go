package link

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// reorderBy is for how long a frame is held back that others are to overtake.
	reorderBy = 2 * time.Millisecond
	// rateQueue is for how long a frame may have to wait for the line; after that it is lost.
	rateQueue = 100 * time.Millisecond
	// maxHeld is the most bytes that a card's port holds in each direction; more are lost.
	maxHeld = 16 << 20
)

// Faults says what goes wrong on a link, in each direction by itself. The zero value is a link
// without faults.
type Faults struct {
	Loss      float64       // probability from 0 to 1 that a frame is lost
	Duplicate float64       // probability that it comes twice
	Reorder   float64       // probability that it is held back for 2 ms, so that others overtake it
	Delay     time.Duration // how long every frame takes
	Jitter    time.Duration // up to which it takes longer; the order stays
	Rate      uint64        // bits per second of the frames, all queues together; 0: no limit
}

func (f Faults) check() error {
	for _, p := range []float64{f.Loss, f.Duplicate, f.Reorder} {
		if !(p >= 0 && p <= 1) {
			return because(ErrSpec, "a probability of %v; it is 0%% to 100%%", p)
		}
	}
	for _, d := range []time.Duration{f.Delay, f.Jitter} {
		if d < 0 || d > time.Minute {
			return because(ErrSpec, "a delay of %v; it is 0 to 1m", d)
		}
	}
	return nil
}

// Impairment is a link with faults, which can be changed at any time.
type Impairment struct {
	inner  Link
	seed   uint64
	faults atomic.Pointer[Faults]
	ports  atomic.Uint64 // so far
}

// Impair wraps a link, which then belongs to the impairment. The same seed makes the same
// choices for the same frames; 0 is a random one. Frames that have to wait are copied.
//
// What a port holds is bounded, 16 MiB in each direction: what comes beyond that is lost, as
// is a frame that would wait for more than 100 ms because of the rate.
//
// The error is that of a probability outside 0 to 1, or of a delay outside 0 to a minute.
func Impair(l Link, f Faults, seed uint64) (*Impairment, error) {
	m := &Impairment{inner: l, seed: seed}
	if seed == 0 {
		m.seed = rand.Uint64()
	}
	if err := m.SetFaults(f); err != nil {
		return nil, err
	}
	return m, nil
}

// SetFaults changes what happens to frames from now on. Those that wait already come when they
// would have come. Any goroutine.
func (m *Impairment) SetFaults(f Faults) error {
	if err := f.check(); err != nil {
		return &OpenError{Spec: "faults", Err: err}
	}
	m.faults.Store(&f)
	return nil
}

// Faults is what was set last.
func (m *Impairment) Faults() Faults { return *m.faults.Load() }

// Attach connects a card to the impaired link.
func (m *Impairment) Attach(c Card) (Port, error) {
	p := &impairedPort{m: m, start: time.Now()}
	p.card = impairedCard{Card: c, port: p}
	n := m.ports.Add(1)
	for q := range p.queues {
		u := &p.queues[q]
		u.out.way, u.out.rnd = &p.out, rand.New(rand.NewPCG(m.seed, n<<16|uint64(q)))
		u.in.way, u.in.rnd = &p.in, rand.New(rand.NewPCG(m.seed, n<<16|uint64(q)|1<<8))
		u.alarm.wake = func() { c.Wake(q) }
	}
	inner, err := m.inner.Attach(&p.card)
	if err != nil {
		return nil, err
	}
	p.Port = inner
	return p, nil
}

// Close closes the impaired link.
func (m *Impairment) Close() error { return m.inner.Close() }

// way is one direction of a port.
type way struct {
	held atomic.Int64 // bytes
	lost atomic.Uint64

	mu   sync.Mutex
	free time.Duration // when the line is free again, on the port's clock
}

// line gives a frame its turn on a line of rate bits per second: when it has passed. It is
// lost if it has to wait for too long.
func (w *way) line(now time.Duration, bytes int, rate uint64) (passed time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := max(now, w.free)
	if from-now > rateQueue {
		return 0, false
	}
	w.free = from + time.Duration(float64(bytes)*8e9/float64(rate))
	return w.free, true
}

// readFault reads one fault, which value describes, of VALUE,LINK. Faults of a chain are of one
// impairment.
func readFault(value string, set func(f *Faults, value string) error) func(arg string) (opener, error) {
	return func(arg string) (opener, error) {
		text, spec, found := strings.Cut(arg, ",")
		if !found {
			return nil, because(ErrSpec, "no link; write %s and a link behind it, for example %s,switch:lan", value, value)
		}
		var f Faults
		if err := set(&f, text); err != nil {
			return nil, because(ErrSpec, "%v; write for example %s,switch:lan", err, value)
		}
		if err := f.check(); err != nil {
			return nil, err
		}
		open, err := read(spec)
		if err != nil {
			return nil, err
		}
		return func(s *Set) (Link, error) {
			inner, err := open(s)
			if err != nil {
				return nil, err
			}
			if m, ok := inner.(*Impairment); ok {
				all := m.Faults()
				_ = set(&all, text)
				return m, m.SetFaults(all)
			}
			return Impair(inner, f, 0)
		}, nil
	}
}

// probability reads a percentage.
func probability(text string) (float64, error) {
	number, found := strings.CutSuffix(text, "%")
	p, err := strconv.ParseFloat(number, 64)
	if err != nil || !found {
		return 0, fmt.Errorf("bad percentage %q", text)
	}
	return p / 100, nil
}

// bitRate reads a number of bits per second, with K, M or G for powers of 1,000.
func bitRate(text string) (uint64, error) {
	factor := uint64(1)
	number := text
	for suffix, f := range map[string]uint64{"K": 1e3, "M": 1e6, "G": 1e9} {
		if n, ok := strings.CutSuffix(strings.ToUpper(text), suffix); ok {
			number, factor = n, f
		}
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("bad number of bits per second %q", text)
	}
	return n * factor, nil
}

// faultKinds are the rows of the table of links that are faults.
func faultKinds() []kind {
	chance := func(name string, field func(f *Faults) *float64) kind {
		return kind{name, name + ":PERCENT%,LINK", readFault(name+":1%", func(f *Faults, text string) (err error) {
			*field(f), err = probability(text)
			return err
		})}
	}
	return []kind{
		chance("loss", func(f *Faults) *float64 { return &f.Loss }),
		chance("duplicate", func(f *Faults) *float64 { return &f.Duplicate }),
		chance("reorder", func(f *Faults) *float64 { return &f.Reorder }),
		{"delay", "delay:TIME,LINK", readFault("delay:20ms", func(f *Faults, text string) (err error) {
			delay, jitter, _ := strings.Cut(text, "+")
			if f.Delay, err = time.ParseDuration(delay); err == nil && jitter != "" {
				f.Jitter, err = time.ParseDuration(jitter)
			}
			return err
		})},
		{"rate", "rate:BITS,LINK", readFault("rate:100M", func(f *Faults, text string) (err error) {
			f.Rate, err = bitRate(text)
			return err
		})},
	}
}
