package nvmeconformance

import (
	"encoding/binary"
	"slices"

	"vfiouser/devices/nvme/spec"
)

// Bits of CDW11 of Create I/O Queue.
const (
	contiguous       = 1 << 0
	interruptEnabled = 1 << 1
)

func createCQ(id uint16, size uint32, at uint64, flags uint32) *spec.SubmissionEntry {
	return &spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: at, CDW10: uint32(id) | (size-1)<<16, CDW11: flags}
}

func createSQ(id uint16, size uint32, at uint64, flags uint32, cq uint16) *spec.SubmissionEntry {
	return &spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: at, CDW10: uint32(id) | (size-1)<<16, CDW11: flags | uint32(cq)<<16}
}

func deleteCQ(id uint16) *spec.SubmissionEntry {
	return &spec.SubmissionEntry{Opcode: spec.AdminDeleteCQ, CDW10: uint32(id)}
}

func deleteSQ(id uint16) *spec.SubmissionEntry {
	return &spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: uint32(id)}
}

func getFeature(feature, sel uint8, nsid uint32) *spec.SubmissionEntry {
	return &spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: nsid, CDW10: uint32(feature) | uint32(sel)<<8}
}

func setFeature(feature uint8, nsid, value uint32) *spec.SubmissionEntry {
	return &spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: nsid, CDW10: uint32(feature), CDW11: value}
}

// with gives a command a data buffer of n bytes in pages.
func (t *T) with(cmd *spec.SubmissionEntry, n int) (data []byte) {
	data, at := t.alloc(n)
	t.point(cmd, at, n)
	return data
}

// point describes n bytes at an address by PRPs.
func (t *T) point(cmd *spec.SubmissionEntry, at uint64, n int) {
	cmd.PRP1, cmd.PRP2 = at, 0
	first := pageSize - int(at%pageSize)
	switch {
	case n <= first:
	case n <= first+pageSize:
		cmd.PRP2 = at + uint64(first)
	default:
		pages := (n - first + pageSize - 1) / pageSize
		if pages > pageSize/8 {
			panic("nvmeconformance: a buffer that needs several PRP lists")
		}
		list, listAt := t.alloc(8 * pages)
		for i := range pages {
			binary.LittleEndian.PutUint64(list[8*i:], at+uint64(first+i*pageSize))
		}
		cmd.PRP2 = listAt
	}
}

func identifyCommand(cns uint8, nsid uint32) *spec.SubmissionEntry {
	return &spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: nsid, CDW10: uint32(cns)}
}

// identify returns a copy of an Identify data structure.
func (t *T) identify(cns uint8, nsid uint32) []byte {
	cmd := identifyCommand(cns, nsid)
	data := t.with(cmd, 4096)
	if c := t.do(t.admin, cmd); !c.Status.OK() {
		t.fatalf("Identify of CNS %02Xh, namespace %#x, completes with %s", cns, nsid, describe(c.Status))
	}
	return append([]byte(nil), data...)
}

func logCommand(page uint8, nsid uint32, off uint64, n int) *spec.SubmissionEntry {
	dwords := uint32(n/4 - 1)
	return &spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, NSID: nsid,
		CDW10: uint32(page) | dwords<<16, CDW11: dwords >> 16, CDW12: uint32(off), CDW13: uint32(off >> 32)}
}

// log returns a copy of a part of a log page.
func (t *T) log(page uint8, nsid uint32, off uint64, n int) []byte {
	cmd := logCommand(page, nsid, off, n)
	data := t.with(cmd, n)
	if c := t.do(t.admin, cmd); !c.Status.OK() {
		t.fatalf("Get Log Page %02Xh completes with %s", page, describe(c.Status))
	}
	return append([]byte(nil), data...)
}

// Opcodes of the NVM command set that package spec has no use for.
const (
	reservationRegister = 0x0d
	reservationReport   = 0x0e
	reservationAcquire  = 0x11
	reservationRelease  = 0x15
)

// blocksCommand is an I/O command that names blocks as Read does.
func (t *T) blocksCommand(op uint8, lba uint64, blocks int) *spec.SubmissionEntry {
	t.needNamespace()
	cmd := &spec.SubmissionEntry{Opcode: op, NSID: t.ns.id, CDW12: uint32(blocks - 1)}
	cmd.SetLBA(lba)
	return cmd
}

func (t *T) needNamespace() { t.need(t.ns != nil, "writable namespace without metadata") }

// write writes a pattern and returns it.
func (t *T) write(lba uint64, blocks int, seed byte) []byte {
	cmd := t.blocksCommand(spec.NVMWrite, lba, blocks)
	data := t.with(cmd, blocks*t.ns.blockSize)
	pattern(data, seed)
	t.must("Write", t.do(t.io, cmd))
	return append([]byte(nil), data...)
}

// read reads blocks.
func (t *T) read(lba uint64, blocks int) []byte {
	cmd := t.blocksCommand(spec.NVMRead, lba, blocks)
	data := t.with(cmd, blocks*t.ns.blockSize)
	t.must("Read", t.do(t.io, cmd))
	return append([]byte(nil), data...)
}

// maxTransfer is MDTS in bytes, and 1 MiB if there is no limit.
func (t *T) maxTransfer() int {
	m := t.identity[77]
	if m == 0 || m > 9 {
		return 1 << 20
	}
	return pageSize << m
}

// Announcements in Identify Controller.
func (t *T) oacs(bit int) bool { return t.u16(t.identity, 256)>>bit&1 != 0 }
func (t *T) oncs(bit int) bool { return t.u16(t.identity, 520)>>bit&1 != 0 }
func (t *T) oaes(bit int) bool { return t.u32(t.identity, 92)>>bit&1 != 0 }
func (t *T) lpa(bit int) bool  { return t.identity[261]>>bit&1 != 0 }
func (t *T) inactive() uint32  { return t.u32(t.identity, 516) + 1 }
func (t *T) version() uint32   { return t.u32(t.identity, 80) }
func (t *T) sgls() uint32      { return t.u32(t.identity, 536) }
func (t *T) fuses() bool       { return t.u16(t.identity, 522)&1 != 0 }
func (t *T) ctratt(b int) bool { return t.u32(t.identity, 96)>>b&1 != 0 }

// unused is an identifier up to NN that no namespace has.
func (t *T) unused() uint32 {
	cns := uint8(2)
	if t.oacs(3) {
		cns = 0x10
	}
	taken := ids(t.identify(cns, 0))
	for id := uint32(1); id < t.inactive(); id++ {
		if !slices.Contains(taken, id) {
			return id
		}
	}
	t.skipf("every identifier up to NN has a namespace")
	return 0
}
