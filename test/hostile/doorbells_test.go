package hostile

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

func TestDoorbellsByMessage(t *testing.T) {
	l := newLab(t, nvme.Trap)
	for _, c := range []struct {
		name string
		off  func(i uint32) uint64
		v    func(i uint32) uint32
	}{
		{"of queues that were not created", func(i uint32) uint64 { return bell(uint16(2+i%60), i%2 == 0) }, same(1)},
		{"of queues that cannot be", func(i uint32) uint64 { return bell(uint16(64+i%64), i%2 == 0) }, same(1)},
		{"behind the last doorbell", func(i uint32) uint64 { return uint64(i*4)%(8<<10) + 4<<10 }, func(i uint32) uint32 { return i }},
		{"a tail beyond the queue", func(uint32) uint64 { return bell(1, false) }, func(i uint32) uint32 { return 64 + i }},
		{"a head beyond the queue", func(uint32) uint64 { return bell(1, true) }, func(i uint32) uint32 { return 64 + i }},
		{"a head of what was never posted", func(uint32) uint64 { return bell(1, true) }, func(i uint32) uint32 { return 1 + i%62 }},
		{"an admin tail beyond the queue", func(uint32) uint64 { return bell(0, false) }, func(i uint32) uint32 { return 1<<31 + i }},
		{"an admin head beyond the queue", func(uint32) uint64 { return bell(0, true) }, func(i uint32) uint32 { return 1<<31 + i }},
	} {
		l.attack(t, c.name, func(a *attack) {
			g, p := a.started(64)
			for i := range uint32(1000) {
				g.post32(spec.RegDoorbells+c.off(i), c.v(i))
			}
			if st := p.status(transfer(spec.NVMRead, memNS, 0, 8, ramBase+g.ram.alloc(pageSize), 0)); !st.OK() {
				a.Error(st)
			}
			g.do(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: ramBase + g.ram.alloc(pageSize)})
		})
	}
	l.attack(t, "any number of writes", func(a *attack) {
		g, _ := a.started(64)
		var b []byte
		for i := range uint32(1000) {
			data := binary.LittleEndian.AppendUint32(nil, i)
			b = append(b, g.message(codec.CmdRegionWrite, codec.FlagNoReply, access(0, spec.RegDoorbells+bell(uint16(i%4), i%3 == 0), data))...)
		}
		for range manyDoorbells / 1000 {
			g.must(b)
		}
		g.alive()
	})
	l.attack(t, "while the controller is down", func(a *attack) {
		g := a.newRig(1 << 20)
		for i := range uint32(4096) {
			g.post32(spec.RegDoorbells+uint64(i%1024)*4, i)
		}
		g.alive()
	})
}

func same(v uint32) func(uint32) uint32 { return func(uint32) uint32 { return v } }

// TestMappedDoorbells writes what no message carries: nothing is checked when it is
// written.
func TestMappedDoorbells(t *testing.T) {
	l := newLab(t, nvme.Mmap)
	l.attack(t, "random values everywhere", func(a *attack) {
		r := a.random()
		g, _ := a.started(64)
		b := make([]byte, pageSize)
		for range 2000 {
			garbage(r, b)
			if _, err := unix.Pwrite(g.bells, b, spec.RegDoorbells); err != nil {
				a.Fatal(err)
			}
		}
		g.alive()
	})
	l.attack(t, "values that are in range", func(a *attack) {
		r := a.random()
		g, _ := a.started(64)
		for range 100_000 {
			g.ring(uint16(r.Uint32N(3)), r.IntN(2) == 0, r.Uint32N(64))
		}
		g.alive()
	})
	l.attack(t, "a page with holes", func(a *attack) {
		g, _ := a.started(64)
		for range 1000 {
			const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
			if err := unix.Fallocate(g.bells, mode, 0, 16<<10); err != nil {
				a.Fatal(err)
			}
		}
		g.alive()
	})
	l.attack(t, "a page that is to shrink", func(a *attack) {
		g, _ := a.started(64)
		if err := unix.Ftruncate(g.bells, 0); err != unix.EPERM {
			a.Errorf("the page can be truncated: %v", err)
		}
	})
}

