package nvme

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

// sharing makes hosts with one queue each, which share the namespaces of a subsystem, and
// have the identifiers 1, 2, ….
func sharing(t *testing.T, n int, r rig) ([]*guest, []*testQueue) {
	t.Helper()
	if r.backends == nil {
		r.backends = []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}
	}
	var cfg SubsystemConfig
	for _, b := range r.backends {
		cfg.Namespaces = append(cfg.Namespaces, Namespace{Backend: b})
	}
	s, err := NewSubsystem(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	e, err := engine.New(engine.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	var guests []*guest
	var queues []*testQueue
	for i := range n {
		c, err := New(Config{Subsystem: s, Doorbells: r.mode})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		g := attachGuest(t, c, r.byMsg, func() worker { return e.PickWorker() })
		t.Cleanup(g.leave)
		g.enable()
		if r.mode == Shadow {
			g.useDBBUF()
		}
		guests = append(guests, g)
		queues = append(queues, g.createQueue(1, 64))
		g.identifyAs(byte(i + 1))
	}
	return guests, queues
}

// identifyAs sets the host identifier, of 128 bits; 0 is none.
func (g *guest) identifyAs(n byte) {
	g.t.Helper()
	if st := g.setHostID(spec.HostID{n, 15: n}, true); !st.OK() {
		g.t.Fatal(st)
	}
}

func (g *guest) setHostID(id spec.HostID, extended bool) spec.Status {
	g.t.Helper()
	e := spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatHostIdentifier, PRP1: g.alloc(1)}
	copy(g.bytes(e.PRP1, len(id)), id[:])
	if extended {
		e.CDW11 = spec.HostIDExtended
	}
	return g.do(e).Status
}

// reserve runs Reservation Register, Acquire or Release on namespace 1.
func (q *testQueue) reserve(s step) spec.Status {
	q.g.t.Helper()
	data := q.g.alloc(1)
	s.keys.Put(q.g.bytes(data, spec.ReservationKeysSize))
	e := spec.SubmissionEntry{Opcode: s.op, NSID: 1, PRP1: data,
		CDW10: uint32(s.action) | uint32(s.kind)<<spec.ReservationTypeShift}
	if s.ignore {
		e.CDW10 |= spec.ReservationIgnoreKey
	}
	return q.status(e)
}

func (q *testQueue) mustReserve(steps ...step) {
	q.g.t.Helper()
	for _, s := range steps {
		if st := q.reserve(s); !st.OK() {
			q.g.t.Fatalf("%+v: %v", s, st)
		}
	}
}

// report is Reservation Report with room for n bytes.
func (q *testQueue) report(n int, extended bool) (spec.ReservationStatus, int, spec.Status) {
	q.g.t.Helper()
	data := q.g.alloc(2)
	e := spec.SubmissionEntry{Opcode: spec.NVMReservationReport, NSID: 1, PRP1: data, PRP2: data + pageSize, CDW10: uint32(n/4 - 1)}
	if extended {
		e.CDW11 = spec.ReportExtended
	}
	st := q.status(e)
	var r spec.ReservationStatus
	total := r.Get(q.g.bytes(data, n), extended)
	return r, total, st
}

