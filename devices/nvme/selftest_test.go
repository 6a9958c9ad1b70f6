package nvme

import (
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

func selfTestCommand(code, nsid uint32) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: spec.AdminSelfTest, NSID: nsid, CDW10: code}
}

func (g *guest) selfTests(page uint64) (l spec.SelfTestLog) {
	g.t.Helper()
	st, b := g.log(spec.LogSelfTest, spec.SelfTestSize, 0, page)
	if !st.OK() {
		g.t.Fatal(st)
	}
	l.Get(b)
	return l
}

// tester is a guest whose self-tests take as long as their reads, or, if slow, for ever.
func tester(t *testing.T, slow bool, backends ...block.Backend) (*guest, *testQueue, uint64) {
	g, q := started(t, rig{backends: backends})
	g.c.subsystem.selfTest.pace = time.Nanosecond
	if slow {
		g.c.subsystem.selfTest.pace = time.Hour
	}
	return g, q, g.alloc(1)
}

func TestSelfTests(t *testing.T) {
	g, q, page := tester(t, false, memory(t, 1<<20), memory(t, 2<<20))
	if l := g.selfTests(page); l.Operation != 0 || len(l.Results) != 0 {
		t.Errorf("at first %+v", l)
	}
	run := func(code, nsid uint32) spec.SelfTestResult {
		t.Helper()
		before := len(g.selfTests(page).Results)
		g.must(selfTestCommand(code, nsid))
		var l spec.SelfTestLog
		g.until("the self-test to end", func() bool {
			l = g.selfTests(page)
			return l.Operation == 0 && len(l.Results) > before
		})
		return l.Results[0]
	}
	for _, code := range []uint32{spec.SelfTestShort, spec.SelfTestExtended} {
		for _, nsid := range []uint32{0, 2, spec.BroadcastNSID} {
			if r := run(code, nsid); r.Result != spec.SelfTestPassed || r.Code != uint8(code) || r.HasNamespace || r.HasLBA {
				t.Errorf("test %d of namespace %#x: %+v", code, nsid, r)
			}
		}
	}
	bad := spec.SubmissionEntry{Opcode: spec.NVMWriteUncorrectable, NSID: 2, CDW12: 0}
	bad.SetLBA(5)
	q.status(bad)
	if r := run(spec.SelfTestShort, 1); r.Result != spec.SelfTestPassed {
		t.Errorf("of the good namespace: %+v", r)
	}
	featureTester{g, page}.set(spec.FeatAsyncEvents, 0, spec.AsyncConfigTelemetry)
	aer := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	r := run(spec.SelfTestShort, spec.BroadcastNSID)
	if e := spec.AsyncResult(g.admin.result(aer).DW0); e != spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncTelemetryChanged, spec.LogControllerTelemetry) {
		t.Errorf("event %#x", uint32(e))
	}
	if r.Result != spec.SelfTestFailed || r.Segment != segmentMedia || r.Namespace != 2 || r.LBA != 5 || r.Status != spec.UnrecoveredRead {
		t.Errorf("of a bad block: %+v", r)
	}
}

func TestSelfTestInProgress(t *testing.T) {
	g, _, page := tester(t, true)
	extended := selfTestCommand(spec.SelfTestExtended, 1)
	g.must(extended)
	if l := g.selfTests(page); l.Operation != spec.SelfTestExtended || l.Percent > 100 {
		t.Errorf("%+v", l)
	}
	for _, e := range []spec.SubmissionEntry{extended, selfTestCommand(spec.SelfTestShort, 1)} {
		if st := g.do(e).Status; st != spec.SelfTestInProgress|spec.StatusDNR {
			t.Errorf("another one: %v", st)
		}
	}
	g.reset()
	if l := g.selfTests(page); l.Operation != spec.SelfTestExtended {
		t.Errorf("an extended one is to survive a reset: %+v", l)
	}
	g.must(selfTestCommand(spec.SelfTestAbort, 1))
	if l := g.selfTests(page); l.Operation != 0 || l.Results[0].Result != spec.SelfTestAborted {
		t.Errorf("after the abort %+v", l)
	}
	g.must(selfTestCommand(spec.SelfTestAbort, 1)) // without effect
	g.must(selfTestCommand(spec.SelfTestShort, 0))
	g.reset()
	if l := g.selfTests(page); l.Operation != 0 || len(l.Results) != 2 || l.Results[0].Result != spec.SelfTestReset {
		t.Errorf("a short one does not survive a reset: %+v", l)
	}
}

func TestSelfTestOfARemovedNamespace(t *testing.T) {
	g, _, page := tester(t, true, memory(t, 1<<20), memory(t, 1<<20))
	g.must(selfTestCommand(spec.SelfTestExtended, 2))
	if err := g.c.subsystem.RemoveNamespace(1); err != nil {
		t.Fatal(err)
	}
	if l := g.selfTests(page); l.Operation == 0 {
		t.Errorf("after another namespace was removed: %+v", l)
	}
	if err := g.c.subsystem.RemoveNamespace(2); err != nil {
		t.Fatal(err)
	}
	if l := g.selfTests(page); l.Operation != 0 || l.Results[0].Result != spec.SelfTestRemoved {
		t.Errorf("%+v", l)
	}
}

func TestSelfTestRefusals(t *testing.T) {
	g, _, _ := tester(t, true)
	for _, c := range []struct {
		name       string
		code, nsid uint32
		want       spec.Status
	}{
		{"reserved code", 3, 0, spec.InvalidField},
		{"vendor specific code", 0xe, 0, spec.InvalidField},
		{"inactive namespace", spec.SelfTestShort, 2, spec.InvalidField},
		{"invalid namespace", spec.SelfTestShort, MaxNamespaces + 1, spec.InvalidNamespaceOrFormat},
	} {
		if st := g.do(selfTestCommand(c.code, c.nsid)).Status; st != c.want|spec.StatusDNR {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
}

func TestSelfTestLogHasTheLastTwenty(t *testing.T) {
	g, _, page := tester(t, true)
	for range selfTestResults + 2 {
		g.must(selfTestCommand(spec.SelfTestShort, 0))
		g.must(selfTestCommand(spec.SelfTestAbort, 0))
	}
	if n := len(g.selfTests(page).Results); n != selfTestResults {
		t.Errorf("%d results", n)
	}
}

// A drive that moves takes the results along, and the test that runs.
func TestSelfTestMoves(t *testing.T) {
	g, _, page := tester(t, true)
	g.must(selfTestCommand(spec.SelfTestShort, 0))
	g.must(selfTestCommand(spec.SelfTestAbort, 0))
	g.must(selfTestCommand(spec.SelfTestExtended, 1))
	n := g.move(rig{})
	if l := n.selfTests(page); l.Operation != spec.SelfTestExtended || len(l.Results) != 1 || l.Results[0].Result != spec.SelfTestAborted {
		t.Errorf("%+v", l)
	}
}

func TestFormatEndsASelfTest(t *testing.T) {
	g, _, page := tester(t, true)
	g.must(selfTestCommand(spec.SelfTestExtended, 0))
	g.must(spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: 1})
	if l := g.selfTests(page); l.Operation != 0 || l.Results[0].Result != spec.SelfTestFormatted {
		t.Errorf("%+v", l)
	}
}
