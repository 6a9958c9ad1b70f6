package link

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vfiouser/link/vnet"
)

// newLane is a lane on a clock that the test sets.
func newLane() *lane { return &lane{way: &way{}, rnd: rand.New(rand.NewPCG(1, 2))} }

// numbered is a frame of a size whose first byte is a number.
func numbered(n byte, size int) vnet.Frame {
	data := make([]byte, size)
	data[0] = n
	return vnet.Frame{Parts: [][]byte{data[:1], data[1:]}, Len: size}
}

// sink receives frames, no more than it has room for.
type sink struct {
	got  string
	room int
}

func (s *sink) take(frames []vnet.Frame) int {
	n := min(s.room, len(frames))
	for _, f := range frames[:n] {
		s.got += string(f.Parts[0][:1])
	}
	s.room -= n
	return n
}

func (s *sink) empty() (got string) {
	got, s.got = s.got, ""
	return got
}

func newSink() *sink { return &sink{room: 1 << 30} }

func frames(numbers string, size int) (f []vnet.Frame) {
	for _, n := range []byte(numbers) {
		f = append(f, numbered(n, size))
	}
	return f
}

const ms = time.Millisecond

func TestDelay(t *testing.T) {
	l, s := newLane(), newSink()
	f := &Faults{Delay: 10 * ms}
	l.pass(f, 0, frames("ab", 60), s.take)
	l.pass(f, 5*ms, frames("c", 60), s.take)
	for _, c := range []struct {
		at   time.Duration
		want string
	}{{9 * ms, ""}, {10 * ms, "ab"}, {14 * ms, ""}, {15 * ms, "c"}, {time.Hour, ""}} {
		due, waiting := l.next()
		l.flush(c.at, s.take)
		if got := s.empty(); got != c.want || (got != "") != (waiting && due <= c.at) {
			t.Errorf("at %v: %q, want %q; next was said to be at %v, %v", c.at, got, c.want, due, waiting)
		}
	}
	l.pass(f, time.Hour, frames("d", 60), s.take)
	l.pass(&Faults{}, time.Hour, frames("e", 60), s.take)
	l.flush(time.Hour+10*ms, s.take)
	if got := s.empty(); got != "de" {
		t.Errorf("a shorter delay lets %q pass; the order is to stay", got)
	}
	if held := l.way.held.Load(); held != 0 || l.waits.Load() != 0 {
		t.Errorf("%d bytes are held, %d frames wait", held, l.waits.Load())
	}
}

func TestJitterKeepsTheOrder(t *testing.T) {
	l, s := newLane(), newSink()
	numbers := strings.Repeat("abcdefgh", 10)
	for i := range numbers {
		l.pass(&Faults{Delay: ms, Jitter: 20 * ms}, time.Duration(i)*ms, frames(numbers[i:i+1], 60), s.take)
		l.flush(time.Duration(i)*ms, s.take)
	}
	if s.got == numbers || !strings.HasPrefix(numbers, s.got) {
		t.Errorf("on the way: %q", s.got)
	}
	l.flush(time.Second, s.take)
	if s.got != numbers {
		t.Errorf("%q", s.got)
	}
}

func TestReorderedFramesAreOvertakenForAWhile(t *testing.T) {
	l, s := newLane(), newSink()
	l.pass(&Faults{Reorder: 1}, 0, frames("a", 60), s.take)
	l.pass(&Faults{}, 0, frames("b", 60), s.take)
	l.flush(reorderBy-1, s.take)
	l.pass(&Faults{}, reorderBy, frames("c", 60), s.take)
	l.flush(reorderBy, s.take)
	if s.got != "bac" {
		t.Errorf("%q, want bac", s.got)
	}
}

func TestRate(t *testing.T) {
	l, s := newLane(), newSink()
	f := &Faults{Rate: 1e6} // 125 bytes in a millisecond
	l.pass(f, 0, frames("abc", 1250), s.take)
	for _, c := range []struct {
		at   time.Duration
		want string
	}{{9 * ms, ""}, {10 * ms, "a"}, {20 * ms, "b"}, {30 * ms, "c"}} {
		l.flush(c.at, s.take)
		if got := s.empty(); got != c.want {
			t.Errorf("at %v: %q, want %q", c.at, got, c.want)
		}
	}
	l.pass(f, time.Second, frames(strings.Repeat("x", 50), 1250), s.take)
	l.flush(time.Hour, s.take)
	if n, lost := len(s.got), l.way.lost.Load(); n != 11 || lost != 39 {
		t.Errorf("%d frames of 10 ms came, %d were lost; a wait of up to 100 ms is allowed", n, lost)
	}
}

