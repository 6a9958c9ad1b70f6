package nvme

import (
	"context"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

// opcodeLater is one that no table has, for the tests.
const opcodeLater = 0xc7

// While a command runs in the background others go on; its completion comes when it ends.
func TestBackgroundCommandsDoNotHoldUpOthers(t *testing.T) {
	holdings.CheckLeaks(t)
	g := newGuest(t, rig{})
	release := make(chan struct{})
	g.c.commands[opcodeLater] = func(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
		return h.later(e, func(context.Context, *courier) (spec.Status, uint32) {
			<-release
			return spec.Success, 77
		}, nil)
	}
	g.enable()
	cid := g.admin.submit(spec.SubmissionEntry{Opcode: opcodeLater})
	g.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatNumberOfQueues})
	close(release)
	if c := g.admin.result(cid); !c.Status.OK() || c.DW0 != 77 {
		t.Errorf("%+v", c)
	}
}

// A reset and a client that leaves cancel what runs.
func TestResetAndLeavingEndBackgroundCommands(t *testing.T) {
	holdings.CheckLeaks(t)
	g := newGuest(t, rig{})
	started, ended := make(chan struct{}, maxBackground), make(chan struct{}, maxBackground)
	g.c.commands[opcodeLater] = func(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
		return h.later(e, func(ctx context.Context, _ *courier) (spec.Status, uint32) {
			started <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
			return spec.InternalError, 0
		}, nil)
	}
	g.enable()
	for range 2 {
		for range maxBackground {
			g.admin.submit(spec.SubmissionEntry{Opcode: opcodeLater})
			<-started
		}
		for range 3 {
			g.admin.submit(spec.SubmissionEntry{Opcode: opcodeLater})
		}
		if len(started) > 0 {
			t.Error("more than maxBackground run")
		}
		g.disable()
		for range maxBackground {
			<-ended
		}
		g.enable()
	}
	g.admin.submit(spec.SubmissionEntry{Opcode: opcodeLater})
	<-started
}
