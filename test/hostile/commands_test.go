package hostile

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

const nowhere = 1 << 50

func TestDataPointers(t *testing.T) {
	l := newLab(t, nvme.Trap)
	for _, ns := range []struct {
		name string
		id   uint32
	}{{"mem", memNS}, {"file", fileNS}} {
		for _, c := range []struct {
			name   string
			blocks uint32
			// entries of the list at list; the first page of data is at data.
			list       func(list, data uint64) []uint64
			prp1, prp2 func(list, data uint64) uint64
			status     spec.Status
		}{
			{"nowhere", 8, nil, at(nowhere), nil, spec.DataTransferError},
			{"at the end of the address space", 8, nil, at(lastPage), nil, spec.DataTransferError},
			{"in the last bytes of the address space", 8, nil, at(1<<64 - 8), at(0), spec.DataTransferError},
			{"at an odd address", 8, nil, at(ramBase + 1), nil, spec.InvalidPRPOffset},
			{"across the end of the memory", 8, nil, at(ramBase + 16<<20 - 512), at(ramBase + 16<<20), spec.DataTransferError},
			{"second page nowhere", 16, nil, inData(0), at(nowhere), spec.DataTransferError},
			{"second page not aligned", 16, nil, inData(0), inData(pageSize + 8), spec.InvalidPRPOffset},
			{"list nowhere", 64, nil, inData(0), at(nowhere), spec.DataTransferError},
			{"list at the end of the address space", 64, nil, inData(0), at(1<<64 - 8), spec.DataTransferError},
			{"list not aligned", 64, nil, inData(0), inData(4), spec.InvalidPRPOffset},
			{"list of addresses nowhere", 64, func(_, _ uint64) []uint64 { return repeat(nowhere, 7) }, inData(0), inList, spec.DataTransferError},
			{"list of addresses not aligned", 64, func(_, data uint64) []uint64 { return repeat(data+8, 7) }, inData(0), inList, spec.InvalidPRPOffset},
			{"list of zeroes", 64, func(_, _ uint64) []uint64 { return repeat(0, 7) }, inData(0), inList, spec.DataTransferError},
			{"list that is its own data", 64, func(list, _ uint64) []uint64 { return repeat(list, 7) }, inList, inList, spec.Success},
			{"list that leads to itself", 2048, func(list, _ uint64) []uint64 { return repeat(list, 512) }, inData(0),
				func(list, _ uint64) uint64 { return list + pageSize - 8 }, spec.Success},
			{"list that goes on nowhere", 2048, func(_, data uint64) []uint64 { return append(repeat(data, 511), nowhere) }, inData(0),
				func(list, _ uint64) uint64 { return list + pageSize - 16 }, spec.DataTransferError},
			{"list that goes on at an odd address", 2048, func(_, data uint64) []uint64 { return append(repeat(data, 511), data+8) }, inData(0),
				func(list, _ uint64) uint64 { return list + pageSize - 16 }, spec.InvalidPRPOffset},
		} {
			l.attack(t, ns.name+", "+c.name, func(a *attack) {
				g, p := a.started(64)
				data, list := ramBase+g.ram.alloc(pageSize), g.ram.alloc(pageSize)
				for range 3 {
					for _, opcode := range []uint8{spec.NVMRead, spec.NVMWrite} {
						if c.list != nil {
							g.ram.write64(list, c.list(ramBase+list, data)...)
						}
						e := transfer(opcode, ns.id, 0, c.blocks, c.prp1(ramBase+list, data), 0)
						if c.prp2 != nil {
							e.PRP2 = c.prp2(ramBase+list, data)
						}
						if st := p.status(e); st.Code() != c.status {
							a.Errorf("opcode %d: %v, want %v", opcode, st, c.status)
						}
					}
				}
				if st := p.status(transfer(spec.NVMRead, ns.id, 0, 8, data, 0)); !st.OK() {
					a.Errorf("a good command afterwards: %v", st)
				}
			})
		}
	}
}

