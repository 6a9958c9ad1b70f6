package nvme

import (
	"testing"

	"vfiouser/devices/nvme/spec"
)

// A controller whose timer has expired can move as well.
func TestMoveAfterTheKeepAliveTimerHasExpired(t *testing.T) {
	r := rig{mode: Shadow}
	g := newGuest(t, r)
	g.enable()
	g.useDBBUF()
	g.createQueue(1, 16)
	g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatKeepAlive, CDW11: 100})
	g.until("the keep alive timer to expire", func() bool { return g.csts().CFS() })
	n := g.move(rig{mode: Shadow})
	if !n.csts().CFS() {
		t.Error("the status is not fatal any more")
	}
	n.disable()
	n.enable()
	n.identifyController()
}
