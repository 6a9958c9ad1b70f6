package nvme

import (
	"bytes"
	"runtime/debug"
	"slices"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
)

// The memory that admin commands of a fuzzer point at: lists are in its upper half.
const (
	adminWindow = modelData
	windowPages = 24
	windowLists = 16 // the first page of them
)

// adminOpcodes are all that the controller knows, and some that it does not.
var adminOpcodes = func() (list []uint8) {
	for opcode, command := range adminCommands() {
		if command != nil {
			list = append(list, uint8(opcode))
		}
	}
	return append(list, spec.AdminIdentify, spec.AdminGetLogPage, spec.AdminGetFeatures, spec.AdminSetFeatures, 0x03, 0x86, 0x7f, 0xc0)
}()

// featureSizes are the data structures of features in bytes.
var featureSizes = map[uint8]uint64{
	spec.FeatLBARange: 4096, spec.FeatAutonomousPower: 256, spec.FeatTimestamp: 8, spec.FeatHostBehavior: 512,
}

// replySize is how much a command may write to the host at most.
func replySize(e *spec.SubmissionEntry) uint64 {
	if e.Flags&notOfferedAdmin != 0 {
		return 0
	}
	switch e.Opcode {
	case spec.AdminIdentify:
		return spec.IdentifySize
	case spec.AdminGetLogPage:
		return 4 * (uint64(e.CDW11&0xffff)<<16 | uint64(e.CDW10>>16) + 1)
	case spec.AdminGetFeatures:
		if uint8(e.CDW10) == spec.FeatHostIdentifier {
			return 8 << (e.CDW11 & 1)
		}
		return featureSizes[uint8(e.CDW10)]
	case spec.AdminDirectiveReceive:
		return 4 * (uint64(e.CDW10) + 1)
	case spec.AdminSecurityReceive:
		return uint64(e.CDW11)
	}
	return 0
}

// Statuses that any admin command may have, and those of some only.
var (
	adminStatuses = []spec.Status{
		spec.Success, spec.InvalidField, spec.DataTransferError, spec.InvalidNamespaceOrFormat, spec.InvalidPRPOffset, spec.SanitizeInProgress,
		spec.ReservationConflict,
	}
	ownStatuses = map[uint8][]spec.Status{
		spec.AdminDeleteSQ:         {spec.InvalidQueueID},
		spec.AdminCreateSQ:         {spec.InvalidQueueID, spec.InvalidQueueSize, spec.CompletionQueueInvalid},
		spec.AdminGetLogPage:       {spec.InvalidLogPage, spec.CommandSequenceError},
		spec.AdminDeleteCQ:         {spec.InvalidQueueID, spec.InvalidQueueDeletion},
		spec.AdminCreateCQ:         {spec.InvalidQueueID, spec.InvalidQueueSize, spec.InvalidInterruptVector},
		spec.AdminSetFeatures:      {spec.FeatureNotSaveable, spec.FeatureNotChangeable, spec.FeatureNotNamespace, spec.CommandSequenceError, spec.KeepAliveInvalid, spec.HostIDInconsistent, spec.LBAOutOfRange, spec.OverlappingRange, spec.NamespaceWriteProtected},
		spec.AdminAsyncEvent:       {spec.AsyncEventLimitExceeded, spec.AbortRequested},
		spec.AdminFirmwareCommit:   {spec.InvalidFirmwareSlot, spec.InvalidFirmwareImage, spec.FirmwareNeedsReset},
		spec.AdminFirmwareDownload: {},
		spec.AdminSelfTest:         {spec.SelfTestInProgress},
		spec.AdminDoorbellBuffer:   {spec.InvalidOpcode}, // doorbells are trapped
		spec.AdminNamespaceManagement: {
			spec.InvalidFormat, spec.ThinProvisioningNotSupported, spec.NamespaceInsufficientCapacity, spec.CommandSetNotSupported,
			spec.NamespaceWriteProtected, spec.NamespaceIdentifierUnavailable,
		},
		spec.AdminNamespaceAttachment: {
			spec.NamespaceAlreadyAttached, spec.NamespaceNotAttached, spec.NamespaceIsPrivate, spec.ControllerListInvalid,
		},
		spec.AdminFormatNVM: {spec.InvalidFormat, spec.NamespaceWriteProtected, spec.FormatInProgress},
		spec.AdminSanitize:  {spec.NamespaceWriteProtected, spec.FirmwareNeedsReset},
	}
)