func at(iova uint64) func(_, _ uint64) uint64    { return func(_, _ uint64) uint64 { return iova } }
func inData(off uint64) func(_, d uint64) uint64 { return func(_, d uint64) uint64 { return d + off } }
func inList(list, _ uint64) uint64               { return list }

func repeat(v uint64, n int) []uint64 {
	s := make([]uint64, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func TestScatterGatherLists(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const data, list = ramBase + 8<<20, ramBase + 9<<20
	d := spec.NewSGLDescriptor
	for _, c := range []struct {
		name   string
		first  spec.SGLDescriptor
		list   []spec.SGLDescriptor // at list, as often as 64 KiB have room
		status spec.Status
	}{
		{"nowhere", d(spec.SGLDataBlock, nowhere, pageSize), nil, spec.DataTransferError},
		{"at the end of the address space", d(spec.SGLDataBlock, 1<<64-8, pageSize), nil, spec.DataTransferError},
		{"too short", d(spec.SGLDataBlock, data, 511), nil, spec.DataSGLLengthInvalid},
		{"no length", d(spec.SGLDataBlock, data, 0), nil, spec.DataSGLLengthInvalid},
		{"4 GiB", d(spec.SGLDataBlock, data, 1<<32-1), nil, spec.Success},
		{"unknown type", d(0x7, data, pageSize), nil, spec.SGLDescriptorTypeInvalid},
		{"bit bucket that is too short", d(spec.SGLBitBucket, data, 511), nil, spec.DataSGLLengthInvalid},
		{"bit buckets without length", d(spec.SGLLastSegment, list, 64<<10), []spec.SGLDescriptor{d(spec.SGLBitBucket, 0, 0)}, spec.DataSGLLengthInvalid},
		{"unknown sub type", spec.SGLDescriptor{Address: data, Word: 0xf<<56 | pageSize}, nil, spec.SGLDescriptorTypeInvalid},
		{"segment nowhere", d(spec.SGLSegment, nowhere, pageSize), nil, spec.DataTransferError},
		{"segment at the end of the address space", d(spec.SGLSegment, 1<<64-16, pageSize), nil, spec.DataTransferError},
		{"empty segment", d(spec.SGLLastSegment, list, 0), nil, spec.InvalidSGLSegment},
		{"half a descriptor", d(spec.SGLLastSegment, list, 8), nil, spec.InvalidSGLSegment},
		{"segment of 4 GiB", d(spec.SGLSegment, list, 1<<32-16), nil, spec.InvalidNumberOfSGLDescriptors},
		{"segment that leads to itself", d(spec.SGLSegment, list, 16), []spec.SGLDescriptor{d(spec.SGLSegment, list, 16)}, spec.InvalidNumberOfSGLDescriptors},
		{"segment in the middle", d(spec.SGLSegment, list, 64), []spec.SGLDescriptor{d(spec.SGLSegment, list, 16)}, spec.InvalidSGLSegment},
		{"last segment that leads on", d(spec.SGLLastSegment, list, 16), []spec.SGLDescriptor{d(spec.SGLSegment, list, 16)}, spec.InvalidSGLSegment},
		{"blocks without length", d(spec.SGLLastSegment, list, 64<<10), []spec.SGLDescriptor{d(spec.SGLDataBlock, data, 0)}, spec.DataSGLLengthInvalid},
		{"blocks of a byte", d(spec.SGLLastSegment, list, 64<<10), []spec.SGLDescriptor{d(spec.SGLDataBlock, data+1, 1), d(spec.SGLDataBlock, data, 1)}, spec.Success},
		{"blocks nowhere", d(spec.SGLLastSegment, list, 64<<10), []spec.SGLDescriptor{d(spec.SGLDataBlock, nowhere, 1)}, spec.DataTransferError},
	} {
		l.attack(t, c.name, func(a *attack) {
			g, p := a.started(64)
			if c.list != nil {
				var b []byte
				for i := 0; len(b) < 64<<10; i++ {
					b = append(b, make([]byte, spec.SGLDescriptorSize)...)
					c.list[i%len(c.list)].Put(b[len(b)-spec.SGLDescriptorSize:])
				}
				g.ram.write(list-ramBase, b)
			}
			for i := range uint32(20) {
				e := transfer([]uint8{spec.NVMRead, spec.NVMWrite}[i%2], memNS+i/2%2, 0, 1, c.first.Address, c.first.Word)
				e.Flags = spec.PSDTSGL << 6
				if e.Opcode == spec.NVMRead && c.list != nil && c.status == spec.Success {
					continue // it might read into its own list
				}
				if st := p.status(e); st.Code() != c.status {
					a.Errorf("%v, want %v", st, c.status)
				}
			}
		})
	}
}

// TestGarbageInIOQueues has every entry random, or random but for what brings it past the
// first checks.
func TestGarbageInIOQueues(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		l.attack(t, "34,000 entries", func(a *attack) { // in each mode
			r := a.random()
			g, p := a.started(1024)
			g.scatterDescriptors(r)
			const batch = 1000
			for range 34 {
				for range batch {
					p.put(randomIO(r))
				}
				p.ring()
				p.wait(batch)
			}
			if st := p.status(transfer(spec.NVMRead, memNS, 0, 8, ramBase+g.ram.alloc(pageSize), 0)); !st.OK() {
				a.Errorf("a good command afterwards: %v", st)
			}
		})
	})
}

