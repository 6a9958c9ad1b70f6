package nvme

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

// pooled is a subsystem with a pool, and guests of its controllers.
type pooled struct {
	s      *Subsystem
	guests []*guest
}

func newPooled(t testing.TB, cfg SubsystemConfig, controllers int) *pooled {
	t.Helper()
	if cfg.Pool == nil {
		pool, err := block.OpenPool("mem:64M")
		noError(t, err)
		cfg.Pool = pool
	}
	if cfg.Serial == "" {
		cfg.Serial = "pooled"
	}
	s, err := NewSubsystem(cfg)
	noError(t, err)
	t.Cleanup(func() { noError(t, s.Close()) })
	e, err := engine.New(engine.Config{Workers: 1})
	noError(t, err)
	t.Cleanup(func() { e.Close() })
	p := &pooled{s: s}
	for range controllers {
		c, err := New(Config{Subsystem: s})
		noError(t, err)
		t.Cleanup(func() { noError(t, c.Close()) })
		g := attachGuest(t, c, false, func() worker { return e.PickWorker() })
		t.Cleanup(g.leave)
		g.enable()
		g.enableNotices()
		p.guests = append(p.guests, g)
	}
	return p
}

// create executes Namespace Management, create.
func (g *guest) create(id spec.IdentifyNamespace) (nsid uint32, st spec.Status) {
	g.t.Helper()
	at := g.alloc(1)
	id.Put(g.bytes(at, spec.IdentifySize))
	c := g.do(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceCreate, PRP1: at})
	return c.DW0, c.Status
}

// attachment executes Namespace Attachment.
func (g *guest) attachment(sel, nsid uint32, controllers ...uint16) spec.Status {
	g.t.Helper()
	at := g.alloc(1)
	spec.PutControllerList(g.bytes(at, spec.IdentifySize), controllers)
	return g.do(spec.SubmissionEntry{Opcode: spec.AdminNamespaceAttachment, CDW10: sel, NSID: nsid, PRP1: at}).Status
}

// identified executes Identify.
func (g *guest) identified(cns uint8, nsid uint32) []byte {
	g.t.Helper()
	at := g.alloc(1)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: uint32(cns), NSID: nsid, PRP1: at})
	return g.bytes(at, spec.IdentifySize)
}

func (g *guest) controllersOf(nsid uint32) []uint16 {
	g.t.Helper()
	ids, _ := spec.ControllerList(g.identified(spec.CNSNamespaceControllers, nsid))
	return ids
}

func (g *guest) unallocated() uint64 {
	g.t.Helper()
	var id spec.IdentifyController
	id.Get(g.identified(spec.CNSController, 0))
	return id.UnallocatedCapacity[0]
}

