package hostile

import (
	"testing"

	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// newProtectedLab has a victim whose blocks have protection information: in a buffer of its
// own in memNS, at the end of each block in fileNS.
func newProtectedLab(t *testing.T, mode nvme.DoorbellMode) *lab {
	t.Helper()
	return newFormattedLab(t, mode, 2*patience,
		nvme.Namespace{Metadata: 8, Protection: 1}, nvme.Namespace{Metadata: 8, Protection: 2, Extended: true})
}

func TestMetadataPointers(t *testing.T) {
	l := newProtectedLab(t, nvme.Trap)
	const list, meta = ramBase + 8<<20, ramBase + 9<<20
	d := spec.NewSGLDescriptor
	for _, c := range []struct {
		name   string
		psdt   uint8
		mptr   uint64
		list   []spec.SGLDescriptor // again and again
		status spec.Status
	}{
		{"nowhere", spec.PSDTPRP, nowhere, nil, spec.DataTransferError},
		{"at the end of the address space", spec.PSDTPRP, 1<<64 - 4, nil, spec.DataTransferError},
		{"across the end of the memory", spec.PSDTPRP, ramBase + 16<<20 - 4, nil, spec.DataTransferError},
		{"at an odd address", spec.PSDTPRP, meta + 2, nil, spec.InvalidField},
		{"beside an SGL, nowhere", spec.PSDTSGL, nowhere, nil, spec.DataTransferError},
		{"descriptor nowhere", spec.PSDTSGLSegment, nowhere, nil, spec.DataTransferError},
		{"descriptor in the last bytes of the address space", spec.PSDTSGLSegment, 1<<64 - 8, nil, spec.DataTransferError},
		{"descriptor at an odd address", spec.PSDTSGLSegment, list + 4, nil, spec.InvalidField},
		{"too short", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{d(spec.SGLDataBlock, meta, 63)}, spec.MetadataSGLLengthInvalid},
		{"of 4 GiB", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{d(spec.SGLDataBlock, meta, 1<<32-1)}, spec.Success},
		{"of an unknown type", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{d(0x7, meta, 64)}, spec.SGLDescriptorTypeInvalid},
		{"segment that leads to itself", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{d(spec.SGLSegment, list, 16)}, spec.InvalidNumberOfSGLDescriptors},
		{"segment of 4 GiB", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{d(spec.SGLLastSegment, list, 1<<32-16)}, spec.InvalidNumberOfSGLDescriptors},
		{"segment without length", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{d(spec.SGLLastSegment, list, 64<<10), d(spec.SGLDataBlock, meta, 0)},
			spec.InvalidSGLSegment},
		{"segment nowhere", spec.PSDTSGLSegment, list, []spec.SGLDescriptor{d(spec.SGLLastSegment, nowhere, 64)}, spec.DataTransferError},
	} {
		l.attack(t, c.name, func(a *attack) {
			g, p := a.started(64)
			data := ramBase + g.ram.alloc(pageSize)
			for i := range c.list {
				b := make([]byte, spec.SGLDescriptorSize)
				c.list[i].Put(b)
				g.ram.write(uint64(list-ramBase+i*spec.SGLDescriptorSize), b)
			}
			for i := range uint32(20) {
				e := transfer([]uint8{spec.NVMWrite, spec.NVMCompare, spec.NVMRead}[i%3], memNS, 0, 8, data, 0)
				e.Flags, e.MPTR = c.psdt<<6, c.mptr
				if c.psdt != spec.PSDTPRP {
					e.PRP2 = pageSize
				}
				if st := p.status(e); st.Code() != c.status {
					a.Errorf("opcode %d: %v, want %v", e.Opcode, st, c.status)
				}
			}
			e := transfer(spec.NVMRead, memNS, 0, 8, data, 0)
			e.MPTR = data
			if st := p.status(e); !st.OK() {
				a.Errorf("a good command afterwards: %v", st)
			}
		})
	}
}

// Memory that has gone costs the client its session, whatever it was for.
func TestTruncatedMetadata(t *testing.T) {
	for _, mode := range allModes {
		l := newProtectedLab(t, mode)
		for _, c := range []struct {
			name string
			e    func(data, gone uint64) spec.SubmissionEntry
		}{
			{"a buffer that is read", func(data, gone uint64) spec.SubmissionEntry {
				e := transfer(spec.NVMWrite, memNS, 0, 8, data, 0)
				e.MPTR = gone
				return e
			}},
			{"a buffer that is written", func(data, gone uint64) spec.SubmissionEntry {
				e := transfer(spec.NVMRead, memNS, 0, 8, data, 0)
				e.MPTR = gone
				return e
			}},
			{"a descriptor", func(data, gone uint64) spec.SubmissionEntry {
				e := transfer(spec.NVMRead, memNS, 0, 8, data, pageSize)
				e.Flags, e.MPTR = spec.PSDTSGLSegment<<6, gone
				return e
			}},
			{"extended blocks", func(_, gone uint64) spec.SubmissionEntry {
				return transfer(spec.NVMRead, fileNS, 0, 4, gone, 0)
			}},
		} {
			l.attack(t, mode.String()+", "+c.name, func(a *attack) {
				g, p := a.started(64)
				data := ramBase + g.ram.alloc(pageSize)
				g.ram.truncate(g.ram.size - pageSize)
				p.put(c.e(data, ramBase+g.ram.size-pageSize))
				p.ring()
				g.ended()
			})
		}
	}
}

// TestGarbageInProtectedCommands has every entry random but for what brings it past the
// first checks.
func TestGarbageInProtectedCommands(t *testing.T) {
	l := newProtectedLab(t, nvme.Trap)
	l.attack(t, "10,000 entries", func(a *attack) {
		r := a.random()
		g, p := a.started(1024)
		g.scatterDescriptors(r)
		const batch = 1000
		for range 10 {
			for range batch {
				e := randomIO(r)
				e.Opcode = []uint8{spec.NVMRead, spec.NVMWrite, spec.NVMWriteZeroes, spec.NVMCompare, spec.NVMVerify, spec.NVMCopy,
					spec.NVMDatasetManagement}[r.IntN(7)]
				e.MPTR = randomAddress(r)
				if e.Flags != 0 && r.IntN(2) == 0 {
					e.Flags = spec.PSDTSGLSegment << 6
				}
				if r.IntN(2) == 0 {
					e.CDW14 = e.CDW10 // the reference tag of type 1
				}
				p.put(e)
			}
			p.ring()
			p.wait(batch)
		}
		data := ramBase + g.ram.alloc(pageSize)
		e := transfer(spec.NVMRead, memNS, 0, 8, data, 0)
		e.CDW12 |= spec.RWAction
		if st := p.status(e); !st.OK() {
			a.Errorf("a good command afterwards: %v", st)
		}
	})
}