func randomEntry(r *rand.Rand) (e spec.SubmissionEntry) {
	var b [spec.SubmissionEntrySize]byte
	garbage(r, b[:])
	e.Get(b[:])
	return e
}

var ioOpcodes = []uint8{
	spec.NVMRead, spec.NVMWrite, spec.NVMFlush, spec.NVMWriteZeroes, spec.NVMDatasetManagement, spec.NVMCompare, spec.NVMVerify,
	spec.NVMWriteUncorrectable, spec.NVMCopy, spec.NVMReservationRegister, spec.NVMReservationReport, spec.NVMReservationAcquire,
	spec.NVMReservationRelease,
}

// randomIO is an I/O command of which anything may be wrong.
func randomIO(r *rand.Rand) spec.SubmissionEntry {
	e := randomEntry(r)
	if r.IntN(4) == 0 {
		return e
	}
	e.Opcode = ioOpcodes[r.IntN(len(ioOpcodes))]
	e.MPTR = randomAddress(r)
	e.NSID = []uint32{memNS, fileNS, fileNS, e.NSID}[r.IntN(4)]
	if r.IntN(8) > 0 {
		e.Flags = uint8(r.IntN(3)/2) << 6 // a third of them have an SGL
	}
	e.SetLBA(r.Uint64N(diskSize / blockSize))
	e.CDW12 = r.Uint32N(1 << r.IntN(17))
	e.PRP1, e.PRP2 = randomAddress(r), randomAddress(r)
	if e.Flags != 0 {
		e.PRP2 = randomDescriptor(r).Word
	}
	return e
}

// randomDescriptor is an SGL descriptor, often one of a known type and a small length.
func randomDescriptor(r *rand.Rand) spec.SGLDescriptor {
	if r.IntN(8) == 0 {
		return spec.SGLDescriptor{Address: randomAddress(r), Word: r.Uint64()}
	}
	return spec.NewSGLDescriptor(uint8(r.IntN(4)), randomAddress(r), r.Uint32N(512)*16)
}

// scatterDescriptors fills the part of a rig's memory in which random addresses often
// lie with random descriptors.
func (g *rig) scatterDescriptors(r *rand.Rand) {
	b := make([]byte, 1<<20)
	for i := 0; i < len(b); i += spec.SGLDescriptorSize {
		randomDescriptor(r).Put(b[i:])
	}
	g.ram.write(8<<20, b)
}