// adminEntry makes up an admin command, with fields that mean something to it.
func adminEntry(s *choice.Source) spec.SubmissionEntry {
	e := spec.SubmissionEntry{Opcode: adminOpcodes[s.Intn(len(adminOpcodes))]}
	if s.Odds(32) {
		e.Opcode = s.Uint8()
	}
	if s.Odds(32) {
		e.Flags = s.Uint8()
	}
	e.NSID = choice.Pick(s, 0, 1, 1, spec.BroadcastNSID, uint32(s.Edge(MaxNamespaces)))
	small := uint32(s.Intn(8))
	switch e.Opcode {
	case spec.AdminIdentify:
		e.CDW10 = uint32(choice.Pick(s, 0, 1, 2, 3, 5, 6, 8, 0x10, 0x11, 0x12, 0x13, 0x19, s.Uint8())) | small<<16
		e.CDW11 = choice.Pick(s, 0, uint32(s.Edge(1<<32-1)))
	case spec.AdminGetLogPage:
		dwords := uint32(choice.Pick(s, 0, 127, 1023, 16383, 16384, s.Edge(16384)))
		id := choice.Pick(s, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xd, 0xf, 0x12, 0x13, 0x80, 0x81, s.Uint8())
		e.CDW10 = uint32(id) | choice.Pick[uint32](s, 0, 1, 2, 3)<<8 | choice.Pick[uint32](s, 0, retainEvent) | dwords<<16
		e.CDW11 = dwords>>16 | small<<16
		off := choice.Pick(s, 0, 512, s.Edge(8192))
		e.CDW12, e.CDW13 = uint32(off), uint32(off>>32)
		if s.Odds(16) {
			e.CDW14 = s.Uint32()
		}
	case spec.AdminSetFeatures, spec.AdminGetFeatures:
		id := choice.Pick(s, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xe, 0xf, 0x10, 0x11, 0x16, 0x17, 0x18, 0x80, 0x81, 0x82, 0x83, 0x84, s.Uint8())
		e.CDW10 = uint32(id)
		e.CDW11 = choice.Pick(s, 0, 1, small, uint32(s.Edge(1<<32-1)))
		if e.Opcode == spec.AdminGetFeatures {
			e.CDW10 |= small << 8
			break
		}
		e.CDW10 |= choice.Pick[uint32](s, 0, 0, spec.SetFeaturesSave)
		switch id {
		case spec.FeatKeepAlive: // the timer does not expire
			e.CDW11 |= 1 << 20
		case spec.FeatWriteProtect: // not for ever
			e.CDW11 &= 1
		}
	case spec.AdminFirmwareDownload:
		e.CDW10, e.CDW11 = uint32(s.Edge(1023)), 1024*small
	case spec.AdminFirmwareCommit:
		e.CDW10 = small | uint32(s.Intn(8))<<3
	case spec.AdminFormatNVM:
		f := spec.FormatNVM{Format: uint8(s.Intn(16)), Extended: s.Bool(), Protection: uint8(s.Intn(4)), Erase: uint8(small)}
		e.CDW10 = f.Word()
	case spec.AdminDirectiveReceive, spec.AdminDirectiveSend:
		e.CDW10, e.CDW11 = uint32(s.Edge(1023)), choice.Pick(s, 0, 1, s.Uint32())
	case spec.AdminSecurityReceive, spec.AdminSecuritySend:
		e.CDW10, e.CDW11 = small<<8, uint32(s.Edge(nvmemodel.MaxTransfer))
	case spec.AdminCreateCQ, spec.AdminCreateSQ, spec.AdminDeleteCQ, spec.AdminDeleteSQ:
		e.CDW10 = small | uint32(s.Edge(4096))<<16
		e.CDW11 = uint32(s.Intn(8)) | uint32(s.Intn(8))<<16
	case spec.AdminAbort:
		e.CDW10 = uint32(s.Intn(32)) << 16
	case spec.AdminSanitize:
		e.CDW10, e.CDW11 = choice.Pick(s, small, small|uint32(s.Intn(4))<<4|1<<8), s.Uint32()
	default:
		e.CDW10, e.CDW11 = choice.Pick(s, small, uint32(s.Edge(1<<32-1))), choice.Pick(s, 0, uint32(s.Edge(1<<32-1)))
	}
	page := func() uint64 { return adminWindow + uint64(s.Intn(windowPages))*pageSize }
	e.PRP1 = choice.Pick(s, page(), page(), page()+uint64(s.Intn(pageSize/4))*4, page()+uint64(s.Intn(pageSize)), s.Edge(1<<40))
	e.PRP2 = choice.Pick(s, page(), page()+uint64(s.Intn(pageSize/8))*8, adminWindow+windowLists*pageSize, s.Edge(1<<40))
	return e
}

