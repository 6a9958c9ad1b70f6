package fuzz

import (
	"encoding/binary"

	"vfiouser/fuzz/choice"
)

// offer makes a chain available: mostly one that keeps to the rules.
func (m *vqModel) offer() {
	n := 1 + m.src.Intn(4)
	if m.src.Odds(32) {
		n = 1 + m.src.Intn(100)
	}
	list := m.descriptors(n)
	if m.cfg.Indirect && m.src.Odds(3) || m.src.Odds(40) {
		list = m.indirect(list)
		if m.src.Odds(24) {
			list = m.indirect(list) // which is not allowed
		}
	}
	if m.cfg.Packed {
		m.offerPacked(list)
	} else {
		m.offerSplit(list)
	}
}

// descriptors makes buffers, those to be read first.
func (m *vqModel) descriptors(n int) []vqDesc {
	reads, list, sum := m.src.Intn(n+1), make([]vqDesc, n), uint64(0)
	for i := range list {
		d := &list[i]
		d.addr, d.n = vqBase+vqBuffers+uint64(m.src.Intn(4*vqPage-200)), uint64(m.src.Intn(200))
		if i >= reads {
			d.flags = 2
			if m.mem.whole() && m.src.Odds(4) {
				d.addr = vqBase + 8*vqPage - d.n/2 // into the next region
			}
		}
		if m.src.Odds(24) {
			m.hostile(d)
		}
		if sum > 0 && m.src.Odds(100) {
			d.n = 1<<32 - sum%(1<<32) // one byte more than a chain may have
		}
		sum += d.n
	}
	return list
}

// hostile makes something of a descriptor that is wrong, or nearly.
func (m *vqModel) hostile(d *vqDesc) {
	switch m.src.Intn(7) {
	case 0:
		d.addr = m.src.Edge(vqBase + vqPages*vqPage)
	case 1:
		border := choice.Pick(m.src, 0, 8, 12, 14, 16, 18, 22, 24, 26)
		d.addr = vqBase + uint64(border)*vqPage - uint64(m.src.Intn(64))
	case 2:
		d.n = m.src.Edge(vqPages*vqPage) & 0xffffffff
	case 3:
		d.addr = vqBase + uint64(m.src.Intn(vqPages*vqPage))
		d.n = uint64(m.src.Intn(3 * vqPage))
	case 4:
		d.flags ^= 1 << m.src.Intn(4)
	case 5: // all of it where not everything is allowed, or nothing
		page := choice.Pick(m.src, 12, 14, 16, 18)
		d.addr, d.n = vqBase+uint64(page*vqPage+m.src.Intn(vqPage)), 1+uint64(m.src.Intn(200))
	default:
		d.flags = m.src.Uint16()
	}
}

// chained links descriptors, with the flag for it.
func chained(list []vqDesc) {
	for i := range list[:len(list)-1] {
		list[i].flags |= 1
	}
}

// indirect moves buffers into a table, to which the last descriptor refers: all of them, or with
// a split ring those behind the first few.
func (m *vqModel) indirect(list []vqDesc) []vqDesc {
	keep := 0
	if !m.cfg.Packed && m.src.Odds(3) {
		keep = m.src.Intn(len(list))
	}
	inside := list[keep:]
	table := vqBase + vqTables + m.table
	m.table = (m.table + 16*uint64(len(inside)) + 8) % (vqBuffers - vqTables - 100*16)
	if !m.cfg.Packed {
		chained(inside)
	}
	for i, d := range inside {
		d.next = uint16(i + 1)
		if m.src.Odds(40) {
			d.next = uint16(m.src.Edge(uint64(len(inside))))
		}
		m.put(table+16*uint64(i), d)
	}
	d := vqDesc{addr: table, n: 16 * uint64(len(inside)), flags: 4}
	if m.src.Odds(24) {
		d.n += uint64(m.src.Intn(40))
	}
	if m.src.Odds(24) {
		m.hostile(&d)
	}
	return append(list[:keep:keep], d)
}