// Every I/O command of a host that may do nothing, one that may read, and one that may do
// everything.
func TestReservationKeepsCommandsAway(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		guests, queues := sharing(t, 3, rig{byMsg: byMsg})
		for i, q := range queues[:2] {
			q.mustReserve(reg(i, uint64(i+1)))
		}
		for _, c := range []struct {
			kind        spec.ReservationType
			read, write [3]bool // not allowed
		}{
			{0, [3]bool{}, [3]bool{}},
			{spec.WriteExclusive, [3]bool{}, [3]bool{false, true, true}},
			{spec.ExclusiveAccess, [3]bool{false, true, true}, [3]bool{false, true, true}},
			{spec.WriteExclusiveRegistrantsOnly, [3]bool{}, [3]bool{false, false, true}},
			{spec.ExclusiveAccessRegistrantsOnly, [3]bool{false, false, true}, [3]bool{false, false, true}},
			{spec.WriteExclusiveAllRegistrants, [3]bool{}, [3]bool{false, false, true}},
			{spec.ExclusiveAccessAllRegistrants, [3]bool{false, false, true}, [3]bool{false, false, true}},
		} {
			if c.kind != 0 {
				queues[0].mustReserve(acq(0, 1, c.kind))
			}
			for i, q := range queues {
				data := guests[i].alloc(1)
				copyTo := rw(spec.NVMCopy, 1, 0, 1, data, 0)
				for _, x := range []struct {
					name   string
					e      spec.SubmissionEntry
					barred bool
				}{
					{"read", rw(spec.NVMRead, 1, 0, 1, data, 0), c.read[i]},
					{"compare", rw(spec.NVMCompare, 1, 0, 1, data, 0), c.read[i]},
					{"verify", rw(spec.NVMVerify, 1, 0, 1, 0, 0), c.read[i]},
					{"write", rw(spec.NVMWrite, 1, 0, 1, data, 0), c.write[i]},
					{"write beyond the end", rw(spec.NVMWrite, 1, 1<<40, 1, data, 0), c.write[i]},
					{"write zeroes", rw(spec.NVMWriteZeroes, 1, 0, 1, 0, 0), c.write[i]},
					{"write uncorrectable", rw(spec.NVMWriteUncorrectable, 1, 8, 1, 0, 0), c.write[i]},
					{"dataset management", spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: 1, PRP1: data}, c.write[i]},
					{"copy", copyTo, c.write[i]},
					{"flush", spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1}, c.write[i]},
					{"flush of all", spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: spec.BroadcastNSID}, c.write[i]},
					{"write elsewhere", rw(spec.NVMWrite, 2, 0, 1, data, 0), false},
					{"flush elsewhere", spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 2}, false},
				} {
					st := q.status(x.e)
					if (st == conflict) != x.barred || st.DNR() && x.barred {
						t.Errorf("type %d, host %d, %s: %v", c.kind, i, x.name, st)
					}
					if e := guests[i].lastError(); x.barred && (e.Status != conflict || e.NSID != x.e.NSID) {
						t.Errorf("type %d, host %d, %s: error log %+v", c.kind, i, x.name, e)
					}
				}
			}
			if c.kind != 0 {
				queues[0].mustReserve(rel(0, 1, c.kind))
			}
		}
	}
}

func TestReservationKeepsAdminCommandsAway(t *testing.T) {
	guests, queues := sharing(t, 2, rig{})
	queues[0].mustReserve(reg(0, 1), acq(0, 1, spec.WriteExclusive))
	for _, c := range []struct {
		opcode uint8
		nsid   uint32
		write  bool // kept away by Write Exclusive
		access bool // by Exclusive Access
	}{
		{0x80, 1, true, true}, {0x80, 2, false, false}, {0x80, spec.BroadcastNSID, true, true},
		{0x0d, 1, true, true}, {0x0d, 0, false, false}, {0x15, 1, true, true}, {0x15, 3, false, false},
		{0x81, 1, true, true}, {0x82, 1, false, true}, {0x81, 0, false, false}, {0x84, 0, true, true},
		{spec.AdminIdentify, 1, false, false}, {spec.AdminGetLogPage, 1, false, false},
	} {
		e := spec.SubmissionEntry{Opcode: c.opcode, NSID: c.nsid}
		if guests[1].c.barsAdmin(&e) != c.write || guests[0].c.barsAdmin(&e) {
			t.Errorf("write exclusive, %+v: %v", c, guests[1].c.barsAdmin(&e))
		}
	}
	queues[0].mustReserve(pre(0, 1, 1, spec.ExclusiveAccess))
	e := spec.SubmissionEntry{Opcode: 0x82, NSID: 1}
	if !guests[1].c.barsAdmin(&e) || guests[0].c.barsAdmin(&e) {
		t.Error("Security Receive is not kept away by Exclusive Access")
	}
}