// TestShadowDoorbells is Doorbell Buffer Config with what is no buffer, and buffers with
// what is no doorbell.
func TestShadowDoorbells(t *testing.T) {
	l := newLab(t, nvme.Shadow)
	config := func(doorbells, events uint64) spec.SubmissionEntry {
		return spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: doorbells, PRP2: events}
	}
	for _, c := range []struct {
		name              string
		doorbells, events uint64
		refused           bool
	}{
		{"nowhere", nowhere, nowhere + pageSize, false},
		{"at the end of the address space", lastPage, lastPage, false},
		{"not aligned", ramBase + 8, ramBase + pageSize, true},
		{"events not aligned", ramBase, ramBase + pageSize + 4, true},
		{"events nowhere", ramBase, nowhere, false},
		{"the same page for both", ramBase, ramBase, false},
		{"in the memory behind the last page", ramBase + 16<<20, ramBase + 16<<20, false},
	} {
		l.attack(t, c.name, func(a *attack) {
			g, p := a.started(64)
			data := ramBase + g.ram.alloc(pageSize)
			for range 5 {
				st := g.admin.status(config(c.doorbells, c.events))
				if refused := !st.OK(); refused != c.refused {
					a.Fatal(st)
				}
				for range 3 {
					p.put(transfer(spec.NVMRead, memNS, 0, 8, data, 0))
				}
				p.ring()
			}
			// Back to buffers that work.
			g.restart()
			p = g.pair(1, 64)
			if st := p.status(transfer(spec.NVMRead, memNS, 0, 8, data, 0)); !st.OK() {
				a.Error(st)
			}
		})
	}
	l.attack(t, "over the queues", func(a *attack) {
		g, p := a.started(64)
		if st := g.admin.status(config(ramBase+p.sq&^(pageSize-1), ramBase+p.cq&^(pageSize-1))); !st.OK() {
			a.Error(st)
		}
		for i := range uint32(1000) {
			g.post32(spec.RegDoorbells+bell(1, i%2 == 0), i%64)
		}
		g.restart()
	})
	l.attack(t, "in memory that is read-only", func(a *attack) {
		g, p := a.started(64)
		m := a.newRAM(2 * pageSize)
		g.do(spec.SubmissionEntry{Opcode: spec.AdminIdentify, CDW10: spec.CNSController, PRP1: ramBase + 8<<20})
		g.call(codec.CmdDMAMap, mapping(2*ramBase, m.size, 0, codec.DMAFlagRead), m.fd)
		g.do(config(2*ramBase, 2*ramBase+pageSize))
		p.ring()
		g.alive()
	})
	l.attack(t, "in memory that goes away", func(a *attack) {
		g, _ := a.started(64)
		m := a.newRAM(2 * pageSize)
		g.call(codec.CmdDMAMap, mapping(2*ramBase, m.size, 0, readWrite), m.fd)
		g.do(config(2*ramBase, 2*ramBase+pageSize))
		m.write32(bell(1, false), 1)
		g.call(codec.CmdDMAUnmap, unmapping(2*ramBase, m.size))
		g.post32(spec.RegDoorbells+bell(1, false), 1)
		g.alive()
	})
	l.attack(t, "truncated", func(a *attack) {
		g, _ := a.started(64)
		m := a.newRAM(2 * pageSize)
		g.call(codec.CmdDMAMap, mapping(2*ramBase, m.size, 0, readWrite), m.fd)
		g.do(config(2*ramBase, 2*ramBase+pageSize))
		m.truncate(0)
		g.post32(spec.RegDoorbells+bell(1, false), 1)
		g.ended()
	})
	l.attack(t, "random values and event indexes", func(a *attack) {
		r := a.random()
		g, _ := a.started(64)
		b := make([]byte, pageSize)
		for i := range 2000 {
			garbage(r, b)
			g.ram.write(g.shadows, b)
			garbage(r, b)
			g.ram.write(g.events, b)
			if i%10 == 0 {
				g.post32(spec.RegDoorbells+bell(1, false), r.Uint32N(64))
			}
		}
		g.alive()
		g.restart()
	})
	l.attack(t, "values that are in range", func(a *attack) {
		r := a.random()
		g, _ := a.started(64)
		for i := range 50_000 {
			g.ram.write32(g.shadows+bell(1, r.IntN(2) == 0), r.Uint32N(64))
			g.ram.write32(g.events+bell(1, r.IntN(2) == 0), r.Uint32())
			if i%100 == 0 {
				g.post32(spec.RegDoorbells+bell(1, false), r.Uint32N(64))
			}
		}
		g.alive()
		g.restart()
	})
}
