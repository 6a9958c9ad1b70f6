package nvme

import (
	"testing"

	"vfiouser/devices/nvme/spec"
)

// getLog makes a Get Log Page of n bytes from off.
func getLog(id uint8, n int, off uint64, prp1 uint64) spec.SubmissionEntry {
	words := uint32(n/4 - 1)
	return spec.SubmissionEntry{
		Opcode: spec.AdminGetLogPage, NSID: spec.BroadcastNSID, PRP1: prp1,
		CDW10: uint32(id) | words<<16, CDW11: words >> 16, CDW12: uint32(off), CDW13: uint32(off >> 32),
	}
}

func TestSmartCountsWhatTheHostDid(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		data := g.alloc(256)
		list := g.alloc(1)
		prp1, prp2 := g.prps(data, 1000*512, list, false)
		for range 3 {
			q.status(rw(spec.NVMWrite, 1, 0, 1000, prp1, prp2))
		}
		q.status(rw(spec.NVMRead, 1, 0, 1, data, 0))
		q.status(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1})
		page := g.alloc(1)
		var s spec.Smart
		// A worker adds what it did after it has posted the completions.
		g.until("the counters", func() bool {
			g.must(getLog(spec.LogSmart, spec.SmartSize, 0, page))
			s.Get(g.bytes(page, spec.SmartSize))
			return s.HostReads == 1
		})
		if s.HostWrites != 3 || s.UnitsWritten != 3 || s.UnitsRead != 1 {
			t.Errorf("%+v", s)
		}
		if s.CriticalWarning != 0 || s.Temperature != temperature || s.AvailableSpare != 100 || s.PowerCycles != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestErrorLogHasTheNewestFirst(t *testing.T) {
	g, q := started(t, rig{})
	data, page := g.alloc(1), g.alloc(1)
	q.status(rw(spec.NVMRead, 1, 1<<40, 8, data, 0))
	q.status(rw(spec.NVMRead, 5, 3, 8, data, 0))
	g.must(getLog(spec.LogErrors, 4*spec.ErrorEntrySize, 0, page))
	var e [3]spec.ErrorEntry
	for i := range e {
		e[i].Get(g.bytes(page, pageSize)[i*spec.ErrorEntrySize:])
	}
	if e[0].Count != 2 || e[0].SQID != 1 || e[0].NSID != 5 || e[0].Status.Code() != spec.InvalidField {
		t.Errorf("newest %+v", e[0])
	}
	if e[1].Count != 1 || e[1].LBA != 1<<40 || e[1].Status.Code() != spec.LBAOutOfRange {
		t.Errorf("one before %+v", e[1])
	}
	if e[2].Count != 0 {
		t.Errorf("unused %+v", e[2])
	}
}

func TestErrorLogWraps(t *testing.T) {
	var l errorLog
	for i := range uint16(3*errorEntries + 5) {
		l.add(spec.ErrorEntry{CID: i})
	}
	b := l.page()
	for i := range uint64(errorEntries) {
		var e spec.ErrorEntry
		e.Get(b[i*spec.ErrorEntrySize:])
		if want := l.total() - i; e.Count != want || uint64(e.CID) != want-1 {
			t.Fatalf("entry %d: %+v", i, e)
		}
	}
}

func TestLogPages(t *testing.T) {
	g, page := adminGuest(t, rig{})
	g.must(getLog(spec.LogFirmware, spec.FirmwareSize, 0, page))
	var fw spec.FirmwareLog
	fw.Get(g.bytes(page, pageSize))
	if fw.ActiveSlot != 1 || fw.Revisions[0] != defaultFW || fw.Revisions[1] != "" {
		t.Errorf("firmware %+v", fw)
	}
	g.must(getLog(spec.LogEffects, spec.EffectsSize, 0, page))
	var effects spec.EffectsLog
	effects.Get(g.bytes(page, pageSize))
	for _, op := range []int{spec.AdminIdentify, spec.AdminCreateSQ, spec.AdminDoorbellBuffer} {
		if effects.Admin[op]&spec.EffectSupported == 0 {
			t.Errorf("admin command %#x is not in the effects log", op)
		}
	}
	if effects.Admin[0x1e] != 0 || effects.IO[spec.NVMWrite] != spec.EffectSupported|spec.EffectLogicalBlocks || effects.IO[spec.NVMCompare] != spec.EffectSupported || effects.IO[0x7e] != 0 {
		t.Error("effects log says what is not so")
	}
	// A part from an offset; what lies beyond the end reads 0.
	want := append([]byte(nil), g.bytes(page, pageSize)[1020:1040]...)
	want = append(want[:20:20], make([]byte, 4)...)
	g.must(getLog(spec.LogEffects, 20, 1020, page))
	if got := g.bytes(page, 24); string(got[:20]) != string(want[:20]) {
		t.Errorf("% x, want % x", got, want)
	}
	g.must(getLog(spec.LogFirmware, 16, spec.FirmwareSize-8, page))
	if got := g.bytes(page+8, 8); string(got) != string(make([]byte, 8)) {
		t.Errorf("beyond the end: % x", got)
	}
}

