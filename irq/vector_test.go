package irq

import (
	"errors"
	"testing"
)

// step is one action of a scenario and what the client's eventfds count after it.
type step struct {
	do           string
	fired        uint64 // of the trigger eventfd, since the last step
	pending      bool
	masked       bool
	maskEvents   uint64
	unmaskEvents uint64
}

// TestVectorStates walks one vector through scenarios. The trigger eventfd is
// assigned by "assign" and taken away by "deassign".
func TestVectorStates(t *testing.T) {
	for _, tc := range []struct {
		name  string
		index Index
		steps []step
	}{
		{"an edge fires each time", MSIX, []step{
			{do: "assign"}, {do: "trigger", fired: 1}, {do: "trigger", fired: 1},
		}},
		{"a masked edge is pending and fires once on unmask", MSIX, []step{
			{do: "assign"}, {do: "mask", masked: true, maskEvents: 1},
			{do: "trigger", masked: true, pending: true},
			{do: "trigger", masked: true, pending: true},
			{do: "unmask", fired: 1, unmaskEvents: 1},
			{do: "unmask"},
		}},
		{"a mask twice is one mask", MSI, []step{
			{do: "assign"}, {do: "mask", masked: true, maskEvents: 1}, {do: "mask", masked: true},
			{do: "unmask", unmaskEvents: 1}, {do: "trigger", fired: 1},
		}},
		{"an edge without eventfd waits for one", MSIX, []step{
			{do: "trigger", pending: true}, {do: "assign", fired: 1},
			{do: "deassign"}, {do: "trigger", pending: true}, {do: "assign", fired: 1}, {do: "assign"},
		}},
		{"an edge waits for eventfd and unmask", MSIX, []step{
			{do: "mask", masked: true, maskEvents: 1}, {do: "trigger", masked: true, pending: true},
			{do: "assign", masked: true, pending: true}, {do: "unmask", fired: 1, unmaskEvents: 1},
		}},
		{"an error without eventfd is lost", Err, []step{
			{do: "trigger"}, {do: "assign"}, {do: "trigger", fired: 1},
		}},
		{"a request is an edge", Req, []step{
			{do: "trigger"}, {do: "assign"}, {do: "trigger", fired: 1}, {do: "trigger", fired: 1},
		}},
		{"INTx masks itself", INTx, []step{
			{do: "assign"}, {do: "trigger", fired: 1, masked: true, maskEvents: 1},
			{do: "trigger", masked: true, pending: true}, {do: "trigger", masked: true, pending: true},
			{do: "unmask", fired: 1, masked: true, unmaskEvents: 1, maskEvents: 1},
			{do: "unmask", unmaskEvents: 1},
			{do: "trigger", fired: 1, masked: true, maskEvents: 1},
		}},
		{"an INTx line that stays up fires after each unmask", INTx, []step{
			{do: "assign"}, {do: "high", fired: 1, masked: true, pending: true, maskEvents: 1},
			{do: "high", masked: true, pending: true},
			{do: "unmask", fired: 1, masked: true, pending: true, unmaskEvents: 1, maskEvents: 1},
			{do: "low", masked: true}, {do: "unmask", unmaskEvents: 1},
			{do: "high", fired: 1, masked: true, pending: true, maskEvents: 1},
		}},
		{"an INTx line that is up waits for an eventfd", INTx, []step{
			{do: "high", pending: true}, {do: "assign", fired: 1, masked: true, pending: true, maskEvents: 1},
		}},
		{"an INTx line that was up only while masked does not fire", INTx, []step{
			{do: "assign"}, {do: "mask", masked: true, maskEvents: 1},
			{do: "high", masked: true, pending: true}, {do: "low", masked: true}, {do: "unmask", unmaskEvents: 1},
		}},
		{"disable forgets masks and what is pending", MSIX, []step{
			{do: "assign"}, {do: "mask", masked: true, maskEvents: 1}, {do: "trigger", masked: true, pending: true},
			{do: "disable"}, {do: "assign"}, {do: "trigger", fired: 1},
		}},
		{"disable leaves the line as it is", INTx, []step{
			{do: "assign"}, {do: "high", fired: 1, masked: true, pending: true, maskEvents: 1},
			{do: "disable", pending: true}, {do: "assign", fired: 1, masked: true, pending: true},
		}},
		{"reset forgets what is pending", MSIX, []step{
			{do: "trigger", pending: true}, {do: "reset"}, {do: "assign"}, {do: "trigger", fired: 1},
		}},
		{"reset lowers the line and keeps eventfd and mask", INTx, []step{
			{do: "assign"}, {do: "high", fired: 1, masked: true, pending: true, maskEvents: 1},
			{do: "reset", masked: true}, {do: "unmask", unmaskEvents: 1},
			{do: "high", fired: 1, masked: true, pending: true, maskEvents: 1},
		}},
		{"a gated edge is pending and fires once when the gate opens", MSIX, []step{
			{do: "assign"}, {do: "close function"}, {do: "trigger", pending: true}, {do: "trigger", pending: true},
			{do: "open function", fired: 1}, {do: "open function"}, {do: "trigger", fired: 1},
		}},
		{"the last gate that opens lets it fire", MSI, []step{
			{do: "assign"}, {do: "close function"}, {do: "close vector"}, {do: "trigger", pending: true},
			{do: "open function", pending: true}, {do: "open vector", fired: 1},
		}},
		{"gate and mask are independent", MSIX, []step{
			{do: "assign"}, {do: "close vector"}, {do: "mask", masked: true, maskEvents: 1},
			{do: "trigger", masked: true, pending: true}, {do: "open vector", masked: true, pending: true},
			{do: "close vector", masked: true, pending: true}, {do: "unmask", pending: true, unmaskEvents: 1},
			{do: "open vector", fired: 1},
		}},
		{"a line that is up behind a gate fires when it opens", INTx, []step{
			{do: "assign"}, {do: "close function"}, {do: "high", pending: true},
			{do: "open function", fired: 1, masked: true, pending: true, maskEvents: 1},
		}},
		{"a line that fell behind a gate does not fire", INTx, []step{
			{do: "assign"}, {do: "close function"}, {do: "high", pending: true}, {do: "low"}, {do: "open function"},
		}},
		{"a line behind a gate does not fire again on unmask", INTx, []step{
			{do: "assign"}, {do: "high", fired: 1, masked: true, pending: true, maskEvents: 1},
			{do: "close function", masked: true, pending: true}, {do: "unmask", pending: true, unmaskEvents: 1},
			{do: "open function", fired: 1, masked: true, pending: true, maskEvents: 1},
		}},
		{"disable and reset leave gates closed", MSIX, []step{
			{do: "close function"}, {do: "disable"}, {do: "reset"}, {do: "assign"}, {do: "trigger", pending: true},
			{do: "open function", fired: 1},
		}},
		{"a rising level is an edge elsewhere", MSIX, []step{
			{do: "assign"}, {do: "high", fired: 1}, {do: "high"}, {do: "low"}, {do: "high", fired: 1},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkFDs(t)
			s := newSet(t, counts)
			v := s.Vector(tc.index, 0)
			trigger, mask, unmask := newEventfd(t), newEventfd(t), newEventfd(t)
			if tc.index <= MSIX {
				must(t, s.SetMaskEventfds(tc.index, 0, []int{dup(t, mask)}))
				must(t, s.SetUnmaskEventfds(tc.index, 0, []int{dup(t, unmask)}))
			}
			for k, st := range tc.steps {
				must(t, act(t, s, tc.index, st.do, trigger))
				got := step{st.do, counter(t, trigger), v.Pending(), v.Masked(), counter(t, mask), counter(t, unmask)}
				if got != st {
					t.Fatalf("step %d:\n got %+v\nwant %+v", k, got, st)
				}
			}
		})
	}
}

