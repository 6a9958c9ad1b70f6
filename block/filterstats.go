package block

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// OpStats are the figures of one kind of request.
type OpStats struct {
	Requests, Errors, Bytes uint64
	InFlight                int64
	// Total and Longest are how long those that have ended took.
	Total, Longest time.Duration
	// Took counts them by that: Took[i] those of less than 2^i microseconds that are in no
	// count before. The last has all the rest.
	Took [24]uint64
}

// Stats are the figures of the filter "stats", by Op.
type Stats [Discard + 1]OpStats

// opCounters are OpStats while they are counted.
type opCounters struct {
	requests, errors, bytes atomic.Uint64
	inflight, total, most   atomic.Int64
	took                    [24]atomic.Uint64
}

// stats counts requests. Changing the settings sets everything to zero.
type stats struct {
	*settings
	ops [Discard + 1]opCounters
}

func parseStats(_ *Filter, s *settings) (rule, error) { return &stats{settings: s}, nil }

func (s *stats) before(f *Filter, c *call) (time.Duration, error) {
	if s.meant(f, &c.Request) {
		c.marked = true
		s.ops[c.Op].inflight.Add(1)
	}
	return 0, nil
}

func (s *stats) after(c *call, err error) error {
	if !c.marked {
		return err
	}
	o, took := &s.ops[c.Op], c.f.now()-c.since
	o.inflight.Add(-1)
	o.requests.Add(1)
	if err != nil {
		o.errors.Add(1)
	} else if c.Op != Flush {
		o.bytes.Add(uint64(c.Length))
	}
	o.total.Add(int64(took))
	for most := o.most.Load(); int64(took) > most && !o.most.CompareAndSwap(most, int64(took)); {
		most = o.most.Load()
	}
	o.took[min(bits.Len64(uint64(took/time.Microsecond)), len(o.took)-1)].Add(1)
	return err
}

// Stats returns what a filter of kind "stats" has counted since it was set; false if it is
// another kind.
func (f *Filter) Stats() (st Stats, ok bool) {
	f.mu.Lock()
	s, ok := f.rule.(*stats)
	f.mu.Unlock()
	if !ok {
		return st, false
	}
	for i := range st {
		from, to := &s.ops[i], &st[i]
		to.Requests, to.Errors, to.Bytes = from.requests.Load(), from.errors.Load(), from.bytes.Load()
		to.InFlight, to.Total, to.Longest = from.inflight.Load(), time.Duration(from.total.Load()), time.Duration(from.most.Load())
		for b := range to.Took {
			to.Took[b] = from.took[b].Load()
		}
	}
	return st, true
}
