package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// loadDepth is how many commands can be under way where their rate is given: enough for the
// highest one.
const loadDepth = 128

// peakCommands are how many commands the highest rate is measured with.
const peakCommands = 1 << 14

// halfLoad measures latencies at half of the highest rate. (It is found with an eighth as many
// commands.)
func (l *load) halfLoad(n int, h *hdrhistogram.Histogram) error {
	every, err := l.peak(max(n/8, 1))
	if err != nil {
		return err
	}
	return l.atRate(n, 2*every, h)
}

// loadSubject does commands at a part of the highest rate, in percent.
func loadSubject(env *Env, l *load, percent int) (Subject, error) {
	commands := peakCommands
	if env.small {
		commands = loadDepth
	}
	if _, err := l.peak(commands); err != nil { // the first ones are slow
		return Subject{}, err
	}
	every, err := l.peak(commands)
	if err != nil {
		return Subject{}, err
	}
	every = every * 100 / time.Duration(percent)
	return Subject{
		Run:     func(n int) error { return l.atRate(n, every, nil) },
		Latency: func(n int, h *hdrhistogram.Histogram) error { return l.atRate(n, every, h) },
	}, nil
}

// peak is the time of a command when as many as possible are under way.
func (l *load) peak(n int) (time.Duration, error) {
	begin := time.Now()
	err := l.run(n)
	return time.Since(begin) / time.Duration(n), err
}

// atRate does n commands of which each becomes due a fixed time after the one before, whether
// that has ended or not. A latency counts from then on, even if no tag was free.
func (l *load) atRate(n int, every time.Duration, h *hdrhistogram.Histogram) error {
	q := l.queues[0]
	free := make([]uint16, q.Depth())
	for i := range free {
		free[i] = uint16(i)
	}
	due := make([]time.Duration, q.Depth()) // by tag, since begin
	begin := time.Now()
	for submitted, ended := 0, 0; ended < n; {
		now := time.Since(begin)
		before := submitted
		for submitted < n && len(free) > 0 && time.Duration(submitted)*every <= now {
			tag := free[len(free)-1]
			free = free[:len(free)-1]
			due[tag] = time.Duration(submitted) * every
			if err := l.post(0, tag); err != nil {
				return err
			}
			submitted++
		}
		if submitted > before {
			if err := q.Ring(); err != nil {
				return err
			}
		}
		k, err := q.Poll(l.done)
		if err != nil {
			return err
		}
		if k == 0 {
			continue
		}
		now = time.Since(begin)
		for i := range l.done[:k] {
			c := &l.done[i]
			if err := c.Err(); err != nil {
				return err
			}
			if h != nil {
				record(h, now-due[c.Tag])
			}
			free = append(free, c.Tag)
		}
		ended += k
	}
	return nil
}
