package nvme

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// Formats that the tests use by name.
var (
	separate8  = format{index: 2, protection: 1}
	extended8  = format{index: 2, extended: true, protection: 1}
	separate64 = format{index: 6, protection: 2}
	plain64    = format{index: 6}
	type3      = format{index: 2, protection: 3}
	guard64    = format{index: 8, protection: 1}
)

// formatted is a guest with a namespace of 1 MiB in each format.
func formatted(t *testing.T, r rig, formats ...format) (*guest, *testQueue) {
	r.formats = formats
	for i := len(r.backends); i < len(formats); i++ {
		r.backends = append(r.backends, memory(t, 1<<20))
	}
	g, q := started(t, r)
	g.c.extendedFormats.Store(true)
	return g, q
}

func TestMetadataPointer(t *testing.T) {
	const nowhere = 1 << 50
	sgl := func(g *guest, at uint64, d ...spec.SGLDescriptor) {
		for i := range d {
			d[i].Put(g.bytes(at+uint64(i)*16, 16))
		}
	}
	for _, byMsg := range []bool{false, true} {
		g, q := formatted(t, rig{byMsg: byMsg}, plain64)
		data, meta, list := g.alloc(1), g.alloc(1), g.alloc(1)
		block := func(at uint64, n uint32) spec.SGLDescriptor { return spec.NewSGLDescriptor(spec.SGLDataBlock, at, n) }
		for _, c := range []struct {
			name string
			psdt uint8
			mptr uint64
			list []spec.SGLDescriptor
			want spec.Status
		}{
			{"a buffer", spec.PSDTPRP, meta, nil, spec.Success},
			{"a buffer that is not on a page", spec.PSDTPRP, meta + 100, nil, spec.Success},
			{"a buffer across pages", spec.PSDTSGL, meta + pageSize - 64, nil, spec.Success},
			{"an odd address", spec.PSDTPRP, meta + 2, nil, spec.InvalidField},
			{"an odd address beside an SGL", spec.PSDTSGL, meta + 1, nil, spec.InvalidField},
			{"nowhere", spec.PSDTPRP, nowhere, nil, spec.DataTransferError},
			{"the end of all addresses", spec.PSDTPRP, ^uint64(3), nil, spec.DataTransferError},
			{"a descriptor", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{block(meta+1, 128)}, spec.Success},
			{"a longer descriptor", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{block(meta, 200)}, spec.Success},
			{"a shorter descriptor", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{block(meta, 127)}, spec.MetadataSGLLengthInvalid},
			{"a descriptor at an odd address", spec.PSDTSGLSegment, list + 4, []spec.SGLDescriptor{block(meta, 128)}, spec.InvalidField},
			{"a descriptor nowhere", spec.PSDTSGLSegment, nowhere, nil, spec.DataTransferError},
			{"metadata nowhere", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{block(nowhere, 128)}, spec.DataTransferError},
			{"a bit bucket", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{spec.NewSGLDescriptor(spec.SGLBitBucket, 0, 1)}, spec.MetadataSGLLengthInvalid},
			{"a segment", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{
				spec.NewSGLDescriptor(spec.SGLLastSegment, list+16, 48), block(meta, 100), block(meta+1000, 0), block(meta+2000, 28),
			}, spec.Success},
			{"a segment of too little", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{
				spec.NewSGLDescriptor(spec.SGLLastSegment, list+16, 16), block(meta, 100),
			}, spec.MetadataSGLLengthInvalid},
			{"a segment that leads to itself", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{
				spec.NewSGLDescriptor(spec.SGLSegment, list, 16),
			}, spec.InvalidNumberOfSGLDescriptors},
			{"a segment of half a descriptor", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{
				spec.NewSGLDescriptor(spec.SGLLastSegment, list, 24),
			}, spec.InvalidSGLSegment},
		} {
			t.Run(fmt.Sprintf("%s, by message %v", c.name, byMsg), func(t *testing.T) {
				sgl(g, list, c.list...)
				pattern(g.bytes(data, 2*pageSize), 3)
				want := c.want
				if !want.OK() {
					want |= spec.StatusDNR
				}
				for _, op := range []uint8{spec.NVMWrite, spec.NVMCompare, spec.NVMRead} {
					e := rw(op, 1, 4, 2, data, 0)
					e.MPTR = c.mptr
					if e.Flags = c.psdt << 6; c.psdt != spec.PSDTPRP {
						e.PRP2 = 1024
					}
					if st := q.status(e); st != want {
						t.Errorf("opcode %#x: %v, want %v", op, st, want)
					}
				}
			})
		}
	}
}