// window is the memory that commands point at.
func (h *modelHost) window() []byte { return h.bytes(adminWindow, windowPages*pageSize) }

// fillWindow puts something into the window: data structures that commands take, and lists.
func (h *modelHost) fillWindow(s *choice.Source) {
	w := h.window()
	pattern(w, s.Uint8())
	id := spec.IdentifyNamespace{Size: uint64(1 + s.Intn(64)), FLBAS: uint8(s.Intn(4)), NMIC: uint8(s.Intn(2))}
	id.Capacity = id.Size
	id.Put(w)
	spec.PutControllerList(w[pageSize:], []uint16{uint16(1 + s.Intn(2))})
	clear(w[2*pageSize : 3*pageSize])
	if image, err := FirmwareImage("2.0", nil); err == nil {
		copy(w[3*pageSize:], image)
	}
	(&spec.LBARange{Blocks: uint64(1 + s.Intn(8))}).Put(w[4*pageSize:])
	for at := windowLists * pageSize; at < len(w); at += 8 {
		v := adminWindow + uint64(at/8%windowPages)*pageSize
		for i := range 8 {
			w[at+i] = byte(v >> (8 * i))
		}
	}
}

// mayWrite is where a command may write most bytes into a window: where its data pointers lead.
func (h *modelHost) mayWrite(e *spec.SubmissionEntry, window []byte, most uint64) []run {
	if most == 0 || most > nvmemodel.MaxTransfer {
		return nil
	}
	m := &listMemory{t: h.t, pages: map[uint64][]byte{}}
	for i := range uint64(windowPages) {
		m.pages[adminWindow+i*pageSize] = window[i*pageSize:][:pageSize]
	}
	slow := &slowWalk{m: m, toHost: true, left: most}
	st := spec.InvalidField
	switch e.PSDT() {
	case spec.PSDTPRP:
		st = slow.prps(e.PRP1, e.PRP2)
	case spec.PSDTSGL, spec.PSDTSGLSegment:
		st = slow.sgl(spec.SGLDescriptor{Address: e.PRP1, Word: e.PRP2})
	}
	if !st.OK() {
		return nil // nothing is written before all of the list was read
	}
	return slow.runs
}

// checkReply sees that nothing was written but where it may be.
func (h *modelHost) checkReply(e *spec.SubmissionEntry, before []byte, allowed []run) {
	h.t.Helper()
	for _, r := range allowed {
		if r.bucket {
			continue
		}
		if at := r.iova - adminWindow; at < uint64(len(before)) {
			copy(before[at:min(uint64(len(before)), at+r.n)], h.window()[at:])
		}
	}
	if now := h.window(); !bytes.Equal(now, before) {
		at := 0
		for now[at] == before[at] {
			at++
		}
		h.t.Fatalf("command %+v has written at %#x of its memory, may write %v", *e, at, allowed)
	}
}

// eventRequests are the Asynchronous Event Requests of a host.
type eventRequests struct {
	h       *modelHost
	waiting []uint16 // command identifiers
	told    uint     // types of events, a bit each, since a log page was read
}

// submit makes one more, or brings an event about.
func (r *eventRequests) submit() {
	r.waiting = append(r.waiting, r.h.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}))
	r.h.must(spec.SubmissionEntry{Opcode: spec.AdminKeepAlive})
	r.look()
	if n := len(r.waiting); n > maxAsyncEvents {
		r.h.t.Fatalf("%d requests wait", n)
	}
}

// look takes those that have completed: of each type of event one, until its log page is read.
func (r *eventRequests) look() {
	r.waiting = slices.DeleteFunc(r.waiting, func(cid uint16) bool {
		c, done := r.h.admin.completed[cid]
		if !done {
			return false
		}
		delete(r.h.admin.completed, cid)
		if bit := uint(1) << spec.AsyncResult(c.DW0).Type(); c.Status.OK() {
			if r.told&bit != 0 {
				r.h.t.Fatalf("event %#x is told of twice", c.DW0)
			}
			r.told |= bit
		}
		return true
	})
}

// steadyPages are log pages that no command of theirs changes, with their size in bytes.
var steadyPages = []struct {
	id   uint8
	size uint64
}{
	{spec.LogSupportedPages, spec.SupportedPagesSize}, {spec.LogFirmware, spec.FirmwareSize}, {spec.LogEffects, spec.EffectsSize},
	{spec.LogChangedNS, spec.IdentifySize}, {spec.LogFeatureEffects, spec.FeatureEffectsSize},
	{spec.LogManagementEffects, spec.ManagementEffectsSize},
}