func TestReservationErrorsAreLocated(t *testing.T) {
	g, q := started(t, rig{})
	q.mustReserve(reg(0, 5), acq(0, 5, spec.WriteExclusive))
	data := g.alloc(1)
	(&spec.ReservationKeys{Current: 5}).Put(g.bytes(data, spec.ReservationKeysSize))
	for _, c := range []struct {
		name   string
		opcode uint8
		cdw10  uint32
		want   location
	}{
		{"CPTPL", spec.NVMReservationRegister, 1 << 30, at(43, 6)},
		{"register action", spec.NVMReservationRegister, 5, inCDW10},
		{"a new key of 0", spec.NVMReservationRegister, spec.ReplaceKey, noLocation},
		{"an ignored key", spec.NVMReservationAcquire, 1<<8 | 1<<3, at(40, 3)},
		{"acquire action", spec.NVMReservationAcquire, 1<<8 | 3, inCDW10},
		{"type", spec.NVMReservationAcquire, 7 << 8, inCDW10 + 1},
		{"a preempted key of 0", spec.NVMReservationAcquire, 1<<8 | 1, noLocation},
		{"release action", spec.NVMReservationRelease, 2, inCDW10},
		{"another type", spec.NVMReservationRelease, 2 << 8, inCDW10 + 1},
		{"a long report", spec.NVMReservationReport, 1 << 30, inCDW10},
	} {
		if st := q.status(spec.SubmissionEntry{Opcode: c.opcode, NSID: 1, PRP1: data, CDW10: c.cdw10}); st.Code() != spec.InvalidField {
			t.Errorf("%s: %v", c.name, st)
		}
		if e := g.lastError(); e.Parameter != c.want {
			t.Errorf("%s: at %#x, want %#x", c.name, e.Parameter, c.want)
		}
	}
}