// randomAddress is often one inside the memory of a rig, or near its ends.
func randomAddress(r *rand.Rand) uint64 {
	switch r.IntN(6) {
	case 0:
		return r.Uint64()
	case 1:
		return ramBase + 16<<20 - r.Uint64N(2*pageSize)
	case 2:
		return ramBase - r.Uint64N(2*pageSize)
	case 3: // not the queues: the attack would end by itself
		return ramBase + 1<<20 + r.Uint64N(15<<20)
	default:
		return ramBase + 8<<20 + r.Uint64N(1<<11)*pageSize
	}
}

func TestGarbageInAdminQueue(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		l.attack(t, "15,000 entries", func(a *attack) {
			r := a.random()
			g := a.newRig(16 << 20)
			g.start()
			p := g.admin
			const batch = 60
			outstanding := 0 // up to four of them wait for events
			for range 15_000 / batch {
				for range batch {
					p.put(randomAdmin(r))
				}
				p.ring()
				outstanding += batch
				g.until("nothing but event requests waits", func() bool {
					for {
						if _, ok := p.take(); !ok {
							break
						}
						outstanding--
					}
					p.release()
					return outstanding <= 4
				})
			}
			g.restart()
			g.do(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: ramBase + 8<<20})
		})
	})
}

// randomAdmin is an admin command of which anything may be wrong.
func randomAdmin(r *rand.Rand) spec.SubmissionEntry {
	e := randomEntry(r)
	if r.IntN(8) == 0 {
		return e
	}
	e.Opcode = []uint8{
		spec.AdminDeleteSQ, spec.AdminCreateSQ, spec.AdminGetLogPage, spec.AdminDeleteCQ, spec.AdminCreateCQ, spec.AdminIdentify,
		spec.AdminAbort, spec.AdminSetFeatures, spec.AdminGetFeatures, spec.AdminAsyncEvent, spec.AdminDoorbellBuffer,
		spec.AdminFirmwareCommit, spec.AdminFirmwareDownload, spec.AdminSelfTest, spec.AdminDirectiveSend, spec.AdminDirectiveReceive,
		spec.AdminSecuritySend, spec.AdminSecurityReceive, spec.AdminKeepAlive, spec.AdminNamespaceAttachment,
	}[r.IntN(20)]
	if r.IntN(8) > 0 {
		e.Flags = 0
	}
	small := func(v uint32) uint32 {
		if r.IntN(4) == 0 {
			return v
		}
		return r.Uint32N(4) | r.Uint32N(64)<<16
	}
	e.NSID, e.CDW10, e.CDW11, e.CDW12 = small(e.NSID), small(e.CDW10), small(e.CDW11)|1, small(e.CDW12)
	e.PRP1, e.PRP2 = randomAddress(r), randomAddress(r)
	return e
}

// TestBuffersThatChange has a command's list change while it is used.
func TestBuffersThatChange(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "lists", func(a *attack) {
		r := a.random()
		g, p := a.started(1024)
		data, list := ramBase+g.ram.alloc(pageSize), g.ram.alloc(pageSize)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			b := make([]byte, pageSize)
			for good := true; ; good = !good {
				select {
				case <-stop:
					return
				default:
				}
				v := data
				if !good {
					v = nowhere
				}
				for i := 0; i < len(b); i += 8 {
					binary.LittleEndian.PutUint64(b[i:], v)
				}
				g.ram.write(list, b)
			}
		}()
		for range 20 {
			const batch = 200
			for range batch {
				p.put(transfer(spec.NVMRead, memNS+r.Uint32N(2), 0, 1024, data, ramBase+list))
			}
			p.ring()
			p.wait(batch)
		}
		close(stop)
		<-stopped
	})
}
