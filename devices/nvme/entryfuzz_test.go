package nvme

import (
	"runtime/debug"
	"slices"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
)

// blockOpcodes are all that I/O queues know, and some that they do not.
var blockOpcodes = func() (list []uint8) {
	for opcode := range ioCommands {
		if ioCommands[opcode].effects != 0 {
			list = append(list, uint8(opcode))
		}
	}
	return append(list, spec.NVMRead, spec.NVMWrite, spec.NVMRead, spec.NVMWrite, 0x03, 0x7e, 0x80)
}()

// Statuses that any I/O command may have, and those of some only.
var (
	blockStatuses = []spec.Status{
		spec.Success, spec.InvalidField, spec.InvalidNamespaceOrFormat, spec.DataTransferError, spec.InvalidPRPOffset,
		spec.InvalidSGLSegment, spec.InvalidNumberOfSGLDescriptors, spec.DataSGLLengthInvalid, spec.SGLDescriptorTypeInvalid,
		spec.ReservationConflict, spec.AbortMissingFused, spec.AbortFailedFused,
	}
	checkStatuses = []spec.Status{
		spec.LBAOutOfRange, spec.UnrecoveredRead, spec.MetadataSGLLengthInvalid, spec.GuardCheck, spec.AppTagCheck, spec.RefTagCheck,
	}
	commandStatuses = map[uint8][]spec.Status{
		spec.NVMFlush:               {},
		spec.NVMWrite:               checkStatuses,
		spec.NVMRead:                checkStatuses,
		spec.NVMWriteUncorrectable:  {spec.LBAOutOfRange},
		spec.NVMCompare:             append([]spec.Status{spec.CompareFailure}, checkStatuses...),
		spec.NVMWriteZeroes:         checkStatuses,
		spec.NVMDatasetManagement:   {spec.LBAOutOfRange},
		spec.NVMVerify:              checkStatuses,
		spec.NVMCopy:                append([]spec.Status{spec.CommandSizeLimitsExceeded}, checkStatuses...),
		spec.NVMReservationRegister: {},
		spec.NVMReservationReport:   {spec.HostIDInconsistent},
		spec.NVMReservationAcquire:  {},
		spec.NVMReservationRelease:  {},
	}
)

// blockEntry makes up an I/O command, with fields that mean something to it. Its data pointers
// lead into the window.
func blockEntry(s *choice.Source) spec.SubmissionEntry {
	e := spec.SubmissionEntry{Opcode: blockOpcodes[s.Intn(len(blockOpcodes))]}
	if s.Odds(32) {
		e.Opcode = s.Uint8()
	}
	if s.Odds(16) { // halves of pairs, and what is reserved
		e.Flags = choice.Pick[uint8](s, spec.FuseFirst, spec.FuseSecond, s.Uint8())
	}
	if e.NSID = 1 + uint32(s.Intn(2)); s.Odds(12) {
		e.NSID = choice.Pick(s, 0, 3, spec.BroadcastNSID, uint32(s.Edge(MaxNamespaces)))
	}
	switch e.Opcode {
	case spec.NVMDatasetManagement:
		e.CDW10, e.CDW11 = uint32(s.Intn(256)), choice.Pick[uint32](s, spec.DSMDeallocate, spec.DSMDeallocate, 0, s.Uint32())
	case spec.NVMReservationReport:
		e.CDW10, e.CDW11 = uint32(s.Edge(nvmemodel.MaxTransfer/4)), uint32(s.Intn(2))
	case spec.NVMReservationRegister, spec.NVMReservationAcquire, spec.NVMReservationRelease:
		e.CDW10 = choice.Pick(s, uint32(s.Intn(16)), s.Uint32())
	default:
		e.SetLBA(uint64(s.Intn(entryBlocks / 2)))
		e.CDW12 = uint32(s.Intn(8))
		if s.Odds(8) { // perhaps beyond the end, or too much
			e.SetLBA(s.Edge(entryBlocks))
			e.CDW12 = uint32(s.Uint16())
		}
		if s.Odds(4) {
			e.CDW12 |= s.Uint32() & 0xffff0000
		}
		if s.Odds(4) {
			e.CDW3, e.CDW14, e.CDW15 = s.Uint32(), uint32(e.LBA()), s.Uint32()
		}
	}
	page := func() uint64 { return adminWindow + uint64(s.Intn(windowPages))*pageSize }
	e.PRP1, e.PRP2, e.MPTR = page()+uint64(s.Intn(pageSize/4))*4, page(), page()
	switch s.Intn(8) {
	case 0:
		e.PRP1 = choice.Pick(s, page()+uint64(s.Intn(pageSize)), s.Edge(1<<40))
	case 1:
		e.PRP2 = s.Edge(1 << 40)
	case 2:
		e.MPTR = s.Edge(1 << 40)
	case 3, 4:
		e.PRP2 += uint64(s.Intn(pageSize/8)) * 8
	}
	if s.Odds(3) {
		e.Flags |= choice.Pick[uint8](s, spec.PSDTSGL, spec.PSDTSGLSegment) << 6
		d := windowDescriptor(s)
		e.PRP1, e.PRP2 = d.Address, d.Word
	}
	return e
}

