package fuzz

import (
	"encoding/binary"

	"vfiouser/dma"
)

// vqEntry is what the driver will be told of chains at once: the last one's id, how many there
// are (packed: descriptors), and the bytes written.
type vqEntry struct {
	id      uint16
	skip    uint32
	written uint32
}

// vqArea is a part of the ring.
type vqArea struct {
	addr, n uint64
	prot    dma.Prot
}

func (m *vqModel) areas() [3]vqArea {
	c, size := &m.cfg, uint64(m.cfg.Size)
	if c.Packed {
		return [3]vqArea{
			{c.Desc, 16 * size, dma.ProtRead | dma.ProtWrite}, {c.Driver, 4, dma.ProtRead}, {c.Device, 4, dma.ProtWrite},
		}
	}
	return [3]vqArea{
		{c.Desc, 16 * size, dma.ProtRead}, {c.Driver, 6 + 2*size, dma.ProtRead}, {c.Device, 6 + 8*size, dma.ProtWrite},
	}
}

// push hands back a chain: any, or the first if they are to be in order.
func (m *vqModel) push() {
	if len(m.flight) == 0 {
		return
	}
	i := 0
	if !m.cfg.InOrder {
		i = m.src.Intn(len(m.flight))
	}
	m.flight[0], m.flight[i] = m.flight[i], m.flight[0]
	m.pushFirst()
	// The rest stays in the order in which it was taken.
	if i > 1 {
		f := m.flight[i-1]
		copy(m.flight[1:i], m.flight[:i-1])
		m.flight[0] = f
	}
}

func (m *vqModel) pushFirst() {
	f := m.flight[0]
	m.flight = m.flight[1:]
	m.last = max(m.last, f.next+1)
	written := uint32(f.write)
	if m.src.Odds(4) {
		written = uint32(m.src.Edge(f.write))
	}
	m.q.Push(f.chain, written)
	m.spare = append(m.spare, *f.chain)
	written = min(written, uint32(f.write))
	if m.w.remote {
		m.written(f, uint64(written))
	}
	m.ripe += int(f.descs)
	joins := m.joins && f.write == 0 && m.cfg.InOrder
	if m.joins = f.write == 0; joins {
		e := &m.pushed[len(m.pushed)-1]
		e.id, e.skip, e.written = f.id, e.skip+uint32(f.descs), 0
		return
	}
	m.pushed = append(m.pushed, vqEntry{f.id, uint32(f.descs), written})
}

// written is what a Push by message writes to the guest.
func (m *vqModel) written(f *vqTaken, left uint64) {
	at := 0
	for _, b := range f.buffers {
		if !b.write || left == 0 {
			continue
		}
		n := min(b.n, left)
		left -= n
		if !m.mem.reachable(b.addr, n, dma.ProtWrite) {
			if m.q.Err() == nil {
				m.t.Fatalf("%d bytes at %#x were written", n, b.addr)
			}
			return
		}
		m.mem.expect(b.addr, vqPatterns(at, n))
		at += int(n)
	}
}

// publish compares what the driver sees, and whether it is interrupted.
func (m *vqModel) publish() {
	got := m.q.Publish()
	if len(m.pushed) == 0 {
		if got {
			m.t.Fatal("an interrupt for nothing")
		}
		return
	}
	if m.sound() {
		old := m.used
		if m.cfg.Packed {
			m.publishPacked()
		} else {
			m.publishSplit()
		}
		if want, matters := m.wanted(old); matters && got != want {
			m.t.Fatalf("an interrupt: %v; the driver wants one: %v", got, want)
		}
	}
	m.pushed, m.ripe, m.joins = nil, 0, false
}

func (m *vqModel) publishSplit() {
	for _, e := range m.pushed {
		b := binary.LittleEndian.AppendUint32(nil, uint32(e.id))
		at := uint64(m.used % uint32(m.cfg.Size))
		m.mem.expect(m.cfg.Device+4+8*at, binary.LittleEndian.AppendUint32(b, e.written))
		m.used += e.skip
	}
	m.mem.expect(m.cfg.Device+2, binary.LittleEndian.AppendUint16(nil, uint16(m.used)))
}

func (m *vqModel) publishPacked() {
	size := uint32(m.cfg.Size)
	first := []byte(nil)
	start := m.used % size
	for _, e := range m.pushed {
		flags := uint16(0)
		if m.used/size%2 == 0 {
			flags = 1<<7 | 1<<15
		}
		if e.written > 0 {
			flags |= 2
		}
		b := binary.LittleEndian.AppendUint32(nil, e.written)
		b = binary.LittleEndian.AppendUint16(b, e.id)
		b = binary.LittleEndian.AppendUint16(b, flags)
		if first == nil {
			first = b
		}
		m.mem.expect(m.cfg.Desc+16*uint64(m.used%size)+8, b)
		m.used += e.skip
	}
	m.mem.expect(m.cfg.Desc+16*uint64(start)+8, first) // last, if there is a whole round
}

// wanted says whether the driver wants an interrupt for what was used from old on. It does not
// matter where it asks for a place that no ring has.
func (m *vqModel) wanted(old uint32) (want, matters bool) {
	if !m.cfg.Packed {
		if !m.cfg.EventIdx {
			return m.mem.get16(m.cfg.Driver)&1 == 0, true
		}
		event := m.mem.get16(m.cfg.Driver + 4 + 2*uint64(m.cfg.Size))
		for ; old != m.used; old++ {
			want = want || uint16(old) == event
		}
		return want, true
	}
	word, size := m.mem.get32(m.cfg.Driver), uint32(m.cfg.Size)
	switch flags := word >> 16 & 3; {
	case flags == 1:
		return false, true
	case flags != 2 || !m.cfg.EventIdx:
		return true, true
	case word&0x7fff >= size:
		return false, false
	}
	for ; old != m.used; old++ {
		place := old % size
		if old/size%2 == 0 {
			place |= 1 << 15
		}
		want = want || word&0xffff == place
	}
	return want, true
}

// arm compares what the device asks of the driver.
func (m *vqModel) arm() {
	c := &m.cfg
	if m.src.Bool() {
		m.q.Disarm()
		switch {
		case !m.armed:
		case c.Packed:
			m.mem.expect(c.Device, binary.LittleEndian.AppendUint32(nil, 1<<16))
		case !c.EventIdx:
			m.mem.expect(c.Device, binary.LittleEndian.AppendUint16(nil, 1))
		}
		m.armed = false
		return
	}
	pending := m.q.Arm()
	m.armed = true
	switch {
	case c.Packed:
		word := uint32(0)
		if size := uint32(c.Size); c.EventIdx {
			word = 2<<16 | m.taken%size
			if m.taken/size%2 == 0 {
				word |= 1 << 15
			}
		}
		m.mem.expect(c.Device, binary.LittleEndian.AppendUint32(nil, word))
	case c.EventIdx:
		m.mem.expect(c.Device+4+8*uint64(c.Size), binary.LittleEndian.AppendUint16(nil, uint16(m.taken)))
	default:
		m.mem.expect(c.Device, []byte{0, 0})
	}
	if there := m.q.Available() > 0; pending != there {
		m.t.Fatalf("Arm says that there is something: %v; there is: %v", pending, there)
	}
}
