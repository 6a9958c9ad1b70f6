package nvme

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
)

// blockModel is a namespace with metadata as the specification has it, byte for byte.
type blockModel struct {
	Namespace
	pi, at  int  // size of the protection information, and where it is in the metadata
	refBits uint // of the reference tag
	data    [][]byte
	meta    [][]byte
}

func newBlockModel(n Namespace, blocks int) *blockModel {
	m := &blockModel{Namespace: n, pi: 8, refBits: 32}
	if n.Guard == 64 {
		m.pi, m.refBits = 16, 48
	}
	m.refBits -= uint(n.StorageTag)
	m.at = n.Metadata - m.pi
	if n.Protection == 0 {
		m.pi, m.at = 0, n.Metadata
	}
	for range blocks {
		m.data = append(m.data, make([]byte, n.BlockSize))
		m.meta = append(m.meta, m.unwritten())
	}
	return m
}

// unwritten is the metadata of a block that was never written.
func (m *blockModel) unwritten() []byte {
	return append(make([]byte, m.at), bytes.Repeat([]byte{0xff}, m.pi)...)
}

// asked is what a command says of protection information.
type asked struct {
	action, guard, app, ref, storage bool
	storageTag, refTag               uint64
	tag, mask                        uint16
}

// tuple is the protection information of the i-th block of a command.
func (m *blockModel) tuple(a asked, i int, data, meta []byte) []byte {
	ref := a.refTag
	if m.Protection != 3 {
		ref = (ref + uint64(i)) % (1 << m.refBits)
	}
	space := a.storageTag<<m.refBits | ref
	guard := slices.Concat(data, meta[:m.at])
	if m.Guard == 64 {
		b := binary.BigEndian.AppendUint64(nil, guardOf(spec.Guard64, guard))
		b = binary.BigEndian.AppendUint16(b, a.tag)
		return append(b, binary.BigEndian.AppendUint64(nil, space)[2:]...)
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(guardOf(spec.Guard16, guard)))
	b = binary.BigEndian.AppendUint16(b, a.tag)
	return append(b, binary.BigEndian.AppendUint64(nil, space)[4:]...)
}

// wrong is the status of a block whose check fails.
func (m *blockModel) wrong(a asked, i int, data, meta []byte) spec.Status {
	if m.Protection == 0 {
		return spec.Success
	}
	have, want := meta[m.at:], m.tuple(a, i, data, meta)
	g := m.Guard / 8
	app := binary.BigEndian.Uint16(have[g:])
	tags := func(b []byte) (storage, ref uint64) {
		space := binary.BigEndian.Uint64(append(make([]byte, 8-len(b[g+2:])), b[g+2:]...))
		return space >> m.refBits, space % (1 << m.refBits)
	}
	haveStorage, haveRef := tags(have)
	wantStorage, wantRef := tags(want)
	switch {
	case app == 0xffff && (m.Protection < 3 || haveRef == 1<<m.refBits-1):
	case a.guard && !bytes.Equal(have[:g], want[:g]):
		return spec.GuardCheck
	case a.app && app&a.mask != a.tag&a.mask:
		return spec.AppTagCheck
	case a.storage && haveStorage != wantStorage:
		return spec.StorageTagCheck
	case a.ref && haveRef != wantRef:
		return spec.RefTagCheck
	}
	return spec.Success
}

// entry makes a command that asks for it.
func (m *blockModel) entry(op uint8, nsid uint32, lba uint64, n int, a asked) spec.SubmissionEntry {
	e := rw(op, nsid, lba, n, 0, 0)
	for bit, set := range map[uint32]bool{1 << 29: a.action, 1 << 28: a.guard, 1 << 27: a.app, 1 << 26: a.ref, 1 << 24: a.storage} {
		if set {
			e.CDW12 |= bit
		}
	}
	space := a.storageTag<<m.refBits | a.refTag
	e.CDW14, e.CDW3 = uint32(space), uint32(space>>32)
	e.CDW15 = uint32(a.mask)<<16 | uint32(a.tag)
	return e
}

// modelRun drives a namespace and its model with the same commands.
type modelRun struct {
	*blockModel
	t                      *testing.T
	g                      *guest
	q                      *testQueue
	s                      *choice.Source
	nsid                   uint32
	buffer, pointer, lists uint64 // in guest memory
	log                    uint64
}

const modelBlocks = 12 // of one command

func newModelRun(t *testing.T, g *guest, q *testQueue, s *choice.Source) *modelRun {
	return &modelRun{t: t, g: g, q: q, s: s, buffer: g.alloc(2*modelBlocks + 1), pointer: g.alloc(1), lists: g.alloc(2), log: g.alloc(1)}
}

func (r *modelRun) fill(b []byte) {
	seed := r.s.Uint32()
	for i := range b {
		seed = seed*1664525 + 1013904223
		b[i] = byte(seed >> 24)
	}
}

