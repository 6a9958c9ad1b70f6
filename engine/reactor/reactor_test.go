package reactor

import (
	"bytes"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/test/holdings"
)

func TestCloseIsIdempotentAndReleasesEverything(t *testing.T) {
	holdings.CheckLeaks(t)
	r, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	server, _ := socketPair(t)
	var f *FD
	on(t, r, func() {
		if f, err = r.Add(server, Readable, handlerFunc(func(Events) {})); err != nil {
			t.Error(err)
		}
		r.AfterFunc(time.Hour, func() {})
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	wait(t, r.Done(), "Done")

	if r.PostFunc(func() { t.Error("a task ran on a closed reactor") }) {
		t.Error("Post on a closed reactor returned true")
	}
	if err := r.Do(func() {}); !errors.Is(err, ErrClosed) {
		t.Errorf("Do on a closed reactor: %v", err)
	}
	if _, err := r.Add(server, Readable, handlerFunc(func(Events) {})); !errors.Is(err, ErrClosed) {
		t.Errorf("Add on a closed reactor: %v", err)
	}
	if err := f.Modify(Writable); !errors.Is(err, ErrClosed) {
		t.Errorf("Modify on a closed reactor: %v", err)
	}
	if err := f.Remove(); err != nil {
		t.Errorf("Remove on a closed reactor: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(server), unix.F_GETFD, 0); err != nil {
		t.Errorf("Close has closed a descriptor that it does not own: %v", err)
	}
}

// Whatever Post accepted runs, exactly once, also when Close comes in between.
func TestCloseLosesNoAcceptedTask(t *testing.T) {
	holdings.CheckLeaks(t)
	for range 20 {
		r, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		var (
			ran      int // on the loop
			accepted atomic.Int64
			wg       sync.WaitGroup
			started  sync.WaitGroup
		)
		started.Add(4)
		for range 4 {
			wg.Go(func() {
				started.Done()
				for r.PostFunc(func() { ran++ }) {
					accepted.Add(1)
				}
			})
		}
		started.Wait()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if int64(ran) != accepted.Load() {
			t.Fatalf("%d tasks accepted, %d ran", accepted.Load(), ran)
		}
	}
}

func TestPanicsAreContained(t *testing.T) {
	holdings.CheckLeaks(t)
	type report struct {
		v any
		h Handler
	}
	reports := make(chan report, 16)
	r := newReactor(t, Config{OnPanic: func(v any, h Handler) { reports <- report{v, h} }})
	server, client := socketPair(t)

	var buf [16]byte
	panicking := &panicHandler{read: func() { _, _, _ = RecvMsg(server, nil, buf[:]) }}
	f := addFD(t, r, server, Readable, panicking)
	mustSend(t, client, []byte("x"))
	if got := wait(t, reports, "the handler's panic"); got.v != "handler" || got.h != panicking {
		t.Errorf("OnPanic(%v, %v)", got.v, got.h)
	}
	on(t, r, func() { _ = f.Modify(0) })

	r.PostFunc(func() { panic("task") })
	if got := wait(t, reports, "the task's panic"); got.v != "task" || got.h != nil {
		t.Errorf("OnPanic(%v, %v)", got.v, got.h)
	}

	on(t, r, func() { r.AfterFunc(0, func() { panic("timer") }) })
	if got := wait(t, reports, "the timer's panic"); got.v != "timer" || got.h != nil {
		t.Errorf("OnPanic(%v, %v)", got.v, got.h)
	}

	if err := r.Do(func() { panic("do") }); err == nil {
		t.Error("Do of a function that panics returned nil")
	}
	wait(t, reports, "Do's panic")

	// A fault on memory that is gone (a client truncated its file) is a panic too.
	gone, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	r.PostFunc(func() { buf[0] = gone[0] })
	if got := wait(t, reports, "the fault"); got.h != nil {
		t.Errorf("OnPanic(%v, %v)", got.v, got.h)
	} else if _, ok := got.v.(runtime.Error); !ok {
		t.Errorf("OnPanic(%v)", got.v)
	}
	if err := unix.Munmap(gone); err != nil {
		t.Fatal(err)
	}

	// Tasks behind one that panics are not lost.
	release := hold(t, r)
	ran := make(chan int, 3)
	r.PostFunc(func() { ran <- 1 })
	r.PostFunc(func() { panic("middle") })
	r.PostFunc(func() { ran <- 2 })
	release()
	if a, b := wait(t, ran, "first"), wait(t, ran, "second"); a != 1 || b != 2 {
		t.Errorf("ran %d, %d", a, b)
	}
	var panics uint64
	on(t, r, func() { panics = r.Stats().Panics })
	if panics != 6 {
		t.Errorf("Stats.Panics = %d, want 6", panics)
	}
}

type panicHandler struct{ read func() }

func (h *panicHandler) HandleEvents(Events) {
	h.read()
	panic("handler")
}

func TestPanicIsLoggedWithItsStack(t *testing.T) {
	holdings.CheckLeaks(t)
	var log bytes.Buffer
	r, err := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r.PostFunc(taskThatPanics)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=ERROR", "oops", "taskThatPanics"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q: %s", want, log.String())
		}
	}
}

func taskThatPanics() { panic("oops") }

// A handler that ends the goroutine leaves a reactor that is closed, not one that hangs.
func TestGoexitClosesTheReactor(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{Logger: slog.New(slog.DiscardHandler)})
	ran := make(chan struct{})
	release := hold(t, r)
	r.PostFunc(runtime.Goexit)
	r.PostFunc(func() { close(ran) })
	release()
	wait(t, r.Done(), "the loop to end")
	wait(t, ran, "the task behind it")
	if r.PostFunc(func() {}) {
		t.Error("Post returned true")
	}
}

func TestStatsCount(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	server, client := socketPair(t)
	got := make(chan struct{}, 1)
	addFD(t, r, server, Readable, handlerFunc(func(Events) {
		var b [8]byte
		if _, _, err := RecvMsg(server, nil, b[:]); err == nil {
			got <- struct{}{}
		}
	}))
	var before, after Stats
	on(t, r, func() { before = r.Stats() })
	mustSend(t, client, []byte("x"))
	wait(t, got, "the event")
	on(t, r, func() { after = r.Stats() })
	if after.Events <= before.Events || after.Tasks <= before.Tasks {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
