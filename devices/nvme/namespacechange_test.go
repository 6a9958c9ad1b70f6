package nvme

import (
	"errors"
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

// notice arms an event request and returns its result when it comes.
func (g *guest) notice(do func()) spec.AsyncResult {
	g.t.Helper()
	cid := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	do()
	return spec.AsyncResult(g.admin.result(cid).DW0)
}

// changedList reads the changed namespace list.
func (g *guest) changedList() []uint32 {
	g.t.Helper()
	at := g.alloc(1)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, CDW10: 1023<<16 | spec.LogChangedNS, PRP1: at})
	return spec.NamespaceList(g.bytes(at, spec.IdentifySize))
}

func (g *guest) enableNotices() {
	g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatAsyncEvents, CDW11: 1 << 8})
}

func TestNamespacesComeChangeAndGo(t *testing.T) {
	holdings.CheckLeaks(t)
	g := newGuest(t, rig{backends: []block.Backend{memory(t, 1<<20)}})
	g.enable()
	g.enableNotices()
	q := g.createQueue(1, 16)
	s := g.c.subsystem
	data := g.alloc(1)
	read := func(nsid uint32, lba uint64) spec.Status { return q.status(rw(spec.NVMRead, nsid, lba, 1, data, 0)) }
	changed := spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncNamespaceChanged, spec.LogChangedNS)
	for _, step := range []struct {
		name  string
		do    func() error
		nsid  uint32
		there bool
		last  uint64 // the last block
	}{
		{"added", func() error {
			id, err := s.AddNamespace(Namespace{Backend: memory(t, 2<<20), BlockSize: 4096})
			if id != 2 {
				t.Errorf("namespace %d", id)
			}
			return err
		}, 2, true, 511},
		{"smaller", func() error { return s.ResizeNamespace(2, 1<<20) }, 2, true, 255},
		{"larger", func() error { return s.ResizeNamespace(2, 4<<20) }, 2, true, 1023},
		{"the first one", func() error { return s.ResizeNamespace(1, 4096) }, 1, true, 7},
		{"removed", func() error { return s.RemoveNamespace(2) }, 2, false, 0},
		{"its number again", func() error {
			_, err := s.AddNamespace(Namespace{Backend: memory(t, 1<<20)})
			return err
		}, 2, true, 2047},
		{"the first one removed", func() error { return s.RemoveNamespace(1) }, 1, false, 0},
	} {
		got := g.notice(func() { noError(t, step.do()) })
		if got != changed {
			t.Errorf("%s: event %#x", step.name, got)
		}
		if list := g.changedList(); !slices.Equal(list, []uint32{step.nsid}) {
			t.Errorf("%s: changed %d", step.name, list)
		}
		if list := g.changedList(); list != nil {
			t.Errorf("%s: changed %d once more", step.name, list)
		}
		const gone = spec.InvalidField | spec.StatusDNR
		if !step.there {
			if st := read(step.nsid, 0); st != gone {
				t.Errorf("%s: %v", step.name, st)
			}
			continue
		}
		if st := read(step.nsid, step.last); !st.OK() {
			t.Errorf("%s: the last block: %v", step.name, st)
		}
		if st := read(step.nsid, step.last+1); st != spec.LBAOutOfRange|spec.StatusDNR {
			t.Errorf("%s: behind the last block: %v", step.name, st)
		}
	}
	if list := s.Namespaces(); len(list) != 1 || list[0].ID != 2 || list[0].Blocks != 2048 || list[0].BlockSize != 512 ||
		list[0].Kind != "mem" || !slices.Equal(list[0].Controllers, []uint16{1}) {
		t.Errorf("%+v", list)
	}
}

// What Write Uncorrectable has marked stays so when the size changes.
func TestResizeKeepsUncorrectableBlocks(t *testing.T) {
	g := newGuest(t, rig{backends: []block.Backend{memory(t, 1<<20)}})
	g.enable()
	q := g.createQueue(1, 16)
	data := g.alloc(1)
	mark := rw(spec.NVMWriteUncorrectable, 1, 100, 200, 0, 0)
	if st := q.status(mark); !st.OK() {
		t.Fatal(st)
	}
	noError(t, g.c.subsystem.ResizeNamespace(1, 200*512))
	noError(t, g.c.subsystem.ResizeNamespace(1, 1<<20))
	for lba, want := range map[uint64]spec.Status{99: 0, 100: spec.UnrecoveredRead | spec.StatusDNR, 199: spec.UnrecoveredRead | spec.StatusDNR, 200: 0} {
		if st := q.status(rw(spec.NVMRead, 1, lba, 1, data, 0)); st != want {
			t.Errorf("block %d: %v", lba, st)
		}
	}
}

