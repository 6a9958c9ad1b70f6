package nvme

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

func formatCommand(nsid uint32, f spec.FormatNVM) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: nsid, CDW10: f.Word()}
}

func TestFormatErasesAndChangesBlocks(t *testing.T) {
	holdings.CheckLeaks(t)
	g := newGuest(t, rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}})
	g.enable()
	g.enableNotices()
	q := g.createQueue(1, 8)
	data := g.alloc(1)
	for _, c := range []struct {
		name  string
		nsid  uint32
		f     spec.FormatNVM
		size  int
		other bool // the other namespace is formatted too
	}{
		{"4096", 1, spec.FormatNVM{Format: 1}, 4096, false},
		{"the same again", 1, spec.FormatNVM{Format: 1, Erase: spec.EraseUser}, 4096, false},
		{"512", 1, spec.FormatNVM{Erase: spec.EraseCrypto}, 512, false},
		{"all", spec.BroadcastNSID, spec.FormatNVM{Format: 1}, 4096, true},
	} {
		for nsid := uint32(1); nsid <= 2; nsid++ {
			copy(g.bytes(data, 5), "hello")
			if st := q.status(rw(spec.NVMWrite, nsid, 0, 1, data, 0)); !st.OK() {
				t.Fatal(st)
			}
			if st := q.status(rw(spec.NVMWriteUncorrectable, nsid, 1, 1, 0, 0)); !st.OK() {
				t.Fatal(st)
			}
		}
		g.notice(func() { g.must(formatCommand(c.nsid, c.f)) })
		g.changedList()
		for nsid := uint32(1); nsid <= 2; nsid++ {
			erased := nsid == 1 || c.other
			if st := q.status(rw(spec.NVMRead, nsid, 0, 1, data, 0)); !st.OK() || (string(g.bytes(data, 5)) != "hello") != erased {
				t.Errorf("%s: namespace %d: %v, %q", c.name, nsid, st, g.bytes(data, 5))
			}
			if st := q.status(rw(spec.NVMRead, nsid, 1, 1, data, 0)); st.OK() != erased {
				t.Errorf("%s: namespace %d, the block that could not be read: %v", c.name, nsid, st)
			}
		}
		var id spec.IdentifyNamespace
		id.Get(g.identified(spec.CNSNamespace, 1))
		if id.BlockSize() != c.size || id.Size != uint64(1<<20/c.size) {
			t.Errorf("%s: %d blocks of %d bytes", c.name, id.Size, id.BlockSize())
		}
	}
}