// ask makes up what a command asks for, often enough what holds.
func (r *modelRun) ask(lba uint64) asked {
	bit := func() bool { return r.s.Intn(2) == 0 }
	a := asked{action: bit(), guard: bit(), app: bit(), ref: r.Protection != 3 && bit(), storage: bit(), tag: 0x1234, mask: 0xff0f}
	a.refTag = lba % (1 << r.refBits)
	if r.StorageTag > 0 {
		a.storageTag = 0xabcd
	}
	switch r.s.Intn(6) {
	case 0:
		a.tag ^= 1 << r.s.Intn(16)
	case 1:
		a.storageTag ^= uint64(r.s.Intn(2)) & (1<<r.StorageTag - 1)
	case 2:
		if r.Protection != 1 || !a.ref {
			a.refTag ^= 1
		}
	}
	return a
}

// attach puts the buffers of a command into it, and tells how the host's blocks lie there.
func (r *modelRun) attach(e *spec.SubmissionEntry, n int, stripped bool) (data, meta func(i int) []byte) {
	size, step := n*r.BlockSize, r.BlockSize
	if r.Extended && !stripped {
		step += r.Metadata
		size = n * step
	}
	if r.s.Intn(2) == 0 {
		e.PRP1, e.PRP2 = r.g.prps(r.buffer, size, r.lists, false)
	} else {
		e.Flags = spec.PSDTSGL << 6
		e.PRP1, e.PRP2 = r.buffer, uint64(size)
	}
	e.MPTR = r.pointer
	if e.Flags != 0 && r.s.Intn(2) == 0 {
		e.Flags = spec.PSDTSGLSegment << 6
		e.MPTR = r.lists + pageSize
		spec.NewSGLDescriptor(spec.SGLDataBlock, r.pointer, uint32(n*r.Metadata)).Put(r.g.bytes(e.MPTR, 16))
	}
	data = func(i int) []byte { return r.g.bytes(r.buffer+uint64(i*step), r.BlockSize) }
	meta = func(i int) []byte { return r.g.bytes(r.pointer+uint64(i*r.Metadata), r.Metadata) }
	if r.Extended {
		meta = func(i int) []byte { return r.g.bytes(r.buffer+uint64(i*step+r.BlockSize), r.Metadata) }
	}
	return data, meta
}

// run runs a command, which is to fail at a block if want is not success.
func (r *modelRun) run(what string, e spec.SubmissionEntry, want spec.Status, at uint64) {
	r.t.Helper()
	st := r.q.status(e)
	if st.Code() != want {
		r.t.Fatalf("%+v: %s of %d blocks at %d: %v, want %v; CDW12 %#x", r.Namespace, what, e.Blocks(), e.LBA(), st, want, e.CDW12)
	}
	if want.OK() {
		return
	}
	r.g.must(getLog(spec.LogErrors, spec.ErrorEntrySize, 0, r.log))
	var entry spec.ErrorEntry
	if entry.Get(r.g.bytes(r.log, spec.ErrorEntrySize)); !st.DNR() || entry.Status != st|spec.StatusMore || entry.LBA != at {
		r.t.Fatalf("%+v: %s: %v at block %d, want %d", r.Namespace, what, st, entry.LBA, at)
	}
}

func (r *modelRun) write(lba uint64, n int, a asked) {
	stripped := r.Protection != 0 && a.action && r.at == 0
	e := r.entry(spec.NVMWrite, r.nsid, lba, n, a)
	data, meta := r.attach(&e, n, stripped)
	valid := r.ask(lba)
	want, at := spec.Success, uint64(0)
	blocks, metas := make([][]byte, n), make([][]byte, n)
	for i := range n {
		r.fill(data(i))
		m := make([]byte, r.Metadata)
		if !stripped {
			r.fill(meta(i))
			m = meta(i)
			if r.Protection != 0 && r.s.Intn(8) > 0 {
				copy(m[r.at:], r.tuple(valid, i, data(i), m))
			}
			if r.s.Intn(20) == 0 {
				copy(m[r.at:], r.unwritten()[r.at:])
			}
		}
		blocks[i], metas[i] = slices.Clone(data(i)), slices.Clone(m)
		if r.Protection != 0 && a.action {
			copy(metas[i][r.at:], r.tuple(a, i, blocks[i], metas[i]))
		} else if want.OK() {
			want, at = r.wrong(a, i, blocks[i], metas[i]), lba+uint64(i)
		}
	}
	r.run("write", e, want, at)
	if want.OK() {
		copy(r.data[lba:], blocks)
		copy(r.meta[lba:], metas)
	}
}

