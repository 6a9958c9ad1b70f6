package nvme

import (
	"strings"
	"sync"
	"testing"

	"vfiouser/devices/nvme/spec"
)

func commit(slot, action uint32) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: spec.AdminFirmwareCommit, CDW10: slot | action<<3}
}

// download sends a piece of an image.
func (g *guest) download(page uint64, off int, piece []byte) spec.Status {
	g.t.Helper()
	copy(g.bytes(page, len(piece)), piece)
	return g.do(spec.SubmissionEntry{Opcode: spec.AdminFirmwareDownload, PRP1: page, CDW10: uint32(len(piece)/4 - 1), CDW11: uint32(off / 4)}).Status
}

func image(t *testing.T, revision string) []byte {
	t.Helper()
	b, err := FirmwareImage(revision, make([]byte, 5000))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (g *guest) install(page uint64, revision string, slot, action uint32) spec.Status {
	g.t.Helper()
	b := image(g.t.(*testing.T), revision)
	for off := 0; off < len(b); off += firmwareUnit {
		if st := g.download(page, off, b[off:off+firmwareUnit]); !st.OK() {
			g.t.Fatal(st)
		}
	}
	return g.do(commit(slot, action)).Status
}

func (g *guest) slots(page uint64) (l spec.FirmwareLog) {
	g.t.Helper()
	_, b := g.log(spec.LogFirmware, spec.FirmwareSize, 0, page)
	l.Get(b)
	return l
}

func (g *guest) revision(page uint64) string {
	g.t.Helper()
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: page})
	var id spec.IdentifyController
	id.Get(g.bytes(page, pageSize))
	return id.Firmware
}

func TestFirmwareIsActivatedByAReset(t *testing.T) {
	g, page := adminGuest(t, rig{})
	if st := g.install(page, "2.0", 2, spec.CommitReplaceActivate); !st.OK() {
		t.Fatal(st)
	}
	if l := g.slots(page); l.ActiveSlot != 1 || l.NextSlot != 2 || l.Revisions[1] != "2.0" || g.revision(page) != defaultFW {
		t.Errorf("before the reset: %+v", l)
	}
	g.reset()
	if l := g.slots(page); l.ActiveSlot != 2 || l.NextSlot != 0 || g.revision(page) != "2.0" {
		t.Errorf("after the reset: %+v", l)
	}
	// Another image in the active slot does not run before it is activated.
	if st := g.install(page, "2.1", 2, spec.CommitReplace); !st.OK() {
		t.Fatal(st)
	}
	g.reset()
	if l := g.slots(page); l.Revisions[1] != "2.1" || g.revision(page) != "2.0" {
		t.Errorf("runs %q, slots %+v", g.revision(page), l)
	}
	g.must(commit(2, spec.CommitActivate))
	g.reset()
	if r := g.revision(page); r != "2.1" {
		t.Errorf("runs %q", r)
	}
	g.must(commit(1, spec.CommitActivate))
	g.reset()
	if l := g.slots(page); l.ActiveSlot != 1 || g.revision(page) != defaultFW {
		t.Errorf("the first one again: %+v", l)
	}
}

func TestFirmwareIsActivatedWithoutAReset(t *testing.T) {
	g, page := adminGuest(t, rig{})
	featureTester{g, page}.set(spec.FeatAsyncEvents, 0, spec.AsyncConfigFirmware)
	aer := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	if st := g.install(page, "3.0", 0, spec.CommitActivateNow); !st.OK() {
		t.Fatal(st)
	}
	if r := spec.AsyncResult(g.admin.result(aer).DW0); r != spec.NewAsyncResult(spec.AsyncNotice, spec.AsyncFirmwareActivation, spec.LogFirmware) {
		t.Errorf("event %#x", uint32(r))
	}
	if l := g.slots(page); l.ActiveSlot != 2 || g.revision(page) != "3.0" {
		t.Errorf("%+v", l)
	}
	if st := g.install(page, "4.0", 0, spec.CommitReplace); !st.OK() || g.slots(page).Revisions[2] != "4.0" {
		t.Errorf("into the spare slot: %v", st)
	}
	g.must(commit(3, spec.CommitActivateNow))
	if r := g.revision(page); r != "4.0" {
		t.Errorf("revision %q", r)
	}
	e := g.events(page).Events[0]
	var fw spec.FirmwareEvent
	fw.Get(e.Data)
	if e.Type != spec.EventFirmwareCommit || fw != (spec.FirmwareEvent{Old: "3.0", New: "4.0", Action: 3, Slot: 3}) {
		t.Errorf("event %#x: %+v", e.Type, fw)
	}
	n := g.move(rig{})
	if r := n.revision(page); r != "4.0" {
		t.Errorf("revision %q after a move", r)
	}
}