// fixed cannot change its size.
type fixed struct{ b block.Backend }

func (f fixed) Size() int64                           { return f.b.Size() }
func (f fixed) Info() block.Info                      { return f.b.Info() }
func (f fixed) Submit(r *block.Request) (bool, error) { return f.b.Submit(r) }
func (f fixed) Close() error                          { return f.b.Close() }

func TestImpossibleChangesOfNamespaces(t *testing.T) {
	s := newController(t, &rig{backends: []block.Backend{memory(t, 1<<20), fixed{memory(t, 1<<20)}}, blocks: 4096}).subsystem
	small := memory(t, 512)
	t.Cleanup(func() { small.Close() })
	for _, c := range []struct {
		name string
		do   func() error
		want error
	}{
		{"remove 0", func() error { return s.RemoveNamespace(0) }, ErrNoNamespace},
		{"remove what is not there", func() error { return s.RemoveNamespace(3) }, ErrNoNamespace},
		{"remove the broadcast value", func() error { return s.RemoveNamespace(spec.BroadcastNSID) }, ErrNoNamespace},
		{"resize what is not there", func() error { return s.ResizeNamespace(1025, 1<<20) }, ErrNoNamespace},
		{"size less than a block", func() error { return s.ResizeNamespace(1, 512) }, ErrConfig},
		{"negative size", func() error { return s.ResizeNamespace(1, -4096) }, ErrConfig},
		{"odd size", func() error { return s.ResizeNamespace(1, 8191) }, ErrConfig},
		{"fixed size", func() error { return s.ResizeNamespace(2, 8192) }, ErrResize},
		{"backend of a namespace that is not there", func() error { _, err := s.Backend(7); return err }, ErrNoNamespace},
		{"less than a block", func() error { _, err := s.AddNamespace(Namespace{Backend: small, BlockSize: 4096}); return err }, ErrConfig},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for len(s.Namespaces()) < MaxNamespaces {
		_, err := s.AddNamespace(Namespace{Backend: memory(t, 4096)})
		noError(t, err)
	}
	extra := memory(t, 4096)
	t.Cleanup(func() { extra.Close() })
	if _, err := s.AddNamespace(Namespace{Backend: extra}); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
}

// Nothing is changed in a subsystem that was closed: the backends are not its any more.
func TestChangesOfAClosedSubsystem(t *testing.T) {
	s, err := NewSubsystem(SubsystemConfig{Namespaces: []Namespace{{Backend: memory(t, 1<<20)}}})
	noError(t, err)
	noError(t, s.Close())
	extra := memory(t, 4096)
	t.Cleanup(func() { noError(t, extra.Close()) })
	for name, do := range map[string]func() error{
		"add":                      func() error { _, err := s.AddNamespace(Namespace{Backend: extra}); return err },
		"remove":                   func() error { return s.RemoveNamespace(1) },
		"resize":                   func() error { return s.ResizeNamespace(1, 2<<20) },
		"remove what is not there": func() error { return s.RemoveNamespace(2) },
	} {
		if err := do(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(s.Namespaces()); n != 1 {
		t.Errorf("%d namespaces", n)
	}
}

// What changes while the host reads the list of changed namespaces is in the next list.
func TestNamespaceThatChangesWhileTheListIsRead(t *testing.T) {
	var l changedNamespaces
	l.add(1)
	l.add(64)
	l.list()
	l.add(1)
	l.add(1024)
	if got := l.list(); !slices.Equal(got, []uint32{1, 64, 1024}) {
		t.Errorf("read with its event retained: %d", got)
	}
	l.add(64)
	l.forget()
	if got := l.list(); !slices.Equal(got, []uint32{64}) {
		t.Errorf("after it was read: %d", got)
	}
	l.forget()
	if got := l.list(); len(got) != 0 {
		t.Errorf("after that: %d", got)
	}
}