// What is invalid, in the order of what is found first.
func TestReservationCommandsAreChecked(t *testing.T) {
	g, q := started(t, rig{})
	data := g.alloc(1)
	q.mustReserve(reg(0, 5))
	for _, c := range []struct {
		name   string
		opcode uint8
		nsid   uint32
		cdw10  uint32
		prp1   uint64
		want   spec.Status
	}{
		{"register without a namespace", spec.NVMReservationRegister, 9, 0, data, spec.InvalidField | spec.StatusDNR},
		{"register on all", spec.NVMReservationRegister, spec.BroadcastNSID, 0, data, spec.InvalidNamespaceOrFormat | spec.StatusDNR},
		{"acquire without a namespace", spec.NVMReservationAcquire, 0, 0, data, spec.InvalidNamespaceOrFormat | spec.StatusDNR},
		{"report without a namespace", spec.NVMReservationReport, 2, 0, data, spec.InvalidField | spec.StatusDNR},
		{"CPTPL 1", spec.NVMReservationRegister, 1, 1 << 30, data, badField},
		{"register action 3", spec.NVMReservationRegister, 1, 3, data, badField},
		{"acquire of an ignored key", spec.NVMReservationAcquire, 1, 1<<8 | 1<<3, data, badField},
		{"release of an ignored key", spec.NVMReservationRelease, 1, 1<<8 | 1<<3, data, badField},
		{"acquire action 7", spec.NVMReservationAcquire, 1, 1<<8 | 7, data, badField},
		{"release action 2", spec.NVMReservationRelease, 1, 1<<8 | 2, data, badField},
		{"acquire type 255", spec.NVMReservationAcquire, 1, 255 << 8, data, badField},
		{"register without data", spec.NVMReservationRegister, 1, 0, 1 << 50, spec.DataTransferError | spec.StatusDNR},
		{"acquire without data", spec.NVMReservationAcquire, 1, 1 << 8, 1 << 50, spec.DataTransferError | spec.StatusDNR},
		{"release without data", spec.NVMReservationRelease, 1, 1 << 8, 1 << 50, spec.DataTransferError | spec.StatusDNR},
		{"report to nowhere", spec.NVMReservationReport, 1, 5, 1 << 50, spec.DataTransferError | spec.StatusDNR},
		{"report of too much", spec.NVMReservationReport, 1, 1 << 18, data, badField},
		{"report of 16 GiB", spec.NVMReservationReport, 1, 0xffffffff, data, badField},
		{"data across a page without a list", spec.NVMReservationRegister, 1, 0, data + pageSize - 8, spec.InvalidPRPOffset | spec.StatusDNR},
	} {
		e := spec.SubmissionEntry{Opcode: c.opcode, NSID: c.nsid, CDW10: c.cdw10, PRP1: c.prp1, PRP2: 3}
		if st := q.status(e); st != c.want {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
	if r, _, st := q.report(64, true); !st.OK() || r.Generation != 1 || r.Type != 0 || len(r.Controllers) != 0 {
		t.Errorf("%v, %+v", st, r)
	}
	// Release has 8 bytes of data.
	copy(g.bytes(data+pageSize-8, 8), []byte{5})
	if st := q.status(spec.SubmissionEntry{Opcode: spec.NVMReservationRelease, NSID: 1, CDW10: 1, PRP1: data + pageSize - 8}); !st.OK() {
		t.Error(st)
	}
}

func TestReservationReport(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		guests, queues := sharing(t, 4, rig{byMsg: byMsg})
		guests[2].identifyAs(2) // two controllers of one host
		guests[3].identifyAs(0)
		queues[0].mustReserve(reg(0, 10))
		queues[1].mustReserve(reg(1, 11))
		queues[3].mustReserve(reg(3, 13))
		queues[2].mustReserve(acq(1, 11, spec.WriteExclusive))
		one := spec.HostID{1, 15: 1}
		two := spec.HostID{2, 15: 2}
		want := []spec.RegisteredController{
			{Controller: 1, Host: one, Key: 10},
			{Controller: 2, Holder: true, Host: two, Key: 11},
			{Controller: 3, Holder: true, Host: two, Key: 11},
			{Controller: 4, Key: 13},
		}
		r, total, st := queues[0].report(1024, true)
		if !st.OK() || r.Type != spec.WriteExclusive || r.Persistent || r.Generation != 3 || !slices.Equal(r.Controllers, want) || total != 4 {
			t.Errorf("%v, %+v", st, r)
		}
		if r, total, st = queues[0].report(64+2*64, true); !st.OK() || total != 4 || !slices.Equal(r.Controllers, want[:2]) {
			t.Errorf("cut short: %v, %d, %+v", st, total, r)
		}
		if _, _, st = queues[0].report(8, true); !st.OK() {
			t.Errorf("8 bytes: %v", st)
		}
		// A host with an identifier of 128 bits cannot have the short form, one without can have both.
		if _, _, st = queues[0].report(1024, false); st != spec.HostIDInconsistent {
			t.Error(st)
		}
		if r, _, st = queues[3].report(1024, false); !st.OK() || len(r.Controllers) != 4 || r.Controllers[0].Host != (spec.HostID{1}) ||
			r.Controllers[2] != (spec.RegisteredController{Controller: 3, Holder: true, Host: spec.HostID{2}, Key: 11}) {
			t.Errorf("%v, %+v", st, r)
		}
		// A registrant without a controller.
		guests[0].identifyAs(9)
		want[0].Controller = spec.NoController
		if r, _, st = queues[3].report(1024, true); !st.OK() || !slices.Equal(r.Controllers, want) {
			t.Errorf("%v, %+v", st, r)
		}
		queues[1].mustReserve(pre(1, 11, 11, spec.ExclusiveAccessAllRegistrants))
		for i := range want {
			want[i].Holder = true
		}
		if r, _, st = queues[3].report(1024, true); !st.OK() || !slices.Equal(r.Controllers, want) {
			t.Errorf("%v, %+v", st, r)
		}
	}
}

// The registration of a host outlives its controllers, but not what was registered without
// an identifier.
func TestReservationOutlivesTheController(t *testing.T) {
	guests, queues := sharing(t, 3, rig{})
	guests[1].identifyAs(0)
	queues[0].mustReserve(reg(0, 10), acq(0, 10, spec.ExclusiveAccess))
	queues[1].mustReserve(reg(1, 11))
	guests[0].leave()
	guests[1].disable()
	r, _, st := queues[2].report(1024, true)
	want := []spec.RegisteredController{{Controller: spec.NoController, Holder: true, Host: spec.HostID{1, 15: 1}, Key: 10}}
	if !st.OK() || r.Type != spec.ExclusiveAccess || !slices.Equal(r.Controllers, want) {
		t.Fatalf("%v, %+v", st, r)
	}
	if st := queues[2].status(rw(spec.NVMRead, 1, 0, 1, guests[2].alloc(1), 0)); st != conflict {
		t.Error(st)
	}
	guests[2].identifyAs(1) // the host comes by another controller
	if st := queues[2].status(rw(spec.NVMWrite, 1, 0, 1, guests[2].alloc(1), 0)); !st.OK() {
		t.Error(st)
	}
	queues[2].mustReserve(unreg(0, 10))
	if r, _, st := queues[2].report(1024, true); !st.OK() || r.Type != 0 || len(r.Controllers) != 0 {
		t.Fatalf("%v, %+v", st, r)
	}
}

// A host without identifier that held a reservation for registrants ends it with a reset.
func TestResetReleasesWhatNobodyCanName(t *testing.T) {
	guests, queues := sharing(t, 2, rig{})
	guests[0].identifyAs(0)
	queues[0].mustReserve(reg(0, 10), acq(0, 10, spec.WriteExclusiveRegistrantsOnly))
	queues[1].mustReserve(reg(1, 11))
	guests[0].disable()
	if r, _, st := queues[1].report(1024, true); !st.OK() || r.Type != 0 || len(r.Controllers) != 1 {
		t.Fatalf("%v, %+v", st, r)
	}
	if n := guests[1].reservationNotice(); n.Type != spec.NoticeReservationReleased || n.NSID != 1 || n.Count != 1 {
		t.Errorf("%+v", n)
	}
}

func TestHostIdentifiersHaveOneSize(t *testing.T) {
	guests, queues := sharing(t, 2, rig{})
	if st := guests[0].setHostID(spec.HostID{5}, false); st != spec.HostIDInconsistent|spec.StatusDNR {
		t.Error(st)
	}
	guests[1].identifyAs(0)
	if st := guests[0].setHostID(spec.HostID{5}, false); !st.OK() {
		t.Error(st)
	}
	if st := guests[1].setHostID(spec.HostID{6}, true); st != spec.HostIDInconsistent|spec.StatusDNR {
		t.Error(st)
	}
	if st := guests[1].setHostID(spec.HostID{6}, false); !st.OK() {
		t.Error(st)
	}
	queues[0].mustReserve(reg(0, 10))
	queues[1].mustReserve(reg(1, 11))
	if _, _, st := queues[0].report(1024, true); st != spec.HostIDInconsistent {
		t.Error(st)
	}
	want := []spec.RegisteredController{{Controller: 1, Host: spec.HostID{5}, Key: 10}, {Controller: 2, Host: spec.HostID{6}, Key: 11}}
	if r, _, st := queues[0].report(1024, false); !st.OK() || !slices.Equal(r.Controllers, want) {
		t.Errorf("%v, %+v", st, r)
	}
}

func TestReservationNoticesAreMasked(t *testing.T) {
	guests, queues := sharing(t, 3, rig{})
	mask := func(nsid, value uint32) spec.Status {
		return guests[1].do(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: nsid, CDW10: spec.FeatReservationMask, CDW11: value}).Status
	}
	for _, c := range []struct {
		nsid, value, got uint32
		want             spec.Status
	}{
		{1, 1 << spec.NoticeReservationReleased, 4, spec.Success},
		{2, 0xffffffff, spec.NoticeMask, spec.Success},
		{spec.BroadcastNSID, 2, 2, spec.Success},
		{0, 0, 2, spec.InvalidNamespaceOrFormat | spec.StatusDNR},
	} {
		if st := mask(c.nsid, c.value); st != c.want {
			t.Errorf("%#x: %v", c.nsid, st)
		}
		nsid := c.nsid
		if nsid-1 > 1 {
			nsid = 1
		}
		if v := guests[1].must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: nsid, CDW10: spec.FeatReservationMask}).DW0; v != c.got {
			t.Errorf("%#x: reads %#x, want %#x", c.nsid, v, c.got)
		}
	}
	notices := func() (kinds []uint8) {
		for i, q := range queues {
			q.mustReserve(reg(i, uint64(i+1)))
		}
		queues[0].mustReserve(acq(0, 1, spec.WriteExclusiveRegistrantsOnly), rel(0, 1, spec.WriteExclusiveRegistrantsOnly),
			pre(0, 1, 2, spec.WriteExclusive), reg(0, 1))
		queues[1].mustReserve(reg(1, 2))
		queues[0].mustReserve(wipe(0, 1))
		for {
			n := guests[1].reservationNotice()
			if n.Count == 0 {
				return kinds
			}
			kinds = append(kinds, n.Type)
		}
	}
	for _, c := range []struct {
		mask uint32
		want []uint8
	}{
		{0, []uint8{2, 1, 3}}, {1 << 1, []uint8{2, 3}}, {1 << 2, []uint8{1, 3}}, {1 << 3, []uint8{2, 1}}, {0xe, nil},
	} {
		if st := mask(1, c.mask); !st.OK() {
			t.Fatal(st)
		}
		if got := notices(); !slices.Equal(got, c.want) {
			t.Errorf("mask %#x: %v, want %v", c.mask, got, c.want)
		}
	}
	mask(1, 0xe)
	guests[1].disable() // a reset takes the masks away
	if m := guests[1].c.subsystem.reservations.associations[1].masks; len(m) != 0 {
		t.Error(m)
	}
}

