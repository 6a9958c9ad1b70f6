package nvme

import (
	"context"
	"slices"
	"sync"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

const (
	selfTestResults = 20 // in the log
	selfTestMinutes = 2  // EDSTT
	// How many reads of how many bytes a self-test does, and how long it takes at least: a host
	// is to see it in progress.
	shortReads, shortTime       = 64, 500 * time.Millisecond
	extendedReads, extendedTime = 4096, 2 * time.Second
	selfTestRead                = 64 << 10
)

// segmentMedia is the segment that reads the media (Base 2.0, figure 600).
const segmentMedia = 7

// selfTest is the device self-test of a subsystem, of which there is one at a time (DSTO).
type selfTest struct {
	mu      sync.Mutex
	pace    time.Duration // in place of the least time, if not 0
	results []spec.SelfTestResult
	run     *selfTestRun // nil: none
}

// selfTestRun is a test that runs, or ran.
type selfTestRun struct {
	code    uint8
	nsid    uint32
	c       *Controller // that was told to
	percent uint8
	cancel  context.CancelFunc
}

// selfTestState is what is kept.
type selfTestState struct {
	Code    uint8  `json:",omitempty"` // of the test that runs
	NSID    uint32 `json:",omitempty"`
	Results []spec.SelfTestResult
}

func (t *selfTest) state() selfTestState {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := selfTestState{Results: slices.Clone(t.results)}
	if t.run != nil {
		st.Code, st.NSID = t.run.code, t.run.nsid
	}
	return st
}

func (s *selfTestState) possible() bool {
	return len(s.Results) <= selfTestResults && s.Code <= spec.SelfTestExtended
}

// load takes over a state. A test that ran begins anew.
func (t *selfTest) load(c *Controller, s *selfTestState) {
	t.mu.Lock()
	t.results = s.Results
	t.mu.Unlock()
	t.abort(nil, spec.SelfTestUnknown)
	if s.Code != 0 {
		t.begin(c, s.Code, s.NSID)
	}
}

// recall takes over what an earlier process has kept. A test that ran then has ended with it.
func (t *selfTest) recall(s *selfTestState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results = s.Results
	if s.Code != 0 {
		t.add(spec.SelfTestResult{Result: spec.SelfTestUnknown, Code: s.Code})
	}
}

// add puts a result in the log. The caller holds mu.
func (t *selfTest) add(r spec.SelfTestResult) {
	t.results = append([]spec.SelfTestResult{r}, t.results[:min(len(t.results), selfTestResults-1)]...)
}

// deviceSelfTest is Device Self-test (Base 2.0, 5.9).
func (h *host) deviceSelfTest(e *spec.SubmissionEntry) (spec.Status, uint32) {
	t := &h.c.subsystem.selfTest
	code := uint8(e.CDW10 & 0xf)
	if e.NSID != 0 && e.NSID != spec.BroadcastNSID && h.c.namespace(e.NSID) == nil {
		return h.c.absent(e.NSID), 0
	}
	switch code {
	case spec.SelfTestShort, spec.SelfTestExtended:
		if !t.begin(h.c, code, e.NSID) {
			return spec.SelfTestInProgress | spec.StatusDNR, 0
		}
	case spec.SelfTestAbort:
		t.abort(nil, spec.SelfTestAborted)
	default:
		return badField, 0
	}
	h.c.subsystem.keepSelfTest()
	return spec.Success, 0
}

// begin starts a test, if there is none.
func (t *selfTest) begin(c *Controller, code uint8, nsid uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.run != nil {
		return false
	}
	run := &selfTestRun{code: code, nsid: nsid, c: c}
	t.run = run
	ctx, cancel := context.WithCancel(c.subsystem.chores.ctx)
	run.cancel = cancel
	c.subsystem.chores.start(func(context.Context) {
		defer cancel()
		defer t.abort(func(r *selfTestRun) bool { return r == run }, spec.SelfTestUnknown) // if it has not ended
		t.test(ctx, run)
	})
	return true
}

// abort ends the test that runs, if there is one and which agrees, with a result.
func (t *selfTest) abort(which func(*selfTestRun) bool, result uint8) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.run; r != nil && (which == nil || which(r)) {
		t.finish(r, spec.SelfTestResult{Result: result})
	}
}

