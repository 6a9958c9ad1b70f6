package nvme

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// A namespace that changes while the contents of a state come makes the state another drive's.
func TestNamespaceChangesWhileAStateArrives(t *testing.T) {
	g, q := started(t, rig{backends: []block.Backend{memory(t, 1<<20)}})
	bad := spec.SubmissionEntry{Opcode: spec.NVMWriteUncorrectable, NSID: 1, CDW12: 0}
	bad.SetLBA(2000)
	if st := q.status(bad); !st.OK() {
		t.Fatal(st)
	}
	stream := g.saved()
	n := g.other(rig{backends: []block.Backend{memory(t, 1<<20)}})
	_, rest := split(t, stream)
	late := readerFunc(func([]byte) (int, error) {
		if err := n.c.subsystem.ResizeNamespace(1, 512<<10); err != nil {
			t.Error(err)
		}
		return 0, io.EOF
	})
	state := stream[:len(stream)-len(rest)]
	err := newMover(n.c.host).load(io.MultiReader(bytes.NewReader(state), bytes.NewReader(rest), late))
	if !errors.Is(err, ErrState) {
		t.Errorf("got %v, want ErrState", err)
	}
	if ns := n.c.namespace(1); ns.readable.Load() > ns.blocks {
		t.Errorf("%d of %d blocks are readable", ns.readable.Load(), ns.blocks)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
