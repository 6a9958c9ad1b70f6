package nvmeconformance

import (
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

// Registers.

func (t *T) readBytes(off uint64, n int) []byte {
	b := make([]byte, n)
	if err := t.dev.ReadRegion(t.ctx, bar0, off, b); err != nil {
		t.fatalf("read of %d bytes at %#x of BAR0: %v", n, off, err)
	}
	return b
}

func (t *T) writeBytes(off uint64, b []byte) {
	if err := t.dev.WriteRegion(t.ctx, bar0, off, b); err != nil {
		t.fatalf("write of %d bytes at %#x of BAR0: %v", len(b), off, err)
	}
}

func (t *T) read32(off uint64) uint32 { return binary.LittleEndian.Uint32(t.readBytes(off, 4)) }
func (t *T) read64(off uint64) uint64 { return binary.LittleEndian.Uint64(t.readBytes(off, 8)) }

func (t *T) write32(off uint64, v uint32) {
	t.writeBytes(off, binary.LittleEndian.AppendUint32(nil, v))
}

func (t *T) write64(off uint64, v uint64) {
	t.writeBytes(off, binary.LittleEndian.AppendUint64(nil, v))
}

func (t *T) csts() spec.CSTS { return spec.CSTS(t.read32(spec.RegCSTS)) }

// enableValue is CC for the NVM command set and queue entries of the usual sizes.
func enableValue() uint32 {
	return uint32(spec.NewCC(true, 0, spec.SubmissionEntryExponent, spec.CompletionEntryExponent))
}

// setAdmin describes the admin queues in the registers.
func (t *T) setAdmin(q *queue) {
	t.write32(spec.RegAQA, uint32(spec.NewAQA(uint16(q.sqSize-1), uint16(q.cqSize-1))))
	t.write64(spec.RegASQ, q.sqAt)
	t.write64(spec.RegACQ, q.cqAt)
}

// enable brings the controller up.
func (t *T) enable(q *queue) {
	t.setAdmin(q)
	t.write32(spec.RegCC, enableValue())
	t.await("CSTS.RDY to follow CC.EN", func() bool { return t.csts()&3 != 0 })
	if s := t.csts(); s.CFS() {
		t.fatalf("CSTS is %#x after CC.EN was set", s)
	}
}

// Memory.

// alloc hands out page-aligned memory, zeroed, that belongs to the check.
func (r *rig) alloc(n int) ([]byte, uint64) {
	size := (uint64(n) + pageSize - 1) &^ (pageSize - 1)
	if r.used+size > memorySize {
		panic("nvmeconformance: out of memory")
	}
	b := r.mem.Bytes()[r.used:][:n:n]
	clear(b)
	at := memoryAt + r.used
	r.used += size
	return b, at
}

// mark keeps what was handed out so far across checks; release takes back the rest.
func (r *rig) mark()    { r.keep = r.used }
func (r *rig) release() { r.used = r.keep }

// Structures.

func (t *T) u16(b []byte, off int) uint16 { return binary.LittleEndian.Uint16(b[off:]) }
func (t *T) u32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func (t *T) u64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

// zero checks that what is reserved reads 0.
func (t *T) zero(what string, b []byte, from, to int) {
	for i := from; i < to; i++ {
		if b[i] != 0 {
			t.errorf("%s: byte %d is %#02x, must be 0", what, i, b[i])
			return
		}
	}
}

// pattern fills b with what differs from block to block and from seed to seed.
func pattern(b []byte, seed byte) {
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*37 ^ seed
	}
}
