package block

import (
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxDelay is the longest delay.
const maxDelay = time.Hour

// filterKind is a row of the table of filters.
type filterKind struct {
	name, usage string
	holds       bool // requests
	parse       func(f *Filter, s *settings) (rule, error)
}

func filterKinds() []filterKind {
	return []filterKind{
		{"delay", "delay:[OPS:]TIME[+SPREAD][:normal|exponential]", true, parseDelay},
		{"error", "error:[OPS:][PERCENT%:][ERRNO]", false, parseFailure},
		{"rate", "rate:[OPS:][iops=N][:bandwidth=SIZE]", true, parseRate},
		{"corrupt", "corrupt:[read|write:]PERCENT%", false, parseCorrupt},
		{"log", "log[:OPS]", false, parseLog},
		{"stats", "stats[:OPS]", false, parseStats},
	}
}

func findFilter(name string) *filterKind {
	kinds := filterKinds()
	if i := slices.IndexFunc(kinds, func(k filterKind) bool { return k.name == name }); i >= 0 {
		return &kinds[i]
	}
	return nil
}

// read makes the rule of a filter's settings. Errors are *OpenError.
func (k *filterKind) read(f *Filter, settings string) (r rule, seed uint64, err error) {
	p, err := parseSettings(settings)
	if err == nil {
		r, err = k.parse(f, p)
	}
	if err == nil && len(p.rest) > 0 {
		err = because(ErrSpec, "what is %q? Write %s", p.rest[0], k.usage)
	}
	if err != nil {
		return nil, 0, &OpenError{Spec: k.name + ":" + settings, Err: err}
	}
	return r, p.seed, nil
}

func filterNames() string {
	var names []string
	for _, k := range filterKinds() {
		names = append(names, k.name)
	}
	return strings.Join(names, ", ")
}

// plain is the half of a rule that leaves results alone.
type plain struct{}

func (plain) after(_ *call, err error) error { return err }

// delay has requests wait.
type delay struct {
	plain
	*settings
	time, spread time.Duration
	shape        string
}

func parseDelay(_ *Filter, s *settings) (rule, error) {
	d := &delay{settings: s}
	found := s.off
	err := s.one(func(part string) (ok bool, err error) {
		long, spread, spreads := strings.Cut(part, "+")
		if d.time, err = time.ParseDuration(long); err != nil {
			return false, nil
		}
		found = true
		if spreads {
			d.spread, err = time.ParseDuration(spread)
		}
		if err != nil || d.time < 0 || d.spread < 0 || d.time > maxDelay || d.spread > maxDelay {
			return false, because(ErrSpec, "bad delay %q; it is 0 to %v", part, maxDelay)
		}
		return true, nil
	})
	if err == nil && !found {
		err = because(ErrSpec, "no time; write for example delay:2ms or delay:read:2ms+1ms")
	}
	if err != nil {
		return nil, err
	}
	return d, s.one(func(part string) (bool, error) {
		ok := part == "normal" || part == "exponential"
		if ok {
			d.shape = part
		}
		return ok, nil
	})
}

func (d *delay) before(f *Filter, c *call) (time.Duration, error) {
	if !d.meant(f, &c.Request) {
		return 0, nil
	}
	wait := float64(d.time)
	switch d.shape {
	case "normal": // with the spread as standard deviation
		wait += f.rng.NormFloat64() * float64(d.spread)
	case "exponential": // with the time as mean, behind the spread as the least
		wait = float64(d.spread) + f.rng.ExpFloat64()*wait
	default:
		if d.spread > 0 {
			wait += float64(f.rng.Int64N(int64(d.spread) + 1))
		}
	}
	return time.Duration(max(0, min(wait, float64(maxDelay)))), nil
}

// failure has requests fail.
type failure struct {
	plain
	*settings
	errno syscall.Errno
}

// errnoWords are the errors that can be chosen.
var errnoWords = map[string]syscall.Errno{
	"eio": syscall.EIO, "enospc": syscall.ENOSPC, "edquot": syscall.EDQUOT, "etimedout": syscall.ETIMEDOUT, "erofs": syscall.EROFS,
	"enomem": syscall.ENOMEM, "eperm": syscall.EPERM, "einval": syscall.EINVAL, "eopnotsupp": syscall.EOPNOTSUPP,
	"enodev": syscall.ENODEV, "eilseq": syscall.EILSEQ, "enodata": syscall.ENODATA,
}

func parseFailure(_ *Filter, s *settings) (rule, error) {
	e := &failure{settings: s, errno: syscall.EIO}
	return e, s.one(func(part string) (bool, error) {
		errno, ok := errnoWords[strings.ToLower(part)]
		if ok {
			e.errno = errno
		}
		return ok, nil
	})
}

func (e *failure) before(f *Filter, c *call) (time.Duration, error) {
	if !e.meant(f, &c.Request) {
		return 0, nil
	}
	if e.errno == syscall.EROFS && c.Op != Read && c.Op != Flush {
		return 0, ErrReadOnly
	}
	return 0, &Error{c.Op, c.Offset, c.Length, e.errno}
}

// rate is a line that carries so many requests and bytes per second.
type rate struct {
	plain
	*settings
	iops, bandwidth float64
	free            time.Duration // when the line is, on the filter's clock
}

func parseRate(_ *Filter, s *settings) (rule, error) {
	r := &rate{settings: s}
	for range 2 {
		err := s.one(func(part string) (bool, error) {
			key, value, _ := strings.Cut(part, "=")
			switch key {
			case "iops":
				n, err := strconv.ParseFloat(value, 64)
				if err != nil || !(n > 0 && n <= 1e9) {
					return false, because(ErrSpec, "bad number of requests per second %q", part)
				}
				r.iops = n
			case "bandwidth":
				n, err := parseSize(value)
				if err != nil {
					return false, err
				}
				r.bandwidth = float64(n)
			default:
				return false, nil
			}
			return true, nil
		})
		if err != nil {
			return nil, err
		}
	}
	if r.iops == 0 && r.bandwidth == 0 && !s.off {
		return nil, because(ErrSpec, "no rate; write for example rate:iops=1000 or rate:write:bandwidth=100M")
	}
	return r, nil
}

func (r *rate) before(f *Filter, c *call) (time.Duration, error) {
	if !r.meant(f, &c.Request) {
		return 0, nil
	}
	var cost float64 // seconds
	if r.iops > 0 {
		cost = 1 / r.iops
	}
	if r.bandwidth > 0 && c.Op <= Write {
		cost = max(cost, float64(c.Length)/r.bandwidth)
	}
	from := max(c.since, r.free)
	r.free = from + time.Duration(min(cost*1e9, float64(maxDelay)))
	return from - c.since, nil
}

// corrupt flips a bit of what is read or written.
type corrupt struct{ *settings }

func parseCorrupt(_ *Filter, s *settings) (rule, error) {
	if s.ops &= 1<<Read | 1<<Write; s.ops == 0 {
		return nil, because(ErrSpec, "only what is read or written can be corrupted")
	}
	return &corrupt{s}, nil
}

func (r *corrupt) before(f *Filter, c *call) (time.Duration, error) {
	if c.Length > 0 && c.Length <= math.MaxInt64/8 && r.meant(f, &c.Request) {
		c.flip = f.rng.Int64N(c.Length * 8)
	}
	return 0, nil
}

// spoil has a write that is to be corrupted write a copy.
func (c *call) spoil() error {
	if c.flip < 0 || c.Op != Write {
		return nil
	}
	c.spoilt = make([]byte, 0, c.Length)
	err := touch(func() {
		for _, b := range c.Buffers {
			c.spoilt = append(c.spoilt, b...)
		}
	})
	if err != nil {
		return err
	}
	c.spoilt[c.flip/8] ^= 1 << (c.flip % 8)
	c.one[0] = c.spoilt
	c.Buffers = c.one
	return nil
}

func (r *corrupt) after(c *call, err error) error {
	if c.flip < 0 || c.Op != Read || err != nil {
		return err
	}
	return touch(func() {
		eachPart(c.outer.Buffers, c.flip/8, 1, func(part []byte) bool {
			part[0] ^= 1 << (c.flip % 8)
			return true
		})
	})
}

// logger tells of every request.
type logger struct {
	*settings
	log *slog.Logger
}

func parseLog(f *Filter, s *settings) (rule, error) {
	l := &logger{s, f.opt.Logger}
	if l.log == nil {
		l.log = slog.Default()
	}
	return l, nil
}

func (l *logger) before(f *Filter, c *call) (time.Duration, error) {
	if l.meant(f, &c.Request) {
		c.marked = true
	}
	return 0, nil
}

func (l *logger) after(c *call, err error) error {
	if c.marked {
		took := c.f.now() - c.since
		if err != nil {
			l.log.Warn(c.Op.String(), "offset", c.Offset, "length", c.Length, "fua", c.FUA, "took", took, "error", err)
		} else {
			l.log.Info(c.Op.String(), "offset", c.Offset, "length", c.Length, "fua", c.FUA, "took", took)
		}
	}
	return err
}