// windowDescriptor makes up an SGL descriptor, of data or of a segment, in the window.
func windowDescriptor(s *choice.Source) spec.SGLDescriptor {
	if s.Odds(8) {
		return descriptor(s)
	}
	kind := choice.Pick[uint8](s, spec.SGLDataBlock, spec.SGLDataBlock, spec.SGLBitBucket, spec.SGLSegment, spec.SGLLastSegment)
	if kind == spec.SGLSegment || kind == spec.SGLLastSegment {
		return spec.NewSGLDescriptor(kind, adminWindow+segmentPage*pageSize+uint64(16*s.Intn(32)), uint32(16*(1+s.Intn(32))))
	}
	at := adminWindow + uint64(s.Intn(windowPages*pageSize))
	return spec.NewSGLDescriptor(kind, at, choice.Pick(s, 512, pageSize, uint32(1+s.Intn(3*pageSize))))
}

const (
	segmentPage = windowPages - 1 // of the window: it has SGL segments
	entryBlocks = 32              // of the first namespace
)

// entryRun is a controller whose queues get anything.
type entryRun struct {
	t      *testing.T
	s      *choice.Source
	h      *modelHost
	queues [2]*testQueue // whose completions are in the queue of the other one's number
	before []byte        // the window
}

// other is the number of the completion queue of a submission queue.
func other(id uint16) uint16 { return 3 - id }

func (r *entryRun) createQueues() {
	for i := range r.queues {
		q := r.h.ringsAt(uint16(1 + i))
		size := uint32(q.size-1) << 16
		r.h.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: size | uint32(other(q.id)), CDW11: 1})
		r.queues[i] = q
	}
	for _, q := range r.queues {
		size := uint32(q.size-1) << 16
		r.h.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: size | uint32(q.id), CDW11: 1 | uint32(other(q.id))<<16})
	}
}

// fill makes up what the window holds: data, ranges, keys, lists.
func (r *entryRun) fill() {
	r.h.fillWindow(r.s)
	w := r.h.window()
	segments := w[segmentPage*pageSize:]
	for at := 0; at < len(segments); at += spec.SGLDescriptorSize {
		spec.NewSGLDescriptor(spec.SGLDataBlock, adminWindow+uint64(at), 512).Put(segments[at:])
	}
	for range r.s.Intn(8) {
		windowDescriptor(r.s).Put(segments[spec.SGLDescriptorSize*r.s.Intn(64):])
	}
	ranges := w[2*pageSize:]
	for i := range 4 {
		(&spec.DSMRange{LBA: r.s.Edge(entryBlocks), Blocks: uint32(r.s.Edge(8))}).Put(ranges[i*spec.DSMRangeSize:])
	}
	(&spec.ReservationKeys{Current: uint64(r.s.Intn(2)), Other: uint64(r.s.Intn(2))}).Put(w[6*pageSize:])
	copied := w[7*pageSize:]
	for i := range 2 {
		(&spec.CopyRange{LBA: r.s.Edge(entryBlocks), Blocks: uint32(r.s.Intn(8))}).Put(copied[i*spec.CopyRangeSize:])
	}
}

// batch gives a queue several entries with one doorbell. Each of them completes once, as its
// command may.
func (r *entryRun) batch(q *testQueue) {
	n := 1
	if r.s.Bool() {
		n += r.s.Intn(int(q.size) - 1)
	}
	same := r.s.Odds(16) // all have one identifier, which is the host's own trouble
	first := r.s.Uint16()
	list := make([]spec.SubmissionEntry, n)
	copy(r.before, r.h.window())
	old := q.tail
	for i := range list {
		list[i] = blockEntry(r.s)
		list[i].CID = first + uint16(i)
		if same {
			list[i].CID = first
		}
		list[i].Put(r.h.bytes(q.sq+uint64(q.tail)*spec.SubmissionEntrySize, spec.SubmissionEntrySize))
		q.tail = (q.tail + 1) % q.size
	}
	q.ringTail(old)
	completed := make([]bool, n)
	for range list {
		c := r.completion(q)
		i := int(c.CID - first)
		switch {
		case i >= n || same && i > 0 || completed[i] && !same:
			r.t.Fatalf("queue %d: completion %+v of none of %+v", q.id, c, list)
		case !same && !mayEnd(&list[i], c.Status):
			r.t.Fatalf("queue %d: completion %+v of %+v", q.id, c, list[i])
		}
		completed[i] = true
		if n == 1 {
			r.wrote(&list[0], c.Status)
		}
	}
}

// completion takes the next one of a queue.
func (r *entryRun) completion(q *testQueue) (c spec.CompletionEntry) {
	b := r.h.bytes(q.cq+uint64(q.head)*spec.CompletionEntrySize, spec.CompletionEntrySize)
	r.h.until("a completion", func() bool {
		c.SetWords(dma.Load64(b, 0), dma.Load64(b, 8))
		return c.Phase == q.phase
	})
	if c.SQID != q.id || uint32(c.SQHead) >= q.size || c.DW0 != 0 || c.DW1 != 0 {
		r.t.Fatalf("queue %d: %+v", q.id, c)
	}
	old := q.head
	if q.head++; q.head == q.size {
		q.head, q.phase = 0, !q.phase
	}
	r.h.ring(cqDoorbell(other(q.id)), old, q.head, true)
	return c
}

