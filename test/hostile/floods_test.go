package hostile

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/irq"
)

// Work that a client is allowed to ask for, but so much of it that the others must not
// have to wait until it is done.

func TestFloodsOfCommands(t *testing.T) {
	l := newLab(t, nvme.Trap)
	flood := func(s *raw, n int, b []byte) {
		s.a.Helper()
		var all []byte
		for len(all) < 60<<10 {
			all = append(all, b...)
		}
		for sent := 0; sent < n; sent += len(all) / len(b) {
			s.must(all)
		}
	}
	l.attack(t, "behind one that does not end", func(a *attack) {
		g, _ := a.inFlight(64)
		g.must(g.message(codec.CmdDMAUnmap, 0, unmapping(ramBase, g.ram.size)))
		if err := unix.SetNonblock(g.fd, true); err != nil {
			a.Fatal(err)
		}
		b := g.message(codec.CmdGetInfo, codec.FlagNoReply, nil)
		for len(b) < 60<<10 {
			b = append(b, b...)
		}
		for g.send(b) == nil { // as much as the server takes
		}
		l.healthy.goesOn(a.T, l.healthy.mark())
		a.lab.gate.open()
	})
	l.attack(t, "that write many eventfds each", func(a *attack) {
		s := a.session()
		fd := a.eventfd()
		for v := uint32(0); v < 64; v += 16 {
			s.call(codec.CmdSetIRQs, setIRQs(assign, irq.MSIX, v, 16), fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd)
		}
		trigger := setIRQs(codec.IRQSetDataNone|codec.IRQSetActionTrigger, irq.MSIX, 0, 64)
		flood(s, 5_000, s.message(codec.CmdSetIRQs, codec.FlagNoReply, trigger))
		s.alive()
	})
	l.attack(t, "that read large regions", func(a *attack) {
		s := a.session()
		ask := s.message(codec.CmdRegionRead, codec.FlagNoReply, (&codec.RegionAccess{Count: 16 << 10}).AppendHead(nil))
		flood(s, 20_000, ask)
		s.alive()
	})
	l.attack(t, "that reset", func(a *attack) {
		s := a.session()
		flood(s, 1_000, s.message(codec.CmdReset, codec.FlagNoReply, nil))
		s.alive()
	})
	l.attack(t, "that hold large JSON", func(a *attack) {
		s := a.dial()
		b := append(make([]byte, 4), `{"capabilities":{"x":[`...)
		for len(b) < 1<<20-10 {
			b = append(b, "{},"...)
		}
		b = append(b, "1]}}\x00"...)
		for range 5 {
			s.refused(unix.EINVAL, codec.CmdVersion, b)
			s.ended()
			s = a.dial()
		}
		s.negotiate()
	})
}

func TestFloodsOfIO(t *testing.T) {
	forModes(t, []nvme.DoorbellMode{nvme.Trap, nvme.Shadow}, func(t *testing.T, l *lab) {
		for _, c := range []struct {
			name string
			// command is what all queues are full of.
			command func(data, list uint64) spec.SubmissionEntry
		}{
			{"mem, 1 MiB each", reads(memNS)},
			{"file, 1 MiB each", reads(fileNS)},
			{"mem, zeroes", func(_, _ uint64) spec.SubmissionEntry {
				return transfer(spec.NVMWriteZeroes, memNS, 0, diskSize/blockSize, 0, 0)
			}},
			{"file, zeroes", func(_, _ uint64) spec.SubmissionEntry {
				return transfer(spec.NVMWriteZeroes, fileNS, 0, diskSize/blockSize, 0, 0)
			}},
			{"mem, ranges to deallocate", func(_, list uint64) spec.SubmissionEntry {
				return spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: memNS, PRP1: list + pageSize, CDW10: 255, CDW11: spec.DSMDeallocate}
			}},
			{"file, ranges to deallocate", func(_, list uint64) spec.SubmissionEntry {
				return spec.SubmissionEntry{Opcode: spec.NVMDatasetManagement, NSID: fileNS, PRP1: list + pageSize, CDW10: 255, CDW11: spec.DSMDeallocate}
			}},
			{"file, flushes", func(_, _ uint64) spec.SubmissionEntry {
				return spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: fileNS}
			}},
		} {
			l.attack(t, c.name+", and disconnect", func(a *attack) {
				g := a.newRig(16 << 20)
				g.fillQueues(c.command)
				l.healthy.goesOn(a.T, l.healthy.mark())
				g.close()
			})
			l.attack(t, c.name+", and reset", func(a *attack) {
				g := a.newRig(16 << 20)
				g.fillQueues(c.command)
				l.healthy.goesOn(a.T, l.healthy.mark())
				g.disable()
			})
		}
		l.attack(t, "more than the storage can have in flight", func(a *attack) {
			l.gate.shut()
			defer l.gate.open()
			g := a.newRig(16 << 20)
			g.fillQueues(reads(fileNS))
			l.healthy.goesOn(a.T, l.healthy.mark())
			if n := l.gate.waiting(); n == 0 || n > 1024 {
				a.Errorf("%d commands are in flight", n)
			}
			g.close()
		})
	})
}