// What fails leaves the blocks as they were.
func TestFailedWritesChangeNothing(t *testing.T) {
	g, q := formatted(t, rig{}, separate8, extended8, separate64)
	data, meta := g.alloc(1), g.alloc(1)
	for nsid := uint32(1); nsid <= 3; nsid++ {
		e := rw(spec.NVMWrite, nsid, 8, 1, data, 0)
		e.MPTR, e.CDW14 = meta, 8
		e.CDW12 |= spec.RWAction
		pattern(g.bytes(data, 512), 1)
		if st := q.status(e); !st.OK() {
			t.Fatal(st)
		}
		clear(g.bytes(data, pageSize))
		g.bytes(meta, 8)[3] = 1
		g.bytes(data, 520)[515] = 1
		e.CDW12 = spec.RWCheckGuard | spec.RWCheckAppTag
		e.SetAppTag(7, 0xffff)
		if st := q.status(e); st != spec.GuardCheck|spec.StatusDNR && st != spec.AppTagCheck|spec.StatusDNR {
			t.Errorf("namespace %d: %v", nsid, st)
		}
		e.Opcode = spec.NVMRead
		e.CDW12 = spec.RWAction | spec.RWCheckGuard | spec.RWCheckRefTag
		if st := q.status(e); !st.OK() {
			t.Errorf("namespace %d: %v", nsid, st)
		}
		want := make([]byte, 512)
		if pattern(want, 1); !bytes.Equal(g.bytes(data, 512), want) {
			t.Errorf("namespace %d: the block was written", nsid)
		}
	}
}

