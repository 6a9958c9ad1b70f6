package nvme

import (
	"bytes"
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

func sanitizeCommand(cdw10, pattern uint32) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: spec.AdminSanitize, CDW10: cdw10, CDW11: pattern}
}

func (g *guest) sanitized(page uint64) (l spec.SanitizeLog) {
	g.t.Helper()
	st, b := g.log(spec.LogSanitize, spec.SanitizeSize, 0, page)
	if !st.OK() {
		g.t.Fatal(st)
	}
	l.Get(b)
	return l
}

func (g *guest) sanitizeEnds(page uint64) (l spec.SanitizeLog) {
	g.t.Helper()
	g.until("the sanitize operation to end", func() bool {
		l = g.sanitized(page)
		return l.State() != spec.SanitizeRuns
	})
	return l
}

// sanitizer is a guest whose operations take as long as their requests, or, if slow, for ever.
func sanitizer(t *testing.T, slow bool, r rig) (g *guest, q *testQueue, data, page uint64) {
	g, q = started(t, r)
	g.c.subsystem.sanitize.pace = time.Nanosecond
	if slow {
		g.c.subsystem.sanitize.pace = time.Hour
	}
	return g, q, g.alloc(1), g.alloc(2)
}

func TestSanitize(t *testing.T) {
	for _, c := range []struct {
		name           string
		cdw10, pattern uint32
		want           []byte // how every block begins then
		passes         uint16
	}{
		{"block erase", spec.SanitizeActionBlockErase, 0, []byte{0, 0, 0, 0}, 0},
		{"block erase, not deallocated", spec.SanitizeActionBlockErase | spec.SanitizeNoDeallocate, 0, []byte{0, 0, 0, 0}, 0},
		{"overwrite", spec.SanitizeActionOverwrite | 1<<4 | spec.SanitizeNoDeallocate, 0x04030201, []byte{1, 2, 3, 4}, 1},
		{"overwrite twice, inverted", spec.SanitizeActionOverwrite | 2<<4 | spec.SanitizeInvert | spec.SanitizeNoDeallocate, 0x0000ffff, []byte{0, 0, 0xff, 0xff}, 2},
		{"overwrite 16 times", spec.SanitizeActionOverwrite | spec.SanitizeNoDeallocate, 7, []byte{7, 0, 0, 0}, 16},
		{"overwrite and deallocate", spec.SanitizeActionOverwrite | 3<<4, 7, []byte{0, 0, 0, 0}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, q, data, page := sanitizer(t, false, rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 2<<20)}})
			last := map[uint32]uint64{1: 1<<11 - 1, 2: 1<<12 - 1}
			for nsid, lba := range last {
				fill(g.bytes(data, 512), 0x5a)
				q.status(rw(spec.NVMWrite, nsid, lba, 1, data, 0))
			}
			q.status(spec.SubmissionEntry{Opcode: spec.NVMWriteUncorrectable, NSID: 2, CDW10: 9})
			if l := g.sanitized(page); l.State() != spec.SanitizeNever || l.Progress != 0xffff {
				t.Errorf("at first %+v", l)
			}
			aer := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
			g.must(sanitizeCommand(c.cdw10, c.pattern))
			l := g.sanitizeEnds(page)
			if l.State() != spec.SanitizeSucceeded || l.Status>>3&0x1f != c.passes || l.Status&spec.SanitizeGlobalErased == 0 || l.Progress != 0xffff || l.CDW10 != c.cdw10 {
				t.Errorf("%+v", l)
			}
			if r := spec.AsyncResult(g.admin.result(aer).DW0); r != spec.NewAsyncResult(spec.AsyncIOEvent, spec.AsyncSanitizeCompleted, spec.LogSanitize) {
				t.Errorf("event %#x", uint32(r))
			}
			for nsid, lba := range last {
				for _, lba := range []uint64{0, 9, lba} {
					if st := q.status(rw(spec.NVMRead, nsid, lba, 1, data, 0)); !st.OK() {
						t.Errorf("read %d of %d: %v", lba, nsid, st)
					}
					if got := g.bytes(data, 512); !bytes.Equal(got, bytes.Repeat(c.want, 128)) {
						t.Errorf("block %d of namespace %d begins with % x", lba, nsid, got[:8])
					}
				}
			}
			q.status(rw(spec.NVMWrite, 1, 0, 1, data, 0))
			g.until("the erasure to be over", func() bool { return g.sanitized(page).Status&spec.SanitizeGlobalErased == 0 })
		})
	}
}