// resetBy is a reset of a controller, which ends the short test that it was told to do; an
// extended one goes on (Base 2.0, 8.6).
func (t *selfTest) resetBy(c *Controller) {
	t.abort(func(r *selfTestRun) bool { return r.c == c && r.code == spec.SelfTestShort }, spec.SelfTestReset)
}

// removed is the removal of a namespace.
func (t *selfTest) removed(nsid uint32) {
	t.abort(func(r *selfTestRun) bool { return r.nsid == nsid || r.nsid == spec.BroadcastNSID }, spec.SelfTestRemoved)
}

// finish puts a result in the log. The caller holds mu.
func (t *selfTest) finish(r *selfTestRun, result spec.SelfTestResult) {
	result.Code = r.code
	result.PowerOnHours = r.c.smart.hours()
	t.add(result)
	t.run = nil
	r.cancel()
}

// test is a test from its begin to its end.
func (t *selfTest) test(ctx context.Context, r *selfTestRun) {
	s := r.c.subsystem
	reads, least := shortReads, shortTime
	if r.code == spec.SelfTestExtended {
		reads, least = extendedReads, extendedTime
	}
	if t.pace > 0 {
		least = t.pace
	}
	list := s.tested(r)
	begun, by, buf := time.Now(), newStorage(), make([]byte, selfTestRead)
	result := spec.SelfTestResult{Result: spec.SelfTestPassed}
	for i := range reads {
		if len(list) > 0 && result.Result == spec.SelfTestPassed {
			a := list[i%len(list)]
			if !s.chores.step(ctx, func() { result = s.testRead(a, i/len(list), (reads+len(list)-1)/len(list), by, buf) }) {
				return
			}
		}
		t.mu.Lock()
		r.percent = uint8(100 * i / reads)
		t.mu.Unlock()
		if wait := least*time.Duration(i+1)/time.Duration(reads) - time.Since(begun); wait > time.Millisecond {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
		if result.Result != spec.SelfTestPassed {
			break
		}
	}
	t.mu.Lock()
	if t.run == r {
		t.finish(r, result)
	}
	t.mu.Unlock()
	s.keepSelfTest()
	if result.Result == spec.SelfTestFailed {
		s.reportTelemetry(r.c, "a device self-test failed")
	}
}

// tested lists the namespaces of a test.
func (s *Subsystem) tested(r *selfTestRun) (list []*allocation) {
	for _, ns := range r.c.active() {
		if r.nsid == spec.BroadcastNSID || r.nsid == ns.id {
			list = append(list, ns.allocation)
		}
	}
	return list
}

// testRead reads the i-th of n places of a namespace.
func (s *Subsystem) testRead(a *allocation, i, n int, by *storage, buf []byte) spec.SelfTestResult {
	passed := spec.SelfTestResult{Result: spec.SelfTestPassed}
	a.gate.lock.RLock()
	defer a.gate.lock.RUnlock()
	ns := a.view.Load()
	if ns == nil {
		return spec.SelfTestResult{Result: spec.SelfTestRemoved}
	}
	blocks := min(uint64(len(buf))>>ns.shift, ns.blocks)
	lba := (ns.blocks - blocks) / uint64(max(n-1, 1)) * uint64(i)
	failed := spec.SelfTestResult{
		Result: spec.SelfTestFailed, Segment: segmentMedia, HasNamespace: true, Namespace: ns.id,
		HasLBA: true, LBA: lba, HasStatus: true, Status: spec.UnrecoveredRead,
	}
	if bad, found := s.uncorrectable.find(ns, lba, blocks); found {
		failed.LBA = bad
		return failed
	}
	data := buf[:blocks<<ns.shift]
	err := by.submit(ns, block.Request{Op: block.Read, Offset: ns.bytes(lba), Length: int64(len(data)), Buffers: [][]byte{data}})
	if err != nil {
		failed.Status = statusOf(block.Read, err).Code()
		return failed
	}
	return passed
}

// selfTestPage is the device self-test log (Base 2.0, 5.16.1.7).
func (h *host) selfTestPage() []byte {
	t := &h.c.subsystem.selfTest
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &spec.SelfTestLog{Results: t.results}
	if t.run != nil {
		l.Operation, l.Percent = t.run.code, t.run.percent
	}
	return page(spec.SelfTestSize, l)
}
