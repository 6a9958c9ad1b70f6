package nvme

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

// powered is a host of a subsystem with two namespaces and a state directory, until off.
type powered struct {
	*guest
	q   *testQueue
	off func()
}

func powerOn(t *testing.T, dir string, hosts byte) (list []*powered) {
	t.Helper()
	s, err := NewSubsystem(SubsystemConfig{Serial: "kept", StateDir: dir, Namespaces: []Namespace{{Backend: memory(t, 1<<20)}, {Backend: memory(t, 1<<20)}}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	for n := range hosts {
		c, err := New(Config{Subsystem: s})
		if err != nil {
			t.Fatal(err)
		}
		p := &powered{guest: attachGuest(t, c, false, func() worker { return e.PickWorker() })}
		p.enable()
		p.q = p.createQueue(1, 64)
		p.identifyAs(n + 1)
		list = append(list, p)
	}
	off := func() {
		for _, p := range list {
			p.leave()
			_ = p.c.Close()
		}
		_ = e.Close()
		_ = s.Close()
	}
	t.Cleanup(off)
	for _, p := range list {
		p.off = off
	}
	return list
}

// register is Reservation Register of a key with a value of CPTPL.
func (p *powered) register(nsid uint32, key uint64, persist uint32) spec.Status {
	data := p.alloc(1)
	(&spec.ReservationKeys{Other: key}).Put(p.bytes(data, spec.ReservationKeysSize))
	return p.q.status(spec.SubmissionEntry{Opcode: spec.NVMReservationRegister, NSID: nsid, PRP1: data,
		CDW10: persist << spec.RegisterPersistShift})
}

func (p *powered) persistence(nsid uint32) uint32 {
	return p.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: nsid, CDW10: spec.FeatReservationPersist}).DW0
}

func (p *powered) setPersistence(nsid, v uint32) spec.Status {
	return p.do(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: nsid, CDW10: spec.FeatReservationPersist, CDW11: v}).Status
}

func TestReservationsPersistThroughPowerLoss(t *testing.T) {
	holdings.CheckLeaks(t)
	dir := t.TempDir()
	p := powerOn(t, dir, 3)
	p[2].identifyAs(0)
	for i, key := range []uint64{10, 11, 12} {
		if st := p[i].register(1, key, spec.PersistOn); !st.OK() {
			t.Fatal(st)
		}
		if st := p[i].register(2, key, spec.PersistUnchanged); !st.OK() {
			t.Fatal(st)
		}
	}
	p[0].q.mustReserve(acq(0, 10, spec.WriteExclusiveRegistrantsOnly))
	if p[0].persistence(1) != 1 || p[0].persistence(2) != 0 {
		t.Errorf("persistence %d, %d", p[0].persistence(1), p[0].persistence(2))
	}
	p[0].off()

	p = powerOn(t, dir, 3)
	want := []spec.RegisteredController{
		{Controller: 1, Holder: true, Host: spec.HostID{1, 15: 1}, Key: 10}, {Controller: 2, Host: spec.HostID{2, 15: 2}, Key: 11},
	}
	r, _, st := p[0].q.report(1024, true)
	if !st.OK() || r.Type != spec.WriteExclusiveRegistrantsOnly || !r.Persistent || r.Generation != 0 || !slices.Equal(r.Controllers, want) {
		t.Errorf("%v, %+v", st, r)
	}
	for i, want := range []spec.Status{spec.Success, spec.Success, conflict} {
		if st := p[i].q.status(rw(spec.NVMWrite, 1, 0, 1, p[i].alloc(1), 0)); st != want {
			t.Errorf("host %d: %v", i, st)
		}
	}
	if n := len(p[0].c.namespace(2).reservation.registrants); n != 0 {
		t.Errorf("%d registrants of what does not persist", n)
	}
	if st := p[1].register(1, 11, spec.PersistOff); !st.OK() {
		t.Error(st)
	}
	if r, _, _ := p[0].q.report(1024, true); r.Persistent || len(r.Controllers) != 2 {
		t.Errorf("%+v", r)
	}
	p[0].off()

	p = powerOn(t, dir, 1)
	if r, _, st := p[0].q.report(1024, true); !st.OK() || r.Type != 0 || len(r.Controllers) != 0 || r.Persistent {
		t.Errorf("%v, %+v", st, r)
	}
}