func TestSanitizeInProgress(t *testing.T) {
	g, q, data, page := sanitizer(t, true, rig{})
	g.c.subsystem.selfTest.pace = time.Hour
	g.must(selfTestCommand(spec.SelfTestExtended, 0))
	g.must(sanitizeCommand(spec.SanitizeActionBlockErase, 0))
	busy := spec.SanitizeInProgress | spec.StatusDNR
	if l := g.sanitized(page); l.State() != spec.SanitizeRuns {
		t.Errorf("%+v", l)
	}
	if l := g.selfTests(page); l.Operation != 0 || l.Results[0].Result != spec.SelfTestSanitized {
		t.Errorf("self-test %+v", l)
	}
	refused := func() {
		t.Helper()
		for name, e := range map[string]spec.SubmissionEntry{
			"read":    rw(spec.NVMRead, 1, 0, 1, data, 0),
			"write":   rw(spec.NVMWrite, 1, 0, 1, data, 0),
			"zeroes":  rw(spec.NVMWriteZeroes, 1, 0, 1, 0, 0),
			"compare": rw(spec.NVMCompare, 1, 0, 1, data, 0),
			"flush":   {Opcode: spec.NVMFlush, NSID: 1},
			"all":     {Opcode: spec.NVMFlush, NSID: spec.BroadcastNSID},
		} {
			if st := q.status(e); st != busy {
				t.Errorf("%s: %v", name, st)
			}
		}
		for name, e := range map[string]spec.SubmissionEntry{
			"another one": sanitizeCommand(spec.SanitizeActionBlockErase, 0),
			"exit":        sanitizeCommand(spec.SanitizeActionExitFailure, 0),
			"firmware":    commit(2, 0),
			"self-test":   selfTestCommand(spec.SelfTestShort, 0),
		} {
			if st := g.do(e).Status; st != busy {
				t.Errorf("%s: %v", name, st)
			}
		}
	}
	refused()
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: page})
	g.reset()
	q = g.createQueue(1, 16)
	refused()
	// It goes on where the drive is.
	n := g.move(rig{})
	if l := n.sanitized(page); l.State() != spec.SanitizeRuns && l.State() != spec.SanitizeSucceeded {
		t.Errorf("after a move %+v", l)
	}
	n.c.subsystem.sanitize.mu.Lock()
	n.c.subsystem.sanitize.mu.Unlock() //lint:ignore SA2001 the race detector sees the order
	if l := n.sanitizeEnds(page); l.State() != spec.SanitizeSucceeded {
		t.Errorf("at the end %+v", l)
	}
	if st := n.queue(q).status(rw(spec.NVMRead, 1, 0, 1, data, 0)); !st.OK() {
		t.Errorf("read after it: %v", st)
	}
}

// failing fails writes of zeroes as long as it is told to.
type failing struct {
	block.Backend
	on bool
}

func (b *failing) Submit(r *block.Request) (bool, error) {
	if r.Op == block.WriteZeroes && b.on {
		return true, syscall.EIO
	}
	return b.Backend.Submit(r)
}

func TestSanitizeFails(t *testing.T) {
	for _, unrestricted := range []bool{false, true} {
		b := &failing{memory(t, 1<<20), true}
		g, q, data, page := sanitizer(t, false, rig{backends: []block.Backend{b}})
		restricted, free := uint32(spec.SanitizeActionBlockErase), uint32(spec.SanitizeActionBlockErase|spec.SanitizeUnrestricted)
		first := restricted
		if unrestricted {
			first = free
		}
		g.must(sanitizeCommand(first, 0))
		if l := g.sanitizeEnds(page); l.State() != spec.SanitizeHasFailed || l.Status&spec.SanitizeGlobalErased != 0 {
			t.Errorf("%+v", l)
		}
		failed := spec.SanitizeFailed | spec.StatusDNR
		if st := q.status(rw(spec.NVMRead, 1, 0, 1, data, 0)); st != failed {
			t.Errorf("read: %v", st)
		}
		if st := g.do(selfTestCommand(spec.SelfTestShort, 0)).Status; st != failed {
			t.Errorf("self-test: %v", st)
		}
		exit := g.do(sanitizeCommand(spec.SanitizeActionExitFailure, 0)).Status
		if unrestricted {
			if !exit.OK() {
				t.Errorf("exit: %v", exit)
			}
			if st := q.status(rw(spec.NVMRead, 1, 0, 1, data, 0)); !st.OK() {
				t.Errorf("read after the exit: %v", st)
			}
			continue
		}
		if exit != failed {
			t.Errorf("exit: %v", exit)
		}
		if st := g.do(sanitizeCommand(free, 0)).Status; st != failed {
			t.Errorf("unrestricted after restricted: %v", st)
		}
		b.on = false
		g.must(sanitizeCommand(restricted, 0))
		if l := g.sanitizeEnds(page); l.State() != spec.SanitizeSucceeded {
			t.Errorf("the second time %+v", l)
		}
		if st := q.status(rw(spec.NVMRead, 1, 0, 1, data, 0)); !st.OK() {
			t.Errorf("read at last: %v", st)
		}
	}
}