func TestProtectionInformationThatCannotBeAskedFor(t *testing.T) {
	const invalid = spec.InvalidProtectionInfo
	const all = spec.RWCheckAll
	for _, byMsg := range []bool{false, true} {
		g, q := formatted(t, rig{byMsg: byMsg, mdts: 16 << 10}, separate8, extended8, type3, plain64, guard64)
		data, meta := g.alloc(8), g.alloc(1)
		const lba = 5
		for _, c := range []struct {
			name   string
			op     uint8
			nsid   uint32
			blocks int
			bits   uint32
			ref    uint32
			want   spec.Status
		}{
			{"read, reference tag of the block", spec.NVMRead, 1, 1, all, lba, spec.Success},
			{"read, another reference tag", spec.NVMRead, 1, 1, all, lba + 1, invalid},
			{"read, another one that is not checked", spec.NVMRead, 1, 1, spec.RWCheckGuard, lba + 1, spec.Success},
			{"write, another reference tag", spec.NVMWrite, 1, 1, spec.RWAction | spec.RWCheckRefTag, 0, invalid},
			{"verify, another reference tag", spec.NVMVerify, 1, 1, all, 0, invalid},
			{"compare, another reference tag", spec.NVMCompare, 1, 1, all, 0, invalid},
			{"reference tag of type 3", spec.NVMRead, 3, 1, all, lba, invalid},
			{"no reference tag of type 3", spec.NVMRead, 3, 1, spec.RWCheckGuard | spec.RWCheckAppTag, lba, spec.Success},
			{"verify with an action", spec.NVMVerify, 1, 1, spec.RWAction, lba, spec.InvalidField},
			{"compare with an action", spec.NVMCompare, 1, 1, spec.RWAction, lba, invalid},
			{"zeroes that are checked", spec.NVMWriteZeroes, 1, 1, spec.RWCheckGuard, lba, invalid},
			{"zeroes whose storage tag is checked", spec.NVMWriteZeroes, 1, 1, spec.RWStorageTagCheck, lba, invalid},
			{"zeroes with an action", spec.NVMWriteZeroes, 1, 1, spec.RWAction, lba, spec.Success},
			{"verify without protection", spec.NVMVerify, 4, 1, spec.RWAction | all, 0, spec.Success},
			{"read without protection", spec.NVMRead, 4, 1, spec.RWAction | all, 77, spec.Success},
			{"the largest", spec.NVMRead, 1, 32, 0, 0, spec.Success},
			{"more than the largest", spec.NVMRead, 1, 33, 0, 0, spec.InvalidField},
			{"extended, more than the largest", spec.NVMRead, 2, 32, 0, 0, spec.InvalidField},
			{"extended, the largest", spec.NVMRead, 2, 31, 0, 0, spec.Success},
			{"stripped, the largest", spec.NVMRead, 2, 32, spec.RWAction, 0, spec.Success},
			{"extended compare of more than the largest", spec.NVMCompare, 2, 32, 0, 0, spec.InvalidField},
			{"copy with one action only", spec.NVMCopy, 1, 1, spec.RWAction, lba, spec.InvalidField},
			{"copy to another reference tag", spec.NVMCopy, 1, 1, spec.RWCheckRefTag, 0, invalid},
			{"copy in format 1", spec.NVMCopy, 1, 1, 1 << 8, lba, spec.InvalidNamespaceOrFormat},
			{"copy in format 0 with 64 bits", spec.NVMCopy, 5, 1, 0, lba, spec.InvalidNamespaceOrFormat},
			{"copy in format 1 without protection", spec.NVMCopy, 4, 1, 1 << 8, lba, spec.Success},
		} {
			t.Run(fmt.Sprintf("%s, by message %v", c.name, byMsg), func(t *testing.T) {
				clear(g.bytes(data, 8*pageSize))
				e := rw(c.op, c.nsid, lba, c.blocks, 0, 0)
				e.Flags, e.PRP1, e.PRP2, e.MPTR = spec.PSDTSGL<<6, data, 8*pageSize, meta
				if c.op == spec.NVMCopy {
					e.CDW12 = 0
				}
				e.CDW12 |= c.bits
				e.CDW14 = c.ref
				st := q.status(e)
				if st.Code() != c.want || !st.OK() && !st.DNR() {
					t.Errorf("%v, want %v", st, c.want)
				}
			})
		}
	}
}

// Only a host that has enabled extended formats may use namespaces in them.
func TestExtendedFormatsWantConsent(t *testing.T) {
	tagged := format{index: 10, protection: 2}
	unprotected := format{index: 8}
	g, q := formatted(t, rig{}, guard64, tagged, unprotected)
	g.c.extendedFormats.Store(false)
	data := g.alloc(1)
	all := func(want spec.Status) {
		t.Helper()
		for nsid := uint32(1); nsid <= 3; nsid++ {
			for _, op := range []uint8{spec.NVMRead, spec.NVMWrite, spec.NVMWriteZeroes, spec.NVMCompare, spec.NVMVerify,
				spec.NVMWriteUncorrectable, spec.NVMCopy, spec.NVMDatasetManagement, spec.NVMFlush} {
				e := rw(op, nsid, 1000, 1, data, 0) // beyond the capacity
				switch {
				case op == spec.NVMDatasetManagement:
					e.CDW10, e.CDW11 = 0, 0
				case op == spec.NVMCopy && nsid == 1:
					e.CDW12 = 1 << 8
				}
				st := q.status(e).Code()
				if nsid < 3 && want != spec.Success && st != want || (nsid == 3 || want.OK()) && st == spec.InvalidNamespaceOrFormat {
					t.Errorf("opcode %#x, namespace %d: %v", op, nsid, st)
				}
			}
		}
	}
	set := func(lbafee byte) {
		t.Helper()
		page := g.alloc(1)
		g.bytes(page, 3)[2] = lbafee
		g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatHostBehavior, PRP1: page})
	}
	all(spec.InvalidNamespaceOrFormat)
	formats := func(want spec.Status, nsid uint32, f spec.FormatNVM) {
		t.Helper()
		if st := g.do(formatCommand(nsid, f)).Status; st.Code() != want {
			t.Errorf("format %+v of namespace %d: %v, want %v", f, nsid, st, want)
		}
	}
	formats(spec.InvalidNamespaceOrFormat, 1, spec.FormatNVM{})
	formats(spec.InvalidNamespaceOrFormat, 3, spec.FormatNVM{Format: 8, Protection: 1})
	formats(spec.InvalidNamespaceOrFormat, spec.BroadcastNSID, spec.FormatNVM{Format: 10, Protection: 1})
	formats(spec.Success, 3, spec.FormatNVM{Format: 9})
	set(1)
	formats(spec.Success, 3, spec.FormatNVM{Format: 10, Protection: 3})
	formats(spec.Success, 3, spec.FormatNVM{Format: 8})
	all(spec.Success)
	set(0)
	all(spec.InvalidNamespaceOrFormat)
	set(1)
	g.disable()
	g.enable()
	q = g.createQueue(1, 64)
	all(spec.InvalidNamespaceOrFormat)
}

