package fuzz_test

import (
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz"
)

// Where the structures of the seeds' drivers lie in their memory.
const (
	ram       = 0x10_0000
	ramSize   = 1 << 20
	adminSQ   = ram
	adminCQ   = ram + 0x1000
	ioSQ      = ram + 0x2000
	ioCQ      = ram + 0x3000
	prpList   = ram + 0x4000
	shadow    = ram + 0x5000
	buffer    = ram + 0x1_0000
	entries   = 16
	diskBytes = 1 << 20
)

func newController() (*nvme.Controller, error) {
	disk, err := block.Memory(diskBytes)
	if err != nil {
		return nil, err
	}
	return nvme.New(nvme.Config{Namespaces: []nvme.Namespace{{Backend: disk}}, Queues: 4, QueueEntries: 64})
}

// nvmeDriver writes down what a driver does.
type nvmeDriver struct {
	steps []fuzz.Step
	tails [2]uint32 // of the admin queue and of one for I/O
	// shadows: doorbells of I/O queues are in memory, too.
	shadows bool
}

func (d *nvmeDriver) do(steps ...fuzz.Step) { d.steps = append(d.steps, steps...) }

// begin enables the controller.
func (d *nvmeDriver) begin(memory fuzz.Step) {
	const depth = entries - 1
	d.do(memory, fuzz.Eventfds(codec.IRQMSIX, 0, 3),
		fuzz.Write(codec.RegionConfig, 4, 2, 6), // memory space and bus mastering
		fuzz.Write(0, spec.RegAQA, 4, uint64(spec.NewAQA(depth, depth))),
		fuzz.Write(0, spec.RegASQ, 8, adminSQ), fuzz.Write(0, spec.RegACQ, 8, adminCQ),
		fuzz.Write(0, spec.RegCC, 4, uint64(spec.CCEnable)|spec.SubmissionEntryExponent<<16|spec.CompletionEntryExponent<<20),
		fuzz.Await(0, spec.RegCSTS, 1, 1))
}

// submit gives a command to a queue, rings, and waits until it is completed.
func (d *nvmeDriver) submit(queue int, e spec.SubmissionEntry) {
	sq, cq := uint64(adminSQ), uint64(adminCQ)
	if queue > 0 {
		sq, cq = ioSQ, ioCQ
	}
	slot := uint64(d.tails[queue] % entries)
	d.tails[queue]++
	var b [spec.SubmissionEntrySize]byte
	e.CID = uint16(d.tails[queue])
	e.Put(b[:])
	d.do(fuzz.Store(sq+slot*spec.SubmissionEntrySize, b[:]))
	if d.shadows && queue > 0 {
		d.do(fuzz.Store(shadow+8, le64(uint64(d.tails[queue]%entries))))
	}
	d.do(fuzz.Post(0, spec.RegDoorbells+uint32(8*queue), 4, uint64(d.tails[queue]%entries)),
		fuzz.AwaitMemory(cq+slot*spec.CompletionEntrySize+12, 1<<16, 1<<16),
		fuzz.Post(0, spec.RegDoorbells+uint32(8*queue)+4, 4, uint64(d.tails[queue]%entries)))
}

// queues creates a queue pair for I/O.
func (d *nvmeDriver) queues() {
	d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: ioCQ, CDW10: 1 | (entries-1)<<16, CDW11: 3 | 1<<16})
	d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: ioSQ, CDW10: 1 | (entries-1)<<16, CDW11: 1 | 1<<16})
}

func transfer(opcode uint8, blocks uint32, prp1, prp2 uint64) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: opcode, NSID: 1, PRP1: prp1, PRP2: prp2, CDW12: blocks - 1}
}

// io writes and reads, with pages, a list of them, and a segment list.
func (d *nvmeDriver) io() {
	d.do(fuzz.Store(buffer, []byte("some data")),
		fuzz.Store(prpList, slices.Concat(le64(buffer+0x1000), le64(buffer+0x2000), le64(buffer+0x3000))))
	d.submit(1, transfer(spec.NVMWrite, 8, buffer, 0))
	d.submit(1, transfer(spec.NVMRead, 32, buffer, prpList))
	d.submit(1, transfer(spec.NVMCompare, 1, buffer, 0))
	d.submit(1, transfer(spec.NVMWriteZeroes, 16, 0, 0))
	d.submit(1, spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1})
}

func le64(v uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

func seed(play func(d *nvmeDriver)) fuzz.Option {
	var d nvmeDriver
	play(&d)
	return fuzz.Seed(d.steps...)
}

func nvmeSeeds() []fuzz.Option {
	mapped, asked := fuzz.Map(0, 0, ram, ramSize), fuzz.MapByMessage(0, 0, ram, ramSize)
	started := func(d *nvmeDriver) { d.begin(mapped); d.queues() }
	return []fuzz.Option{
		fuzz.Registers(0, spec.RegCC, spec.RegCSTS, spec.RegAQA, spec.RegASQ, spec.RegACQ, spec.RegNSSR,
			spec.RegDoorbells, spec.RegDoorbells+4, spec.RegDoorbells+8, spec.RegDoorbells+12),
		seed(func(d *nvmeDriver) { d.begin(mapped) }),
		seed(func(d *nvmeDriver) { started(d); d.io() }),
		seed(func(d *nvmeDriver) { d.begin(asked); d.queues(); d.io() }),
		seed(func(d *nvmeDriver) { d.do(fuzz.Reconnect(true)); d.begin(asked); d.queues(); d.io() }),
		seed(func(d *nvmeDriver) { started(d); d.io(); d.do(fuzz.Unmap(ram, ramSize)) }),
		seed(func(d *nvmeDriver) {
			started(d)
			d.io()
			d.do(fuzz.Reset())
			*d = nvmeDriver{steps: d.steps}
			started(d)
		}),
		seed(func(d *nvmeDriver) { // identify, features, logs, an event
			d.begin(mapped)
			d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminIdentify, PRP1: buffer, CDW10: 1})
			d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: 1, PRP1: buffer})
			d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, PRP1: buffer, CDW10: 2 | 127<<16})
			d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: 7})
			d.do(fuzz.Store(adminSQ, make([]byte, 64)))
			d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminAbort, CDW10: 1 << 16})
		}),
		seed(func(d *nvmeDriver) { // shadow doorbells
			d.begin(mapped)
			d.submit(0, spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: shadow, PRP2: shadow + 0x1000})
			d.queues()
			d.shadows = true
			d.io()
		}),
		seed(func(d *nvmeDriver) { // to another controller and on
			started(d)
			d.io()
			d.do(fuzz.Migrate(codec.MigStopCopy), fuzz.ReadState(), fuzz.ReadState(), fuzz.Settle(), fuzz.Reconnect(false), mapped,
				fuzz.Migrate(codec.MigResuming), fuzz.WriteState(), fuzz.Migrate(codec.MigRunning))
			d.tails[1] = 5
			d.submit(1, transfer(spec.NVMRead, 8, buffer, 0))
		}),
	}
}

// FuzzNVMeDevice fuzzes the NVMe controller as a client sees it.
//
//fuzz:covers devices/nvme
func FuzzNVMeDevice(f *testing.F) { fuzz.Device(f, newController, nvmeSeeds()...) }
