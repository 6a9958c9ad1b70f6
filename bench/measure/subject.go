package measure

import (
	"errors"
	"runtime"
	"strings"
	"time"

	"vfiouser/bench"
	"vfiouser/bench/result"
)

// subject is a case or a limit.
type subject struct {
	name  string
	setup func(*bench.Env) (bench.Subject, error)
	n     int // operations of one measurement; 0: not known yet
}

// errSubject is a mistake in a case.
var errSubject = errors.New("measure: exactly one of Run and Gauge must be set")

// with sets a subject up, lets use have it, and takes it down.
func (r *run) with(s *subject, use func(*bench.Subject) error) (err error) {
	env, err := bench.NewEnv(r.Log.With("case", s.name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close()) }()
	subject, err := s.setup(env)
	if err != nil {
		return err
	}
	if (subject.Run == nil) == (subject.Gauge == nil) {
		return errSubject
	}
	return use(&subject)
}

// time gives the nanoseconds of one operation. The first time it finds how many to do.
func (r *run) time(s *subject, b *bench.Subject) (float64, error) {
	if b.Run == nil { // of a limit
		return 0, errSubject
	}
	timed := func(n int) (time.Duration, error) {
		begin := time.Now()
		err := b.Run(n)
		return time.Since(begin), err
	}
	if s.n == 0 {
		n, err := calibrate(windowOf(r.Target), timed)
		if err != nil {
			return 0, err
		}
		s.n = max(n, turnovers*b.UnderWay)
	}
	runtime.GC() // what others have left is not collected on our time
	n, took, err := sample(r.Target, s.n, timed)
	s.n = n
	return float64(max(took, 1)) / float64(n), err
}

// reason makes the text of an error fit for a report.
func reason(err error) string {
	const most = 300 // bytes
	s := result.Printable(err.Error())
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
