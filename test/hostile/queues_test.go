package hostile

import (
	"testing"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

func deleteQueue(opcode uint8, id uint16) spec.SubmissionEntry {
	return spec.SubmissionEntry{Opcode: opcode, CDW10: uint32(id)}
}

func TestQueuesThatAreRefused(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const iova = ramBase + 8<<20
	type command = spec.SubmissionEntry
	scattered := createCQ(5, 64, iova, 0)
	scattered.CDW11 &^= 1
	for _, c := range []struct {
		name     string
		commands []command // the last one is refused
		status   spec.Status
	}{
		{"completion queue 0", []command{createCQ(0, 64, iova, 0)}, spec.InvalidQueueID},
		{"completion queue 64", []command{createCQ(64, 64, iova, 0)}, spec.InvalidQueueID},
		{"completion queue 65,535", []command{createCQ(65535, 64, iova, 0)}, spec.InvalidQueueID},
		{"a completion queue twice", []command{createCQ(5, 64, iova, 0), createCQ(5, 64, iova, 0)}, spec.InvalidQueueID},
		{"one entry", []command{createCQ(5, 1, iova, 0)}, spec.InvalidQueueSize},
		{"65,536 entries", []command{createCQ(5, 65536, iova, 0)}, spec.InvalidQueueSize},
		{"a vector that there is not", []command{createCQ(5, 64, iova, 64)}, spec.InvalidInterruptVector},
		{"vector 65,535", []command{createCQ(5, 64, iova, 65535)}, spec.InvalidInterruptVector},
		{"at an odd address", []command{createCQ(5, 64, iova+16, 0)}, spec.InvalidPRPOffset},
		{"scattered", []command{scattered}, spec.InvalidField},
		{"submission queue 0", []command{createSQ(0, 64, iova, 1)}, spec.InvalidQueueID},
		{"submission queue 65,535", []command{createSQ(65535, 64, iova, 1)}, spec.InvalidQueueID},
		{"a submission queue twice", []command{createSQ(5, 64, iova, 1), createSQ(5, 64, iova, 1)}, spec.InvalidQueueID},
		{"without completion queue", []command{createSQ(5, 64, iova, 5)}, spec.CompletionQueueInvalid},
		{"with the admin completion queue", []command{createSQ(5, 64, iova, 0)}, spec.InvalidQueueID},
		{"a submission queue of one entry", []command{createSQ(5, 1, iova, 1)}, spec.InvalidQueueSize},
		{"a submission queue of 65,536 entries", []command{createSQ(5, 65536, iova, 1)}, spec.InvalidQueueSize},
		{"completion queue before its submission queue deleted", []command{deleteQueue(spec.AdminDeleteCQ, 1)}, spec.InvalidQueueDeletion},
		{"deleted twice", []command{deleteQueue(spec.AdminDeleteSQ, 1), deleteQueue(spec.AdminDeleteSQ, 1)}, spec.InvalidQueueID},
		{"the admin queue deleted", []command{deleteQueue(spec.AdminDeleteSQ, 0)}, spec.InvalidQueueID},
		{"the admin completion queue deleted", []command{deleteQueue(spec.AdminDeleteCQ, 0)}, spec.InvalidQueueID},
		{"a queue deleted that there is not", []command{deleteQueue(spec.AdminDeleteSQ, 9)}, spec.InvalidQueueID},
		{"queue 65,535 deleted", []command{deleteQueue(spec.AdminDeleteCQ, 65535)}, spec.InvalidQueueID},
	} {
		l.attack(t, c.name, func(a *attack) {
			g, _ := a.started(64)
			last := len(c.commands) - 1
			for _, e := range c.commands[:last] {
				g.do(e)
			}
			for range 10 {
				if st := g.admin.status(c.commands[last]); st.Code() != c.status {
					a.Errorf("%v, want %v", st, c.status)
				}
			}
		})
	}
}

func TestQueuesWithoutMemory(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		for _, c := range []struct {
			name string
			iova uint64
		}{
			{"nowhere", nowhere},
			{"at the end of the address space", lastPage},
			{"at address 0", 0},
			{"half behind the end of the memory", ramBase + 16<<20 - pageSize},
		} {
			l.attack(t, c.name, func(a *attack) {
				g, p := a.started(64)
				data := ramBase + g.ram.alloc(pageSize)
				for id := uint16(2); id < 12; id++ {
					g.do(createCQ(id, 4096, c.iova, id))
					g.do(createSQ(id, 4096, c.iova, id))
					g.ring(id, false, 4095)
					g.ring(id, true, 17)
				}
				// A good queue is not held up by the bad ones.
				for range 3 {
					if st := p.status(transfer(spec.NVMRead, memNS, 0, 8, data, 0)); !st.OK() {
						a.Error(st)
					}
				}
				for id := uint16(2); id < 12; id++ {
					g.do(deleteQueue(spec.AdminDeleteSQ, id))
					g.do(deleteQueue(spec.AdminDeleteCQ, id))
				}
			})
		}
		l.attack(t, "read-only", func(a *attack) {
			g, p := a.started(64)
			m := a.newRAM(1 << 20)
			g.call(codec.CmdDMAMap, mapping(2*ramBase, m.size, 0, codec.DMAFlagRead), m.fd)
			g.do(createCQ(2, 64, 2*ramBase, 2))
			g.do(createSQ(2, 64, 2*ramBase, 2))
			g.ring(2, false, 63)
			if st := p.status(transfer(spec.NVMRead, memNS, 0, 8, 2*ramBase, 0)); st.Code() != spec.DataTransferError {
				a.Errorf("data into read-only memory: %v", st)
			}
		})
		l.attack(t, "64 on the same page", func(a *attack) {
			g, _ := a.started(64)
			for id := uint16(2); id < 64; id++ {
				g.do(createCQ(id, 64, ramBase+8<<20, id))
				g.do(createSQ(id, 64, ramBase+8<<20, id))
			}
			for range 20 {
				for id := uint16(2); id < 64; id++ {
					g.ring(id, false, 63)
					g.ring(id, false, 0)
				}
			}
			g.alive()
		})
	})
}