// mayEnd says whether a command may end like that.
func mayEnd(e *spec.SubmissionEntry, st spec.Status) bool {
	own, known := commandStatuses[e.Opcode]
	switch code := st.Code(); {
	case !known && e.Flags&fused == 0:
		return code == spec.InvalidOpcode
	case !known: // as half of a pair it may be an invalid field as well
		return code == spec.InvalidOpcode || slices.Contains(blockStatuses, code) && code != spec.Success
	case code == spec.Success:
		return possible(e)
	default:
		return slices.Contains(blockStatuses, code) || slices.Contains(own, code)
	}
}

// entryShift is the exponent of the block size.
func entryShift(e *spec.SubmissionEntry) uint {
	if e.NSID == 2 {
		return 12
	}
	return 9
}

// possible says whether a command that is known may succeed.
func possible(e *spec.SubmissionEntry) bool {
	blocks := map[uint32]uint64{1: entryBlocks, 2: entryBlocks / 2}[e.NSID]
	n := uint64(e.Blocks())
	switch e.Opcode {
	case spec.NVMFlush:
		return (blocks > 0 || e.NSID == spec.BroadcastNSID) && e.PSDT() <= spec.PSDTSGLSegment
	case spec.NVMDatasetManagement, spec.NVMCopy, spec.NVMReservationRegister, spec.NVMReservationReport, spec.NVMReservationAcquire, spec.NVMReservationRelease:
		n = 0
	case spec.NVMRead, spec.NVMWrite, spec.NVMCompare:
		if n<<entryShift(e) > nvmemodel.MaxTransfer || e.PSDT() == spec.PSDTPRP && e.PRP1%4 != 0 {
			return false
		}
	}
	return blocks > 0 && e.PSDT() <= spec.PSDTSGLSegment && (n == 0 || n <= blocks && e.LBA() <= blocks-n)
}

// wrote sees that a command has written where its data goes, and nowhere else.
func (r *entryRun) wrote(e *spec.SubmissionEntry, st spec.Status) {
	var most uint64
	switch e.Opcode {
	case spec.NVMRead:
		most = uint64(e.Blocks()) << entryShift(e)
	case spec.NVMReservationReport:
		most = 4 * (uint64(e.CDW10) + 1)
	}
	if st.Code() == spec.InvalidField { // it is refused before its data pointers are looked at
		most = 0
	}
	where := r.h.mayWrite(e, r.before, most)
	if most > 0 && st.OK() && where == nil {
		r.t.Fatalf("command %+v has succeeded, and its data is nowhere", *e)
	}
	r.h.checkReply(e, r.before, where)
}

// doorbell writes nonsense to a doorbell. Queues go on as if it had not been written.
func (r *entryRun) doorbell(q *testQueue) {
	v := choice.Pick(r.s, q.size, q.size+1, uint32(r.s.Edge(1<<32-1))|0x8000)
	if r.s.Bool() {
		r.h.write32(doorbellOffset+uint64(cqDoorbell(q.id)), v)
	} else {
		r.h.write32(doorbellOffset+uint64(sqDoorbell(uint16(r.s.Intn(5)))), v)
	}
}

// FuzzQueueEntries gives I/O queues entries of all kinds, with data pointers into hostile memory, one
// at a time or many. Each completes once, with a status of its command, and success means that the
// command was possible; nothing is written but the data of a command that is to write.
//
//fuzz:covers devices/nvme
func FuzzQueueEntries(f *testing.F) {
	takeTurns(f)
	memory := []*modelMemory{newModelMemory(f)}
	before := make([]byte, windowPages*pageSize)
	choice.Fuzz(f, 150, 900, func(t *testing.T, s *choice.Source) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		d := newModelDrive(t, anyRig(s), memory, nvmemodel.Config{Hosts: 1, Namespaces: []nvmemodel.Namespace{
			{ID: 1, Bytes: entryBlocks << 9, BlockSize: 512}, {ID: 2, Bytes: entryBlocks / 2 << 12, BlockSize: 4096},
		}})
		defer d.close()
		h := d.hosts[0]
		r := &entryRun{t: t, s: s, h: h, before: before}
		r.createQueues()
		r.fill()
		for steps := 0; steps < 40 && s.More(); steps++ {
			q := r.queues[s.Intn(2)]
			switch s.Intn(12) {
			case 0:
				r.fill()
			case 1:
				if d.mode == Trap {
					r.doorbell(q)
				}
			default:
				r.batch(q)
			}
			if err := h.s.failure(); err != nil || h.csts().CFS() {
				t.Fatalf("%v, CSTS %#x", err, uint32(h.csts()))
			}
		}
		works(t, d)
	})
}