// notice reads the notification log away.
func (g *guest) reservationNotice() (n spec.ReservationNotice) {
	g.t.Helper()
	page := g.alloc(1)
	g.must(getLog(spec.LogReservation, spec.ReservationLogSize, 0, page))
	n.Get(g.bytes(page, spec.ReservationLogSize))
	return n
}

func TestReservationNotices(t *testing.T) {
	guests, queues := sharing(t, 3, rig{})
	aer := guests[1].admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	for i, q := range queues {
		q.mustReserve(reg(i, uint64(i+1)))
	}
	queues[0].mustReserve(acq(0, 1, spec.WriteExclusiveRegistrantsOnly), rel(0, 1, spec.WriteExclusiveRegistrantsOnly))
	event := spec.NewAsyncResult(spec.AsyncIOEvent, spec.AsyncReservation, spec.LogReservation)
	if c := guests[1].admin.result(aer); !c.Status.OK() || spec.AsyncResult(c.DW0) != event {
		t.Fatalf("%+v", c)
	}
	aer = guests[1].admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	queues[0].mustReserve(acq(0, 1, spec.WriteExclusive), pre(0, 1, 2, spec.WriteExclusive))
	// With RAE the notification stays.
	page := guests[1].alloc(1)
	e := getLog(spec.LogReservation, spec.ReservationLogSize, 0, page)
	e.CDW10 |= retainEvent
	guests[1].must(e)
	var kept spec.ReservationNotice
	kept.Get(guests[1].bytes(page, spec.ReservationLogSize))
	first := spec.ReservationNotice{Count: 1, Type: spec.NoticeReservationReleased, Available: 1, NSID: 1}
	if kept != first {
		t.Errorf("%+v", kept)
	}
	if _, early := guests[1].admin.completed[aer]; early {
		t.Error("the event came again before the log was read")
	}
	if n := guests[1].reservationNotice(); n != first {
		t.Errorf("%+v", n)
	}
	if c := guests[1].admin.result(aer); spec.AsyncResult(c.DW0) != event {
		t.Errorf("%+v", c)
	}
	if n := guests[1].reservationNotice(); n != (spec.ReservationNotice{Count: 2, Type: spec.NoticeRegistrationPreempted, NSID: 1}) {
		t.Errorf("%+v", n)
	}
	if n := guests[1].reservationNotice(); n != (spec.ReservationNotice{}) {
		t.Errorf("an empty log: %+v", n)
	}
	if n := guests[0].reservationNotice(); n.Count != 0 {
		t.Errorf("who did it: %+v", n)
	}
	queues[0].mustReserve(wipe(0, 1))
	for _, want := range []uint8{spec.NoticeReservationReleased, spec.NoticeReservationPreempted} {
		if n := guests[2].reservationNotice(); n.Type != want {
			t.Errorf("%+v, want %d", n, want)
		}
	}
}