func TestSanitizeRefusals(t *testing.T) {
	g, _, _, page := sanitizer(t, false, rig{})
	for _, action := range []uint32{0, spec.SanitizeActionCryptoErase, 5, 7} {
		if st := g.do(sanitizeCommand(action, 0)).Status; st != badField {
			t.Errorf("action %d: %v", action, st)
		}
	}
	g.must(sanitizeCommand(spec.SanitizeActionExitFailure, 0)) // without effect
	if st := g.install(page, "2", 2, spec.CommitReplaceActivate); !st.OK() {
		t.Fatal(st)
	}
	if st := g.do(sanitizeCommand(spec.SanitizeActionBlockErase, 0)).Status; st != spec.FirmwareNeedsReset|spec.StatusDNR {
		t.Errorf("with a firmware that waits: %v", st)
	}
	g.reset()
	featureTester{g, page}.set(spec.FeatWriteProtect, 1, spec.WriteProtectOn)
	if st := g.do(sanitizeCommand(spec.SanitizeActionBlockErase, 0)).Status; st != spec.NamespaceWriteProtected|spec.StatusDNR {
		t.Errorf("of a protected namespace: %v", st)
	}
}

// An operation goes on in the next process.
func TestSanitizeAcrossPowerCycles(t *testing.T) {
	dir := t.TempDir()
	life(t, dir, func(g *guest, page uint64) {
		g.c.subsystem.sanitize.pace = time.Hour
		g.must(sanitizeCommand(spec.SanitizeActionBlockErase, 0))
	})
	life(t, dir, func(g *guest, page uint64) {
		if l := g.sanitizeEnds(page); l.State() != spec.SanitizeSucceeded {
			t.Errorf("%+v", l)
		}
		q := g.createQueue(1, 16)
		if st := q.status(rw(spec.NVMRead, 1, 0, 1, page, 0)); !st.OK() {
			t.Errorf("read: %v", st)
		}
		for _, e := range g.events(page).Events {
			if e.Type == spec.EventSanitizeEnd {
				return
			}
		}
		t.Error("no persistent event of the end")
	})
}

// The state of a drive without an operation that arrives ends the one that runs.
func TestSanitizeEndsWithTheStateOfAnotherDrive(t *testing.T) {
	g, _, _, page := sanitizer(t, false, rig{backends: []block.Backend{memory(t, 64<<20)}})
	idle := g.saved()
	g.lock(false)
	g.must(sanitizeCommand(spec.SanitizeActionOverwrite, 7))
	g.lock(true)
	noError(t, g.load(idle))
	g.lock(false)
	g.reset() // the driver's queues are not those of the state
	z := &g.c.subsystem.sanitize
	g.until("the operation to end", func() bool {
		z.mu.Lock()
		defer z.mu.Unlock()
		return !z.runs
	})
	if l := g.sanitized(page); l.State() != spec.SanitizeNever {
		t.Errorf("%+v", l)
	}
	g.must(sanitizeCommand(spec.SanitizeActionBlockErase, 0))
	if l := g.sanitizeEnds(page); l.State() != spec.SanitizeSucceeded {
		t.Errorf("the next one %+v", l)
	}
}

