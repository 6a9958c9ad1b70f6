package nvme

import (
	"slices"
	"sync/atomic"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

// watched counts the requests that are in it at the same time as an exclusion.
type watched struct {
	block.Backend
	excluded *atomic.Bool
	broken   *atomic.Int32
}

func (w watched) Submit(r *block.Request) (bool, error) {
	if w.excluded.Load() {
		w.broken.Add(1)
	}
	done, err := w.Backend.Submit(r)
	if w.excluded.Load() && done {
		w.broken.Add(1)
	}
	return done, err
}

// Commands of a worker and of couriers wait for what excludes them, and none is lost.
func TestExclusionKeepsCommandsAway(t *testing.T) {
	holdings.CheckLeaks(t)
	var excluded atomic.Bool
	var broken atomic.Int32
	g := newGuest(t, rig{backends: []block.Backend{watched{memory(t, 1<<20), &excluded, &broken}}})
	g.enable()
	q := g.createQueue(1, 64)
	s := g.c.subsystem
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			s.exclude(s.allocated(1).allocation, func(ns *namespace) {
				excluded.Store(true)
				if ns != g.c.namespace(1) {
					t.Error("another view")
				}
				excluded.Store(false)
			})
		}
	}()
	data := g.alloc(1)
	for i := range 2000 {
		op := []uint8{spec.NVMRead, spec.NVMWrite, spec.NVMCompare, spec.NVMWriteZeroes, spec.NVMVerify}[i%5]
		e := rw(op, 1, uint64(i%100), 1, data, 0)
		if st := q.status(e); !st.OK() && st.Code() != spec.CompareFailure {
			t.Fatalf("%d: %v", i, st)
		}
	}
	close(stop)
	if <-done == 0 {
		t.Error("nothing was excluded")
	}
	if broken.Load() > 0 {
		t.Errorf("%d requests during an exclusion", broken.Load())
	}
}

// A command that waited while the namespace became another is checked again.
func TestCommandThatWaitedSeesTheNewView(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, c := range []struct {
		name string
		op   uint8
		next func(s *Subsystem, ns *namespace)
		want spec.Status
	}{
		{"gone", spec.NVMRead, func(s *Subsystem, ns *namespace) { s.replace(ns, nil) }, spec.InvalidField | spec.StatusDNR},
		{"smaller blocks", spec.NVMRead, func(s *Subsystem, ns *namespace) { s.replace(ns, ns.newView(format{})) }, spec.Success},
		{"larger blocks, out of range", spec.NVMWrite, func(s *Subsystem, ns *namespace) { s.replace(ns, ns.newView(format{index: 1})) }, spec.LBAOutOfRange | spec.StatusDNR},
		{"compare", spec.NVMCompare, func(s *Subsystem, ns *namespace) { s.replace(ns, ns.newView(format{index: 1})) }, spec.LBAOutOfRange | spec.StatusDNR},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, rig{backends: []block.Backend{memory(t, 1<<20)}})
			g.enable()
			q := g.createQueue(1, 16)
			data := g.alloc(1)
			s := g.c.subsystem
			var cid uint16
			s.exclude(s.allocated(1).allocation, func(ns *namespace) {
				cid = q.submit(rw(c.op, 1, 1024, 1, data, 0))
				g.until("the command waits", func() bool { return g.atCouriers() == 1 })
				s.mu.Lock()
				c.next(s, ns)
				s.mu.Unlock()
			})
			if st := q.result(cid).Status; st != c.want {
				t.Errorf("%v, want %v", st, c.want)
			}
		})
	}
}

// atCouriers is how many commands couriers have.
func (g *guest) atCouriers() int {
	p := &g.c.host.couriers
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running - p.idle
}

// forCouriers is how many commands wait for one.
func (g *guest) forCouriers() int {
	p := &g.c.host.couriers
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.len()
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each controller has the namespaces that are attached to it, and their blocks are the same.
func TestControllersShareNamespaces(t *testing.T) {
	s, err := NewSubsystem(SubsystemConfig{Serial: "shared", Namespaces: []Namespace{{Backend: memory(t, 1<<20)}, {Backend: memory(t, 1<<20)}}})
	noError(t, err)
	var list []*Controller
	for i := range MaxControllers {
		c, err := New(Config{Subsystem: s})
		noError(t, err)
		if c.id() != uint16(i+1) || len(c.active()) != 2 || c.namespace(2) != s.allocated(2) {
			t.Errorf("controller %d of identifier %d has %d namespaces", i, c.id(), len(c.active()))
		}
		list = append(list, c)
	}
	if _, err := New(Config{Subsystem: s}); err == nil {
		t.Error("one controller too many")
	}
	noError(t, list[3].Close())
	c, err := New(Config{Subsystem: s})
	noError(t, err)
	if c.id() != 4 {
		t.Errorf("identifier %d", c.id())
	}
	for _, c := range append(slices.Delete(list, 3, 4), c) {
		noError(t, c.Close())
	}
	noError(t, s.Close())
	noError(t, s.Close())
	if _, err := New(Config{Subsystem: s}); err == nil {
		t.Error("a controller of a closed subsystem")
	}
}
