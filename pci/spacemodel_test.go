package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"vfiouser/fuzz/choice"
)

// spaceModel is what a configuration space has to hold: bytes, and for each byte what a write
// does to it. What registers there are is written from the specification once more.
type spaceModel struct {
	now, power []byte
	store      []byte    // bits that a write stores
	clear      []byte    // bits that writing 1 clears
	kind       []Changed // what a change of the byte means
	caps       []Capability
	states     uint8 // a bit for each power state
	softReset  bool
	pm, flr    int   // bytes of the power state and of the request for a reset; 0: none
	spots      []int // registers that are worth a write
	bars       [NumBARs]BAR
	rom        uint32
	vectors    int // of MSI
	express    int
	rcie       bool // the endpoint is integrated in the root complex
}

// reg says what writes do to a register of n bytes.
func (m *spaceModel) reg(off, n int, store, clear uint32, kind Changed) {
	for i := range n {
		m.store[off+i], m.clear[off+i], m.kind[off+i] = byte(store>>(8*i)), byte(clear>>(8*i)), kind
	}
	m.spots = append(m.spots, off)
}

// buildSpace makes a space with any header and any capabilities, and its model. The error says
// what a builder did that it must not do.
func buildSpace(s *choice.Source) (*Space, *spaceModel, error) {
	c := Config{Vendor: 0x1af4, Device: s.Uint16(), Class: 0x010802, InterruptPin: uint8(s.Intn(5)), Express: !s.Odds(4)}
	for i := 0; i < NumBARs; i++ {
		switch s.Intn(5) {
		case 1:
			c.BARs[i] = BAR{Size: 16 << s.Intn(28), Type: Mem32, Prefetch: s.Bool()}
		case 2:
			c.BARs[i] = BAR{Size: 4 << s.Intn(7), Type: IO}
		case 3, 4:
			if i+1 < NumBARs {
				c.BARs[i] = BAR{Size: 16 << s.Intn(60), Type: Mem64, Prefetch: s.Bool()}
				i++
			}
		}
	}
	if s.Odds(3) {
		c.ROMSize = 2048 << s.Intn(14)
	}
	space, err := NewSpace(c)
	if err != nil {
		return nil, nil, err
	}
	if wrong, what := wrongConfig(s, c); what != "" {
		if _, err := NewSpace(wrong); !errors.Is(err, ErrConfig) {
			return nil, nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	size := 256
	if c.Express {
		size = 4096
	}
	m := &spaceModel{store: make([]byte, size), clear: make([]byte, size), kind: make([]Changed, size), bars: c.BARs, rom: c.ROMSize}
	m.header()
	for range s.Intn(12) {
		if s.Odds(4) {
			space.Place(int(s.Edge(4096)) &^ s.Intn(4))
		}
		before := space.Snapshot()
		off, err := m.add(s, space)
		if err == nil && (off < 0x40 || off%4 != 0) {
			return nil, nil, fmt.Errorf("a capability stands at %#x", off)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Kind != ErrConfig && e.Kind != ErrNoRoom || !slices.Equal(before, space.now)) {
			return nil, nil, fmt.Errorf("refused with traces, or the wrong kind: %w", err)
		}
	}
	m.now, m.power = space.Snapshot(), space.Snapshot()
	if len(m.now) != size {
		return nil, nil, fmt.Errorf("%d bytes, want %d", len(m.now), size)
	}
	return space, m, nil
}

// wrongConfig breaks one rule.
func wrongConfig(s *choice.Source, c Config) (wrong Config, what string) {
	i := s.Intn(NumBARs)
	switch s.Intn(16) {
	case 1:
		c.Class, what = 1<<24, "a class of 25 bits"
	case 2:
		c.InterruptPin, what = uint8(5+s.Intn(251)), "a pin beyond INTD"
	case 3:
		c.ROMSize, what = choice.Pick(s, uint32(1), 1024, 2049, 32<<20, ^uint32(0)), "a ROM of a wrong size"
	case 4:
		c.BARs[i], what = BAR{Size: choice.Pick(s, uint64(8), 17, 1<<32)}, "a memory BAR of a wrong size"
	case 5:
		c.BARs[i], what = BAR{Size: choice.Pick(s, uint64(2), 5, 512), Type: IO}, "an I/O BAR of a wrong size"
	case 6:
		c.BARs[i], what = BAR{Size: 16, Type: IO, Prefetch: true}, "prefetchable I/O"
	case 7:
		c.BARs[i], what = BAR{Size: 16, Type: IO + 1}, "a BAR of no type"
	case 8:
		c.BARs[NumBARs-1], what = BAR{Size: 16, Type: Mem64}, "64 bits in the last register"
	}
	return c, what
}

func (m *spaceModel) header() {
	command := uint32(1<<2 | 1<<6 | 1<<8 | 1<<10)
	for i := 0; i < NumBARs; i++ {
		b := m.bars[i]
		if b.Size == 0 {
			continue
		}
		mask := -b.Size
		command |= 1 << 1
		if b.Type == IO {
			command = command&^(1<<1) | 1
		}
		m.reg(0x10+4*i, 4, uint32(mask), 0, ChangedBAR)
		if b.Type == Mem64 {
			i++
			m.reg(0x10+4*i, 4, uint32(mask>>32), 0, ChangedBAR)
		}
	}
	for _, b := range m.bars {
		if b.Size > 0 && b.Type != IO {
			command |= 1 << 1
		}
	}
	if m.rom != 0 {
		command |= 1 << 1
		m.reg(0x30, 4, -m.rom|1, 0, ChangedBAR)
	}
	m.reg(0x04, 2, command, 0, ChangedCommand)
	m.reg(0x06, 2, 0, 0xf900, 0)
	m.reg(0x0c, 1, 0xff, 0, 0)
	m.reg(0x3c, 1, 0xff, 0, 0)
}

// add adds any capability, of which the space may refuse.
func (m *spaceModel) add(s *choice.Source, space *Space) (off int, err error) {
	const other = ChangedCapability
	note := func(id uint16, version uint8, extended bool) {
		if err == nil {
			m.caps = append(m.caps, Capability{Offset: off, ID: id, Extended: extended, Version: version})
			m.spots = append(m.spots, off, off+2)
		}
	}
	switch s.Intn(13) {
	case 0:
		p := PM{D1: s.Bool(), D2: s.Bool(), SoftReset: s.Bool(), PME: PME(s.Intn(33))}
		if off, err = space.AddPM(p); err == nil {
			m.pm, m.softReset, m.states = off+4, p.SoftReset, 9
			if p.D1 {
				m.states |= 2
			}
			if p.D2 {
				m.states |= 4
			}
			m.reg(off+4, 2, 3, 0, other)
			if p.PME != 0 {
				m.reg(off+4, 2, 0x103, 0x8000, other)
			}
			m.kind[off+4] = ChangedPM
		}
		note(1, 0, false)
	case 1:
		c := MSI{Vectors: choice.Pick(s, 32, 16, 8, 4, 2, 1, 3, 64), Maskable: s.Bool(), Address32: s.Bool()}
		if off, err = space.AddMSI(c); err == nil {
			m.vectors = c.Vectors
			at := off + 8
			m.reg(off+2, 2, 0x71, 0, ChangedMSI)
			m.reg(off+4, 4, ^uint32(3), 0, ChangedMSI)
			if !c.Address32 {
				m.reg(at, 4, ^uint32(0), 0, ChangedMSI)
				at += 4
			}
			m.reg(at, 2, 0xffff, 0, ChangedMSI)
			if c.Maskable {
				m.reg(at+4, 4, uint32(1<<c.Vectors-1), 0, ChangedMSI)
				m.reg(at+8, 4, 0, 0, ChangedMSI)
			}
		}
		note(5, 0, false)
	case 2:
		c := MSIX{Vectors: int(int32(s.Edge(2048))), TableBAR: s.Intn(NumBARs + 1), PBABAR: s.Intn(NumBARs), PBAOffset: 8*uint32(s.Uint16()) + uint32(s.Intn(9)/8)}
		if off, err = space.AddMSIX(c); err == nil {
			m.reg(off+2, 2, 0xc000, 0, ChangedMSIX)
			m.reg(off+4, 4, 0, 0, 0)
		}
		note(0x11, 0, false)
	case 3:
		e := Express{FLR: s.Bool(), Type: choice.Pick(s, Endpoint, LegacyEndpoint, RootComplexIntegrated, 4),
			Lanes: choice.Pick(s, 0, 1, 16, 3), Speed: LinkSpeed(choice.Pick(s, 0, 1, 5, 6))}
		if off, err = space.AddExpress(e); err == nil {
			m.express, m.rcie = off, e.Type == RootComplexIntegrated
			if e.FLR {
				m.flr = off + 9
			}
			m.reg(off+8, 2, 0x79ff, 0, other)
			m.reg(off+0x0a, 2, 0, 0xf, other)
			m.reg(off+0x28, 2, 0x1f, 0, other)
			if !m.rcie {
				m.reg(off+0x10, 2, 0x2cb, 0, other)
				m.reg(off+0x30, 2, 0xffbf, 0, other)
			}
		}
		note(0x10, 0, false)
	case 4:
		off, err = space.AddVendor(s.Bytes(s.Intn(20)))
		note(9, 0, false)
	case 5:
		data := s.Bytes(s.Intn(24))
		masks := anyMasks(s, len(data))
		if off, err = space.AddRaw(RawCapability{ID: uint8(0x20 + s.Intn(8)), Data: data, Masks: masks}); err == nil {
			m.raw(off+2, len(data), masks)
			note(uint16(space.now[off]), 0, false)
		}
	case 6:
		off, err = space.AddSerial(s.Uint64())
		note(3, 1, true)
	case 7:
		const uncorrectable, correctable = 1<<4 | 0x7f<<12 | 1<<20, 1 | 7<<6 | 3<<12
		if off, err = space.AddAER(); err == nil {
			m.reg(off+4, 4, 0, uncorrectable, other)
			m.reg(off+8, 4, uncorrectable, 0, other)
			m.reg(off+0xc, 4, uncorrectable, 0, other)
			m.reg(off+0x10, 4, 0, correctable, other)
			m.reg(off+0x14, 4, correctable, 0, other)
		}
		note(1, 2, true)
	case 8:
		off, err = space.AddARI(s.Uint8())
		note(0xe, 1, true)
	case 9:
		if off, err = space.AddLTR(); err == nil {
			m.reg(off+4, 2, 0x1fff, 0, other)
			m.reg(off+6, 2, 0x1fff, 0, other)
			m.reg(m.express+0x28, 2, 0x41f, 0, other)
		}
		note(0x18, 1, true)
	default:
		data := s.Bytes(s.Intn(40))
		masks := anyMasks(s, len(data))
		var id uint16
		front := 4
		switch s.Intn(3) {
		case 0:
			id = 0x30
			off, err = space.AddRawExtended(RawExtended{ID: id, Version: 1, Data: data, Masks: masks})
		case 1:
			id, front = 0xb, 8
			off, err = space.AddVendorExtended(VendorExtended{ID: s.Uint16(), Revision: 1, Data: data, Masks: masks})
		default:
			id, front = 0x23, 10
			off, err = space.AddDVSEC(DVSEC{Vendor: s.Uint16(), ID: s.Uint16(), Revision: 2, Data: data, Masks: masks})
		}
		if err == nil {
			m.raw(off+front, len(data), masks)
		}
		note(id, 1, true)
	}
	return off, err
}

func anyMasks(s *choice.Source, n int) Masks {
	c := Masks{Writable: s.Bytes(s.Intn(n + 1)), Clear: s.Bytes(s.Intn(n + 1))}
	for i := range min(len(c.Writable), len(c.Clear)) {
		c.Clear[i] &^= c.Writable[i]
	}
	return c
}

func (m *spaceModel) raw(off, n int, c Masks) {
	copy(m.store[off:off+n], c.Writable)
	copy(m.clear[off:off+n], c.Clear)
	for i := range n {
		m.kind[off+i] = ChangedCapability
	}
	m.spots = append(m.spots, off)
}

func (m *spaceModel) fits(off, n int) bool { return off >= 0 && off+n <= len(m.now) }

// set makes the bytes what they are after something, and tells what that changed.
func (m *spaceModel) set(after []byte) (changed Changed) {
	for i := range after {
		if after[i] != m.now[i] {
			changed |= m.kind[i]
		}
	}
	m.now = after
	return changed
}

func (m *spaceModel) state() uint8 {
	if m.pm == 0 {
		return 0
	}
	return m.now[m.pm] & 3
}

func (m *spaceModel) write(off int, p []byte) Changed {
	after, old := slices.Clone(m.now), m.state()
	for i, v := range p {
		at := off + i
		after[at] = (after[at]&^m.store[at] | v&m.store[at]) &^ (v & m.clear[at])
	}
	if m.pm != 0 && m.states>>(after[m.pm]&3)&1 == 0 { // there is no such state
		after[m.pm] = after[m.pm]&^3 | old
	}
	changed := m.set(after)
	if m.softReset && old == 3 && m.state() == 0 {
		changed |= RequestedReset
	}
	if at := m.flr - off; m.flr != 0 && at >= 0 && at < len(p) && p[at]&0x80 != 0 {
		changed |= RequestedReset
	}
	return changed
}

// release puts back what drivers enable.
func (m *spaceModel) release() Changed {
	after := slices.Clone(m.now)
	for i, k := range m.kind {
		if k == ChangedCommand || k == ChangedMSI || k == ChangedMSIX {
			after[i] = m.power[i]
		}
	}
	return m.set(after)
}

// restore takes over what can be written.
func (m *spaceModel) restore(from []byte) Changed {
	after := slices.Clone(m.now)
	for i := range after {
		mask := m.store[i] | m.clear[i]
		after[i] = after[i]&^mask | from[i]&mask
	}
	return m.set(after)
}

// barSize is what a guest learns from writing ones.
func barSize(space *Space, i int) (uint64, error) {
	off := 0x10 + 4*i
	var ones, got [8]byte
	binary.LittleEndian.PutUint64(ones[:], ^uint64(0))
	n := 4
	if space.BAR(i).Type == Mem64 {
		n = 8
	}
	if _, err := space.Write(off, ones[:n]); err != nil {
		return 0, err
	}
	if err := space.Read(off, got[:n]); err != nil {
		return 0, err
	}
	v := binary.LittleEndian.Uint64(got[:])
	if n == 4 && v != 0 {
		v |= 0xffffffff << 32
	}
	if v&1 != 0 {
		return -(v &^ 3), nil
	}
	return -(v &^ 15), nil
}