func TestNamespaceIsMadeAttachedUsedAndDeleted(t *testing.T) {
	holdings.CheckLeaks(t)
	p := newPooled(t, SubsystemConfig{}, 2)
	a, b := p.guests[0], p.guests[1]
	free := a.unallocated()
	if free != 64<<20 {
		t.Fatalf("%d bytes free", free)
	}
	nsid, st := a.create(spec.IdentifyNamespace{Size: 2048, Capacity: 2048, FLBAS: 1, NMIC: spec.NMICShared})
	if !st.OK() || nsid != 1 {
		t.Fatalf("namespace %d, %v", nsid, st)
	}
	if left := a.unallocated(); left != free-8<<20 {
		t.Errorf("%d bytes are left of %d", left, free)
	}
	if ids := spec.NamespaceList(a.identified(spec.CNSActiveNamespaces, 0)); ids != nil {
		t.Errorf("active before it is attached: %d", ids)
	}
	if ids := spec.NamespaceList(b.identified(spec.CNSAllocatedNamespaces, 0)); !slices.Equal(ids, []uint32{1}) {
		t.Errorf("allocated: %d", ids)
	}
	var id spec.IdentifyNamespace
	id.Get(b.identified(spec.CNSAllocatedNamespace, 1))
	if id.Size != 2048 || id.FLBAS != 1 || id.NMIC != spec.NMICShared {
		t.Errorf("allocated namespace: %+v", id)
	}
	if id.Get(a.identified(spec.CNSNamespace, 1)); id.Size != 0 {
		t.Errorf("an inactive namespace: %+v", id)
	}
	for _, g := range p.guests {
		g.notice(func() {
			if st := g.attachment(spec.NamespaceAttach, 1, g.c.id()); !st.OK() {
				t.Fatal(st)
			}
		})
		if list := g.changedList(); !slices.Equal(list, []uint32{1}) {
			t.Errorf("changed: %d", list)
		}
	}
	if ids := a.controllersOf(1); !slices.Equal(ids, []uint16{1, 2}) {
		t.Errorf("controllers %d", ids)
	}
	// What one controller writes another reads.
	data := a.alloc(1)
	copy(a.bytes(data, 5), "hello")
	if st := a.createQueue(1, 8).status(rw(spec.NVMWrite, 1, 2047, 1, data, 0)); !st.OK() {
		t.Error(st)
	}
	data, q := b.alloc(1), b.createQueue(1, 8)
	if st := q.status(rw(spec.NVMRead, 1, 2047, 1, data, 0)); !st.OK() || string(b.bytes(data, 5)) != "hello" {
		t.Errorf("%v, %q", st, b.bytes(data, 5))
	}
	if st := a.attachment(spec.NamespaceDetach, 1, 2); !st.OK() {
		t.Error(st)
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 1, data, 0)); st != badField {
		t.Errorf("detached: %v", st)
	}
	a.notice(func() {
		a.must(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: 1})
	})
	if left := a.unallocated(); left != free {
		t.Errorf("%d bytes are left of %d", left, free)
	}
	// Another one of the same number is not the same.
	first := id
	if nsid, st = a.create(spec.IdentifyNamespace{Size: 8, Capacity: 8}); !st.OK() || nsid != 1 {
		t.Fatalf("namespace %d, %v", nsid, st)
	}
	if id.Get(a.identified(spec.CNSAllocatedNamespace, 1)); id.NGUID == first.NGUID || id.EUI64 == first.EUI64 {
		t.Error("another namespace has the same identifiers")
	}
	a.must(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: spec.BroadcastNSID})
	if ids := spec.NamespaceList(b.identified(spec.CNSAllocatedNamespaces, 0)); ids != nil {
		t.Errorf("allocated: %d", ids)
	}
}

