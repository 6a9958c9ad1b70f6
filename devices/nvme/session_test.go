package nvme

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
)

func TestRegistersAtPowerOn(t *testing.T) {
	g := newGuest(t, rig{})
	var b [8]byte
	_ = g.c.readBAR0(spec.RegCAP, b[:])
	c := spec.Cap(binary.LittleEndian.Uint64(b[:]))
	if c.MQES() != 4095 || c.DoorbellStride() != 4 || c.MPSMin() != 0 || c.TO() == 0 || c&spec.CapCQR == 0 || c&spec.CapCSSNVM == 0 {
		t.Errorf("CAP %#x", uint64(c))
	}
	if hi := g.read32(spec.RegCAP + 4); hi != uint32(c>>32) {
		t.Errorf("upper half of CAP %#x", hi)
	}
	for _, off := range []uint64{spec.RegCC, spec.RegCSTS, spec.RegAQA, spec.RegASQ, spec.RegACQ, spec.RegCMBSZ, 0xe00, 0x1000} {
		if v := g.read32(off); v != 0 {
			t.Errorf("register %#x is %#x", off, v)
		}
	}
}

func TestRegisterAccessSizes(t *testing.T) {
	g := newGuest(t, rig{})
	g.write64(spec.RegASQ, 0x1122334455667000)
	if lo, hi := g.read32(spec.RegASQ), g.read32(spec.RegASQ+4); lo != 0x55667000 || hi != 0x11223344 {
		t.Errorf("ASQ %#x %#x", hi, lo)
	}
	g.write32(spec.RegACQ, 0x1000)
	g.write32(spec.RegACQ+4, 0x2)
	if lo, hi := g.read32(spec.RegACQ), g.read32(spec.RegACQ+4); lo != 0x1000 || hi != 2 {
		t.Errorf("ACQ %#x %#x", hi, lo)
	}
	// What is not an aligned access of 4 or 8 bytes does nothing.
	for _, n := range []int{1, 2, 3, 16} {
		_ = g.c.writeBAR0(spec.RegASQ, make([]byte, n))
	}
	_ = g.c.writeBAR0(spec.RegASQ+2, make([]byte, 4))
	if lo := g.read32(spec.RegASQ); lo != 0x55667000 {
		t.Errorf("ASQ %#x", lo)
	}
	// Read-only registers stay.
	g.write32(spec.RegVS, 0)
	if g.read32(spec.RegVS) != spec.Version2_0 {
		t.Error("VS was written")
	}
}

func TestEnableRefusesWhatTheRegistersDoNotAllow(t *testing.T) {
	good := spec.NewCC(true, 0, 6, 4)
	for _, c := range []struct {
		name string
		cc   spec.CC
		aqa  spec.AQA
	}{
		{"page size", spec.NewCC(true, 1, 6, 4), spec.NewAQA(31, 31)},
		{"command set", good | 7<<4, spec.NewAQA(31, 31)},
		{"arbitration", good | 2<<11, spec.NewAQA(31, 31)},
		{"submission queue of one entry", good, spec.NewAQA(0, 31)},
		{"completion queue of one entry", good, spec.NewAQA(31, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGuest(t, rig{})
			g.write32(spec.RegAQA, uint32(c.aqa))
			g.write64(spec.RegASQ, guestBase)
			g.write64(spec.RegACQ, guestBase)
			g.write32(spec.RegCC, uint32(c.cc))
			g.until("CSTS.CFS", func() bool { return g.csts().CFS() })
			if g.csts().RDY() {
				t.Error("ready")
			}
			// A reset clears it, and then the controller can be enabled.
			g.write32(spec.RegCC, 0)
			g.until("CSTS.CFS to fall", func() bool { return !g.csts().CFS() })
			g.enable()
		})
	}
}

func TestResetForgetsQueuesAndKeepsData(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		data := g.alloc(1)
		for i := range byte(4) {
			g.bytes(data, 1)[0] = i
			if st := q.status(rw(spec.NVMWrite, 1, 0, 8, data, 0)); !st.OK() {
				t.Fatal(st)
			}
			aer := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
			g.disable()
			g.enable()
			if _, ok := g.admin.completed[aer]; ok {
				t.Error("an event request outlived the reset")
			}
			if r.mode == Shadow {
				g.useDBBUF()
			}
			if st := g.do(spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: 1}).Status; st.Code() != spec.InvalidQueueID {
				t.Errorf("queue 1 after the reset: %v", st)
			}
			q = g.createQueue(1, 64)
			g.bytes(data, 1)[0] = 0xff
			if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() || g.bytes(data, 1)[0] != i {
				t.Fatalf("%v, data %d", st, g.bytes(data, 1)[0])
			}
		}
	})
}

func TestResetDeviceInTheMiddleOfIO(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		file, _ := fileBackend(t, 4<<20)
		r.backends = []block.Backend{memory(t, 4<<20), file}
		g, q := started(t, r)
		data := g.alloc(32)
		for range 5 {
			old := q.tail
			for i := range 60 {
				q.put(rw(spec.NVMRead, uint32(i%2+1), 0, 128, data, data+pageSize))
			}
			q.ringTail(old)
			g.lock(true)
			g.c.reset()
			if v := g.read32(spec.RegCSTS) | g.read32(spec.RegCC); v != 0 {
				t.Fatalf("CSTS or CC is %#x after a reset", v)
			}
			g.lock(false)
			g.dbbuf = false
			g.enable()
			if r.mode == Shadow {
				g.useDBBUF()
			}
			q = g.createQueue(1, 64)
			if st := q.status(rw(spec.NVMRead, 2, 0, 8, data, 0)); !st.OK() {
				t.Fatal(st)
			}
		}
	})
}