func act(t *testing.T, s *Set, i Index, do string, eventfd int) error {
	v := s.Vector(i, 0)
	switch do {
	case "assign":
		return s.SetEventfds(i, 0, []int{dup(t, eventfd)})
	case "deassign":
		return s.SetEventfds(i, 0, []int{-1})
	case "trigger":
		return v.Trigger()
	case "mask":
		return s.Mask(i, 0, 1, nil)
	case "unmask":
		return s.Unmask(i, 0, 1, nil)
	case "high":
		return v.SetLevel(true)
	case "low":
		return v.SetLevel(false)
	case "close function":
		return s.SetGate(i, 0, 1, GateFunction, true)
	case "open function":
		return s.SetGate(i, 0, 1, GateFunction, false)
	case "close vector":
		return s.SetGate(i, 0, 1, GateVector, true)
	case "open vector":
		return s.SetGate(i, 0, 1, GateVector, false)
	case "disable":
		return s.Disable(i)
	case "reset":
		s.ClearPending()
	}
	return nil
}

func TestGatesAreChecked(t *testing.T) {
	s := newSet(t, counts)
	for _, tc := range []struct {
		name         string
		index        Index
		start, count int
		gate         Gate
		want         error
	}{
		{"no such vector", MSIX, 0, counts.Counts[MSIX] + 1, GateVector, ErrRange},
		{"none", MSIX, 0, 0, GateVector, ErrRange},
		{"of the error interrupt", Err, 0, 1, GateFunction, ErrAction},
		{"a bit that is no gate", MSIX, 0, 1, 1, ErrAction},
	} {
		if err := s.SetGate(tc.index, tc.start, tc.count, tc.gate, true); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
	if s.Vector(MSIX, 0).Gated() {
		t.Error("what was refused closed a gate")
	}
	must(t, s.SetGate(MSIX, 0, 1, GateVector, true))
	if !s.Vector(MSIX, 0).Gated() || s.Vector(MSIX, 1).Gated() {
		t.Error("the gate of one vector")
	}
}

func TestTriggerDoesNotAllocate(t *testing.T) {
	s := newSet(t, counts)
	mine := newEventfd(t)
	must(t, s.SetEventfds(MSIX, 0, []int{dup(t, mine)}))
	must(t, s.SetEventfds(INTx, 0, []int{dup(t, mine)}))
	plain, masked, gated, line := s.Vector(MSIX, 0), s.Vector(MSIX, 1), s.Vector(MSIX, 2), s.Vector(INTx, 0)
	must(t, s.Mask(MSIX, 1, 1, nil))
	must(t, s.SetGate(MSIX, 2, 1, GateFunction, true))
	for name, f := range map[string]func(){
		"plain":  func() { _ = plain.Trigger() },
		"masked": func() { _ = masked.Trigger() },
		"gated":  func() { _ = gated.Trigger() },
		"line": func() {
			_ = line.SetLevel(true)
			_ = line.SetLevel(false)
			_ = line.unmask()
		},
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
