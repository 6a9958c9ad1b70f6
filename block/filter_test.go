package block

import (
	"bytes"
	"errors"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// wrapped opens mem:1M behind filters, with a seed for each.
func wrapped(t *testing.T, specs ...string) Backend {
	t.Helper()
	b, err := Memory(1 << 20)
	must(t, err)
	for i := len(specs) - 1; i >= 0; i-- {
		f, err := Wrap(b, specs[i], FilterOptions{Seed: uint64(i + 1)})
		must(t, err)
		b = f
	}
	return closing(t, b, nil)
}

func TestFiltersKeepTheData(t *testing.T) {
	for _, spec := range []string{
		"delay:10us+50us", "rate:iops=100000:bandwidth=1G", "error:0%", "error:off", "corrupt:0%", "stats", "log:off",
		"stats,delay:20us:exponential,error:off",
	} {
		t.Run(spec, func(t *testing.T) {
			for _, behind := range []string{"mem:1M", "file:" + newPath(t, 1<<20)} {
				b, err := Open(spec + "," + behind)
				closing(t, b, err)
				var wait sync.WaitGroup
				for i := range int64(2) {
					wait.Go(func() {
						m := model{b: b, base: i << 19, want: make([]byte, 1<<19), rng: rand.New(rand.NewPCG(uint64(i), 6))}
						if err := m.run(40); err != nil {
							t.Errorf("%s: %v", behind, err)
						}
					})
				}
				wait.Wait()
			}
		})
	}
}

func TestFilterSettings(t *testing.T) {
	for _, tt := range []struct{ spec, says string }{
		{"delay:2ms", ""},
		{"delay:read/write:2ms+1ms:normal:50%:seed=3", ""},
		{"delay:off", ""},
		{"error", ""},
		{"error:write:once:enospc:at=0+4K:after=3", ""},
		{"rate:read:iops=100:bandwidth=1M", ""},
		{"corrupt:1%", ""},
		{"log:flush", ""},
		{"stats", ""},
		{"lag:2ms", `unknown kind of filter "lag"`},
		{"delay", "no time"},
		{"delay:2", `no time`},
		{"delay:-2ms", "bad delay"},
		{"delay:2h", "bad delay"},
		{"delay:1ms+x", "bad delay"},
		{"delay:2ms:cauchy", `what is "cauchy"?`},
		{"delay:2ms:3ms", `what is "3ms"?`},
		{"error:reads", `what is "reads"?`},
		{"error:101%", "bad percentage"},
		{"error:NaN%", "bad percentage"},
		{"error:times=0", "bad number"},
		{"error:at=5", "bad place"},
		{"error:at=1+1K", "not a multiple"},
		{"error:at=8E", "bad place"},
		{"error:efault", `what is "efault"?`},
		{"rate", "no rate"},
		{"rate:iops=0", "bad number of requests"},
		{"rate:bandwidth=1", "multiple of 512"},
		{"corrupt:flush", "only what is read or written"},
	} {
		b, err := Memory(1 << 20)
		must(t, err)
		f, err := Wrap(b, tt.spec, FilterOptions{})
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%s: %v", tt.spec, err)
		case tt.says != "" && (!errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v, want %q", tt.spec, err, tt.says)
		case tt.says == "":
			before := f.Settings()
			if err := f.Set("nonsense"); !errors.Is(err, ErrSpec) || f.Settings() != before {
				t.Errorf("%s: set to nonsense: %v, now %q", tt.spec, err, f.Settings())
			}
			must(t, f.Close())
			continue
		}
		must(t, b.Close())
	}
	for spec, says := range map[string]string{
		"delay:2ms":           "a filter without a backend",
		"delay:2ms,":          "no kind of backend",
		"delay:x,mem:1M":      "no time",
		"delay:2ms,ram:1M":    "unknown kind of backend",
		"delay:2ms,log,mem:x": "bad size",
	} {
		if _, err := Open(spec); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", spec, err, says)
		}
	}
	b, err := Open("stats,delay:1ms,mem:1M")
	closing(t, b, err)
	if fs := Filters(b); len(fs) != 2 || fs[0].Kind() != "stats" || fs[1].Kind() != "delay" || fs[1].Settings() != "1ms" {
		t.Errorf("filters %v", fs)
	}
	if i := b.Info(); !i.Async || i.Kind != "mem" {
		t.Errorf("%+v", i)
	}
}

// took is how long a request takes, on the bubble's clock.
func took(t *testing.T, b Backend, r Request) time.Duration {
	t.Helper()
	start := time.Now()
	must(t, do(b, &r))
	return time.Since(start)
}