func TestLossAndDuplicates(t *testing.T) {
	for _, c := range []struct {
		faults   Faults
		min, max int
	}{
		{Faults{}, 10000, 10000},
		{Faults{Loss: 1}, 0, 0},
		{Faults{Duplicate: 1}, 20000, 20000},
		{Faults{Loss: 0.1}, 8800, 9200},
		{Faults{Duplicate: 0.1}, 10800, 11200},
		{Faults{Loss: 0.1, Duplicate: 0.1}, 9600, 10200},
		{Faults{Loss: 0.1, Duplicate: 0.1, Delay: ms}, 9600, 10200},
	} {
		l, s := newLane(), newSink()
		for range 100 {
			l.pass(&c.faults, 0, frames(strings.Repeat("x", 100), 60), s.take)
		}
		l.flush(ms, s.take)
		if n := len(s.got); n < c.min || n > c.max {
			t.Errorf("%+v: %d of 10000 frames", c.faults, n)
		}
		again, same := newLane(), newSink()
		for range 100 {
			again.pass(&c.faults, 0, frames(strings.Repeat("x", 100), 60), same.take)
		}
		again.flush(ms, same.take)
		if same.got != s.got {
			t.Errorf("%+v: another choice with the same seed", c.faults)
		}
	}
}

func TestAReceiverWithoutRoomLosesNothingHere(t *testing.T) {
	l, s := newLane(), &sink{room: 1}
	l.pass(&Faults{}, 0, frames("abc", 60), s.take)
	l.pass(&Faults{}, 0, frames("d", 60), s.take)
	if !l.blocked() || s.got != "a" {
		t.Errorf("blocked %v, %q", l.blocked(), s.got)
	}
	if _, ok := l.next(); ok {
		t.Error("a time is said for what waits for room")
	}
	s.room = 2
	l.flush(0, s.take)
	s.room = 9
	l.flush(0, s.take)
	l.pass(&Faults{}, 0, frames("e", 60), s.take)
	if l.blocked() || s.got != "abcde" {
		t.Errorf("blocked %v, %q", l.blocked(), s.got)
	}
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	for _, size := range []int{1514, 65000} {
		l, s := newLane(), newSink()
		most := maxHeld / (size + heldOverhead)
		batch := frames(strings.Repeat("x", 100), size)
		for range most/100 + 2 {
			l.pass(&Faults{Delay: ms}, 0, batch, s.take)
		}
		if n := int(l.waits.Load()); n != most || l.way.lost.Load() == 0 {
			t.Errorf("%d frames of %d bytes wait, want %d; %d were lost", n, size, most, l.way.lost.Load())
		}
		l.flush(ms, s.take)
		if len(s.got) != most || l.way.held.Load() != 0 || len(l.spare) > spareFrames {
			t.Errorf("%d came, %d bytes are held, %d buffers are kept", len(s.got), l.way.held.Load(), len(l.spare))
		}
	}
}

// Frames with random faults against the plainest way to do the same.
func TestLaneAgainstAModel(t *testing.T) {
	type waiting struct {
		due time.Duration
		n   byte
	}
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		l, s := newLane(), newSink()
		var model []waiting
		var last, now time.Duration
		want := ""
		flush := func() {
			slices.SortStableFunc(model, func(a, b waiting) int { return int(a.due - b.due) })
			for len(model) > 0 && model[0].due <= now {
				want += string(rune(model[0].n))
				model = model[1:]
			}
		}
		for i := range 500 {
			now += time.Duration(rnd.IntN(3)) * ms / 2
			f := Faults{Delay: time.Duration(rnd.IntN(4)) * ms}
			if rnd.IntN(5) == 0 {
				f.Reorder = 1
			}
			n := byte('a' + i%26)
			last = max(last, now+f.Delay)
			due := last
			if f.Reorder == 1 {
				due += reorderBy
			}
			model = append(model, waiting{due, n})
			l.pass(&f, now, frames(string(rune(n)), 60), s.take)
			flush()
			l.flush(now, s.take)
			if s.got != want {
				t.Fatalf("seed %d, step %d: %s, want %s", seed, i, tail(s.got), tail(want))
			}
		}
	}
}

func tail(s string) string { return fmt.Sprintf("…%s", s[max(len(s)-40, 0):]) }

func TestHoldingAFrameDoesNotAllocate(t *testing.T) {
	l, s := newLane(), newSink()
	batch := frames(strings.Repeat("x", 64), 1514)
	now := time.Duration(0)
	round := func() {
		s.got = s.got[:0]
		l.pass(&Faults{Delay: ms}, now, batch, func(f []vnet.Frame) int { return len(f) })
		now += ms
		l.flush(now, func(f []vnet.Frame) int { return len(f) })
	}
	round()
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
