package measure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"vfiouser/bench"
	"vfiouser/bench/machine"
	"vfiouser/bench/result"
)

// Options say how to measure.
type Options struct {
	Mode   string        // for the report
	Rounds int           // samples of each case; at least result.MinRounds
	Target time.Duration // what one measurement takes, about
	Log    *slog.Logger  // of what is measured; nil: dropped
	// Progress, if set, is called before each measurement, with how many are done.
	Progress func(done, total int, name string)
}

// ErrSetup is what Run refuses: options or cases that make no sense.
var ErrSetup = errors.New("measure: nothing to measure")

// Run measures the cases on the calling goroutine. A case that fails is reported as failed,
// and the others go on; an error is that of the context or of the options. It raises GOMAXPROCS
// to the number of CPUs plus two, for measuring thread and workers must not wait for each other.
func Run(ctx context.Context, cases []bench.Case, limits []bench.Limit, o Options) (*result.Report, error) {
	if o.Rounds < result.MinRounds || o.Target <= 0 || len(cases) == 0 {
		return nil, fmt.Errorf("%w: %d cases, %d rounds of %v", ErrSetup, len(cases), o.Rounds, o.Target)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &run{Options: o, limits: map[string]*subject{}}
	for _, l := range limits {
		r.limits[l.Name] = &subject{name: l.Name, setup: l.Setup}
	}
	for _, c := range cases {
		if c.Limit != "" && r.limits[c.Limit] == nil {
			return nil, fmt.Errorf("%w: %s has the limit %q, which is not there", ErrSetup, c.Name, c.Limit)
		}
		r.cases = append(r.cases, &measured{subject: subject{name: c.Name, setup: c.Setup}, Case: c, limit: r.limits[c.Limit]})
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), runtime.NumCPU()+2))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	report := &result.Report{Schema: result.Schema, Started: time.Now().UTC(), Mode: o.Mode, Rounds: o.Rounds}
	report.Environment = machine.Environment()
	var err error
	if report.Environment.Pinned, err = r.lookAround(ctx); err != nil {
		return nil, err
	}
	n := beginNoise()
	for round := range o.Rounds {
		if err := r.round(ctx, round, n); err != nil {
			return nil, err
		}
	}
	report.Seconds = time.Since(report.Started).Seconds()
	for _, m := range r.cases {
		report.Cases = append(report.Cases, m.result())
	}
	report.Noise = n.end(report, r.distance)
	return report, nil
}

// lookAround finds the CPUs that measurements use, and says whether they are pinned.
func (r *run) lookAround(ctx context.Context) (pinned bool, err error) {
	env, err := bench.NewEnv(r.Log)
	if err != nil {
		return false, err
	}
	driver, device := env.DriverCPU, -1
	if len(env.DeviceCPUs) > 0 {
		device = env.DeviceCPUs[0]
	}
	r.distance = newDistance(ctx, driver, device)
	return driver >= 0, env.Close()
}

// run is a run under way.
type run struct {
	Options
	cases    []*measured
	limits   map[string]*subject
	distance *distance
}

// measured is a case and what is known of it so far.
type measured struct {
	subject
	bench.Case
	limit *subject // nil: none

	samples, limitSamples []float64
	unit                  string
	latency               latencies
	counts                counts
	err                   error
}

// round measures every case once, in an order of its own: what a case leaves behind, a warm
// cache or a fragmented heap, is not always met by the same next.
func (r *run) round(ctx context.Context, round int, n *noise) error {
	order := rand.New(rand.NewPCG(1, uint64(round))).Perm(len(r.cases))
	for i, at := range order {
		if err := ctx.Err(); err != nil {
			return err
		}
		m := r.cases[at]
		if m.err != nil {
			continue
		}
		if r.Progress != nil {
			r.Progress(round*len(order)+i, r.Rounds*len(order), m.Name)
		}
		n.spin()
		m.err = steady(ctx, r.distance, func() (observation, error) { return r.pair(m, round) }, m.keep)
		if m.err != nil {
			r.Log.Warn("a case failed", "case", m.Name, "err", m.err)
		}
	}
	return nil
}

// observation is what a round sees of a case.
type observation struct {
	sample, limit float64
	unit          string
	latency       *hdrhistogram.Histogram // nil: none
}

// keep adds what a round has seen.
func (m *measured) keep(o observation) {
	m.unit = o.unit
	m.samples = append(m.samples, o.sample)
	if m.limit != nil {
		m.limitSamples = append(m.limitSamples, o.limit)
	}
	if o.latency != nil {
		m.latency.add(o.latency)
	}
}

// pair measures a case next to its limit, and the other way round in the next round.
func (r *run) pair(m *measured, round int) (o observation, err error) {
	measureLimit := func() (err error) {
		if m.limit == nil {
			return nil
		}
		err = r.with(m.limit, func(s *bench.Subject) error {
			o.limit, err = r.time(m.limit, s)
			return err
		})
		if err != nil {
			return fmt.Errorf("limit %s: %w", m.limit.name, err)
		}
		return nil
	}
	if round%2 == 0 {
		if err := measureLimit(); err != nil {
			return o, err
		}
	}
	if err := r.with(&m.subject, func(s *bench.Subject) error { return r.observe(m, s, round, &o) }); err != nil {
		return o, err
	}
	if round%2 == 1 {
		if err := measureLimit(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// observe takes a sample of a case, and beside it what is not timed with it.
func (r *run) observe(m *measured, s *bench.Subject, round int, o *observation) (err error) {
	if s.Gauge != nil {
		o.sample, o.unit, err = s.Gauge()
		return err
	}
	o.unit = result.UnitTime
	if o.sample, err = r.time(&m.subject, s); err != nil {
		return err
	}
	if o.latency, err = m.latency.observe(s.Latency, r.Target/2); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	if round < countedRounds { // of which the least counts, however often it is counted
		return m.counts.observe(m.n, s.Run)
	}
	return nil
}

// result is what came of the case.
func (m *measured) result() result.Case {
	c := result.Case{Name: m.Name, Unit: m.unit, Bytes: m.Bytes, Limit: m.Limit, Operations: m.n}
	if m.err != nil {
		c.Missing, c.Failed = reason(m.err), !errors.Is(m.err, bench.ErrUnavailable)
		return c
	}
	c.Samples, c.LimitSamples = m.samples, m.limitSamples
	c.Latency = m.latency.result()
	m.counts.fill(&c)
	c.Summarize()
	return c
}