// firstWrong is the first of the blocks whose check fails.
func (r *modelRun) firstWrong(lba uint64, n int, a asked) (spec.Status, uint64) {
	for i := range n {
		if st := r.wrong(a, i, r.data[lba+uint64(i)], r.meta[lba+uint64(i)]); !st.OK() {
			return st, lba + uint64(i)
		}
	}
	return spec.Success, 0
}

func (r *modelRun) read(lba uint64, n int, a asked) {
	stripped := r.Protection != 0 && a.action && r.at == 0
	e := r.entry(spec.NVMRead, r.nsid, lba, n, a)
	data, meta := r.attach(&e, n, stripped)
	clear(r.g.bytes(r.buffer, 2*modelBlocks*pageSize))
	clear(r.g.bytes(r.pointer, pageSize))
	want, at := r.firstWrong(lba, n, a)
	r.run("read", e, want, at)
	for i := range n {
		gone := !want.OK()
		if want := r.data[lba+uint64(i)]; bytes.Equal(data(i), want) == gone && !(gone && bytes.Equal(want, make([]byte, r.BlockSize))) {
			r.t.Fatalf("%+v: data of block %d; command failed %v", r.Namespace, lba+uint64(i), gone)
		}
		if !gone && !stripped && !bytes.Equal(meta(i), r.meta[lba+uint64(i)]) {
			r.t.Fatalf("%+v: metadata of block %d: % x, want % x", r.Namespace, lba+uint64(i), meta(i), r.meta[lba+uint64(i)])
		}
	}
	if !r.Extended && (stripped || !want.OK()) && !bytes.Equal(r.g.bytes(r.pointer, pageSize), make([]byte, pageSize)) {
		r.t.Fatalf("%+v: metadata was transferred", r.Namespace)
	}
}

func (r *modelRun) verify(lba uint64, n int, a asked) {
	a.action = false
	want, at := r.firstWrong(lba, n, a)
	r.run("verify", r.entry(spec.NVMVerify, r.nsid, lba, n, a), want, at)
}

// compare sees the stored blocks, of which one may be spoilt.
func (r *modelRun) compare(lba uint64, n int, a asked) {
	a.action = false
	e := r.entry(spec.NVMCompare, r.nsid, lba, n, a)
	data, meta := r.attach(&e, n, false)
	want, at := spec.Success, uint64(0)
	for i := range n {
		copy(data(i), r.data[lba+uint64(i)])
		copy(meta(i), r.meta[lba+uint64(i)])
	}
	spoilt := r.s.Intn(2 * n)
	if spoilt < n {
		if b := meta(spoilt); r.s.Intn(2) == 0 {
			b[r.s.Intn(len(b))] ^= 1
		} else {
			data(spoilt)[r.s.Intn(r.BlockSize)] ^= 1
		}
	}
	for i := 0; i < n && want.OK(); i++ {
		want, at = r.wrong(a, i, data(i), meta(i)), lba+uint64(i)
	}
	if want.OK() {
		want, at = r.firstWrong(lba, n, a)
	}
	for i := 0; i < n && want.OK(); i++ {
		b := lba + uint64(i)
		if !bytes.Equal(data(i), r.data[b]) || !bytes.Equal(meta(i)[:r.at], r.meta[b][:r.at]) {
			want, at = spec.CompareFailure, b
		}
	}
	r.run("compare", e, want, at)
}

func (r *modelRun) zero(lba uint64, n int, a asked) {
	a.guard, a.app, a.ref, a.storage = false, false, false, false
	e := r.entry(spec.NVMWriteZeroes, r.nsid, lba, n, a)
	deallocate := r.s.Intn(2) == 0
	if deallocate {
		e.CDW12 |= spec.RWDeallocate
	}
	r.run("write zeroes", e, spec.Success, 0)
	for i := range n {
		r.data[lba+uint64(i)] = make([]byte, r.BlockSize)
		meta := make([]byte, r.Metadata)
		if r.Protection != 0 && deallocate {
			meta = r.unwritten()
		} else if r.Protection != 0 && a.action {
			copy(meta[r.at:], r.tuple(a, i, make([]byte, r.BlockSize), meta))
		}
		r.meta[lba+uint64(i)] = meta
	}
}

func (r *modelRun) deallocate(lba uint64, n int) {
	(&spec.DSMRange{LBA: lba, Blocks: uint32(n)}).Put(r.g.bytes(r.buffer, spec.DSMRangeSize))
	e := spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: r.nsid, PRP1: r.buffer, CDW11: spec.DSMDeallocate}
	if st := r.q.status(e); !st.OK() {
		r.t.Fatal(st)
	}
	for i := range n {
		r.data[lba+uint64(i)] = make([]byte, r.BlockSize)
		r.meta[lba+uint64(i)] = r.unwritten()
	}
}

