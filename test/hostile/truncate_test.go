package hostile

import (
	"testing"

	"vfiouser/codec"
	"vfiouser/devices/nvme/spec"
)

// A client can make its memory shorter while the device uses it. That must cost it its
// session and nobody else anything.
func TestTruncatedMemory(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		for _, ns := range []struct {
			name string
			id   uint32
		}{{"mem", memNS}, {"file", fileNS}} {
			for _, c := range []struct {
				name string
				run  func(a *attack, ns uint32)
			}{
				{"all of it", truncateAll},
				{"the data", truncateData},
				{"a list of pages", truncateList},
				{"all of it, before the doorbell", truncateBefore},
				{"all of it, under the admin queue", truncateAdmin},
				{"again and again", truncateStorm},
			} {
				l.attack(t, ns.name+", "+c.name, func(a *attack) { c.run(a, ns.id) })
			}
		}
		l.attack(t, "file, the queues while data is on its way", truncateLate)
		l.attack(t, "file, the queues and the data while data is on its way", truncateLater)
	})
}

func truncateAll(a *attack, ns uint32) {
	g, p := a.started(1024)
	p.flood(ns, ramBase+g.ram.alloc(pageSize))
	g.ram.truncate(0)
	g.poke(p)
	g.ended()
}

// poke rings the doorbells of a pair, for queues that are not looked at otherwise: there is
// a command, and room for its completion, whatever was done so far. The session may have
// ended.
func (g *rig) poke(p *pair) {
	for _, completion := range []bool{true, false} {
		if g.bells >= 0 {
			g.ring(p.id, completion, 1)
			continue
		}
		b := access(0, spec.RegDoorbells+bell(p.id, completion), []byte{1, 0, 0, 0})
		_ = g.send(g.message(codec.CmdRegionWrite, codec.FlagNoReply, b))
	}
}

func truncateData(a *attack, ns uint32) {
	g, p := a.started(1024)
	g.ram.truncate(g.ram.size - pageSize)
	p.flood(ns, ramBase+g.ram.size-pageSize)
	g.ended()
}

// truncateList takes away the memory of a PRP list, which the worker reads itself.
func truncateList(a *attack, ns uint32) {
	g, p := a.started(64)
	data := g.ram.alloc(8 * pageSize)
	g.ram.truncate(g.ram.size - pageSize)
	p.put(transfer(spec.NVMRead, ns, 0, 64, ramBase+data, ramBase+g.ram.size-pageSize))
	p.ring()
	g.ended()
}

func truncateBefore(a *attack, ns uint32) {
	g, p := a.started(64)
	p.put(transfer(spec.NVMRead, ns, 0, 8, ramBase+g.ram.alloc(pageSize), 0))
	g.ram.truncate(0)
	g.poke(p)
	g.ended()
}

func truncateAdmin(a *attack, _ uint32) {
	g, _ := a.started(64)
	g.ram.truncate(0)
	g.poke(g.admin)
	g.ended()
}

func truncateStorm(a *attack, ns uint32) {
	for range 10 {
		g, p := a.started(1024)
		p.flood(ns, ramBase+g.ram.alloc(pageSize))
		for range 10 {
			g.ram.truncate(0)
			g.ram.truncate(g.ram.size)
		}
		g.ram.truncate(0)
		g.poke(p)
		g.close()
	}
}

// truncateLate completes many requests when nothing can be posted any more.
func truncateLate(a *attack) {
	g, p := a.started(256)
	data := g.ram.size - pageSize
	a.lab.gate.shut()
	defer a.lab.gate.open()
	p.flood(fileNS, ramBase+data)
	g.until("reads are in flight", func() bool { return a.lab.gate.waiting() == int(p.size)-1 })
	g.ram.truncate(p.cq)
	a.lab.gate.open()
	g.ended()
}

// truncateLater does so when the data cannot be stored either.
func truncateLater(a *attack) {
	g, p := a.started(256)
	data := g.ram.alloc(pageSize)
	a.lab.gate.shut()
	defer a.lab.gate.open()
	p.flood(fileNS, ramBase+data)
	g.until("reads are in flight", func() bool { return a.lab.gate.waiting() == int(p.size)-1 })
	g.ram.truncate(0)
	a.lab.gate.open()
	g.ended()
}