func someRead() Request {
	return Request{Op: Read, Length: 512, Buffers: [][]byte{make([]byte, 512)}}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wrapped(t, "delay:read:20ms")
		f := b.(*Filter)
		if d := took(t, b, someRead()); d != 20*time.Millisecond {
			t.Errorf("a read took %v", d)
		}
		if d := took(t, b, Request{Op: Flush}); d != 0 {
			t.Errorf("a flush took %v", d)
		}
		must(t, f.Set("5ms+10ms"))
		for range 100 {
			if d := took(t, b, Request{Op: Flush}); d < 5*time.Millisecond || d > 15*time.Millisecond {
				t.Errorf("5ms+10ms took %v", d)
			}
		}
		mean := func(settings string) (sum time.Duration) {
			must(t, f.Set(settings))
			for range 2000 {
				sum += took(t, b, Request{Op: Flush})
			}
			return sum / 2000
		}
		for settings, want := range map[string]time.Duration{
			"10ms:exponential": 10 * time.Millisecond, "10ms+1ms:exponential": 11 * time.Millisecond, "10ms+2ms:normal": 10 * time.Millisecond,
			"10ms:25%": 2500 * time.Microsecond,
		} {
			if m := mean(settings); m < want*85/100 || m > want*115/100 {
				t.Errorf("%s: the mean is %v", settings, m)
			}
		}
		must(t, f.Set("1h"))
		c := make(result, 1)
		if done, err := b.Submit(&Request{Op: Flush, Completer: c}); done || err != nil {
			t.Error(done, err)
		}
		must(t, f.Set("off"))
		if d := took(t, b, someRead()); d != 0 {
			t.Errorf("off: took %v", d)
		}
		must(t, b.Close()) // lets it go
		must(t, <-c)
	})
}

// The order of what waits is that of when it is due.
func TestDelayOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wrapped(t, "delay:1ms")
		f := b.(*Filter)
		var c collector
		var rs []*Request
		for _, d := range []string{"3ms", "1ms", "2ms", "2ms"} {
			must(t, f.Set(d))
			r := &Request{Op: Flush, Completer: &c}
			rs = append(rs, r)
			c.wait.Add(1)
			_, err := b.Submit(r)
			must(t, err)
		}
		c.wait.Wait()
		for i, at := range []int{1, 2, 3, 0} {
			if c.ended[i] != rs[at] {
				t.Errorf("the %d. to end is not request %d", i, at)
			}
		}
	})
}

func TestError(t *testing.T) {
	b := wrapped(t, "error:off")
	f := b.(*Filter)
	count := func(settings string, r Request, n int) (failed int, last error) {
		must(t, f.Set(settings))
		for range n {
			if err := do(b, &r); err != nil {
				failed, last = failed+1, err
			}
		}
		return failed, last
	}
	at := func(off int64) Request { r := someRead(); r.Offset = off; return r }
	zero := Request{Op: WriteZeroes, Length: 512}
	for _, tt := range []struct {
		settings string
		r        Request
		n, want  int
		is       error
	}{
		{"", someRead(), 3, 3, syscall.EIO},
		{"write", someRead(), 3, 0, nil},
		{"once:enospc", zero, 3, 1, syscall.ENOSPC},
		{"times=2:after=3", zero, 9, 2, syscall.EIO},
		{"after=3", zero, 9, 6, syscall.EIO},
		{"at=4K+4K", at(4096 - 512), 1, 0, nil},
		{"at=4K+4K", at(4096), 1, 1, syscall.EIO},
		{"at=4K+4K", at(8192 - 512), 1, 1, syscall.EIO},
		{"at=4K+4K", at(8192), 1, 0, nil},
		{"at=4K+4K", Request{Op: Flush}, 1, 0, nil},
		{"erofs", zero, 1, 1, ErrReadOnly},
		{"erofs", someRead(), 1, 1, syscall.EROFS},
		{"off", zero, 9, 0, nil},
	} {
		if n, err := count(tt.settings, tt.r, tt.n); n != tt.want || !errors.Is(err, tt.is) {
			t.Errorf("%q: %d of %d failed, with %v", tt.settings, n, tt.n, err)
		}
	}
	first, _ := count("10%:seed=5", zero, 1000)
	again, _ := count("10%:seed=5", zero, 1000)
	other, _ := count("10%:seed=6", zero, 1000)
	if first != again || first < 60 || first > 140 || other == 0 {
		t.Errorf("10%%: %d, %d and %d of 1,000", first, again, other)
	}
	if f.Hits() == 0 {
		t.Error("no hits")
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wrapped(t, "rate:iops=100")
		run := func(n int, r Request) time.Duration {
			var c collector
			start := time.Now()
			for range n {
				r := r
				r.Completer = &c
				c.wait.Add(1)
				if done, err := b.Submit(&r); done {
					c.CompleteBlock(&r, err)
				}
			}
			c.wait.Wait()
			return time.Since(start)
		}
		near := func(got, want time.Duration) {
			t.Helper()
			if d := got - want; d < -time.Millisecond || d > time.Millisecond {
				t.Errorf("took %v, want %v", got, want)
			}
		}
		near(run(51, someRead()), 500*time.Millisecond)
		time.Sleep(time.Second)
		near(run(1, someRead()), 0)
		must(t, b.(*Filter).Set("bandwidth=1M"))
		near(run(2049, someRead()), time.Second)
		near(run(10, Request{Op: Flush}), 488*time.Microsecond) // behind the last
	})
}

