package nvme

import (
	"bytes"
	"runtime/debug"
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
	"vfiouser/test/holdings"
)

// protectedRun is a modelRun whose namespace changes in between.
type protectedRun struct {
	*modelRun
	d *modelDrive
	f format
}

// withMetadata are the formats that have some.
func withMetadata() []format {
	return slices.DeleteFunc(everyFormat(), func(f format) bool { return blockFormats[f.index].metadata == 0 })
}

// formatted makes the model that of a namespace after a format.
func (r *protectedRun) formatted(f format) {
	r.f = f
	r.d.formats[1] = f
	r.blockModel = newBlockModel(f.config(), int(r.g.c.namespace(1).blocks))
}

// again has the host begin anew on whatever controller there is.
func (r *protectedRun) again() {
	h := r.d.hosts[0]
	r.d.CreateQueue(0, 0)
	r.g, r.q = h.guest, h.queues[0]
	r.consent()
}

// consent enables all formats.
func (r *protectedRun) consent() {
	r.g.c.extendedFormats.Store(true)
}

// anySize is that of some blocks, with what is less than one behind them.
func (r *protectedRun) anySize() int64 {
	bytes, _ := r.f.bytesOf(uint64(3*modelBlocks + r.s.Intn(60)))
	return bytes + int64(r.s.Intn(2))*block.SectorSize
}

func (r *protectedRun) something() {
	switch r.s.Intn(24) {
	case 0: // to another size
		noError(r.t, r.d.s.ResizeNamespace(1, r.anySize()))
		r.resized(int(r.g.c.namespace(1).blocks))
	case 1:
		formats := withMetadata()
		f := formats[r.s.Intn(len(formats))]
		blocks := f.blocksIn(r.g.c.namespace(1).backend.Size())
		if blocks < 2*modelBlocks {
			return
		}
		c := spec.FormatNVM{Format: f.index, Extended: f.extended, Protection: f.protection}
		r.g.must(spec.SubmissionEntry{Opcode: spec.AdminFormatNVM, NSID: 1, CDW10: c.Word()})
		r.formatted(f)
	case 2:
		r.d.Restart(0, choice.Pick(r.s, nvmemodel.Reset, nvmemodel.Disconnect, nvmemodel.SubsystemReset))
		r.again()
	case 3: // to another drive, with its queues
		next := []nvmemodel.Namespace{{ID: 1, Bytes: r.g.c.namespace(1).backend.Size()}}
		r.d.Migrate(next)
		r.g = r.d.hosts[0].guest
		r.consent()
	default:
		r.step()
	}
}

// runProtected runs a program on a namespace with metadata, and compares all blocks and what is in
// the storage.
func runProtected(t *testing.T, s *choice.Source, memory []*modelMemory) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	formats := withMetadata()
	f := formats[s.Intn(len(formats))]
	d := newModelDrive(t, anyRig(s), memory, nvmemodel.Config{Hosts: 1})
	defer func() { d.close() }()
	d.formats = map[uint32]format{}
	r := &protectedRun{d: d, f: f, modelRun: &modelRun{t: t, s: s, nsid: 1}}
	d.formats[1] = f
	d.Add(nvmemodel.Namespace{ID: 1, Bytes: r.anySize()})
	h := d.hosts[0]
	h.next = modelData
	r.again()
	r.modelRun = newModelRun(t, h.guest, r.q, s)
	r.nsid = 1
	r.formatted(f)
	for steps := 0; s.More() && (s.Seeded() || steps < 200); steps++ {
		r.something()
	}
	r.readAll()
	image := make([]byte, len(r.data)*r.BlockSize)
	copy(image, r.g.c.namespace(1).backend.(*ramDisk).content)
	if !bytes.Equal(image, slices.Concat(r.data...)) {
		t.Errorf("%v: the storage is no image of the data", r.f)
	}
}

// FuzzBlocksWithMetadata runs programs on a namespace with metadata, extended or separate, with and without
// protection information, that gets other sizes and formats and moves, and on a model of it.
//
//fuzz:covers devices/nvme/protected.go devices/nvme/protection.go devices/nvme/metadata.go devices/nvme/metadatapointer.go devices/nvme/movemetadata.go devices/nvme/rangelock.go
func FuzzBlocksWithMetadata(f *testing.F) {
	takeTurns(f)
	memory := []*modelMemory{newModelMemory(f)}
	choice.Fuzz(f, 80, 400, func(t *testing.T, s *choice.Source) { runProtected(t, s, memory) })
}

// TestBlocksWithMetadataPrograms runs the same programs from seeds.
func TestBlocksWithMetadataPrograms(t *testing.T) {
	holdings.CheckLeaks(t)
	memory := []*modelMemory{newModelMemory(t)}
	choice.Programs(t, 40, 100, func(t *testing.T, s *choice.Source) { runProtected(t, s, memory) })
}