// copy copies two ranges.
func (r *modelRun) copy(to uint64, from [2]uint64, n int, a asked) {
	var sources [2]asked
	want, at := spec.Success, uint64(0)
	var data, meta [][]byte
	format := uint32(0)
	if r.Protection != 0 && r.Guard == 64 {
		format = 1
	}
	e := r.entry(spec.NVMCopy, r.nsid, to, 2, a)
	e.PRP1 = r.buffer
	info := r.ask(0)
	for i, lba := range from {
		s := r.ask(lba)
		s.action, s.guard, s.app, s.ref, s.storage = a.action, info.guard, info.app, info.ref, info.storage
		if r.Protection == 1 {
			s.refTag = lba % (1 << r.refBits)
		}
		sources[i] = s
		if want.OK() {
			want, at = r.firstWrong(lba, n, s)
		}
		for k := range n {
			data, meta = append(data, r.data[lba+uint64(k)]), append(meta, slices.Clone(r.meta[lba+uint64(k)]))
		}
		c := spec.CopyRange{LBA: lba, Blocks: uint32(n), Space: s.storageTag<<r.refBits | s.refTag, AppTag: s.tag, AppMask: s.mask}
		if format == 1 {
			c.Put64(r.g.bytes(r.buffer+uint64(i)*spec.CopyRange64Size, spec.CopyRange64Size))
		} else {
			c.Put(r.g.bytes(r.buffer+uint64(i)*spec.CopyRangeSize, spec.CopyRangeSize))
		}
	}
	for bit, set := range map[uint32]bool{1 << 15: a.action, 1 << 14: info.guard, 1 << 13: info.app, 1 << 12: info.ref, 1 << 25: info.storage} {
		if set {
			e.CDW12 |= bit
		}
	}
	e.CDW12 |= format << 8
	for i := range data {
		if r.Protection != 0 && a.action {
			copy(meta[i][r.at:], r.tuple(a, i, data[i], meta[i]))
		} else if want.OK() {
			want, at = r.wrong(a, i, data[i], meta[i]), to+uint64(i)
		}
	}
	r.run("copy", e, want, at)
	if want.OK() {
		copy(r.data[to:], data)
		copy(r.meta[to:], meta)
	}
}

// resized is the namespace with another number of blocks.
func (m *blockModel) resized(n int) {
	m.data, m.meta = m.data[:min(n, len(m.data))], m.meta[:min(n, len(m.meta))]
	for len(m.data) < n {
		m.data = append(m.data, make([]byte, m.BlockSize))
		m.meta = append(m.meta, m.unwritten())
	}
}

// readAll reads every block.
func (r *modelRun) readAll() {
	r.t.Helper()
	for lba := 0; lba < len(r.data); lba += modelBlocks {
		r.read(uint64(lba), min(modelBlocks, len(r.data)-lba), asked{})
	}
}

func (r *modelRun) step() {
	n := 1 + r.s.Intn(modelBlocks/2)
	lba := uint64(r.s.Intn(len(r.data) - 2*n))
	switch a := r.ask(lba); r.s.Intn(12) {
	case 0, 1, 2:
		r.write(lba, n, a)
	case 3, 4, 5:
		r.read(lba, n, a)
	case 6:
		r.verify(lba, n, a)
	case 7, 8:
		r.compare(lba, n, a)
	case 9:
		r.zero(lba, 1+r.s.Intn(len(r.data)-int(lba)), a)
	case 10:
		r.deallocate(lba, 1+r.s.Intn(len(r.data)-int(lba)))
	case 11:
		r.copy(lba, [2]uint64{uint64(r.s.Intn(len(r.data) - n)), uint64(r.s.Intn(len(r.data) - n))}, n, a)
	}
}

func TestBlocksWithMetadataFollowAModel(t *testing.T) {
	var formats []format
	for _, f := range everyFormat() {
		if blockFormats[f.index].metadata > 0 {
			formats = append(formats, f)
		}
	}
	const blocks = 150 // their metadata fills some units, and the last one in part
	for _, byMsg := range []bool{false, true} {
		var backends []block.Backend
		for range formats {
			backends = append(backends, memory(t, 1<<20))
		}
		g, q := started(t, rig{byMsg: byMsg, backends: backends, formats: formats})
		g.c.extendedFormats.Store(true)
		r := newModelRun(t, g, q, choice.FromSeed(7, 0))
		for i, f := range formats {
			r.nsid, r.blockModel = uint32(i+1), newBlockModel(f.config(), blocks)
			steps := 40
			if byMsg || testing.Short() {
				steps = 10
			}
			for range steps {
				r.step()
			}
			r.readAll()
			image := make([]byte, blocks*r.BlockSize)
			_, err := backends[i].Submit(&block.Request{Op: block.Read, Length: int64(len(image)), Buffers: [][]byte{image}})
			noError(t, err)
			if !bytes.Equal(image, slices.Concat(r.data...)) {
				t.Errorf("%v: the storage is no image of the data", f)
			}
		}
	}
}