// reads is a command of 1 MiB, scattered over the same page.
func reads(ns uint32) func(data, list uint64) spec.SubmissionEntry {
	return func(data, list uint64) spec.SubmissionEntry {
		return transfer(spec.NVMRead, ns, 0, 2048, data, list)
	}
}

func TestFloodsOfMessages(t *testing.T) {
	l := newLab(t, nvme.Trap)
	serve := func(g *rig) {
		h, mark := l.healthy, l.healthy.mark()
		g.until("the healthy device has made progress", func() bool { return h.done.Load() > mark+10*progress })
	}
	l.attack(t, "and disconnect", func(a *attack) {
		g := a.newMessageRig(16 << 20)
		g.fillQueues(reads(memNS))
		serve(g)
		g.close()
	})
	l.attack(t, "and reset", func(a *attack) {
		g := a.newMessageRig(16 << 20)
		g.fillQueues(reads(fileNS))
		serve(g)
		g.disable()
	})
}

func TestFloodsOfMessagesThatNobodyReads(t *testing.T) {
	// Until the queues are full the attacker answers, in the midst of a flood.
	l := newImpatientLab(t, nvme.Trap, 4*impatience)
	l.attack(t, "from all queues", func(a *attack) {
		g := a.newMessageRig(16 << 20)
		g.fillQueues(reads(memNS))
		l.healthy.goesOn(a.T, l.healthy.mark())
		g.ended()
	})
}

// fillQueues creates as many queues as there can be, full of one command. They share their
// memory.
func (g *rig) fillQueues(command func(data, list uint64) spec.SubmissionEntry) {
	g.a.Helper()
	const entries, queues = 4096, 63
	g.start()
	data, list := g.ram.alloc(pageSize), g.ram.alloc(2*pageSize)
	g.ram.write64(list, repeat(ramBase+data, pageSize/8)...)
	ranges := make([]uint64, 0, pageSize/8)
	for range 256 {
		ranges = append(ranges, diskSize/blockSize<<32, 0)
	}
	g.ram.write64(list+pageSize, ranges...)
	sq, cq := g.ram.alloc(entries*spec.SubmissionEntrySize), g.ram.alloc(entries*spec.CompletionEntrySize)
	var e [spec.SubmissionEntrySize]byte
	c := command(ramBase+data, ramBase+list)
	c.Put(e[:])
	var all []byte
	for range entries {
		all = append(all, e[:]...)
	}
	g.ram.write(sq, all)
	for id := uint16(1); id <= queues; id++ {
		g.do(createCQ(id, entries, ramBase+cq, id))
		g.do(createSQ(id, entries, ramBase+sq, id))
	}
	if g.shadow {
		// All at once: one of the rings below finds all queues full.
		for id := uint16(1); id <= queues; id++ {
			g.ram.write32(g.shadows+bell(id, false), entries-1)
		}
	}
	for id := uint16(1); id <= queues; id++ {
		g.ring(id, false, entries-1)
	}
}
