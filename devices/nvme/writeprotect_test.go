package nvme

import (
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

func TestWriteProtection(t *testing.T) {
	g, q := started(t, rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}})
	data, page := g.alloc(1), g.alloc(1)
	f := featureTester{g, page}
	protect := func(state uint32) { t.Helper(); f.set(spec.FeatWriteProtect, 1, state) }
	attributes := func() uint8 {
		t.Helper()
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSNamespace, NSID: 1, PRP1: page})
		var ns spec.IdentifyNamespace
		ns.Get(g.bytes(page, pageSize))
		return ns.NSATTR
	}
	clear(g.bytes(data, 4096))
	dsm := spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: 1, PRP1: data, CDW11: spec.DSMDeallocate}
	q.status(spec.SubmissionEntry{Opcode: spec.NVMWriteUncorrectable, NSID: 1, CDW10: 100})
	protect(spec.WriteProtectOn)
	for name, e := range map[string]spec.SubmissionEntry{
		"write":               rw(spec.NVMWrite, 1, 0, 1, data, 0),
		"write zeroes":        rw(spec.NVMWriteZeroes, 1, 0, 1, 0, 0),
		"write uncorrectable": rw(spec.NVMWriteUncorrectable, 1, 0, 1, 0, 0),
		"deallocate":          dsm,
		"copy":                copyTo(1, 8, 1, data),
		"a marked block":      rw(spec.NVMWrite, 1, 100, 1, data, 0),
	} {
		if st := q.status(e); st != spec.NamespaceWriteProtected|spec.StatusDNR {
			t.Errorf("%s: %v", name, st)
		}
	}
	for name, e := range map[string]spec.SubmissionEntry{
		"read":          rw(spec.NVMRead, 1, 0, 1, data, 0),
		"flush":         {Opcode: spec.NVMFlush, NSID: 1},
		"the other one": rw(spec.NVMWrite, 2, 0, 1, data, 0),
	} {
		if st := q.status(e); !st.OK() {
			t.Errorf("%s: %v", name, st)
		}
	}
	if st := q.status(rw(spec.NVMRead, 1, 100, 1, data, 0)); st.Code() != spec.UnrecoveredRead {
		t.Errorf("the marks are lost: %v", st)
	}
	if f.get(spec.FeatWriteProtect, spec.SelectCurrent, 1, 0) != spec.WriteProtectOn || attributes() != spec.NSAttrProtected ||
		f.get(spec.FeatWriteProtect, spec.SelectDefault, 1, 0) != 0 || f.get(spec.FeatWriteProtect, spec.SelectCurrent, 2, 0) != 0 {
		t.Error("the state is not told")
	}
	g.reset()
	if f.get(spec.FeatWriteProtect, spec.SelectCurrent, 1, 0) != spec.WriteProtectOn {
		t.Error("it did not survive a reset")
	}
	q = g.createQueue(1, 16)
	protect(spec.WriteProtectNone)
	if st := q.status(rw(spec.NVMWrite, 1, 0, 1, data, 0)); !st.OK() || attributes() != 0 {
		t.Errorf("after the protection: %v", st)
	}
	for _, c := range []struct {
		name        string
		nsid, state uint32
		want        spec.Status
	}{
		{"reserved state", 1, 4, spec.InvalidField},
		{"all namespaces", spec.BroadcastNSID, 1, spec.InvalidField},
		{"inactive namespace", 3, 1, spec.InvalidField},
		{"invalid namespace", MaxNamespaces + 1, 1, spec.InvalidNamespaceOrFormat},
	} {
		if st := f.setStatus(spec.FeatWriteProtect, c.nsid, c.state, false); st != c.want|spec.StatusDNR {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
	protect(spec.WriteProtectPowerCycle)
	for state := range uint32(4) {
		if st := f.setStatus(spec.FeatWriteProtect, 1, state, false); st != spec.FeatureNotChangeable|spec.StatusDNR {
			t.Errorf("state %d after until power cycle: %v", state, st)
		}
	}
	n := g.move(rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}})
	if v := (featureTester{n, page}).get(spec.FeatWriteProtect, 0, 1, 0); v != spec.WriteProtectPowerCycle {
		t.Errorf("state %d after a move", v)
	}
}

// A change of the protection is told as a change of the namespace is.
func TestWriteProtectionIsTold(t *testing.T) {
	g, page := adminGuest(t, rig{})
	f := featureTester{g, page}
	f.set(spec.FeatAsyncEvents, 0, spec.AsyncConfigNamespace)
	aer := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	f.set(spec.FeatWriteProtect, 1, spec.WriteProtectOn)
	if r := spec.AsyncResult(g.admin.result(aer).DW0); r != spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncNamespaceChanged, spec.LogChangedNS) {
		t.Errorf("event %#x", uint32(r))
	}
}

func TestWriteProtectionAcrossPowerCycles(t *testing.T) {
	for state, want := range []uint32{0, spec.WriteProtectOn, spec.WriteProtectNone, spec.WriteProtectPermanent} {
		dir := t.TempDir()
		life(t, dir, func(g *guest, page uint64) {
			featureTester{g, page}.set(spec.FeatWriteProtect, 1, uint32(state))
		})
		life(t, dir, func(g *guest, page uint64) {
			if v := (featureTester{g, page}).get(spec.FeatWriteProtect, 0, 1, 0); v != want {
				t.Errorf("state %d is %d after a power cycle, want %d", state, v, want)
			}
		})
	}
}

func TestProtectedNamespacesStay(t *testing.T) {
	g, page := adminGuest(t, rig{})
	featureTester{g, page}.set(spec.FeatWriteProtect, 1, spec.WriteProtectOn)
	for name, e := range map[string]spec.SubmissionEntry{
		"format": {Opcode: spec.AdminFormatNVM, NSID: 1},
		"delete": {Opcode: spec.AdminNamespaceManagement, NSID: 1, CDW10: 1},
	} {
		if st := g.do(e).Status; st != spec.NamespaceWriteProtected|spec.StatusDNR {
			t.Errorf("%s: %v", name, st)
		}
	}
	if err := g.c.subsystem.RemoveNamespace(1); err != nil {
		t.Fatal(err)
	}
	id, err := g.c.subsystem.AddNamespace(Namespace{Backend: memory(t, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	if v := (featureTester{g, page}).get(spec.FeatWriteProtect, 0, id, 0); v != spec.WriteProtectNone {
		t.Errorf("namespace %d, which is new, is in state %d", id, v)
	}
}