func TestNamespaceManagementRefusals(t *testing.T) {
	holdings.CheckLeaks(t)
	p := newPooled(t, SubsystemConfig{Namespaces: []Namespace{{Backend: memory(t, 1<<20)}}}, 2)
	g := p.guests[0]
	private, st := g.create(spec.IdentifyNamespace{Size: 8, Capacity: 8})
	if !st.OK() || private != 2 {
		t.Fatal(private, st)
	}
	const dnr = spec.StatusDNR
	for _, c := range []struct {
		name string
		id   spec.IdentifyNamespace
		want spec.Status
	}{
		{"no blocks", spec.IdentifyNamespace{}, badField},
		{"more capacity than blocks", spec.IdentifyNamespace{Size: 4, Capacity: 8}, badField},
		{"thin", spec.IdentifyNamespace{Size: 8, Capacity: 4}, spec.ThinProvisioningNotSupported | dnr},
		{"too large", spec.IdentifyNamespace{Size: 1 << 20, Capacity: 1 << 20}, spec.NamespaceInsufficientCapacity | dnr},
		{"absurdly large", spec.IdentifyNamespace{Size: 1 << 63, Capacity: 1 << 63}, spec.NamespaceInsufficientCapacity | dnr},
		{"unknown format", spec.IdentifyNamespace{Size: 8, Capacity: 8, FLBAS: 0x4f}, spec.InvalidFormat | dnr},
		{"protection without metadata", spec.IdentifyNamespace{Size: 8, Capacity: 8, DPS: 1}, spec.InvalidFormat | dnr},
		{"sharing of a kind that is not defined", spec.IdentifyNamespace{Size: 8, Capacity: 8, NMIC: 2}, badField},
		{"another endurance group", spec.IdentifyNamespace{Size: 8, Capacity: 8, EnduranceGroup: 2}, badField},
		{"NVM set", spec.IdentifyNamespace{Size: 8, Capacity: 8, NVMSet: 1}, badField},
		{"ANA group", spec.IdentifyNamespace{Size: 8, Capacity: 8, ANAGroup: 1}, badField},
	} {
		if _, st := g.create(c.id); st.Code() != c.want.Code() || !st.DNR() {
			t.Errorf("create, %s: %v, want %v", c.name, st, c.want)
		}
	}
	management := func(e spec.SubmissionEntry) func() spec.Status {
		e.Opcode, e.PRP1 = spec.AdminNamespaceManagement, g.alloc(1)
		return func() spec.Status { return g.do(e).Status }
	}
	attachment := func(sel, nsid uint32, ids ...uint16) func() spec.Status {
		return func() spec.Status { return g.attachment(sel, nsid, ids...) }
	}
	for _, c := range []struct {
		name string
		do   func() spec.Status
		want spec.Status
	}{
		{"unknown operation", management(spec.SubmissionEntry{CDW10: 2}), badField},
		{"create with a number", management(spec.SubmissionEntry{NSID: 3}), badField},
		{"create of another command set", management(spec.SubmissionEntry{CDW11: 2 << 24}), spec.CommandSetNotSupported | dnr},
		{"delete 0", management(spec.SubmissionEntry{CDW10: 1}), spec.InvalidNamespaceOrFormat | dnr},
		{"delete what is not there", management(spec.SubmissionEntry{CDW10: 1, NSID: 3}), badField},
		{"delete beyond the last", management(spec.SubmissionEntry{CDW10: 1, NSID: MaxNamespaces + 1}), spec.InvalidNamespaceOrFormat | dnr},
		{"attach an unknown operation", attachment(2, 1, 1), badField},
		{"attach what is not there", attachment(0, 3, 1), badField},
		{"attach all", attachment(0, spec.BroadcastNSID, 1), spec.InvalidNamespaceOrFormat | dnr},
		{"attach to nobody", attachment(0, 2), spec.ControllerListInvalid | dnr},
		{"attach to a controller that is not there", attachment(0, 2, 1, 3), spec.ControllerListInvalid | dnr},
		{"attach to controller 0", attachment(0, 2, 0), spec.ControllerListInvalid | dnr},
		{"attach twice in a list", attachment(0, 2, 1, 1), spec.ControllerListInvalid | dnr},
		{"attach out of order", attachment(0, 2, 2, 1), spec.ControllerListInvalid | dnr},
		{"attach a private one to two", attachment(0, 2, 1, 2), spec.NamespaceIsPrivate | dnr},
		{"attach a private one", attachment(0, 2, 1), spec.Success},
		{"attach a private one to another", attachment(0, 2, 2), spec.NamespaceIsPrivate | dnr},
		{"attach again", attachment(0, 2, 1), spec.NamespaceAlreadyAttached | dnr},
		{"detach from who has it not", attachment(1, 2, 1, 2), spec.NamespaceNotAttached | dnr},
		{"detach", attachment(1, 2, 1), spec.Success},
		{"detach again", attachment(1, 2, 1), spec.NamespaceNotAttached | dnr},
	} {
		if st := c.do(); st.Code() != c.want.Code() || st.DNR() != c.want.DNR() {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
	g.c.subsystem.mu.Lock()
	pool := g.c.subsystem.cfg.Pool
	g.c.subsystem.mu.Unlock()
	if total, free := pool.Capacity(); free != total-4096 {
		t.Errorf("refused commands have taken %d of %d bytes", total-free-4096, total)
	}
}

// What hosts have made of the namespaces is there again after a restart.
func TestLayoutOutlivesTheProcess(t *testing.T) {
	holdings.CheckLeaks(t)
	dir := t.TempDir()
	start := func(t *testing.T, run func(p *pooled)) {
		t.Run("", func(t *testing.T) {
			noError(t, os.MkdirAll(filepath.Join(dir, "pool"), 0o700))
			pool, err := block.OpenPool("dir:" + filepath.Join(dir, "pool") + ":64M")
			noError(t, err)
			run(newPooled(t, SubsystemConfig{
				Pool: pool, StateDir: filepath.Join(dir, "state"), Namespaces: []Namespace{{Backend: memory(t, 1<<20)}, {Backend: memory(t, 1<<20)}},
			}, 2))
		})
	}
	var guid [16]byte
	start(t, func(p *pooled) {
		g := p.guests[0]
		for i := range 2 { // the second one has other identifiers
			if nsid, st := g.create(spec.IdentifyNamespace{Size: 1024, Capacity: 1024, FLBAS: 1, NMIC: 1}); !st.OK() || nsid != 3 {
				t.Fatal(nsid, st)
			}
			if st := g.attachment(spec.NamespaceAttach, 3, 2); !st.OK() {
				t.Fatal(st)
			}
			if i == 0 {
				g.must(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: 3})
			}
		}
		g.must(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: 1})
		g.must(spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, CDW10: 1, NSID: 2})
		if st := g.attachment(spec.NamespaceDetach, 2, 1); !st.OK() {
			t.Fatal(st)
		}
		b := p.guests[1]
		data := b.alloc(1)
		copy(b.bytes(data, 5), "stays")
		if st := b.createQueue(1, 8).status(rw(spec.NVMWrite, 3, 7, 1, data, 0)); !st.OK() {
			t.Fatal(st)
		}
		guid = p.s.allocated(3).nguid
	})
	start(t, func(p *pooled) {
		a, b := p.guests[0], p.guests[1]
		if ids := spec.NamespaceList(a.identified(spec.CNSAllocatedNamespaces, 0)); !slices.Equal(ids, []uint32{2, 3}) {
			t.Errorf("allocated %d", ids)
		}
		if got := a.controllersOf(2); !slices.Equal(got, []uint16{2}) {
			t.Errorf("namespace 2 has controllers %d", got)
		}
		if got := a.controllersOf(3); !slices.Equal(got, []uint16{2}) {
			t.Errorf("namespace 3 has controllers %d", got)
		}
		if ns := p.s.allocated(2); ns.shift != 12 {
			t.Errorf("namespace 2 has blocks of %d bytes", 1<<ns.shift)
		}
		if ns := p.s.allocated(3); ns.nguid != guid {
			t.Error("namespace 3 has other identifiers")
		}
		data := b.alloc(1)
		if st := b.createQueue(1, 8).status(rw(spec.NVMRead, 3, 7, 1, data, 0)); !st.OK() || string(b.bytes(data, 5)) != "stays" {
			t.Errorf("%v, %q", st, b.bytes(data, 5))
		}
	})
}

