package nvme

import (
	"encoding/binary"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// A command that waits for its turn among those of much work keeps nobody out who excludes
// commands: the one whose turn it is may wait for just that.
func TestCommandsOfMuchWorkDoNotHoldTheGate(t *testing.T) {
	for name, r := range map[string]rig{
		"data only": {backends: []block.Backend{memory(t, 1<<20)}},
		"metadata":  {backends: []block.Backend{memory(t, 1<<20)}, formats: []format{{index: 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, r)
			g.enable()
			q := g.createQueue(1, 16)
			list := g.alloc(1)
			binary.LittleEndian.PutUint32(g.bytes(list, 16)[4:], 8)
			p, s := &g.c.host.couriers, g.c.subsystem
			for _, e := range []spec.SubmissionEntry{
				{Opcode: spec.NVMDatasetManagement, NSID: 1, CDW11: spec.DSMDeallocate, PRP1: list},
				rw(spec.NVMVerify, 1, 0, 8, 0, 0),
			} {
				p.bulk.Lock()
				cid := q.submit(e)
				g.until("the command waits", func() bool { return g.atCouriers() == 1 })
				time.Sleep(20 * time.Millisecond) // it is wherever it waits
				excluded := make(chan struct{})
				go func() {
					defer close(excluded)
					s.exclude(s.allocated(1).allocation, func(*namespace) {})
				}()
				select {
				case <-excluded:
				case <-time.After(2 * time.Second):
					t.Errorf("command %#x keeps an exclusion waiting", e.Opcode)
				}
				p.bulk.Unlock()
				<-excluded
				if st := q.result(cid).Status; !st.OK() {
					t.Errorf("command %#x: %v", e.Opcode, st)
				}
			}
		})
	}
}
