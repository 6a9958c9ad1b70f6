package irq

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var allIndexes = []Index{INTx, MSI, MSIX, Err, Req}

// counts gives MSI-X four vectors and the others one.
var counts = Config{Counts: [NumIndexes]int{1, 1, 4, 1, 1}}

func TestRangesAreChecked(t *testing.T) {
	checkFDs(t)
	s := newSet(t, counts)
	ranges := []struct {
		name         string
		index        Index
		start, count int
	}{
		{"count 0", MSIX, 0, 0},
		{"negative start", MSIX, -1, 1},
		{"negative count", MSIX, 0, -1},
		{"start at the end", MSIX, 4, 1},
		{"count beyond the end", MSIX, 1, 4},
		{"sum overflows", MSIX, 3, math.MaxInt},
		{"start overflows", MSIX, math.MaxInt, math.MaxInt},
		{"unknown index", NumIndexes, 0, 1},
		{"highest index", 255, 0, 1},
	}
	for _, r := range ranges {
		for name, err := range map[string]error{
			"enable":   s.Enable(r.index, r.start, r.count),
			"mask":     s.Mask(r.index, r.start, r.count, nil),
			"unmask":   s.Unmask(r.index, r.start, r.count, nil),
			"fire":     s.Trigger(r.index, r.start, r.count, nil),
			"clear":    s.ClearMaskEventfds(r.index, r.start, r.count),
			"clear un": s.ClearUnmaskEventfds(r.index, r.start, r.count),
		} {
			var errno syscall.Errno
			if !errors.Is(err, ErrRange) || !errors.As(err, &errno) || errno != unix.EINVAL {
				t.Errorf("%s, %s: %v", r.name, name, err)
			}
		}
		if r.count > 0 && r.count < 100 || r.count == 0 {
			fds := make([]int, r.count)
			for k := range fds {
				fds[k] = dup(t, newEventfd(t))
			}
			if err := s.SetEventfds(r.index, r.start, fds); !errors.Is(err, ErrRange) {
				t.Errorf("%s, set: %v", r.name, err)
			}
		}
	}
	if err := s.Disable(NumIndexes); !errors.Is(err, ErrRange) {
		t.Errorf("disable of an unknown index: %v", err)
	}
	if s.Vector(MSIX, 4) != nil || s.Vector(MSIX, -1) != nil || s.Vector(9, 0) != nil || s.Count(9) != 0 {
		t.Error("a vector that does not exist was found")
	}
}

func TestOnlyEventfdsAreAccepted(t *testing.T) {
	checkFDs(t)
	file := func(t *testing.T) int {
		fd, err := unix.MemfdCreate("file", unix.MFD_CLOEXEC)
		must(t, err)
		return fd
	}
	for _, tc := range []struct {
		name string
		open func(*testing.T) int
	}{
		{"file", file},
		{"pipe", func(t *testing.T) int {
			var p [2]int
			must(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
			t.Cleanup(func() { unix.Close(p[0]) })
			return p[1]
		}},
		{"socket", func(t *testing.T) int {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			return fd
		}},
		{"timerfd", func(t *testing.T) int {
			fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
			must(t, err)
			return fd
		}},
		{"epoll", func(t *testing.T) int {
			fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			must(t, err)
			return fd
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSet(t, counts)
			first, second := newEventfd(t), newEventfd(t)
			must(t, s.SetEventfds(MSIX, 0, []int{dup(t, first)}))

			bad := tc.open(t)
			taken := []int{dup(t, second), bad, dup(t, second)}
			if err := s.SetEventfds(MSIX, 0, taken); !errors.Is(err, ErrNotEventfd) || !errors.Is(err, unix.EINVAL) {
				t.Fatalf("SetEventfds: %v", err)
			}
			for k, fd := range taken {
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
					t.Errorf("descriptor %d of a refused batch is still open: %v", k, err)
				}
			}
			// Nothing of the batch was assigned, and what was there is still there.
			must(t, s.Vector(MSIX, 0).Trigger())
			if counter(t, first) != 1 || counter(t, second) != 0 || s.Vector(MSIX, 2).Assigned() {
				t.Error("a refused batch had an effect")
			}
		})
	}
}