func TestFormatRefusals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	noError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	readOnly, err := block.File(path, block.FileOptions{ReadOnly: true})
	noError(t, err)
	g := newGuest(t, rig{backends: []block.Backend{memory(t, 1<<20), readOnly, memory(t, 512)}})
	g.enable()
	const dnr = spec.StatusDNR
	for _, c := range []struct {
		name string
		nsid uint32
		f    spec.FormatNVM
		want spec.Status
	}{
		{"no such format", 1, spec.FormatNVM{Format: 63}, spec.InvalidFormat | dnr},
		{"protection without metadata", 1, spec.FormatNVM{Protection: 1}, spec.InvalidFormat | dnr},
		{"protection of a kind that is not defined", 1, spec.FormatNVM{Format: 2, Protection: 4}, spec.InvalidFormat | dnr},
		{"protection in the first bytes", 1, spec.FormatNVM{Format: 2, Protection: 1, First: true}, spec.InvalidFormat | dnr},
		{"erasure that is not defined", 1, spec.FormatNVM{Erase: 3}, badField},
		{"namespace 0", 0, spec.FormatNVM{}, spec.InvalidNamespaceOrFormat | dnr},
		{"namespace that is not there", 4, spec.FormatNVM{}, badField},
		{"read-only namespace", 2, spec.FormatNVM{}, spec.NamespaceWriteProtected | dnr},
		{"a read-only one among all", spec.BroadcastNSID, spec.FormatNVM{}, spec.NamespaceWriteProtected | dnr},
		{"blocks larger than the namespace", 3, spec.FormatNVM{Format: 1}, spec.InvalidFormat | dnr},
	} {
		if st := g.do(formatCommand(c.nsid, c.f)).Status; st.Code() != c.want.Code() || st.DNR() != c.want.DNR() {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
	if g.c.namespace(1).formatting.Load() {
		t.Error("a refused format goes on")
	}
}

// held keeps Write Zeroes until it is let go.
type held struct {
	block.Backend
	arrived chan struct{}
	letGo   chan struct{}
}

func (b held) Submit(r *block.Request) (bool, error) {
	if r.Op == block.WriteZeroes {
		b.arrived <- struct{}{}
		<-b.letGo
	}
	return b.Backend.Submit(r)
}

// While a namespace is formatted its commands are refused, and may be tried again later; a
// reset ends the format.
func TestCommandsDuringAFormat(t *testing.T) {
	holdings.CheckLeaks(t)
	slow := held{memory(t, 4<<20), make(chan struct{}), make(chan struct{})}
	g := newGuest(t, rig{backends: []block.Backend{slow, memory(t, 1<<20)}})
	g.enable()
	q := g.createQueue(1, 8)
	data := g.alloc(1)
	cid := g.admin.submit(formatCommand(1, spec.FormatNVM{Format: 1}))
	<-slow.arrived
	for _, op := range []uint8{spec.NVMRead, spec.NVMWrite, spec.NVMCompare, spec.NVMVerify, spec.NVMFlush, spec.NVMWriteZeroes} {
		if st := q.status(rw(op, 1, 0, 1, data, 0)); st.Code() != spec.FormatInProgress || st.DNR() {
			t.Errorf("command %#x: %v", op, st)
		}
	}
	if st := g.do(formatCommand(1, spec.FormatNVM{})).Status; st.Code() != spec.FormatInProgress {
		t.Errorf("format during a format: %v", st)
	}
	if st := q.status(rw(spec.NVMRead, 2, 0, 1, data, 0)); !st.OK() {
		t.Errorf("another namespace: %v", st)
	}
	var id spec.IdentifyNamespace
	if id.Get(g.identified(spec.CNSNamespace, 1)); id.FPI != spec.FPISupported|100 {
		t.Errorf("FPI %#x", id.FPI)
	}
	slow.letGo <- struct{}{}
	if c := g.admin.result(cid); !c.Status.OK() {
		t.Error(c.Status)
	}
	if id.Get(g.identified(spec.CNSNamespace, 1)); id.FPI != spec.FPISupported || id.BlockSize() != 4096 {
		t.Errorf("FPI %#x, blocks of %d bytes", id.FPI, id.BlockSize())
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 1, data, 0)); !st.OK() {
		t.Error(st)
	}
	g.admin.submit(formatCommand(1, spec.FormatNVM{}))
	<-slow.arrived
	g.write32(spec.RegCC, 0)
	slow.letGo <- struct{}{}
	g.until("reset", func() bool { return g.csts() == 0 })
	g.enable()
	q = g.createQueue(1, 8)
	if st := q.status(rw(spec.NVMRead, 1, 0, 1, data, 0)); !st.OK() {
		t.Errorf("after the reset: %v", st)
	}
}

// The storage may become smaller between the check of a Format NVM and its turn.
func TestFormatOfStorageThatHasBecomeTooSmall(t *testing.T) {
	g := newGuest(t, rig{backends: []block.Backend{memory(t, 2048)}})
	s := g.c.subsystem
	by := &courier{h: g.c.host, ended: make(chan error, 1)}
	st := s.format(context.Background(), s.allocated(1).allocation, format{index: 1}, by)
	if ns := s.allocated(1); st != spec.InvalidFormat|spec.StatusDNR || ns.blocks != 4 {
		t.Errorf("%v, %d blocks", st, ns.blocks)
	}
}

// A defect under a format ends the client that asked for it; the others can use the namespace, and
// format it again.
func TestFormatThatPanics(t *testing.T) {
	b := &slowBackend{Backend: memory(t, 1<<20)}
	var defect atomic.Bool
	b.fail = func(r *block.Request) error {
		if r.Op == block.WriteZeroes && defect.Load() {
			panic("defect")
		}
		return nil
	}
	guests, queues := sharing(t, 2, rig{backends: []block.Backend{b, memory(t, 1<<20)}})
	defect.Store(true)
	guests[0].admin.submit(formatCommand(spec.BroadcastNSID, spec.FormatNVM{}))
	guests[0].until("the client to be ended", func() bool { return guests[0].s.failure() != nil })
	defect.Store(false)
	g, q := guests[1], queues[1]
	zeroes := g.alloc(1)
	for nsid := uint32(1); nsid <= 2; nsid++ {
		g.until("the format to end", func() bool {
			return q.status(rw(spec.NVMCompare, nsid, 0, 1, zeroes, 0)) != spec.FormatInProgress
		})
		if st := g.do(formatCommand(nsid, spec.FormatNVM{})).Status; !st.OK() {
			t.Errorf("namespace %d: %v", nsid, st)
		}
		if st := q.status(rw(spec.NVMCompare, nsid, 0, 1, zeroes, 0)); !st.OK() {
			t.Errorf("namespace %d: %v", nsid, st)
		}
	}
}
