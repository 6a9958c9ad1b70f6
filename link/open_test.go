package link_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// attach gives l a new card.
func attach(t testing.TB, l link.Link) (*linktest.Card, link.Port) {
	t.Helper()
	card := &linktest.Card{}
	port, err := l.Attach(card)
	must(t, err)
	t.Cleanup(func() { must(t, port.Close()) })
	return card, port
}

func TestOpenSaysWhatWouldBeRight(t *testing.T) {
	for _, c := range []struct{ spec, says string }{
		{"", "unknown kind"},
		{"loops", "known are loop"},
		{"loop:x", "no argument"},
		{"null:1G", "no argument"},
	} {
		checkSpec(t, new(link.Set), c.spec, c.says)
	}
}

// Check looks at the text of a link and of those in it, and opens nothing.
func TestCheckLooksAtTheTextOnly(t *testing.T) {
	dir := t.TempDir()
	for _, spec := range []string{"loop", "null", "switch:lan", "tap:vt%d,queues=2,up=on", "tap:fd=99", "stream:tcp=no.such.host:80",
		"stream:unix=" + dir + "/s,server=on", "pcap:" + dir + "/f,snap=60,loss:1%,delay:2ms,loop"} {
		if err := link.Check(spec); err != nil {
			t.Error(err)
		}
	}
	made, err := os.ReadDir(dir)
	must(t, err)
	if len(made) > 0 {
		t.Errorf("%v was made", made)
	}
	for _, spec := range []string{"", "loops", "loop:x", "switch", "tap", "tap:a/b", "tap:vt0,queues=257", "tap:fd=x", "stream:tcp=host",
		"stream:unix=", "pcap:f", "pcap:,loop", "pcap:f,cable", "loss:101%,loop", "loss:1%", "loss:1%,pcap:f,tap:a/b"} {
		var open *link.OpenError
		if err := link.Check(spec); !errors.As(err, &open) || !errors.Is(err, link.ErrSpec) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

// checkSpec fails the test unless s refuses spec with words that contain says.
func checkSpec(t *testing.T, s *link.Set, spec, says string) {
	t.Helper()
	_, err := s.Open(spec)
	var open *link.OpenError
	if !errors.As(err, &open) || !errors.Is(err, link.ErrSpec) || !strings.Contains(err.Error(), says) {
		t.Errorf("%q: %v, want an OpenError with %q", spec, err, says)
	}
}

func TestALinkForOneCardRefusesASecond(t *testing.T) {
	for _, spec := range []string{"loop", "null"} {
		l, err := new(link.Set).Open(spec)
		must(t, err)
		first, err := l.Attach(&linktest.Card{})
		must(t, err)
		if _, err := l.Attach(&linktest.Card{}); !errors.Is(err, link.ErrBusy) {
			t.Errorf("%s: the second card got %v", spec, err)
		}
		must(t, first.Close())
		second, err := l.Attach(&linktest.Card{})
		must(t, err)
		must(t, first.Close()) // idempotent: the second card keeps its place
		if _, err := l.Attach(&linktest.Card{}); !errors.Is(err, link.ErrBusy) {
			t.Errorf("%s: closing a port twice made room: %v", spec, err)
		}
		must(t, second.Close())
		must(t, l.Close())
	}
}

func TestLoopGivesAQueueItsOwnFrames(t *testing.T) {
	card, port := attach(t, link.Loop())
	room := 2
	card.OnReceive = func(_ int, frames []vnet.Frame) int { return min(room, len(frames)) }
	frames := linktest.Frames([]byte("first"), []byte("second"), []byte("third"))
	if n := port.Send(3, frames); n != 2 {
		t.Errorf("%d taken, the receive queue had room for 2", n)
	}
	got := card.Take()
	if len(got) != 2 || got[0].Queue != 3 || string(got[0].Data) != "first" || string(got[1].Data) != "second" {
		t.Errorf("came back: %v", got)
	}
}

func TestNullDeliversNothing(t *testing.T) {
	card, port := attach(t, link.Null())
	if n := port.Send(0, linktest.Frames([]byte("one"), []byte("two"))); n != 2 {
		t.Errorf("%d taken", n)
	}
	if port.Poll(0) != 0 || port.Arm(0) || len(card.Take()) != 0 {
		t.Error("something came back")
	}
}
