package link_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

func TestFaultsOfAChainAreOne(t *testing.T) {
	var set link.Set
	_, err := set.Open("loss:0.5%,duplicate:2%,reorder:3%,delay:20ms+5ms,rate:1.5M,loop")
	if err == nil {
		t.Error("a rate that is no whole number")
	}
	l, err := set.Open("loss:0.5%,duplicate:2%,reorder:3%,delay:20ms+5ms,rate:100M,loop")
	must(t, err)
	m, ok := l.(*link.Impairment)
	want := link.Faults{Loss: 0.005, Duplicate: 0.02, Reorder: 0.03, Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Rate: 1e8}
	if !ok || m.Faults() != want {
		t.Errorf("%T with %+v", l, m.Faults())
	}
	if err := m.SetFaults(link.Faults{Loss: math.NaN()}); !errors.Is(err, link.ErrSpec) || m.Faults() != want {
		t.Errorf("a loss of NaN: %v, %+v", err, m.Faults())
	}
	must(t, m.Close())
	for _, spec := range []string{"loss", "loss:1%", "loss:1,loop", "loss:101%,loop", "loss:-1%,loop", "loss:x%,loop",
		"delay:5,loop", "delay:1h,loop", "delay:1ms+x,loop", "rate:0,loop", "rate:1T,loop", "reorder:1%,none", "duplicate:NaN%,loop"} {
		var open *link.OpenError
		if _, err := set.Open(spec); !errors.As(err, &open) || !errors.Is(err, link.ErrSpec) {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

// impaired is a card on a loop with faults.
func impaired(t *testing.T, f link.Faults) (*link.Impairment, *linktest.Card, link.Port) {
	t.Helper()
	m, err := link.Impair(link.Loop(), f, 1)
	must(t, err)
	card, port := attach(t, m)
	t.Cleanup(func() { must(t, m.Close()) })
	return m, card, port
}

func TestAQueueThatSleepsIsWokenWhenAFrameIsDue(t *testing.T) {
	_, card, port := impaired(t, link.Faults{Delay: 5 * time.Millisecond})
	frame := linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(1), []byte("late")))
	start := time.Now()
	if n := port.Send(3, frame); n != 1 {
		t.Errorf("%d taken", n)
	}
	if port.Arm(3) {
		t.Error("it is there already")
	}
	card.Await(func() bool { return card.Wakes(3) == 1 })
	if n := port.Poll(3); n == 0 { // out of the card; now it is on the way back
		t.Error("woken for nothing")
	}
	if port.Arm(3) {
		t.Error("it is back already")
	}
	card.Await(func() bool { return card.Wakes(3) == 2 })
	port.Poll(3)
	if got := card.Take(); len(got) != 1 || string(got[0].Data[14:]) != "late" || got[0].Queue != 3 {
		t.Errorf("came back: %v", got)
	}
	if d := time.Since(start); d < 10*time.Millisecond {
		t.Errorf("after %v", d)
	}
}

func TestAFrameForAQueueThatSleepsWakesIt(t *testing.T) {
	var l linktest.Link
	m, err := link.Impair(&l, link.Faults{Delay: time.Millisecond}, 0)
	must(t, err)
	card, port := attach(t, m)
	if port.Arm(0) {
		t.Error("there is something")
	}
	l.Card().Receive(0, linktest.Frames([]byte("from another goroutine")))
	card.Await(func() bool { return card.Wakes(0) == 1 })
	port.Poll(0)
	if got := card.Take(); len(got) != 1 {
		t.Errorf("received %v", got)
	}
}

func TestFaultsChangeUnderway(t *testing.T) {
	m, card, port := impaired(t, link.Faults{})
	frame := linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(1), []byte("x")))
	for i, c := range []struct {
		faults link.Faults
		want   int
	}{{link.Faults{}, 1}, {link.Faults{Loss: 1}, 0}, {link.Faults{Duplicate: 1}, 4}, {link.Faults{}, 1}} {
		must(t, m.SetFaults(c.faults))
		port.Send(0, frame)
		if got := card.Take(); len(got) != c.want {
			t.Errorf("%d: %d frames came back, want %d", i, len(got), c.want)
		}
	}
	if st := port.(link.Counter).Stats(); st.SendDropped != 1 {
		t.Errorf("counted %+v", st)
	}
}

func TestBackPressureGoesThroughFaults(t *testing.T) {
	var l linktest.Link
	room := 1
	l.OnSend = func(_ int, frames []vnet.Frame) int {
		n := min(room, len(frames))
		room -= n
		return n
	}
	m, err := link.Impair(&l, link.Faults{Loss: 1e-9}, 1)
	must(t, err)
	_, port := attach(t, m)
	frames := linktest.Frames([]byte("1"), []byte("2"), []byte("3"))
	if a, b := port.Send(0, frames), port.Send(0, frames); a != 3 || b != 0 {
		t.Errorf("taken %d, then %d: the rest of one batch waits here, more does not", a, b)
	}
	room = 10
	port.Poll(0)
	if n := port.Send(0, frames); n != 3 {
		t.Errorf("%d taken", n)
	}
	text := ""
	for _, f := range l.Sent() {
		text += string(f.Data)
	}
	if text != "123123" {
		t.Errorf("sent %q", text)
	}
}

func TestNothingIsWokenAfterClose(t *testing.T) {
	m, err := link.Impair(link.Loop(), link.Faults{Delay: time.Millisecond}, 1)
	must(t, err)
	var card linktest.Card
	port, err := m.Attach(&card)
	must(t, err)
	port.Send(0, linktest.Frames([]byte("x")))
	port.Arm(0)
	must(t, port.Close())
	other, witness := attach(t, m)
	witness.Send(0, linktest.Frames([]byte("y")))
	witness.Arm(0)
	other.Await(func() bool { return other.Wakes(0) == 1 })
	if card.Wakes(0) != 0 {
		t.Error("a card that has left was woken")
	}
}

func TestAFaultOfMemoryOnALinkWithFaults(t *testing.T) {
	_, card, port := impaired(t, link.Faults{Duplicate: 1})
	bad := linktest.Frames(faulty(t))
	faults(t, func() { port.Send(0, bad) })
	port.Send(0, linktest.Frames([]byte("good")))
	if got := card.Take(); len(got) != 4 {
		t.Errorf("%d frames came back", len(got))
	}
}