func TestReservationNoticesAreBounded(t *testing.T) {
	guests, queues := sharing(t, 2, rig{})
	queues[1].mustReserve(reg(1, 2))
	for range maxNotices + 5 {
		queues[0].mustReserve(reg(0, 1), acq(0, 1, spec.WriteExclusiveRegistrantsOnly), unreg(0, 1))
	}
	for i := range uint64(maxNotices) {
		if n := guests[1].reservationNotice(); n.Count != i+1 || int(n.Available) != maxNotices-1-int(i) {
			t.Fatalf("%d: %+v", i, n)
		}
	}
	queues[0].mustReserve(reg(0, 1), acq(0, 1, spec.WriteExclusiveRegistrantsOnly), unreg(0, 1))
	if n := guests[1].reservationNotice(); n.Count != maxNotices+6 {
		t.Errorf("%+v", n)
	}
}

// What a preempted host has in flight ends, and what it has waiting is aborted.
func TestPreemptAndAbort(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		t.Run(fmt.Sprint(byMsg), func(t *testing.T) {
			holdings.CheckLeaks(t)
			b := holding(memory(t, 1<<20))
			guests, queues := sharing(t, 2, rig{byMsg: byMsg, backends: []block.Backend{b}})
			queues[0].mustReserve(reg(0, 1))
			queues[1].mustReserve(reg(1, 2), acq(1, 2, spec.WriteExclusive))
			b.hold.Store(true)
			var cids []uint16
			for range maxCouriers + 8 {
				cids = append(cids, queues[1].submit(rw(spec.NVMVerify, 1, 0, 8, 0, 0)))
			}
			// What is not fetched yet would find the new reservation, and have no part in this.
			guests[1].until("all commands to be fetched", func() bool {
				return b.held() > 0 && guests[1].atCouriers()+guests[1].forCouriers() == len(cids)
			})
			e := spec.SubmissionEntry{Opcode: spec.NVMReservationAcquire, NSID: 1, PRP1: guests[0].alloc(1),
				CDW10: spec.AcquireAbort | uint32(spec.ExclusiveAccess)<<spec.ReservationTypeShift}
			(&spec.ReservationKeys{Current: 1, Other: 2}).Put(guests[0].bytes(e.PRP1, spec.ReservationKeysSize))
			cid := queues[0].submit(e)
			lock := &guests[0].c.namespace(1).gate.lock
			guests[0].until("somebody to wait for the gate", func() bool {
				if lock.TryRLock() {
					lock.RUnlock()
					return false
				}
				return true
			})
			b.hold.Store(false)
			b.release()
			if c := queues[0].result(cid); !c.Status.OK() {
				t.Fatal(c.Status)
			}
			aborted := 0
			for _, cid := range cids {
				switch st := queues[1].result(cid).Status; st {
				case spec.Success:
				case spec.AbortPreempted | spec.StatusDNR:
					aborted++
				default:
					t.Error(st)
				}
			}
			if aborted == 0 {
				t.Error("nothing was aborted")
			}
			if st := queues[1].status(rw(spec.NVMRead, 1, 0, 1, guests[1].alloc(1), 0)); st != conflict {
				t.Error(st)
			}
			if n := guests[1].reservationNotice(); n.Type != spec.NoticeRegistrationPreempted {
				t.Errorf("%+v", n)
			}
		})
	}
}

