package reactor

import (
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"vfiouser/test/holdings"
)

// Waiting outside netpoll depends on a private field of its Poller.
func TestEpollDescriptorIsKnown(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	if r.idler.epoll < 0 {
		t.Fatal("netpoll.Poller has no field fd any more")
	}
	server, client := socketPair(t)
	on(t, r, func() {
		if r.idler.look() > 0 {
			t.Error("readable with nothing ready")
		}
		f, err := r.Add(server, Readable, handlerFunc(func(Events) {}))
		if err != nil {
			t.Error(err)
			return
		}
		mustSend(t, client, []byte("x"))
		if r.idler.look() == 0 {
			t.Error("not readable with a descriptor ready")
		}
		_ = f.Remove()
		if r.idler.look() > 0 {
			t.Error("readable by a descriptor that was removed")
		}
	})
}

// Without that descriptor the loop works all the same.
func TestWaitingInNetpoll(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	on(t, r, func() { r.idler.epoll = -1 })
	echoes(t, r)
	on(t, r, func() {
		if n := r.Stats().Sleeps; n > 1 {
			t.Errorf("%d sleeps outside netpoll", n)
		}
	})
}

func TestSpinning(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{Spin: time.Millisecond})
	echoes(t, r)
	server, client := socketPair(t)
	addFD(t, r, server, Readable, &reader{fd: server})
	on(t, r, func() {
		w := &r.idler
		w.skip, w.unspun = 0, 0
		if r.spinning() > 0 {
			t.Error("a spin in vain was of use")
		}
		if w.skip != 1 {
			t.Errorf("after a spin in vain %d are left out, want 1", w.skip)
		}
		mustSend(t, client, []byte("x"))
		if r.spinning() > 0 {
			t.Error("the spin was not left out")
		}
		if r.spinning() == 0 || w.unspun != 0 {
			t.Error("a spin with a descriptor ready was in vain")
		}
	})
}

// echoes makes some round trips through the loop.
func echoes(t *testing.T, r *Reactor) {
	server, client := socketPair(t)
	addFD(t, r, server, Readable, &echoHandler{r: r, fd: server})
	back := make(chan struct{}, 1)
	addFD(t, r, client, Readable, handlerFunc(func(Events) {
		var b [1]byte
		if _, _, err := RecvMsg(client, nil, b[:]); err == nil {
			back <- struct{}{}
		}
	}))
	for range 100 {
		mustSend(t, client, []byte("x"))
		wait(t, back, "the echo")
	}
}

// A descriptor that is always ready again, and whose handler is quiet, is served many times in a row, but not for ever.
func TestHotDescriptorLetsOthersThrough(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	hot, hotPeer := socketPair(t)
	other, otherPeer := socketPair(t)
	mustSend(t, hotPeer, []byte("x"))
	calls := 0
	addFD(t, r, hot, Readable, handlerFunc(func(Events) { calls++; r.Quiet() }))
	served := make(chan struct{}, 1)
	addFD(t, r, other, Readable, &reader{fd: other})
	addFD(t, r, otherPeer, Readable, handlerFunc(func(Events) {
		var b [1]byte
		_, _, _ = RecvMsg(otherPeer, nil, b[:])
		served <- struct{}{}
	}))
	for range 100 {
		mustSend(t, other, []byte("y"))
		wait(t, served, "the other descriptor")
	}
	on(t, r, func() {
		if calls == 0 {
			t.Error("the hot descriptor was not served")
		}
	})
}

// Of events that come together the loud ones count, whatever their order.
func TestQuietHoldsForOneEvent(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	loud, _ := socketPair(t)
	quiet, _ := socketPair(t)
	addFD(t, r, loud, Readable, handlerFunc(func(Events) {}))
	addFD(t, r, quiet, Readable, handlerFunc(func(Events) { r.Quiet() }))
	for _, tt := range []struct {
		name   string
		events []int
		want   bool
	}{
		{"one that is quiet", []int{quiet}, false},
		{"one that is not", []int{loud}, true},
		{"loud, quiet", []int{loud, quiet}, true},
		{"quiet, loud", []int{quiet, loud}, true},
		{"two that are quiet", []int{quiet, quiet}, false},
	} {
		on(t, r, func() {
			r.yield = false
			for _, fd := range tt.events {
				r.serve(fd, netpoll.ReadEvents)
			}
			if r.yield != tt.want {
				t.Errorf("%s: the loop yields: %v, want %v", tt.name, r.yield, tt.want)
			}
		})
	}
}