func TestFormatsAreTold(t *testing.T) {
	g, page := adminGuest(t, rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}, formats: []format{
		{index: 2, extended: true, protection: 2}, {index: 12, protection: 1},
	}})
	var ctrl spec.IdentifyController
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: page})
	ctrl.Get(g.bytes(page, pageSize))
	if ctrl.CTRATT&spec.CTRATTExtendedLBAFormats == 0 || ctrl.SGLS&spec.SGLSMetadata == 0 || ctrl.OCFS != 3 {
		t.Errorf("%+v", ctrl)
	}
	var common spec.IdentifyNamespaceNVM
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: spec.BroadcastNSID, CDW10: spec.CNSCommandSetNamespace, PRP1: page})
	if common.Get(g.bytes(page, pageSize)); common.PIC != 7 || common.StorageTagMask != 0 || common.Formats[8].Guard != spec.Guard64 {
		t.Errorf("all namespaces: %+v", common)
	}
	for nsid, want := range map[uint32]struct {
		flbas, dps uint8
		blocks     uint64
		mask       uint64
	}{1: {2 | 1<<4, 2, 2016, 0}, 2: {12, 1, 255, 0xffff}} {
		var id spec.IdentifyNamespace
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: nsid, PRP1: page})
		id.Get(g.bytes(page, pageSize))
		if id.FLBAS != want.flbas || id.DPS != want.dps || id.Size != want.blocks || int(id.NLBAF)+1 != len(blockFormats) || id.MC != 3 || id.DPC != 0x17 {
			t.Errorf("namespace %d: %+v", nsid, id)
		}
		var nvm spec.IdentifyNamespaceNVM
		g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: nsid, CDW10: spec.CNSCommandSetNamespace, PRP1: page})
		nvm.Get(g.bytes(page, pageSize))
		if nvm.StorageTagMask != want.mask || nvm.PIC != 7 {
			t.Errorf("namespace %d: %+v", nsid, nvm)
		}
		for i, b := range blockFormats {
			if id.Formats[i] != (spec.LBAFormat{MetadataSize: b.metadata, DataExponent: b.shift, Performance: b.performance}) ||
				nvm.Formats[i] != (spec.ExtendedFormat{Guard: b.guard, StorageTag: b.storageTag}) {
				t.Errorf("format %d: %+v, %+v", i, id.Formats[i], nvm.Formats[i])
			}
		}
	}
}

// Verify goes through blocks in pieces, whose tags follow each other.
func TestVerifyOfManyProtectedBlocks(t *testing.T) {
	g, q := formatted(t, rig{}, separate8)
	data := g.alloc(1)
	const blocks = 2000 // more than a piece
	e := rw(spec.NVMWriteZeroes, 1, 3, blocks, 0, 0)
	e.CDW12 |= spec.RWAction
	e.CDW14 = 3
	if st := q.status(e); !st.OK() {
		t.Fatal(st)
	}
	check := e
	check.Opcode = spec.NVMVerify
	check.CDW12 = blocks - 1 | spec.RWCheckAll
	if st := q.status(check); !st.OK() {
		t.Error(st)
	}
	wrong := rw(spec.NVMWrite, 1, 1503, 1, data, 0)
	wrong.CDW12 |= spec.RWAction
	wrong.CDW14 = 1
	q.status(wrong)
	if st := q.status(check); st.Code() != spec.RefTagCheck {
		t.Error(st)
	}
	if e := g.lastError(); e.LBA != 1503 {
		t.Errorf("block %d", e.LBA)
	}
	if n := g.c.smart.mediaErrors.Load(); n != 1 {
		t.Errorf("%d media errors", n)
	}
}