func TestHeldDataPathTouchesNothing(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		data := g.alloc(1)
		g.lock(true)
		cid := q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
		admin := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatArbitration})
		g.lock(true) // answered in order, so what was to happen has happened
		if q.reap() || g.admin.reap() {
			t.Fatal("a completion while the data path is held")
		}
		g.lock(false)
		if st := q.result(cid).Status; !st.OK() {
			t.Error(st)
		}
		if st := g.admin.result(admin).Status; !st.OK() {
			t.Error(st)
		}
	})
}

func TestShutdownFlushes(t *testing.T) {
	b := &slowBackend{Backend: memory(t, 1<<20)}
	g, _ := started(t, rig{backends: []block.Backend{b}})
	g.write32(spec.RegCC, uint32(spec.NewCC(true, 0, 6, 4).WithSHN(spec.ShutdownNormal)))
	g.until("CSTS.SHST", func() bool { return g.csts().SHST() == spec.ShutComplete })
	if b.flushes.Load() != 1 {
		t.Errorf("%d flushes", b.flushes.Load())
	}
	g.disable()
	if g.csts().SHST() != 0 {
		t.Error("SHST after a reset")
	}
	g.enable()
}

func TestNextClientFindsADisabledControllerAndItsData(t *testing.T) {
	c := newController(t, &rig{mode: Shadow})
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	for i := range byte(3) {
		g := attachGuest(t, c, false, func() worker { return e.PickWorker() })
		t.Cleanup(g.leave)
		if v := g.read32(spec.RegCC) | g.read32(spec.RegCSTS) | g.read32(spec.RegAQA); v != 0 {
			t.Errorf("client %d finds registers of the last one: %#x", i, v)
		}
		g.enable()
		g.useDBBUF()
		q := g.createQueue(1, 64)
		data := g.alloc(1)
		if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() || g.bytes(data, 1)[0] != i {
			t.Fatalf("client %d: %v, data %d", i, st, g.bytes(data, 1)[0])
		}
		g.bytes(data, 1)[0] = i + 1
		q.submit(rw(spec.NVMWrite, 1, 0, 8, data, 0))
		q.result(g.cidLast)
		g.leave()
	}
	if n := c.smart.unsafeShutdowns.Load(); n != 3 {
		t.Errorf("%d unsafe shutdowns", n)
	}
}

func TestClientAfterClose(t *testing.T) {
	c := newController(t, &rig{})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.attach(nil, nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error("closed twice:", err)
	}
}

// Remapping is what a virtual machine monitor does while its guest boots: memory goes
// and comes back, also that of a queue.
func TestQueuesSurviveRemapping(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		data := g.alloc(1)
		queueLast := (g.next - guestBase + pageSize) &^ (pageSize - 1)
		split := func(pieces ...uint64) {
			// The data first, then the rings: they run as soon as they are there.
			end := uint64(guestSize)
			for _, n := range slices.Backward(pieces) {
				end -= n
				g.mapRAM(guestBase+end, n, end)
			}
			g.c.update(engine.UpdateMemory)
		}
		for round := range 10 {
			var cids []uint16
			g.unmapAll()
			old := q.tail
			for range 10 { // rung while there is no memory; the driver's own view stays
				cids = append(cids, q.put(rw(spec.NVMRead, 1, 0, 8, data, 0)))
			}
			q.ringTail(old)
			if round%2 == 0 {
				split(guestSize)
			} else { // rings and data end up in different regions, also in their middle
				pieces := []uint64{}
				for n := uint64(0); n < queueLast; n += pageSize {
					pieces = append(pieces, pageSize)
				}
				split(append(pieces, guestSize-queueLast)...)
			}
			for _, cid := range cids {
				if st := q.result(cid).Status; !st.OK() {
					t.Fatal(st)
				}
			}
		}
	})
}

// unmapAll takes the guest's memory away.
func (g *guest) unmapAll() {
	g.t.Helper()
	done := make(chan struct{})
	g.s.table.UnmapAll(func() { close(done) })
	g.c.update(engine.UpdateMemory)
	g.wait("the unmap", done)
}

func TestQueuesMoveBetweenMappedAndMessageMemory(t *testing.T) {
	for _, mode := range []DoorbellMode{Trap, Shadow, Mmap} {
		t.Run(mode.String(), func(t *testing.T) {
			g, q := started(t, rig{mode: mode})
			data := g.alloc(1)
			for i := range 12 {
				g.unmapAll()
				g.byMsg = i%2 == 0
				g.mapRAM(guestBase, guestSize, 0)
				g.c.update(engine.UpdateMemory)
				for range 70 {
					if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
						t.Fatal(st)
					}
				}
			}
		})
	}
}

// Read-only memory cannot take data, and a queue in it does not run.
func TestProtectionOfMemory(t *testing.T) {
	g, q := started(t, rig{mode: Trap})
	at := uint64(guestBase + guestSize)
	if err := g.s.table.Map(dma.Mapping{IOVA: at, Size: pageSize, Prot: dma.ProtRead, FD: -1}); err != nil {
		t.Fatal(err)
	}
	if st := q.status(rw(spec.NVMRead, 1, 0, 8, at, 0)); st.Code() != spec.DataTransferError {
		t.Error(st)
	}
}