func TestCorrupt(t *testing.T) {
	b := wrapped(t, "corrupt:off")
	f := b.(*Filter)
	data, got := bytes.Repeat([]byte{0xa5}, 4096), make([]byte, 4096)
	flipped := func() (n int) {
		for i := range got {
			n += bits.OnesCount8(got[i] ^ data[i])
		}
		return n
	}
	must(t, f.Set("read:once"))
	must(t, write(b, 0, data))
	for _, want := range []int{1, 0} {
		must(t, read(b, 0, got[:100], got[100:]))
		if n := flipped(); n != want {
			t.Errorf("%d bits are wrong, want %d", n, want)
		}
	}
	must(t, f.Set("write:once"))
	must(t, write(b, 0, data[:1000], data[1000:]))
	must(t, read(b, 0, got))
	if n := flipped(); n != 1 {
		t.Errorf("%d bits are wrong that were written, want 1", n)
	}
	if !bytes.Equal(data, bytes.Repeat([]byte{0xa5}, 4096)) {
		t.Error("the writer's memory was changed")
	}
}

func TestFilterMemoryThatHasGone(t *testing.T) {
	for _, specs := range [][]string{{"delay:1us"}, {"delay:read:1us", "corrupt"}, {"rate:iops=1000000", "stats"}, {"stats"}} {
		b := wrapped(t, specs...)
		mem := truncated(t)
		for range 3 {
			if err := read(b, 0, mem); err != ErrMemory {
				t.Errorf("%v: read: %v", specs, err)
			}
			if err := write(b, 0, mem); err != ErrMemory {
				t.Errorf("%v: write: %v", specs, err)
			}
		}
	}
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wrapped(t, "stats", "delay:3ms", "error:write")
		for range 3 {
			must(t, read(b, 0, make([]byte, 512)))
		}
		if err := write(b, 0, make([]byte, 512)); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
		st, ok := b.(*Filter).Stats()
		want := OpStats{Requests: 3, Bytes: 1536, Total: 9 * time.Millisecond, Longest: 3 * time.Millisecond}
		want.Took[12] = 3 // less than 4,096 µs
		if !ok || st[Read] != want {
			t.Errorf("reads: %+v", st[Read])
		}
		if w := st[Write]; w.Requests != 1 || w.Errors != 1 || w.Bytes != 0 {
			t.Errorf("writes: %+v", w)
		}
		if _, ok := Filters(b)[1].Stats(); ok {
			t.Error("a delay has figures")
		}
	})
}

func TestLog(t *testing.T) {
	var text bytes.Buffer
	m, err := Memory(1 << 20)
	must(t, err)
	e, err := Wrap(m, "error:discard", FilterOptions{})
	must(t, err)
	b, err := Wrap(e, "log:write/discard", FilterOptions{Logger: slog.New(slog.NewTextHandler(&text, nil))})
	closing(t, b, err)
	must(t, write(b, 4096, make([]byte, 512)))
	must(t, read(b, 4096, make([]byte, 512)))
	_ = do(b, &Request{Op: Discard, Length: 512})
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "msg=write offset=4096 length=512") || !strings.Contains(lines[1], "input/output error") {
		t.Errorf("logged %q", lines)
	}
}

func TestFiltersAllocateNothing(t *testing.T) {
	b := wrapped(t, "stats", "error:1%:off", "delay:1us+1us", "rate:iops=1000000000", "corrupt:read:1%")
	r := someRead()
	c := make(result, 1)
	r.Completer = c
	n := testing.AllocsPerRun(200, func() {
		if _, err := b.Submit(&r); err != nil {
			t.Error(err)
		}
		if err := <-c; err != nil {
			t.Error(err)
		}
	})
	if n != 0 {
		t.Errorf("a read allocates %v times", n)
	}
}
