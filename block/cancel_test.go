package block

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestCancel(t *testing.T) {
	for name, filters := range map[string][]string{
		"a filter":                {"delay:1h"},
		"a filter behind others":  {"stats", "delay:flush:1h", "delay:1h", "error:discard"},
		"the same filter further": {"delay:flush:1m", "delay:1h"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := wrapped(t, filters...)
				c := make(result, 1)
				data := []byte{1, 2, 3}
				r := Request{Op: Write, Length: 512, Buffers: [][]byte{append(data, make([]byte, 509)...)}, Completer: c}
				other := r
				for range 2 { // it may be submitted again
					if done, err := b.Submit(&r); done || err != nil {
						t.Fatal(done, err)
					}
					if Cancel(b, &other) {
						t.Error("a request that was not submitted was cancelled")
					}
					if !Cancel(b, &r) {
						t.Fatal("not cancelled")
					}
					if Cancel(b, &r) {
						t.Error("cancelled twice")
					}
				}
				for _, f := range Filters(b) {
					if f.Kind() == "delay" {
						must(t, f.Set("off"))
					}
				}
				time.Sleep(2 * time.Hour)
				select {
				case err := <-c:
					t.Errorf("a cancelled request ended with %v", err)
				default:
				}
				p := make([]byte, 512)
				must(t, read(b, 0, p))
				if p[0] != 0 {
					t.Error("a cancelled write wrote")
				}
				if st, ok := b.(*Filter).Stats(); ok && (st[Write].InFlight != 0 || st[Write].Errors != 2) {
					t.Errorf("figures: %+v", st[Write])
				}
			})
		})
	}
}

// What has begun, or has ended, is not given back.
func TestCancelTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := wrapped(t, "delay:1ms", "stats")
		c := make(result, 1)
		r := Request{Op: Flush, Completer: c}
		if done, err := b.Submit(&r); done || err != nil {
			t.Fatal(done, err)
		}
		must(t, <-c)
		if Cancel(b, &r) {
			t.Error("a request that has ended was cancelled")
		}
		if m, err := Memory(1 << 20); err != nil || Cancel(m, &r) {
			t.Error("memory has nothing to cancel", err)
		}
	})
}

// What waits for a worker is given back, what has begun is not.
func TestCancelInACrew(t *testing.T) {
	begun, goOn := make(chan *Request, 5), make(chan struct{})
	c := newCrew(1, 0, func(_ *worker, r *Request) error {
		begun <- r
		<-goOn
		return nil
	})
	rs := make([]Request, 5)
	ended := make(result, len(rs))
	for i := range rs {
		rs[i] = Request{Op: Flush, Completer: ended}
		must(t, c.submit(&rs[i]))
		if i == 0 {
			<-begun
		}
	}
	rs[3].done = 512 // a part was done on the way
	for i, want := range []bool{false, true, false, false, true} {
		if i != 2 && c.cancel(&rs[i]) != want {
			t.Errorf("request %d: cancelled %t", i, !want)
		}
	}
	must(t, c.submit(&rs[4])) // behind the others, as before
	close(goOn)
	for _, want := range []int{2, 3, 4} {
		if r := <-begun; r != &rs[want] {
			t.Errorf("not request %d", want)
		}
	}
	for range 4 {
		must(t, <-ended)
	}
	c.close()
}

// What waits behind the request that a cache does is given back, that one is not.
func TestCacheGivesBackWhatWaits(t *testing.T) {
	for _, spec := range []string{"volatile,delay:read:200ms,mem:1M", "stats,volatile,delay:read:200ms,mem:1M"} {
		b, err := Open(spec)
		b = closing(t, b, err)
		c := make(result, 3)
		rs := make([]Request, 3)
		for i := range rs {
			// (as another backend has left it)
			rs[i] = Request{Op: Read, Length: 512, Buffers: [][]byte{make([]byte, 512)}, Completer: c, done: 512}
			if done, err := b.Submit(&rs[i]); done {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // the first one has begun
		}
		if !Cancel(b, &rs[1]) {
			t.Errorf("%s: a request that waits is not given back", spec)
		}
		if Cancel(b, &rs[0]) {
			t.Errorf("%s: a request that has begun is given back", spec)
		}
		must(t, <-c)
		must(t, <-c)
		select {
		case <-c:
			t.Errorf("%s: the Completer of a request that was given back is called", spec)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