// Storage whose metadata fails, and requests that have to be durable.
func TestMetadataOnFailingStorage(t *testing.T) {
	var failing atomic.Int32 // an Op, of the metadata
	var durable, volatile atomic.Int32
	limit := int64(separate8.blocksIn(1<<20)) * 512
	b := &slowBackend{Backend: memory(t, 1<<20), fail: func(r *block.Request) error {
		if r.Op == block.Write || r.Op == block.WriteZeroes {
			if r.FUA {
				durable.Add(1)
			} else {
				volatile.Add(1)
			}
		}
		if r.Op == block.Op(failing.Load()) && r.Offset >= limit {
			return &block.Error{Err: syscall.EIO}
		}
		return nil
	}}
	g, q := formatted(t, rig{backends: []block.Backend{b}}, separate8)
	data := g.alloc(1)
	run := func(op uint8, want spec.Status) {
		t.Helper()
		e := rw(op, 1, 8, 2, data, 0)
		e.CDW12 |= spec.RWAction | spec.RWForceUnit
		e.CDW14 = 8
		if st := q.status(e).Code(); st != want {
			t.Errorf("opcode %#x: %v, want %v", op, st, want)
		}
	}
	failing.Store(-1)
	run(spec.NVMWrite, spec.Success)
	run(spec.NVMWriteZeroes, spec.Success)
	if volatile.Load() > 0 || durable.Load() != 4 {
		t.Errorf("%d writes with FUA, %d without", durable.Load(), volatile.Load())
	}
	q.status(rw(spec.NVMWriteUncorrectable, 1, 8, 1, 0, 0))
	failing.Store(int32(block.Write))
	run(spec.NVMWrite, spec.WriteFault)
	run(spec.NVMRead, spec.UnrecoveredRead) // is still marked
	failing.Store(-1)
	run(spec.NVMWrite, spec.Success)
	failing.Store(int32(block.Read))
	run(spec.NVMRead, spec.UnrecoveredRead)
	run(spec.NVMWrite, spec.UnrecoveredRead) // the metadata beside it cannot be kept
	failing.Store(-1)
	run(spec.NVMRead, spec.Success)
}

// A block and its metadata are written as one thing, as far as other commands can see.
func TestBlocksAndMetadataAreWrittenTogether(t *testing.T) {
	file, _ := fileBackend(t, 1<<20)
	g, q := formatted(t, rig{backends: []block.Backend{file}}, separate8)
	other := g.createQueue(2, 64)
	const blocks = 4
	one, two, meta := g.alloc(1), g.alloc(1), g.alloc(1)
	pattern(g.bytes(one, blocks*512), 1)
	pattern(g.bytes(two, blocks*512), 2)
	out := g.alloc(1)
	for range 100 {
		var writes, reads []uint16
		tail, otherTail := q.tail, other.tail
		for i := range 8 {
			w := rw(spec.NVMWrite, 1, 0, blocks, []uint64{one, two}[i%2], 0)
			w.CDW12 |= spec.RWAction
			writes = append(writes, q.put(w))
			r := rw(spec.NVMRead, 1, 0, blocks, out, 0)
			r.CDW12 |= spec.RWCheckGuard | spec.RWCheckRefTag
			r.MPTR = meta
			reads = append(reads, other.put(r))
		}
		q.ringTail(tail)
		other.ringTail(otherTail)
		for i := range writes {
			if st := q.result(writes[i]).Status; !st.OK() {
				t.Fatal(st)
			}
			if st := other.result(reads[i]).Status; !st.OK() {
				t.Fatal(st)
			}
		}
	}
}

