package nvme

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// opened are two backends on one file, of which the first has it.
func opened(t *testing.T) (first, second block.Backend) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := block.File(path, block.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second, err = block.File(path, block.FileOptions{Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	return first, second
}

func (g *guest) flush(q *testQueue) {
	g.t.Helper()
	if st := q.status(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1}); !st.OK() {
		g.t.Fatal(st)
	}
}

func TestStorageMovesWithTheDrive(t *testing.T) {
	first, second := opened(t)
	g := newGuest(t, rig{backends: []block.Backend{first}})
	g.enable()
	q := g.createQueue(1, 16)
	g.flush(q)
	n := g.move(rig{backends: []block.Backend{second}})
	n.flush(n.queue(q))
}

// A source that is told to go on takes its storage back.
func TestStorageComesBackToASourceThatGoesOn(t *testing.T) {
	first, second := opened(t)
	defer second.Close()
	g := newGuest(t, rig{backends: []block.Backend{first}})
	g.enable()
	q := g.createQueue(1, 16)
	g.saved()
	g.lock(false)
	g.flush(q)
	if err := second.(block.Claimer).Claim(); !errors.Is(err, block.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

// It must not go on where the destination has its storage already: both would write.
func TestSourceEndsIfItsStorageIsTaken(t *testing.T) {
	first, second := opened(t)
	defer second.Close()
	g := newGuest(t, rig{backends: []block.Backend{first}})
	g.enable()
	g.saved()
	if err := second.(block.Claimer).Claim(); err != nil {
		t.Fatal(err)
	}
	g.lock(false)
	if !errors.Is(g.s.failure(), block.ErrInUse) || !g.csts().CFS() {
		t.Errorf("failure %v, CSTS %#x", g.s.failure(), uint32(g.csts()))
	}
}

// A drive whose storage another server has cannot be enabled, and can once that is over.
func TestEnableClaimsTheStorage(t *testing.T) {
	first, second := opened(t)
	g := newGuest(t, rig{backends: []block.Backend{second}})
	admin := g.alloc(2)
	g.write32(spec.RegAQA, uint32(spec.NewAQA(7, 7)))
	g.write64(spec.RegASQ, admin)
	g.write64(spec.RegACQ, admin+pageSize)
	g.write32(spec.RegCC, uint32(spec.NewCC(true, 0, 6, 4)))
	g.until("CSTS.CFS", func() bool { return g.csts().CFS() })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	g.disable()
	g.enable()
	g.flush(g.createQueue(1, 16))
}

func TestStateIsRefusedWhileTheStorageIsInUse(t *testing.T) {
	first, second := opened(t)
	g := newGuest(t, rig{backends: []block.Backend{first}})
	stream := g.saved()
	n := g.other(rig{backends: []block.Backend{second}})
	g.lock(false)
	g.enable() // it has gone on
	if err := n.load(stream); !errors.Is(err, block.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
}

// A destination that cannot have all of the storage has none of it: the source may go on.
func TestStateThatIsRefusedTakesNoStorage(t *testing.T) {
	a, toA := opened(t)
	b, toB := opened(t)
	g := newGuest(t, rig{backends: []block.Backend{a, b}})
	stream := g.saved()
	n := g.other(rig{backends: []block.Backend{toA, toB}})
	if err := b.(block.Claimer).Claim(); err != nil {
		t.Fatal(err)
	}
	if err := n.load(stream); !errors.Is(err, block.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	if err := a.(block.Claimer).Claim(); err != nil {
		t.Errorf("the source cannot go on: %v", err)
	}
}

// A state that has arrived and never ran leaves the storage to the source, which goes on,
// whether the client has the destination reset or leaves it.
func TestStorageOfAStateThatNeverRanIsGivenBack(t *testing.T) {
	for _, end := range []struct {
		name string
		by   func(n *guest)
	}{
		{"reset", func(n *guest) { n.c.reset() }},
		{"the client leaves", func(n *guest) { n.leave() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			first, second := opened(t)
			g := newGuest(t, rig{backends: []block.Backend{first}})
			g.enable()
			q := g.createQueue(1, 16)
			stream := g.saved()
			n := g.other(rig{backends: []block.Backend{second}})
			if err := n.load(stream); err != nil {
				t.Fatal(err)
			}
			end.by(n)
			g.until("the storage to be free", func() bool { return first.(block.Claimer).Claim() == nil })
			g.lock(false)
			g.flush(q)
		})
	}
}