// QEMU enables MSI-X with one descriptorless message, then assigns eventfds one by
// one, replaces them, and disables the index with count 0.
func TestSequenceOfQEMU(t *testing.T) {
	checkFDs(t)
	s := newSet(t, counts)
	if s.Enabled(MSIX) {
		t.Error("enabled at the beginning")
	}
	must(t, s.Enable(MSIX, 0, 1))
	if !s.Enabled(MSIX) || s.Vector(MSIX, 0).Assigned() {
		t.Error("enabling without descriptors")
	}
	a, b := newEventfd(t), newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, a)}))
	must(t, s.SetEventfds(MSIX, 1, []int{dup(t, a)}))
	must(t, s.Vector(MSIX, 0).Trigger())
	must(t, s.Vector(MSIX, 1).Trigger())
	if n := counter(t, a); n != 2 {
		t.Errorf("counter %d after two triggers", n)
	}
	must(t, s.SetEventfds(MSIX, 1, []int{dup(t, b)}))
	must(t, s.Vector(MSIX, 1).Trigger())
	if counter(t, a) != 0 || counter(t, b) != 1 {
		t.Error("replaced eventfd was signalled")
	}
	must(t, s.Disable(MSIX))
	must(t, s.Vector(MSIX, 1).Trigger())
	if s.Enabled(MSIX) || s.Vector(MSIX, 1).Assigned() || counter(t, b) != 0 {
		t.Error("index is not disabled")
	}
}

func TestDeassignOneVector(t *testing.T) {
	checkFDs(t)
	s := newSet(t, counts)
	var mine [4]int
	var theirs []int
	for k := range mine {
		mine[k] = newEventfd(t)
		theirs = append(theirs, dup(t, mine[k]))
	}
	must(t, s.SetEventfds(MSIX, 0, theirs))
	must(t, s.SetEventfds(MSIX, 1, []int{-1, -1}))
	for k := range mine {
		must(t, s.Vector(MSIX, k).Trigger())
		want := uint64(1)
		if k == 1 || k == 2 {
			want = 0
		}
		if got := counter(t, mine[k]); got != want {
			t.Errorf("vector %d: counter %d, want %d", k, got, want)
		}
	}
}

func TestFireActsOnBehalfOfTheClient(t *testing.T) {
	checkFDs(t)
	for _, tc := range []struct {
		name  string
		which []byte
		err   error
		want  [4]uint64
	}{
		{"all", nil, nil, [4]uint64{1, 1, 1, 0}},
		{"by boolean", []byte{0, 1, 255, 1}, nil, [4]uint64{0, 1, 1, 0}},
		{"too few booleans", []byte{1, 1, 1}, ErrData, [4]uint64{}},
		{"too many booleans", []byte{1, 1, 1, 1, 1}, ErrData, [4]uint64{}},
		{"no booleans", []byte{}, ErrData, [4]uint64{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSet(t, counts)
			var mine [3]int
			for k := range mine {
				mine[k] = newEventfd(t)
				must(t, s.SetEventfds(MSIX, k, []int{dup(t, mine[k])}))
			}
			if err := s.Trigger(MSIX, 0, 4, tc.which); !errors.Is(err, tc.err) {
				t.Errorf("Fire: %v", err)
			}
			for k := range mine {
				if got := counter(t, mine[k]); got != tc.want[k] {
					t.Errorf("vector %d: counter %d, want %d", k, got, tc.want[k])
				}
			}
			if s.Vector(MSIX, 3).Pending() {
				t.Error("vector without eventfd became pending")
			}
		})
	}
}

func TestMaskingIsRefusedForErrAndReq(t *testing.T) {
	checkFDs(t)
	s := newSet(t, counts)
	for _, i := range []Index{Err, Req} {
		for name, err := range map[string]error{
			"mask":           s.Mask(i, 0, 1, nil),
			"unmask":         s.Unmask(i, 0, 1, nil),
			"mask eventfd":   s.SetMaskEventfds(i, 0, []int{dup(t, newEventfd(t))}),
			"unmask eventfd": s.SetUnmaskEventfds(i, 0, []int{dup(t, newEventfd(t))}),
		} {
			if !errors.Is(err, ErrAction) || !errors.Is(err, unix.EINVAL) {
				t.Errorf("%v %s: %v", i, name, err)
			}
		}
	}
}

func TestCloseEndsAll(t *testing.T) {
	checkFDs(t)
	s := newSet(t, counts)
	mine := newEventfd(t)
	for _, i := range allIndexes {
		must(t, s.SetEventfds(i, 0, []int{dup(t, mine)}))
	}
	must(t, s.SetMaskEventfds(MSI, 0, []int{dup(t, mine)}))
	s.Close()
	s.Close()
	for _, i := range allIndexes {
		v := s.Vector(i, 0)
		if err := v.Trigger(); !errors.Is(err, ErrClosed) || v.Assigned() {
			t.Errorf("%v: trigger after Close: %v", i, err)
		}
		if err := v.SetLevel(true); !errors.Is(err, ErrClosed) {
			t.Errorf("%v: level after Close: %v", i, err)
		}
		if err := s.SetEventfds(i, 0, []int{dup(t, mine)}); !errors.Is(err, ErrClosed) {
			t.Errorf("%v: assignment after Close: %v", i, err)
		}
	}
	if counter(t, mine) != 0 {
		t.Error("signalled after Close")
	}
}

func TestIndexString(t *testing.T) {
	if got := fmt.Sprint(INTx, MSIX, Req, Index(7)); got != "INTx MSI-X REQ interrupt index 7" {
		t.Error(got)
	}
}