func TestLogPageRefusals(t *testing.T) {
	g, page := adminGuest(t, rig{})
	smartOfNamespace := getLog(spec.LogSmart, spec.SmartSize, 0, page)
	smartOfNamespace.NSID = 1
	byIndex := getLog(spec.LogSmart, spec.SmartSize, 0, page)
	byIndex.CDW14 = offsetType
	for _, c := range []struct {
		name string
		e    spec.SubmissionEntry
		want spec.Status
	}{
		{"unknown page", getLog(0x70, 4, 0, page), spec.InvalidLogPage},
		{"offset not a multiple of four", getLog(spec.LogErrors, 4, 2, page), spec.InvalidField},
		{"offset beyond the end", getLog(spec.LogErrors, 4, 1<<40, page), spec.InvalidField},
		{"longer than MDTS", getLog(spec.LogErrors, 1<<30, 0, page), spec.InvalidField},
		{"SMART of a namespace", smartOfNamespace, spec.InvalidField},
		{"by index", byIndex, spec.InvalidField},
		{"an endurance group that is not there", getLog(spec.LogEnduranceGroup, 512, 0, page), spec.InvalidField},
	} {
		t.Run(c.name, func(t *testing.T) {
			if st := g.do(c.e).Status; st != c.want|spec.StatusDNR {
				t.Errorf("%v, want %v", st, c.want)
			}
		})
	}
}

func TestSupportedPagesAndFeatures(t *testing.T) {
	g, page := adminGuest(t, rig{})
	var pages spec.SupportedPages
	_, b := g.log(spec.LogSupportedPages, spec.SupportedPagesSize, 0, page)
	pages.Get(b)
	for id, word := range pages {
		e := getLog(uint8(id), 512, 0, page)
		e.CDW11 = enduranceGroup << 16
		e.CDW10 |= establishContext << 8
		if got := g.do(e).Status != spec.InvalidLogPage|spec.StatusDNR; got != (word == spec.LogSupported) {
			t.Errorf("page %#x: %#x in the list, there: %v", id, word, got)
		}
	}
	var features spec.FeatureEffects
	_, b = g.log(spec.LogFeatureEffects, spec.FeatureEffectsSize, 0, page)
	features.Get(b)
	for id, word := range features {
		caps := spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: uint32(id) | spec.SelectCapabilities<<8}
		if got := g.do(caps).Status.OK(); got != (word&spec.EffectSupported != 0) {
			t.Errorf("feature %#x: %#x in the list, there: %v", id, word, got)
		}
	}
	if features[spec.FeatErrorRecovery]&spec.ScopeNamespace == 0 || features[spec.FeatArbitration]&spec.ScopeController == 0 {
		t.Error("scopes")
	}
}

func TestEnduranceGroup(t *testing.T) {
	g, q := started(t, rig{})
	data, page := g.alloc(1), g.alloc(1)
	q.status(rw(spec.NVMWrite, 1, 0, 8, data, 0))
	e := getLog(spec.LogEnduranceGroup, spec.EnduranceGroupSize, 0, page)
	e.CDW11 |= enduranceGroup << 16
	var l spec.EnduranceGroup
	g.until("the counters", func() bool {
		g.must(e)
		l.Get(g.bytes(page, spec.EnduranceGroupSize))
		return l.HostWrites == 1
	})
	if l.UnitsWritten != 1 || l.UnitsRead != 0 || l.AvailableSpare != 100 {
		t.Errorf("%+v", l)
	}
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSEnduranceGroups, PRP1: page})
	if ids := spec.EnduranceGroupList(g.bytes(page, pageSize)); len(ids) != 1 || ids[0] != enduranceGroup {
		t.Errorf("groups %v", ids)
	}
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSEnduranceGroups, CDW11: 2, PRP1: page})
	if ids := spec.EnduranceGroupList(g.bytes(page, pageSize)); len(ids) != 0 {
		t.Errorf("groups from 2: %v", ids)
	}
	var ns spec.IdentifyNamespace
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSNamespace, NSID: 1, PRP1: page})
	if ns.Get(g.bytes(page, pageSize)); ns.EnduranceGroup != enduranceGroup {
		t.Errorf("namespace in group %d", ns.EnduranceGroup)
	}
	f := featureTester{g, page}
	f.set(spec.FeatEnduranceEvents, 0, 7<<16|enduranceGroup)
	if v := f.get(spec.FeatEnduranceEvents, 0, 0, enduranceGroup); v != 7<<16|enduranceGroup {
		t.Errorf("feature %#x", v)
	}
	if st := f.setStatus(spec.FeatEnduranceEvents, 0, 2, false); st != badField {
		t.Errorf("another group: %v", st)
	}
}