func TestFirmwareRefusals(t *testing.T) {
	g, page := adminGuest(t, rig{})
	good := image(t, "5.0")
	for _, c := range []struct {
		name string
		do   func() spec.Status
		want spec.Status
	}{
		{"half a page", func() spec.Status { return g.download(page, 0, good[:2048]) }, spec.InvalidField},
		{"from the middle of a page", func() spec.Status { return g.download(page, 2048, good[:4096]) }, spec.InvalidField},
		{"beyond any image", func() spec.Status { return g.download(page, maxFirmware, good[:4096]) }, spec.InvalidField},
		{"no image", func() spec.Status { return g.do(commit(2, spec.CommitReplace)).Status }, spec.InvalidFirmwareImage},
		{"slot beyond the last", func() spec.Status { return g.do(commit(4, spec.CommitReplace)).Status }, spec.InvalidFirmwareSlot},
		{"empty slot", func() spec.Status { return g.do(commit(2, spec.CommitActivate)).Status }, spec.InvalidFirmwareImage},
		{"no slot", func() spec.Status { return g.do(commit(0, spec.CommitActivate)).Status }, spec.InvalidFirmwareSlot},
		{"boot partition", func() spec.Status { return g.do(commit(0, 6)).Status }, spec.InvalidField},
		{"reserved action", func() spec.Status { return g.do(commit(1, 4)).Status }, spec.InvalidField},
		{"slot that is read-only", func() spec.Status { return g.install(page, "5.0", 1, spec.CommitReplace) }, spec.InvalidFirmwareSlot},
		{"a piece twice", func() spec.Status { return g.download(page, 4096, good[4096:]) }, spec.OverlappingRange},
	} {
		t.Run(c.name, func(t *testing.T) {
			if st := c.do(); st != c.want|spec.StatusDNR {
				t.Errorf("%v, want %v", st, c.want)
			}
		})
	}
	// What is damaged, or has a hole, is no image.
	g.reset()
	bad := append([]byte(nil), good...)
	bad[100]++
	g.download(page, 0, bad[:4096])
	g.download(page, 4096, bad[4096:])
	if st := g.do(commit(2, spec.CommitReplace)).Status; st != spec.InvalidFirmwareImage|spec.StatusDNR {
		t.Errorf("damaged: %v", st)
	}
	g.download(page, 4096, good[4096:])
	if st := g.do(commit(2, spec.CommitReplace)).Status; st != spec.InvalidFirmwareImage|spec.StatusDNR {
		t.Errorf("with a hole: %v", st)
	}
	if _, err := FirmwareImage(strings.Repeat("x", 9), nil); err == nil {
		t.Error("revision of 9 characters")
	}
	if _, err := FirmwareImage("1", make([]byte, maxFirmware)); err == nil {
		t.Error("an image that is too large")
	}
}

// Controllers of a subsystem that commit at the same time do not undo what the other one does.
func TestFirmwareOfTwoControllers(t *testing.T) {
	guests, _ := sharing(t, 2, rig{})
	f := &guests[0].c.subsystem.firmware
	image, err := FirmwareImage("9.9", make([]byte, maxFirmware-firmwareHeader)) // the sum takes its time
	noError(t, err)
	for range 50 {
		f.load(newFirmware("1.0"))
		var begin, end sync.WaitGroup
		begin.Add(1)
		for slot := range 2 {
			d := &download{Image: image, Pieces: map[uint64]bool{}}
			for piece := range len(image) / firmwareUnit {
				d.Pieces[uint64(piece)] = true
			}
			end.Go(func() {
				begin.Wait()
				if _, _, _, st := f.commit(slot+2, spec.CommitReplace, d); !st.OK() {
					t.Error(st)
				}
			})
		}
		begin.Done()
		end.Wait()
		if got := f.state().Revisions; got != [firmwareSlots]string{"1.0", "9.9", "9.9"} {
			t.Fatalf("slots %q", got)
		}
	}
}