// readSlice reads a piece of a log page, perhaps of what is behind its end, and compares it with the
// whole page.
func (d *modelDrive) readSlice(s *choice.Source) {
	p := steadyPages[s.Intn(len(steadyPages))]
	read := func(off uint64, n int) ([]byte, spec.Status) {
		b := make([]byte, n)
		e := spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, CDW10: uint32(p.id) | retainEvent | uint32(n/4-1)<<16, CDW12: uint32(off), CDW13: uint32(off >> 32)}
		st, _ := d.Admin(0, e, b)
		return b, st.Code()
	}
	whole, st := read(0, int(p.size))
	off, n := s.Edge(p.size), 4*(1+s.Intn(64))
	switch s.Intn(4) {
	case 0, 1:
		off &^= 3
	case 2: // at the end
		off = p.size - 8 + 4*uint64(s.Intn(6))
	}
	piece, got := read(off, n)
	want := make([]byte, n)
	switch {
	case off > p.size || off%4 != 0:
		if got != spec.InvalidField {
			d.t.Fatalf("%d bytes at %d of log page %#x, which has %d: %v", n, off, p.id, p.size, got)
		}
		return
	default:
		copy(want, whole[off:])
	}
	if !st.OK() || !got.OK() || !bytes.Equal(piece, want) {
		d.t.Fatalf("%d bytes at %d of log page %#x are % x (%v), want % x (%v)", n, off, p.id, piece, got, want, st)
	}
}

// FuzzAdminCommands runs sequences of admin commands, mostly with fields that mean something. Replies are no longer than
// was asked for, statuses are those of the command, and the controller can be used afterwards.
//
//fuzz:covers devices/nvme
func FuzzAdminCommands(f *testing.F) {
	takeTurns(f)
	choice.Corpus(f, 150, 400)
	memory := []*modelMemory{newModelMemory(f), newModelMemory(f)}
	before := make([]byte, windowPages*pageSize)
	f.Fuzz(func(t *testing.T, b []byte) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		if len(b) > maxProgram {
			return
		}
		s := choice.FromBytes(b)
		cfg := nvmemodel.Config{Hosts: 1 + s.Intn(2), Namespaces: []nvmemodel.Namespace{{ID: 1, Bytes: 16 << 10, BlockSize: 512}}}
		d := newModelDrive(t, modelRig{mode: Trap, byMsg: s.Odds(4), slow: s.Odds(4)}, memory, cfg)
		defer d.close()
		d.s.selfTest.pace = 1
		h := d.hosts[0]
		h.fillWindow(s)
		events := &eventRequests{h: h}
		for range 30 {
			if !s.More() {
				break
			}
			switch s.Intn(16) {
			case 1:
				d.readSlice(s)
				continue
			case 2, 3:
				if s.Odds(3) { // of a queue that does not exist
					h.write32(doorbellOffset+uint64(sqDoorbell(MaxQueues)), 1)
				}
				events.submit()
				continue
			}
			e := adminEntry(s)
			if e.Opcode == spec.AdminAsyncEvent {
				continue // above
			}
			copy(before, h.window())
			allowed := h.mayWrite(&e, before, replySize(&e))
			c := h.do(e)
			if events.look(); e.Opcode == spec.AdminGetLogPage {
				events.told = 0
			}
			h.checkReply(&e, before, allowed)
			known := adminCommands()[e.Opcode] != nil
			if st := c.Status.Code(); known && !slices.Contains(adminStatuses, st) && !slices.Contains(ownStatuses[e.Opcode], st) || !known && st != spec.InvalidOpcode {
				t.Fatalf("command %+v: %v", e, c.Status)
			} else if st.OK() && replySize(&e) > nvmemodel.MaxTransfer {
				t.Fatalf("command %+v has a reply of %d bytes", e, replySize(&e))
			}
			if err := h.s.failure(); err != nil || h.csts().CFS() {
				t.Fatalf("command %+v: %v, CSTS %#x", e, err, uint32(h.csts()))
			}
		}
		d.Restart(0, nvmemodel.Reset)
		page := make([]byte, spec.IdentifySize)
		if st, _ := d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController}, page); !st.OK() {
			t.Fatal(st)
		}
		var id spec.IdentifyController
		if id.Get(page); id.Serial != "model" {
			t.Fatalf("serial number %q", id.Serial)
		}
	})
}