// A namespace of the configuration that a host has deleted leaves its number to another one,
// also after a restart.
func TestNumberOfADeletedNamespaceOutlivesTheProcess(t *testing.T) {
	holdings.CheckLeaks(t)
	dir := t.TempDir()
	noError(t, os.MkdirAll(filepath.Join(dir, "pool"), 0o700))
	remove := spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: 1}
	for i, run := range []func(p *pooled, g *guest){
		func(p *pooled, g *guest) {
			g.must(remove)
			if nsid, st := g.create(spec.IdentifyNamespace{Size: 1024, Capacity: 1024, NMIC: 1}); !st.OK() || nsid != 1 {
				t.Fatal(nsid, st)
			}
		},
		func(p *pooled, g *guest) {
			if ns := p.s.allocated(1); ns == nil || ns.blocks != 1024 {
				t.Error("the namespace of the host is not there")
			}
			g.must(remove)
			if _, err := p.s.AddNamespace(Namespace{Backend: memory(t, 2<<20)}); err != nil {
				t.Fatal(err)
			}
			p.s.mu.Lock()
			p.s.keepLayout()
			p.s.mu.Unlock()
		},
		func(p *pooled, g *guest) {
			if p.s.allocated(1) != nil {
				t.Error("the deleted namespace is there again")
			}
		},
	} {
		t.Run("", func(t *testing.T) {
			pool, err := block.OpenPool("dir:" + filepath.Join(dir, "pool") + ":64M")
			noError(t, err)
			p := newPooled(t, SubsystemConfig{
				Pool: pool, StateDir: filepath.Join(dir, "state"), Namespaces: []Namespace{{Backend: memory(t, 1<<20)}},
			}, 1)
			run(p, p.guests[0])
		})
		if t.Failed() {
			t.Fatalf("process %d", i)
		}
	}
}

