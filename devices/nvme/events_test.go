package nvme

import (
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

func TestAsyncEvents(t *testing.T) {
	g, page := adminGuest(t, rig{mode: Trap})
	aer := func() uint16 { return g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}) }
	done := func(cid uint16) bool {
		g.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatArbitration}) // the events before it are out
		_, ok := g.admin.completed[cid]
		return ok
	}
	first := aer()
	g.write32(doorbellOffset+uint64(sqDoorbell(9)), 1) // no such queue
	if r := spec.AsyncResult(g.admin.result(first).DW0); r != spec.NewAsyncResult(spec.AsyncError, spec.AsyncInvalidDoorbell, spec.LogErrors) {
		t.Errorf("event %#x", uint32(r))
	}
	second := aer()
	g.write32(doorbellOffset+uint64(sqDoorbell(0)), 999) // no such tail
	if done(second) {
		t.Fatal("an event before the log of the last one was read")
	}
	keep := getLog(spec.LogErrors, 64, 0, page)
	keep.CDW10 |= retainEvent
	g.must(keep)
	if done(second) {
		t.Fatal("an event although it was to be retained")
	}
	g.must(getLog(spec.LogErrors, 64, 0, page))
	if r := spec.AsyncResult(g.admin.result(second).DW0); r.Info() != spec.AsyncInvalidTail {
		t.Errorf("event %#x", uint32(r))
	}
	third := aer()
	g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatAsyncEvents, CDW11: spec.AsyncConfigHealth})
	g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatTemperature, CDW11: 300})
	if r := spec.AsyncResult(g.admin.result(third).DW0); r != spec.NewAsyncResult(spec.AsyncHealth, spec.AsyncTemperature, spec.LogSmart) {
		t.Errorf("event %#x", uint32(r))
	}
	g.must(getLog(spec.LogSmart, spec.SmartSize, 0, page))
	if w := g.bytes(page, 1)[0]; w != warnTemperature {
		t.Errorf("critical warning %#x", w)
	}
}

func TestAsyncEventLimitAndAbort(t *testing.T) {
	g, _ := adminGuest(t, rig{})
	var cids []uint16
	for range maxAsyncEvents {
		cids = append(cids, g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}))
	}
	if st := g.do(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}).Status; st != spec.AsyncEventLimitExceeded|spec.StatusDNR {
		t.Errorf("one more than AERL: %v", st)
	}
	abort := spec.SubmissionEntry{Opcode: spec.AdminAbort, CDW10: uint32(cids[1]) << 16}
	if c := g.must(abort); c.DW0&1 != 0 {
		t.Error("not aborted")
	}
	if st := g.admin.result(cids[1]).Status; st != spec.AbortRequested {
		t.Errorf("aborted command: %v", st)
	}
	if c := g.must(abort); c.DW0&1 != 1 {
		t.Error("aborted twice")
	}
}

// What is not enabled is forgotten, not kept until it is (Base 2.0, 5.27.1.8).
func TestNoticesThatAreNotEnabledAreNotReported(t *testing.T) {
	g := newGuest(t, rig{backends: []block.Backend{memory(t, 1<<20)}})
	g.enable()
	changed := func() { noError(t, g.c.subsystem.ResizeNamespace(1, 1<<19)) }
	cid := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	changed()
	g.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatArbitration}) // the events before it are out
	g.enableNotices()
	g.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatArbitration})
	if c, ok := g.admin.completed[cid]; ok {
		t.Fatalf("event %#x, which was not enabled", c.DW0)
	}
	changed()
	want := spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncNamespaceChanged, spec.LogChangedNS)
	if r := spec.AsyncResult(g.admin.result(cid).DW0); r != want {
		t.Errorf("event %#x, want %#x", uint32(r), uint32(want))
	}
}

// A controller reset ends the requests, the events that no request has taken, and what keeps an
// event from being reported until a log is read.
func TestAsyncEventsAfterReset(t *testing.T) {
	none := func(*guest) {}
	invalid := func(g *guest) { g.write32(doorbellOffset+uint64(sqDoorbell(9)), 1) } // no such queue
	request := func(g *guest) uint16 { return g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}) }
	for _, c := range []struct {
		name          string
		before, after func(*guest)
		reported      bool // of a request after the reset
	}{
		{"an event that no request took", invalid, none, false},
		{"a request that waits", func(g *guest) { request(g) }, invalid, true},
		{"a log that was not read", func(g *guest) {
			cid := request(g)
			invalid(g)
			g.admin.result(cid)
		}, invalid, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, _ := adminGuest(t, rig{mode: Trap})
			c.before(g)
			g.reset()
			cid := request(g)
			g.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatArbitration}) // the events before it are out
			if r, early := g.admin.completed[cid]; early {
				t.Fatalf("event %#x of before the reset", r.DW0)
			}
			c.after(g)
			if !c.reported {
				return
			}
			if r := spec.AsyncResult(g.admin.result(cid).DW0); r.Info() != spec.AsyncInvalidDoorbell {
				t.Errorf("event %#x", uint32(r))
			}
		})
	}
}
