package hostile

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

// inFlight is a rig with a full queue, of which the gate holds every command.
func (a *attack) inFlight(entries uint32) (*rig, *pair) {
	a.Helper()
	g, p := a.started(entries)
	data := g.ram.alloc(pageSize)
	a.lab.gate.shut()
	a.atEnd(a.lab.gate.open)
	p.flood(fileNS, ramBase+data)
	g.until("all commands are in flight", func() bool { return a.lab.gate.waiting() == int(entries)-1 })
	return g, p
}

// silent checks that nothing comes while the healthy device works on.
func (c *raw) silent() {
	c.a.Helper()
	h := c.a.lab.healthy
	h.goesOn(c.a.T, h.mark())
	if err := c.fill(unix.MSG_DONTWAIT); err != unix.EAGAIN {
		c.a.Fatalf("the server answers already: %v", err)
	}
}

func TestUnmapWithIOInFlight(t *testing.T) {
	l := newLab(t, nvme.Trap)
	all := (&codec.DMAUnmap{ArgSz: codec.DMAUnmapSize, Flags: codec.UnmapFlagAll}).Append(nil)
	size := uint64(16 << 20) // of a rig's memory
	for _, c := range []struct {
		name    string
		payload []byte
	}{
		{"one region", unmapping(ramBase, size)},
		{"all regions", all},
	} {
		l.attack(t, c.name, func(a *attack) {
			g, _ := a.inFlight(256)
			g.must(g.message(codec.CmdDMAUnmap, 0, c.payload))
			g.silent() // the reply says that nothing refers to the memory any more
			a.lab.gate.open()
			if h, _, err := g.reply(); err != nil || h.Err() != nil {
				a.Fatal(err, h.Err())
			}
			g.alive()
		})
		l.attack(t, c.name+", and commands behind it", func(a *attack) {
			g, _ := a.inFlight(64)
			g.must(g.message(codec.CmdDMAUnmap, 0, c.payload))
			for range 1000 {
				g.must(g.message(codec.CmdRegionRead, 0, readCAP))
			}
			g.silent()
			a.lab.gate.open()
			for range 1001 {
				if h, _, err := g.reply(); err != nil || h.Err() != nil {
					a.Fatal(err, h.Err())
				}
			}
			g.alive()
		})
		l.attack(t, c.name+", and a disconnect", func(a *attack) {
			g, _ := a.inFlight(64)
			g.must(g.message(codec.CmdDMAUnmap, 0, c.payload))
			g.silent()
			g.close()
		})
	}
	l.attack(t, "again and again while data moves", func(a *attack) {
		g, p := a.started(1024)
		data := a.newRAM(1 << 20)
		const iova = 2 * ramBase
		g.call(codec.CmdDMAMap, mapping(iova, data.size, 0, readWrite), data.fd)
		p.flood(fileNS, iova)
		for range 200 {
			g.call(codec.CmdDMAUnmap, unmapping(iova, data.size))
			g.call(codec.CmdDMAMap, mapping(iova, data.size, 0, readWrite), data.fd)
		}
		p.wait(int(p.size) - 1)
	})
	l.attack(t, "of the queues", func(a *attack) {
		g, p := a.started(1024)
		p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
		for range 50 {
			g.call(codec.CmdDMAUnmap, unmapping(ramBase, size))
			g.poke(p)
			g.call(codec.CmdDMAMap, mapping(ramBase, size, 0, readWrite), g.ram.fd)
		}
	})
}

func TestDisconnectWithIOInFlight(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		for _, c := range []struct {
			name string
			id   uint32
		}{{"mem", memNS}, {"file", fileNS}} {
			l.attack(t, c.name+", 50 times", func(a *attack) {
				for range 50 {
					g, p := a.started(1024)
					p.flood(c.id, ramBase+g.ram.alloc(pageSize))
					g.close()
				}
			})
		}
		l.attack(t, "while all of it is held back", func(a *attack) {
			for range 5 {
				g, _ := a.inFlight(256)
				g.close()
				l.healthy.goesOn(a.T, l.healthy.mark())
				l.gate.open()
			}
		})
	})
}

func TestResetWithIOInFlight(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		l.attack(t, "the controller, 1,000 times", func(a *attack) {
			g, p := a.started(1024)
			p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
			for range 1000 {
				g.post32(spec.RegCC, 0)
				g.post32(spec.RegCC, enabled)
			}
			g.disable()
		})
		l.attack(t, "the controller, with new I/O each time", func(a *attack) {
			g := a.newRig(16 << 20)
			g.start()
			used := g.ram.used
			for range 50 {
				p := g.pair(1, 1024)
				p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
				g.restart()
				g.ram.used = used
			}
		})
		l.attack(t, "the device, 200 times", func(a *attack) {
			g, p := a.started(1024)
			p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
			for range 200 {
				g.call(codec.CmdReset, nil)
			}
		})
		l.attack(t, "the device, with new I/O each time", func(a *attack) {
			g := a.newRig(16 << 20)
			g.start()
			used := g.ram.used
			for range 50 {
				p := g.pair(1, 1024)
				p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
				g.call(codec.CmdReset, nil)
				g.restart()
				g.ram.used = used
			}
		})
		l.attack(t, "the device, while all of it is held back", func(a *attack) {
			g, _ := a.inFlight(256)
			g.must(g.message(codec.CmdReset, 0, nil))
			g.silent()
			a.lab.gate.open()
			if h, _, err := g.reply(); err != nil || h.Err() != nil {
				a.Fatal(err, h.Err())
			}
			g.alive()
		})
		l.attack(t, "the controller, while all of it is held back", func(a *attack) {
			g, _ := a.inFlight(256)
			g.write32(spec.RegCC, 0)
			l.healthy.goesOn(a.T, l.healthy.mark())
			if !g.csts().RDY() {
				a.Error("the reset is over, the commands are not")
			}
			a.lab.gate.open()
			g.until("the controller is down", func() bool { return !g.csts().RDY() })
		})
	})
}