// put writes a descriptor.
func (m *vqModel) put(addr uint64, d vqDesc) {
	b := binary.LittleEndian.AppendUint64(nil, d.addr)
	b = binary.LittleEndian.AppendUint32(b, uint32(d.n))
	if m.cfg.Packed {
		b = binary.LittleEndian.AppendUint16(b, d.id)
		b = binary.LittleEndian.AppendUint16(b, d.flags)
	} else {
		b = binary.LittleEndian.AppendUint16(b, d.flags)
		b = binary.LittleEndian.AppendUint16(b, d.next)
	}
	m.mem.poke(addr, b)
}

func (m *vqModel) offerSplit(list []vqDesc) {
	size := m.cfg.Size
	if free := int(size) - int(m.shown-m.used); free < len(list) && !m.src.Odds(64) {
		if free <= 0 {
			return // a driver that means well has no room
		}
		list = list[:free]
	}
	chained(list)
	head := m.desc % size
	for i := range list {
		at := m.desc % size
		m.desc++
		if list[i].next = m.desc % size; m.src.Odds(64) {
			list[i].next = uint16(m.src.Edge(uint64(size)))
		}
		m.put(m.cfg.Desc+16*uint64(at), list[i])
	}
	if m.src.Odds(100) {
		head = m.src.Uint16()
	}
	m.mem.poke16(m.cfg.Driver+4+2*uint64(m.shown%uint32(size)), head)
	m.shown++
	m.mem.poke16(m.cfg.Driver+2, uint16(m.shown))
}

func (m *vqModel) offerPacked(list []vqDesc) {
	size := uint32(m.cfg.Size)
	if free := int(size) - int(m.shown-m.used); free < len(list) && !m.src.Odds(64) {
		if free <= 0 {
			return
		}
		list = list[:free]
	}
	chained(list)
	id := m.src.Uint16()
	for i := range list {
		d := &list[i]
		d.id = id + uint16(i)
		d.flags |= 1 << 15
		if m.shown/size%2 == 0 {
			d.flags ^= 1<<15 | 1<<7
		}
		m.put(m.cfg.Desc+16*uint64(m.shown%size), *d)
		m.shown++
	}
}

// damage writes somewhere what does not belong there.
func (m *vqModel) damage() {
	switch m.src.Intn(4) {
	case 0: // an index
		m.mem.poke16(m.cfg.Driver+2, uint16(m.taken)+uint16(m.src.Edge(uint64(m.cfg.Size))))
	case 1: // the descriptor that comes next, if the ring is packed
		d := vqDesc{addr: vqBase + vqBuffers, n: 8, flags: m.src.Uint16()}
		m.put(m.cfg.Desc+16*uint64(m.taken%uint32(m.cfg.Size)), d)
	case 2: // any part of the ring
		a := m.areas()[m.src.Intn(3)]
		m.mem.poke(a.addr+uint64(m.src.Intn(int(a.n))), m.src.Bytes(1+m.src.Intn(4)))
	default: // anything
		m.mem.poke(vqBase+uint64(m.src.Intn(vqPages*vqPage)), m.src.Bytes(1+m.src.Intn(16)))
	}
}

// wish says for what the driver wants an interrupt.
func (m *vqModel) wish() {
	if m.cfg.Packed {
		size := uint32(m.cfg.Size)
		at := m.used + uint32(m.src.Intn(6))
		word := at%size | uint32(m.src.Intn(4))<<16
		if at/size%2 == 0 {
			word |= 1 << 15
		}
		if m.src.Odds(16) {
			word = m.src.Uint32()
		}
		m.mem.poke32(m.cfg.Driver, word)
		return
	}
	m.mem.poke16(m.cfg.Driver, uint16(m.src.Intn(4)))
	event := uint16(m.used) + uint16(m.src.Intn(6)) - 1
	if m.src.Odds(16) {
		event = m.src.Uint16()
	}
	m.mem.poke16(m.cfg.Driver+4+2*uint64(m.cfg.Size), event)
}