func TestReservationPersistenceFeature(t *testing.T) {
	dir := t.TempDir()
	p := powerOn(t, dir, 1)
	if st := p[0].setPersistence(spec.BroadcastNSID, 1); !st.OK() {
		t.Error(st)
	}
	if st := p[0].setPersistence(2, 0); !st.OK() {
		t.Error(st)
	}
	if st := p[0].setPersistence(1|1<<20, 0); st.Code() != spec.InvalidNamespaceOrFormat {
		t.Error(st)
	}
	p[0].disable()
	p[0].enable() // it is no matter of a reset
	if p[0].persistence(1) != 1 || p[0].persistence(2) != 0 {
		t.Errorf("persistence %d, %d", p[0].persistence(1), p[0].persistence(2))
	}
	page := p[0].alloc(1)
	p[0].must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: 1, CDW10: spec.CNSNamespace, PRP1: page})
	if rescap := p[0].bytes(page, pageSize)[31]; rescap != 0xff {
		t.Errorf("RESCAP %#x", rescap)
	}
	p[0].off()
	p = powerOn(t, dir, 1)
	if p[0].persistence(1) != 1 || p[0].persistence(2) != 0 {
		t.Errorf("afterwards: %d, %d", p[0].persistence(1), p[0].persistence(2))
	}
	// A namespace that goes takes its reservation along.
	s := p[0].c.subsystem
	if err := s.RemoveNamespace(1); err != nil {
		t.Fatal(err)
	}
	if nsid, err := s.AddNamespace(Namespace{Backend: memory(t, 1<<20)}); nsid != 1 || err != nil {
		t.Fatal(nsid, err)
	}
	if p[0].persistence(1) != 0 || len(s.reservations.kept) != 0 {
		t.Error("it has outlived its namespace")
	}
}

func TestNothingPersistsWithoutStateDirectory(t *testing.T) {
	p := powerOn(t, "", 1)
	if st := p[0].register(1, 10, spec.PersistOn); !st.OK() { // as Linux does
		t.Error(st)
	}
	if r, _, st := p[0].q.report(1024, true); !st.OK() || r.Persistent || len(r.Controllers) != 1 {
		t.Errorf("%v, %+v", st, r)
	}
	if st := p[0].setPersistence(1, 1); st != badField {
		t.Error(st)
	}
}

// What cannot be written was not reserved.
func TestReservationThatCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	p := powerOn(t, dir, 1)
	name := filepath.Join(dir, reservationSubject+stateSuffix+".new")
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	if st := p[0].register(1, 10, spec.PersistOn); st != spec.InternalError {
		t.Error(st)
	}
	if r, _, _ := p[0].q.report(1024, true); r.Persistent || len(r.Controllers) != 0 || r.Generation != 0 {
		t.Errorf("%+v", r)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if st := p[0].register(1, 10, spec.PersistOn); !st.OK() {
		t.Error(st)
	}
}

func TestDamagedReservationsAreRefused(t *testing.T) {
	for _, content := range []string{
		`[{"NSID":1,"Type":9,"Persistent":true}]`,
		`[{"NSID":0,"Persistent":true}]`,
		`[{"NSID":2000,"Persistent":true}]`,
		`[{"NSID":1}]`,
		`[{"NSID":1,"Persistent":true},{"NSID":1,"Persistent":true}]`,
		`[{"NSID":1,"Type":1,"Persistent":true}]`,
		`[{"NSID":1,"Other":1}]`,
		`{}`, `[`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, reservationSubject+stateSuffix), []byte(`{"Version":1,"Content":`+content+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewSubsystem(SubsystemConfig{StateDir: dir}); err == nil {
			t.Errorf("%s is taken", content)
		}
	}
}