// Who attaches and detaches a namespace leaves alone those that are not there at the time.
func TestControllersThatAreAwayKeepTheirNamespaces(t *testing.T) {
	p := newPooled(t, SubsystemConfig{}, 1)
	g := p.guests[0]
	second, err := New(Config{Subsystem: p.s})
	noError(t, err)
	for _, private := range []bool{false, true} {
		id := spec.IdentifyNamespace{Size: 1024, Capacity: 1024, NMIC: spec.NMICShared}
		if private {
			id.NMIC = 0
		}
		nsid, st := g.create(id)
		if !st.OK() {
			t.Fatal(st)
		}
		if st := g.attachment(spec.NamespaceAttach, nsid, 2); !st.OK() {
			t.Fatal(st)
		}
		noError(t, second.Close())
		if st := g.attachment(spec.NamespaceAttach, nsid, 1); !st.OK() {
			t.Fatal(st)
		}
		second, err = New(Config{Subsystem: p.s})
		noError(t, err)
		want := []uint16{1, 2}
		if private {
			want = []uint16{1} // it can have but one
		}
		if got := g.controllersOf(nsid); !slices.Equal(got, want) {
			t.Errorf("private %v: controllers %d, want %d", private, got, want)
		}
	}
	noError(t, second.Close())
}

// A subsystem that cannot be made leaves nothing of the pool open.
func TestSubsystemThatCannotBeMadeClosesItsVolumes(t *testing.T) {
	holdings.CheckLeaks(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	noError(t, os.MkdirAll(filepath.Join(dir, "pool"), 0o700))
	open := func() block.Pool {
		pool, err := block.OpenPool("dir:" + filepath.Join(dir, "pool") + ":64M")
		noError(t, err)
		return pool
	}
	t.Run("", func(t *testing.T) {
		g := newPooled(t, SubsystemConfig{Pool: open(), StateDir: state}, 1).guests[0]
		if _, st := g.create(spec.IdentifyNamespace{Size: 1024, Capacity: 1024}); !st.OK() {
			t.Fatal(st)
		}
	})
	noError(t, os.WriteFile(filepath.Join(state, "reservations.json"), []byte("?"), 0o600))
	pool := open()
	if _, err := NewSubsystem(SubsystemConfig{Serial: "pooled", Pool: pool, StateDir: state}); err == nil {
		t.Error("no error")
	}
	noError(t, pool.Close())
}

// stuck is a pool that the process leaves before it has given back a volume.
type stuck struct{ block.Pool }

func (stuck) Remove(string) error { return syscall.EINTR }

// What a deleted namespace had in the pool is given back after a crash, whether another one has
// its number now or none.
func TestStorageOfADeletedNamespaceDoesNotOutliveTheProcess(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, again := range []bool{false, true} {
		dir := t.TempDir()
		noError(t, os.MkdirAll(filepath.Join(dir, "pool"), 0o700))
		open := func(t *testing.T) block.Pool {
			pool, err := block.OpenPool("dir:" + filepath.Join(dir, "pool") + ":64M")
			noError(t, err)
			return pool
		}
		create := func(g *guest, id uint32) {
			t.Helper()
			if nsid, st := g.create(spec.IdentifyNamespace{Size: 2048, Capacity: 2048}); !st.OK() || nsid != id {
				t.Fatal(nsid, st)
			}
		}
		want := int64(64<<20 - 1<<20)
		t.Run("", func(t *testing.T) {
			g := newPooled(t, SubsystemConfig{Pool: stuck{open(t)}, StateDir: filepath.Join(dir, "state"), Logger: slog.New(slog.DiscardHandler)}, 1).guests[0]
			create(g, 1)
			create(g, 2)
			g.must(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceDelete, NSID: 1})
			if again {
				create(g, 1)
				want -= 1 << 20
			}
		})
		t.Run("", func(t *testing.T) {
			pool := open(t)
			newPooled(t, SubsystemConfig{Pool: pool, StateDir: filepath.Join(dir, "state")}, 1)
			if _, free := pool.Capacity(); free != want {
				t.Errorf("another of the number %v: %d bytes are free, want %d", again, free, want)
			}
		})
	}
}
