package nvme

import (
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// An admin command that ends while the data path is being held completes where the drive goes on.
func TestCommandThatEndsAsTheDriveMoves(t *testing.T) {
	for _, moves := range []bool{false, true} {
		g, _ := started(t, rig{backends: []block.Backend{memory(t, 1<<20)}})
		ns, w := g.c.namespace(1), &g.c.subsystem.chores
		ns.gate.lock.RLock()
		cid := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: 1})
		g.until("the command to begin", ns.formatting.Load)
		held := make(chan struct{})
		g.c.lock(true, func() { close(held) })
		g.until("the data path to be held", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.holds > 0
		})
		ns.gate.lock.RUnlock()
		g.wait("LockDataPath", held)
		if moves {
			g = g.move(rig{backends: []block.Backend{memory(t, 1<<20)}})
		} else {
			g.lock(false)
		}
		if st := g.admin.result(cid).Status; !st.OK() {
			t.Errorf("moves %v: %v", moves, st)
		}
		g.identifyController()
	}
}