// A defect of the storage makes an operation one that has failed, and a test one that did not end;
// neither goes on for ever.
func TestChoresThatPanic(t *testing.T) {
	b := &slowBackend{Backend: memory(t, 1<<20)}
	var defect atomic.Bool
	b.fail = func(*block.Request) error {
		if defect.Load() {
			panic("defect")
		}
		return nil
	}
	guests, _ := sharing(t, 1, rig{backends: []block.Backend{b, memory(t, 1<<20)}})
	g := guests[0]
	s, page := g.c.subsystem, g.alloc(2)
	s.sanitize.pace, s.selfTest.pace = time.Nanosecond, time.Nanosecond
	tested := func(want uint8) {
		t.Helper()
		g.must(selfTestCommand(spec.SelfTestShort, spec.BroadcastNSID))
		g.until("the test to end", func() bool { return g.selfTests(page).Operation == 0 })
		if r := g.selfTests(page).Results[0].Result; r != want {
			t.Errorf("the test ends with %d, want %d", r, want)
		}
	}
	sanitized := func(want uint8) {
		t.Helper()
		g.must(sanitizeCommand(spec.SanitizeActionBlockErase, 0))
		if l := g.sanitizeEnds(page); l.State() != want {
			t.Errorf("the operation ends with %d, want %d", l.State(), want)
		}
	}
	defect.Store(true)
	tested(spec.SelfTestUnknown)
	sanitized(spec.SanitizeHasFailed)
	defect.Store(false)
	sanitized(spec.SanitizeSucceeded)
	tested(spec.SelfTestPassed)
}

// A defect in a chore is told, and costs no more than that.
func TestPanicInAChore(t *testing.T) {
	g := newGuest(t, rig{})
	w := &g.c.subsystem.chores
	w.own(true)
	ended := make(chan struct{})
	w.start(func(ctx context.Context) {
		defer close(ended)
		w.step(ctx, func() { panic("defect") })
	})
	<-ended
	w.hold() // (it is no step that runs)
	w.release()
}

// blocked counts the goroutines that wait for a lock within a function, or one that begins like it.
func blocked(function string) (n int) {
	b := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(b[:runtime.Stack(b, true)]), "\n\n") {
		head, calls, _ := strings.Cut(stack, "\n")
		if strings.Contains(head, "[sync.Mutex.Lock") && strings.Contains(calls, "nvme."+function) {
			n++
		}
	}
	return n
}

// Of two operations that two controllers ask for at the same time one begins.
func TestSanitizeOfTwoControllers(t *testing.T) {
	guests, _ := sharing(t, 2, rig{})
	s := guests[0].c.subsystem
	s.sanitize.pace = time.Hour
	s.firmware.mu.Lock() // both are on their way before either can go on
	letGo := sync.OnceFunc(s.firmware.mu.Unlock)
	defer letGo()
	var cids [2]uint16
	for i, g := range guests {
		cids[i] = g.admin.submit(sanitizeCommand(spec.SanitizeActionBlockErase, uint32(i)))
	}
	guests[0].until("the commands to be fetched", func() bool {
		return blocked("(*host).sanitizeCommand") == 2
	})
	letGo()
	var sts []spec.Status
	for i, g := range guests {
		sts = append(sts, g.admin.result(cids[i]).Status)
	}
	slices.Sort(sts)
	if !slices.Equal(sts, []spec.Status{spec.Success, spec.SanitizeInProgress | spec.StatusDNR}) {
		t.Errorf("%v", sts)
	}
}

// The state of a drive that arrives while an operation ends is what holds.
func TestStateThatArrivesWhileASanitizeEnds(t *testing.T) {
	s, err := NewSubsystem(SubsystemConfig{Namespaces: []Namespace{{Backend: memory(t, 1<<20)}}, StateDir: t.TempDir()})
	noError(t, err)
	t.Cleanup(func() { noError(t, s.Close()) })
	c, err := New(Config{Subsystem: s})
	noError(t, err)
	t.Cleanup(func() { noError(t, c.Close()) })
	s.sanitize.pace = time.Nanosecond
	s.chores.own(true)
	s.loadSanitize(c, sanitizeState{Status: spec.SanitizeRuns, CDW10: spec.SanitizeActionBlockErase})
	s.keeping.Lock()
	for blocked("(*Subsystem).endSanitize") == 0 {
		runtime.Gosched()
	}
	failed := sanitizeState{Status: spec.SanitizeHasFailed, CDW10: spec.SanitizeActionBlockErase}
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		s.loadSanitize(c, failed)
	}()
	for blocked("(*Subsystem).loadSanitize") == 0 {
		runtime.Gosched()
	}
	s.keeping.Unlock()
	<-arrived
	if st := s.sanitize.get(); st != failed {
		t.Errorf("%+v", st)
	}
	if st := spec.Status(s.list()[0].refusal.Load()); st != failed.refusal() {
		t.Errorf("commands are refused with %v", st)
	}
}
