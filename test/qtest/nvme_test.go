package qtest

import (
	"bytes"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// Where the queues and buffers of the test lie, each in pages of its own.
const (
	queueEntries = 8
	queuesAt     = 0x40_0000 // admin SQ, admin CQ, I/O SQ, I/O CQ
	dataAt       = 0x50_0000
	stride       = 4 // bytes between doorbells
	pageSize     = 4096
)

// queue is a pair of queues of which the test plays the driver.
type queue struct {
	r      *rig
	id     uint16
	sq, cq uint64
	tail   int
	head   int
	phase  bool
}

func (r *rig) queue(id uint16) *queue {
	sq := queuesAt + uint64(id)*2*pageSize
	return &queue{r: r, id: id, sq: sq, cq: sq + pageSize, phase: true}
}

// run submits a command and waits for its completion.
func (q *queue) run(e spec.SubmissionEntry) spec.CompletionEntry {
	r := q.r
	r.Helper()
	e.CID = uint16(0x100 + q.tail)
	var b [spec.SubmissionEntrySize]byte
	e.Put(b[:])
	r.check(r.m.Write(r.ctx, q.sq+uint64(q.tail)*spec.SubmissionEntrySize, b[:]))
	q.tail = (q.tail + 1) % queueEntries
	r.setRegister(spec.SQTailDoorbell(q.id, stride), uint64(q.tail), 4)
	var done spec.CompletionEntry
	r.until("the command completes", func() bool {
		got, err := r.m.Read(r.ctx, q.cq+uint64(q.head)*spec.CompletionEntrySize, spec.CompletionEntrySize)
		r.check(err)
		done.Get(got)
		return done.Phase == q.phase
	})
	if q.head = (q.head + 1) % queueEntries; q.head == 0 {
		q.phase = !q.phase
	}
	r.setRegister(spec.CQHeadDoorbell(q.id, stride), uint64(q.head), 4)
	if done.CID != e.CID || done.Status != spec.Success {
		r.Fatalf("opcode %#x, id %#x: completed as id %#x with status %#x", e.Opcode, e.CID, done.CID, done.Status)
	}
	return done
}

// TestNVMe brings an NVMe controller up as a driver does, and writes and reads blocks, in
// each doorbell mode and with each kind of memory.
func TestNVMe(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   nvme.DoorbellMode
		memory string
	}{
		{"trapped doorbells", nvme.Trap, shared},
		{"mapped doorbells", nvme.Mmap, shared},
		{"memory by message", nvme.Auto, anonymous},
	} {
		t.Run(c.name, func(t *testing.T) {
			store, err := block.Open("mem:16M")
			if err != nil {
				t.Fatal(err)
			}
			disk, err := nvme.New(nvme.Config{
				Namespaces: []nvme.Namespace{{Backend: store}}, Serial: "qtest", Doorbells: c.mode,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { disk.Close() })
			r := start(t, "q35", c.memory, serve(t, disk))
			for range 2 { // the second time after a reset of the controller
				driveNVMe(r)
			}
		})
	}
}

func driveNVMe(r *rig) {
	r.Helper()
	r.check(r.f.SetBAR(r.ctx, 0, registersAt, true))
	r.check(r.f.Enable(r.ctx))
	if v := r.load(Memory, registersAt+spec.RegCAP, 8); v == 0 || v == ^uint64(0) {
		r.Fatalf("CAP reads %#x", v)
	}
	r.setRegister(spec.RegCC, 0, 4)
	r.until("the controller stops", func() bool { return r.register(spec.RegCSTS)&uint32(spec.CSTSReady) == 0 })
	r.check(r.m.Write(r.ctx, queuesAt, make([]byte, 4*pageSize)))
	admin, io := r.queue(0), r.queue(1)
	r.setRegister(spec.RegAQA, uint64(spec.NewAQA(queueEntries-1, queueEntries-1)), 4)
	r.setRegister(spec.RegASQ, admin.sq, 8)
	r.setRegister(spec.RegACQ, admin.cq&0xffff_ffff, 4) // in halves, as 32-bit drivers do
	r.setRegister(spec.RegACQ+4, admin.cq>>32, 4)
	r.setRegister(spec.RegCC, uint64(spec.NewCC(true, 0, 6, 4)), 4)
	r.until("the controller is ready", func() bool { return r.register(spec.RegCSTS)&uint32(spec.CSTSReady) != 0 })

	admin.run(spec.SubmissionEntry{Opcode: spec.AdminIdentify, PRP1: dataAt, CDW10: spec.CNSController})
	got, err := r.m.Read(r.ctx, dataAt+4, 20)
	r.check(err)
	if serial := string(bytes.TrimRight(got, " ")); serial != "qtest" {
		r.Errorf("serial number %q", serial)
	}
	const contiguous = 1
	admin.run(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: io.cq, CDW10: 1 | (queueEntries-1)<<16, CDW11: contiguous})
	admin.run(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: io.sq, CDW10: 1 | (queueEntries-1)<<16, CDW11: contiguous | 1<<16})

	data := make([]byte, 2*pageSize)
	for i := range data {
		data[i] = byte(i>>8) ^ byte(i*7)
	}
	r.check(r.m.Write(r.ctx, dataAt, data))
	const blocks = 2 * pageSize / 512
	for i := range uint64(2 * queueEntries) {
		write := spec.SubmissionEntry{Opcode: spec.NVMWrite, NSID: 1, PRP1: dataAt, PRP2: dataAt + pageSize, CDW12: blocks - 1}
		write.SetLBA(i * blocks)
		io.run(write)
		read := write
		read.Opcode, read.PRP1, read.PRP2 = spec.NVMRead, dataAt+0x10_000, dataAt+0x20_000
		io.run(read)
		for page, at := range []uint64{read.PRP1, read.PRP2} {
			got, err := r.m.Read(r.ctx, at, pageSize)
			r.check(err)
			if !bytes.Equal(got, data[page*pageSize:][:pageSize]) {
				r.Fatalf("block %d does not read as it was written", i*blocks)
			}
		}
		r.check(r.m.Write(r.ctx, read.PRP1, make([]byte, pageSize)))
	}
}
