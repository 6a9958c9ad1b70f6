package irq

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/fuzz/choice"
)

// FuzzSet: a set does what the model says, whatever is assigned, masked, gated, triggered, saved
// and restored, right or wrong: it gives the same errors, signals each eventfd as often, and
// keeps no descriptor.
//
//fuzz:covers irq/set.go irq/vector.go irq/event.go irq/gate.go irq/state.go
func FuzzSet(f *testing.F) {
	choice.Fuzz(f, 32, 400, runSet)
}

func TestSetPrograms(t *testing.T) {
	choice.Programs(t, 400, 80, runSet)
}

const (
	setEventfds  = 6
	maxSetVector = 5 // most vectors of an index
)

// setRun is a program under way.
type setRun struct {
	*testing.T
	*choice.Source
	set     *Set
	model   *setModel
	clients []int // the client's ends of the eventfds
	other   int   // a descriptor that is no eventfd
	refused int   // descriptors that the set has closed because it refused them
	saved   []byte
}

// runSet runs a program: one set after another, of which each is used until it is closed.
func runSet(t *testing.T, s *choice.Source) {
	t.Helper()
	runOneSet(t, s)
	for s.More() && !t.Failed() {
		runOneSet(t, s)
	}
}

func runOneSet(t *testing.T, s *choice.Source) {
	t.Helper()
	r := &setRun{T: t, Source: s}
	counts := [NumIndexes]int{INTx: s.Intn(2), MSI: s.Intn(maxSetVector), MSIX: 1 + s.Intn(maxSetVector), Err: s.Intn(2), Req: s.Intn(2)}
	r.set = NewSet(Config{Counts: counts, CloseFD: func(fd int) { r.refused++; _ = unix.Close(fd) }})
	open := openDescriptors() // after the runtime's own, which it opens for the first timer
	r.model = newSetModel(counts, setEventfds)
	r.saved = r.set.Save()
	for range setEventfds {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		must(t, err)
		r.clients = append(r.clients, fd)
	}
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	r.other = null
	for step := 0; !t.Failed() && !(r.model.closed && s.Odds(16)) && s.More(); step++ {
		what := s.Intn(len(setOperations))
		setOperations[what].run(r)
		r.compare()
		if t.Failed() {
			t.Errorf("step %d: %s", step, setOperations[what].name)
		}
	}
	r.set.Close()
	for _, fd := range append(r.clients, r.other) {
		_ = unix.Close(fd)
	}
	if now := openDescriptors(); now != open {
		t.Errorf("%d descriptors are open, %d were", now, open)
	}
}