// Once a reservation was acquired nothing that it forbids happens any more.
func TestAcquireIsAFence(t *testing.T) {
	holdings.CheckLeaks(t)
	var fenced atomic.Bool
	var late atomic.Int32
	b := &slowBackend{Backend: memory(t, 1<<20), fail: func(r *block.Request) error {
		if r.Op == block.Write && fenced.Load() {
			late.Add(1)
		}
		return nil
	}}
	guests, queues := sharing(t, 2, rig{backends: []block.Backend{b}})
	data := guests[1].alloc(1)
	queues[0].mustReserve(reg(0, 1))
	for range 200 {
		var cids []uint16
		for range 20 {
			cids = append(cids, queues[1].submit(rw(spec.NVMWrite, 1, 0, 1, data, 0)))
		}
		queues[0].mustReserve(acq(0, 1, spec.WriteExclusive))
		fenced.Store(true)
		for _, cid := range cids {
			if st := queues[1].result(cid).Status; !st.OK() && st != conflict {
				t.Fatal(st)
			}
		}
		fenced.Store(false)
		queues[0].mustReserve(rel(0, 1, spec.WriteExclusive))
	}
	if late.Load() > 0 {
		t.Errorf("%d writes came later", late.Load())
	}
}

func TestReservationIsAnnounced(t *testing.T) {
	g, _ := started(t, rig{})
	page := g.alloc(1)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: page})
	var id spec.IdentifyController
	if id.Get(g.bytes(page, pageSize)); id.ONCS&spec.ONCSReservations == 0 {
		t.Errorf("ONCS %#x", id.ONCS)
	}
	for _, cns := range []uint32{spec.CNSNamespace, spec.CNSIndependentNamespace} {
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: 1, CDW10: cns, PRP1: page})
		rescap := g.bytes(page, pageSize)[31]
		if cns == spec.CNSIndependentNamespace {
			rescap = g.bytes(page, pageSize)[2]
		}
		if rescap != 0xfe {
			t.Errorf("CNS %#x: RESCAP %#x", cns, rescap)
		}
	}
}