// Storage that cannot give blocks back keeps them, and what protects them.
func TestDeallocateWithoutDiscard(t *testing.T) {
	g, q := formatted(t, rig{backends: []block.Backend{&keepingBackend{memory(t, 1<<20)}}}, separate8)
	data := g.alloc(1)
	pattern(g.bytes(data, 512), 9)
	e := rw(spec.NVMWrite, 1, 8, 1, data, 0)
	e.CDW12, e.CDW14 = spec.RWAction, 8
	e.SetAppTag(5, 0xffff)
	q.status(e)
	list := g.alloc(1)
	(&spec.DSMRange{LBA: 8, Blocks: 1}).Put(g.bytes(list, spec.DSMRangeSize))
	if st := q.status(spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: 1, PRP1: list, CDW11: spec.DSMDeallocate}); !st.OK() {
		t.Error(st)
	}
	e.Opcode, e.CDW12 = spec.NVMVerify, spec.RWCheckAll
	if st := q.status(e); !st.OK() {
		t.Error(st)
	}
	e.SetAppTag(6, 0xffff) // a block that is not checked would pass
	if st := q.status(e); st.Code() != spec.AppTagCheck {
		t.Error(st)
	}
}

// keepingBackend cannot discard.
type keepingBackend struct{ block.Backend }

func (b *keepingBackend) Info() block.Info {
	info := b.Backend.Info()
	info.CanDiscard = false
	return info
}

func TestMetadataMoves(t *testing.T) {
	for _, f := range []format{separate8, extended8, plain64, guard64} {
		r := rig{mode: Shadow, formats: []format{f}, backends: []block.Backend{memory(t, 1<<20)}}
		g, q := started(t, r)
		g.c.extendedFormats.Store(true)
		data, meta := g.alloc(2), g.alloc(1)
		pattern(g.bytes(data, 2*pageSize), 4)
		pattern(g.bytes(meta, pageSize), 5)
		e := rw(spec.NVMWrite, 1, 7, 1, data, data+pageSize)
		e.MPTR = meta
		if st := q.status(e); !st.OK() {
			t.Fatal(st)
		}
		other := r
		other.backends = []block.Backend{memory(t, 1<<20)}
		wrong := other
		wrong.formats = []format{{index: f.index, extended: !f.extended, protection: f.protection}}
		wrong.backends = []block.Backend{memory(t, 1<<20)}
		if err := g.other(wrong).load(g.saved()); err == nil {
			t.Error("a state of another format is taken")
		}
		g = g.move(other)
		g.c.extendedFormats.Store(true)
		q = g.queue(q)
		e.Opcode = spec.NVMCompare
		if st := q.status(e); !st.OK() {
			t.Errorf("%v: %v", f, st)
		}
	}
}

// Compare and Write checks and compares the metadata of the first command, and writes that
// of the second one.
func TestCompareAndWriteOfProtectedBlocks(t *testing.T) {
	for _, f := range []format{separate8, extended8} {
		g, q := formatted(t, rig{}, f)
		data, meta := g.alloc(1), g.alloc(1)
		old, next := make([]byte, 512), make([]byte, 512)
		pattern(old, 1)
		pattern(next, 2)
		p := f.protect()
		host := func(e spec.SubmissionEntry, at uint64, block []byte, tag uint16) spec.SubmissionEntry {
			own := make([]byte, 8)
			p.insert(&expectation{space: 3, tag: tag}, block, own)
			e.PRP1, e.MPTR, e.CDW14 = data+at, meta+at, 3
			e.CDW12 |= spec.RWCheckAll
			e.SetAppTag(tag, 0xffff)
			copy(g.bytes(e.PRP1, 512), block)
			if f.extended {
				copy(g.bytes(e.PRP1+512, 8), own)
			} else {
				copy(g.bytes(e.MPTR, 8), own)
			}
			return e
		}
		write := rw(spec.NVMWrite, 1, 3, 1, 0, 0)
		if st := q.status(host(write, 0, old, 7)); !st.OK() {
			t.Fatal(st)
		}
		first, second := half(rw(spec.NVMCompare, 1, 3, 1, 0, 0), spec.FuseFirst), half(write, spec.FuseSecond)
		for _, c := range []struct {
			name        string
			block       []byte
			tag         uint16
			want, want2 spec.Status
		}{
			{"other data", next, 7, spec.CompareFailure, spec.AbortFailedFused},
			{"another tag", old, 8, spec.AppTagCheck, spec.AbortFailedFused},
			{"the same", old, 7, spec.Success, spec.Success},
			{"not any more", old, 7, spec.AppTagCheck, spec.AbortFailedFused},
		} {
			sts := q.together(host(first, 0, c.block, c.tag), host(second, 2048, next, 9))
			if sts[0].Code() != c.want || sts[1].Code() != c.want2 {
				t.Errorf("%v, %s: %v", f, c.name, sts)
			}
		}
	}
}