// openDescriptors counts those that a program can reach, at less cost than /proc.
func openDescriptors() (n int) {
	for fd := range uintptr(256) {
		if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

// compare holds everything that can be seen against the model.
func (r *setRun) compare() {
	r.Helper()
	r.model.each(func(i Index, n int, v *modelVector) {
		got := r.set.Vector(i, n)
		if got.Masked() != v.masked || got.Pending() != (v.pending || v.intx && v.level) || got.Assigned() != (v.event >= 0) || got.Gated() != (v.gates != 0) {
			r.Errorf("%v %d: masked %v, pending %v, assigned %v, gated %v; want %+v", i, n, got.Masked(), got.Pending(), got.Assigned(), got.Gated(), *v)
		}
	})
	for i := range Index(NumIndexes) {
		if r.set.Enabled(i) != r.model.enabled[i] {
			r.Errorf("%v: enabled %v", i, !r.model.enabled[i])
		}
	}
	for e, fd := range r.clients {
		if got := counter(r.T, fd); got != r.model.signals[e] {
			r.Errorf("eventfd %d was signalled %d times, want %d", e, got, r.model.signals[e])
		}
		r.model.signals[e] = 0
	}
}

func (r *setRun) agree(got, want error) {
	r.Helper()
	if want == nil && got != nil || !errors.Is(got, want) {
		r.Errorf("got %v, want %v", got, want)
	}
}

// span is a range of vectors, mostly one that there is.
func (r *setRun) span() (i Index, start, count int) {
	i = choice.Pick(r.Source, MSIX, INTx, MSI, Err, Req, MSIX, NumIndexes)
	n := max(r.set.Count(i), 1)
	if r.Odds(12) {
		return i, int(int32(r.Edge(uint64(n)))), int(int32(r.Edge(uint64(n))))
	}
	start = r.Intn(n)
	return i, start, 1 + r.Intn(n-start)
}

// which is what BOOL data says of a range; nil is NONE.
func (r *setRun) which(count int) []byte {
	if r.Bool() {
		return nil
	}
	if r.Odds(16) || count < 0 || count > maxSetVector {
		return r.Bytes(r.Intn(maxSetVector + 2))
	}
	return r.Bytes(count)
}

// vector is one that there is.
func (r *setRun) vector() (*Vector, *modelVector) {
	i := choice.Pick(r.Source, MSIX, INTx, MSI, Err, Req)
	if r.set.Count(i) == 0 {
		i = MSIX
	}
	n := r.Intn(r.set.Count(i))
	return r.set.Vector(i, n), &r.model.vectors[i][n]
}

// assign passes duplicates of eventfds, of which some are to be taken away or are none.
func (r *setRun) assign(to func(Index, int, []int) error, of func(*modelVector) *int, trigger bool) {
	r.Helper()
	i, start, count := r.span()
	count = min(max(count, 0), maxSetVector+1)
	fds, events, wrong, passed := make([]int, count), make([]int, count), false, 0
	for k := range fds {
		switch from := r.Intn(16); {
		case from == 15:
			fds[k], wrong = dup(r.T, r.other), true
		case from >= 12:
			fds[k], events[k] = -1, -1
			continue
		default:
			events[k] = from % setEventfds
			fds[k] = dup(r.T, r.clients[events[k]])
		}
		passed++
	}
	r.refused = 0
	err := to(i, start, fds)
	if wrong {
		r.agree(err, ErrNotEventfd)
	} else {
		r.agree(err, r.model.assign(i, start, events, of, trigger))
	}
	if err != nil && r.refused != passed {
		r.Errorf("%d of %d refused descriptors were closed", r.refused, passed)
	}
}

func (r *setRun) deassign(from func(Index, int, int) error, of func(*modelVector) *int, trigger bool) {
	r.Helper()
	i, start, count := r.span()
	err := from(i, start, count)
	if r.model.span(i, start, count) == nil {
		r.agree(err, ErrRange)
		return
	}
	r.agree(err, r.model.assign(i, start, slices.Repeat([]int{-1}, count), of, trigger))
}

func eventOf(v *modelVector) *int    { return &v.event }
func onMaskOf(v *modelVector) *int   { return &v.onMask }
func onUnmaskOf(v *modelVector) *int { return &v.onUnmask }

var setOperations = []struct {
	name string
	run  func(*setRun)
}{
	{"EVENTFD|TRIGGER", func(r *setRun) { r.assign(r.set.SetEventfds, eventOf, true) }},
	{"Trigger", func(r *setRun) {
		v, m := r.vector()
		r.agree(v.Trigger(), r.model.trigger(m))
	}},
	{"SetLevel", func(r *setRun) {
		v, m := r.vector()
		high := r.Bool()
		r.agree(v.SetLevel(high), r.model.setLevel(m, high))
	}},
	{"MASK", func(r *setRun) {
		i, start, count := r.span()
		which := r.which(count)
		r.agree(r.set.Mask(i, start, count, which), r.model.act(i, start, count, which, false, r.model.mask))
	}},
	{"UNMASK", func(r *setRun) {
		i, start, count := r.span()
		which := r.which(count)
		r.agree(r.set.Unmask(i, start, count, which), r.model.act(i, start, count, which, false, r.model.unmask))
	}},
	{"TRIGGER", func(r *setRun) {
		i, start, count := r.span()
		which := r.which(count)
		r.agree(r.set.Trigger(i, start, count, which), r.model.act(i, start, count, which, true, func(v *modelVector) error {
			if v.event < 0 {
				return nil
			}
			return r.model.trigger(v)
		}))
	}},
	{"triggers of several vectors at once", burst},
	{"SetGate", func(r *setRun) {
		i, start, count := r.span()
		g, closed := choice.Pick(r.Source, GateFunction, GateVector, GateFunction|GateVector), r.Bool()
		r.agree(r.set.SetGate(i, start, count, g, closed), r.model.act(i, start, count, nil, false, r.model.gate(g, closed)))
	}},
	{"EVENTFD|MASK", func(r *setRun) { r.assign(r.set.SetMaskEventfds, onMaskOf, false) }},
	{"EVENTFD|UNMASK", func(r *setRun) { r.assign(r.set.SetUnmaskEventfds, onUnmaskOf, false) }},
	{"EVENTFD|TRIGGER without descriptors", func(r *setRun) { r.deassign(r.set.Enable, eventOf, true) }},
	{"EVENTFD|MASK without descriptors", func(r *setRun) { r.deassign(r.set.ClearMaskEventfds, onMaskOf, false) }},
	{"EVENTFD|UNMASK without descriptors", func(r *setRun) { r.deassign(r.set.ClearUnmaskEventfds, onUnmaskOf, false) }},
	{"NONE|TRIGGER of nothing", func(r *setRun) {
		i, _, _ := r.span()
		if i >= NumIndexes {
			r.agree(r.set.Disable(i), ErrRange)
			return
		}
		r.agree(r.set.Disable(i), nil)
		r.model.disable(i)
	}},
	{"ClearPending", func(r *setRun) {
		r.set.ClearPending()
		r.model.each(func(_ Index, _ int, v *modelVector) { v.pending, v.level = false, false })
	}},
	{"Save", func(r *setRun) {
		if r.saved = r.set.Save(); !bytes.Equal(r.saved, r.model.save()) {
			r.Errorf("saved % x, want % x", r.saved, r.model.save())
		}
	}},
	{"Restore", func(r *setRun) {
		p := slices.Clone(r.saved)
		switch r.Intn(4) {
		case 0:
			r.Fill(p)
			for k := range p {
				p[k] &= 0x1f
			}
		case 1:
			p = p[:r.Intn(len(p)+1)]
		}
		r.agree(r.set.Restore(p), r.model.restore(p))
	}},
	{"Flush", func(r *setRun) {
		r.set.Flush()
		r.model.each(func(_ Index, _ int, v *modelVector) { r.model.settle(v) })
	}},
	{"CheckStuck", func(r *setRun) {
		if r.set.CheckStuck() {
			r.Error("the client blocks nobody")
		}
	}},
	{"Close", func(r *setRun) {
		if r.Odds(4) {
			r.set.Close()
			r.model.close()
		}
	}},
}

// burst triggers vectors from a goroutine each. What comes of it does not depend on the order.
func burst(r *setRun) {
	vectors := map[*Vector]*modelVector{}
	for range 3 {
		v, m := r.vector()
		vectors[v] = m
	}
	times := 1 + r.Intn(8)
	var wg sync.WaitGroup
	for v, m := range vectors {
		var want error
		for range times {
			want = r.model.trigger(m)
		}
		wg.Go(func() {
			for range times {
				if err := v.Trigger(); !errors.Is(err, want) {
					r.Errorf("got %v, want %v", err, want)
				}
			}
		})
	}
	wg.Wait()
}