func TestQueuesDeletedWhileInUse(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		l.attack(t, "with commands in flight", func(a *attack) {
			g, p := a.inFlight(64)
			g.admin.put(deleteQueue(spec.AdminDeleteSQ, 1))
			g.admin.ring()
			l.healthy.goesOn(a.T, l.healthy.mark())
			if _, ok := g.admin.take(); ok {
				a.Error("the queue is gone, its commands are not")
			}
			a.lab.gate.open()
			if e := g.admin.wait(1); !e.Status.OK() {
				a.Error(e.Status)
			}
			p.wait(int(p.size) - 1)
			g.do(deleteQueue(spec.AdminDeleteCQ, 1))
		})
		l.attack(t, "with no room for completions", func(a *attack) {
			// The completions never fit, and nobody takes them: only a reset helps.
			g := a.newRig(16 << 20)
			g.start()
			p := g.newPair(1, 1024)
			g.do(createCQ(1, 2, ramBase+p.cq, 1))
			g.do(createSQ(1, 1024, ramBase+p.sq, 1))
			p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
			g.admin.put(deleteQueue(spec.AdminDeleteSQ, 1))
			g.admin.ring()
			l.healthy.goesOn(a.T, l.healthy.mark())
			g.restart()
		})
		l.attack(t, "50 times", func(a *attack) {
			g, p := a.started(1024)
			data := ramBase + g.ram.alloc(pageSize)
			for i := range 50 {
				p.tail = 0
				p.flood(memNS+uint32(i%2), data)
				g.do(deleteQueue(spec.AdminDeleteSQ, 1))
				g.do(deleteQueue(spec.AdminDeleteCQ, 1))
				g.do(createCQ(1, 1024, ramBase+p.cq, 1))
				g.do(createSQ(1, 1024, ramBase+p.sq, 1))
			}
		})
	})
}

func TestAdminQueuesThatCannotBe(t *testing.T) {
	l := newLab(t, nvme.Trap)
	for _, c := range []struct {
		name     string
		aqa      spec.AQA
		asq, acq uint64
		cc       uint32
		fatal    bool
	}{
		{"of one entry", spec.NewAQA(0, 0), ramBase, ramBase + pageSize, enabled, true},
		{"completions of one entry", spec.NewAQA(63, 0), ramBase, ramBase + pageSize, enabled, true},
		{"with reserved bits of its address", spec.NewAQA(63, 63), ramBase + 64, ramBase + pageSize, enabled, false},
		{"pages of 8 KiB", spec.NewAQA(63, 63), ramBase, ramBase + pageSize, enabled | 1<<7, true},
		{"another command set", spec.NewAQA(63, 63), ramBase, ramBase + pageSize, enabled | 3<<4, true},
		{"another arbitration", spec.NewAQA(63, 63), ramBase, ramBase + pageSize, enabled | 2<<11, true},
		{"nowhere", spec.NewAQA(63, 63), nowhere, nowhere + pageSize, enabled, false},
		{"at the end of the address space", spec.NewAQA(4095, 4095), lastPage, lastPage, enabled, false},
		{"completions nowhere", spec.NewAQA(63, 63), ramBase, nowhere, enabled, false},
		{"both on one page", spec.NewAQA(63, 63), ramBase, ramBase, enabled, false},
	} {
		l.attack(t, c.name, func(a *attack) {
			g := a.newRig(16 << 20)
			g.ram.alloc(4 * pageSize)
			for range 3 {
				g.write32(spec.RegAQA, uint32(c.aqa))
				g.write64(spec.RegASQ, c.asq)
				g.write64(spec.RegACQ, c.acq)
				g.write32(spec.RegCC, c.cc)
				g.until("the controller has decided", func() bool { return g.csts().RDY() || g.csts().CFS() })
				if g.csts().CFS() != c.fatal {
					a.Errorf("CSTS is %#x", g.csts())
				}
				for i := range uint32(200) {
					g.post32(spec.RegDoorbells+bell(0, i%2 == 0), i%64)
				}
				g.write32(spec.RegCC, 0)
				g.until("the controller is down", func() bool { return g.csts() == 0 })
			}
			g.start()
		})
	}
	l.attack(t, "and the next client finds a controller that has not failed", func(a *attack) {
		for range 300 {
			s := a.session()
			s.post32(spec.RegCC, 0)
			s.post32(spec.RegCC, enabled) // without admin queues
			s.close()
			s = a.session()
			for range 5 {
				if csts := s.csts(); csts != 0 {
					a.Fatalf("CSTS is %#x", csts)
				}
			}
			s.close()
		}
	})
}