// A host makes a namespace in a format that it has enabled, with all bits of the storage tag
// compared.
func TestProtectedNamespacesAreMade(t *testing.T) {
	g := newPooled(t, SubsystemConfig{}, 1).guests[0]
	at := g.alloc(1)
	create := func(flbas, dps uint8, mask uint64) spec.Status {
		id := spec.IdentifyNamespace{Size: 64, Capacity: 64, FLBAS: flbas, DPS: dps}
		id.Put(g.bytes(at, spec.IdentifySize))
		binary.LittleEndian.PutUint64(g.bytes(at+384, 8), mask)
		return g.do(spec.SubmissionEntry{Opcode: spec.AdminNamespaceManagement, CDW10: spec.NamespaceCreate, PRP1: at}).Status.Code()
	}
	for _, c := range []struct {
		name       string
		consent    bool
		flbas, dps uint8
		mask       uint64
		want       spec.Status
	}{
		{"protected", false, 2, 1, 0, spec.Success},
		{"extended", false, 2 | 1<<4, 2, 0, spec.Success},
		{"64 bits without consent", false, 8, 1, 0, spec.InvalidNamespaceOrFormat},
		{"64 bits without protection", false, 8, 0, 0, spec.Success},
		{"64 bits", true, 8, 1, 0, spec.Success},
		{"storage tag", true, 10, 1, 0xffff, spec.Success},
		{"storage tag, of which the host knows nothing", true, 10, 1, 0, spec.Success},
		{"storage tag with a mask", true, 10, 1, 0xff, spec.InvalidField},
		{"storage tag without protection", true, 10, 0, 0, spec.Success},
		{"a mask without a tag", true, 2, 1, 1, spec.Success},
		{"protection in the first bytes", true, 2, 1 | 1<<3, 0, spec.InvalidField},
	} {
		g.c.extendedFormats.Store(c.consent)
		if st := create(c.flbas, c.dps, c.mask); st != c.want {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
	}
}

// After Format NVM no block is checked, and none has its old data or metadata.
func TestFormattedBlocksWereNeverWritten(t *testing.T) {
	g, q := formatted(t, rig{}, separate8)
	data, meta := g.alloc(1), g.alloc(1)
	pattern(g.bytes(data, 512), 1)
	write := rw(spec.NVMWrite, 1, 9, 1, data, 0)
	write.CDW12 |= spec.RWAction
	for _, f := range []spec.FormatNVM{{Format: 2, Protection: 2}, {Format: 6, Protection: 1}, {Format: 2, Protection: 3}, {Format: 2, Protection: 1}} {
		write.MPTR = meta
		if st := q.status(write); !st.OK() {
			t.Fatal(st)
		}
		g.must(formatCommand(1, f))
		ns := g.c.namespace(1)
		for _, lba := range []uint64{0, 9, ns.blocks - 1} {
			clear(g.bytes(meta, 64))
			e := rw(spec.NVMRead, 1, lba, 1, data+1024, 0)
			e.CDW12 |= spec.RWCheckGuard | spec.RWCheckAppTag
			e.MPTR = meta
			e.SetAppTag(1, 0xffff)
			if st := q.status(e); !st.OK() {
				t.Errorf("%+v: block %d: %v", f, lba, st)
			}
			own := g.bytes(meta, ns.protection.metadata)
			want := append(make([]byte, ns.protection.at), bytes.Repeat([]byte{0xff}, 8)...)
			if !bytes.Equal(own, want) || !bytes.Equal(g.bytes(data+1024, 512), make([]byte, 512)) {
				t.Errorf("%+v: block %d has metadata % x, or data", f, lba, own)
			}
		}
	}
}
