package pci

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"vfiouser/fuzz/choice"
)

// capabilityModel is a capability as the specification has it.
type capabilityModel struct {
	id        uint16
	version   uint8 // of an extended one
	extended  bool
	data      []byte // what is behind the header at power-on
	wrong     bool   // the builder has to refuse it
	build     func(*Space) (int, error)
	registers func(off int) // says what writes do
}

// capabilityModels make any capability, which may be wrong.
var capabilityModels = []func(*spaceModel, *choice.Source) capabilityModel{
	anyPM, anyMSI, anyMSIX, anyExpress, anyVendor, anyRaw, anySerial, anyAER, anyARI, anyLTR,
	anyRawExtended, anyVendorExtended, anyDVSEC,
}

// add adds any capability and looks at where it stands, or why it was refused.
func (m *spaceModel) add(s *choice.Source, space *Space) error {
	if s.Odds(4) {
		m.at = int(s.Edge(4096)) &^ s.Intn(4)
		space.Place(m.at)
	}
	c := capabilityModels[s.Intn(len(capabilityModels))](m, s)
	low, high, size := 0x40, 0x100, 2+len(c.data)
	if c.extended {
		low, high, size = 0x100, len(m.now), 4+len(c.data)
	}
	before := space.Snapshot()
	off, err := c.build(space)
	var e *Error
	switch misplaced := m.at != 0 && (m.at%4 != 0 || m.at < low || m.at >= high || c.extended && m.extLink == 0 && m.at != 0x100); {
	case err == nil && (c.wrong || misplaced):
		return fmt.Errorf("a wrong capability %#x is taken at %#x, %d is asked for", c.id, off, m.at)
	case err == nil && (off%4 != 0 || off < low || off+size > high || m.at != 0 && off != m.at):
		return fmt.Errorf("capability %#x of %d bytes stands at %#x, %#x is asked for", c.id, size, off, m.at)
	case err == nil:
		return m.lay(c, off, size)
	case !errors.As(err, &e) || !bytes.Equal(before, space.now):
		return fmt.Errorf("refused with traces, or without a reason: %w", err)
	case e.Kind == ErrConfig && (c.wrong || misplaced), e.Kind == ErrNoRoom && m.gap(low, high) < size:
		return nil
	}
	return fmt.Errorf("capability %#x of %d bytes at %#x, there is room for %d: %w", c.id, size, m.at, m.gap(low, high), err)
}

// gap is the longest run of free bytes, or the one from the place that was asked for on.
func (m *spaceModel) gap(low, high int) (longest int) {
	run := 0
	for i := max(low, m.at); i < high; i++ {
		switch {
		case m.used[i] && m.at != 0:
			return run
		case m.used[i]:
			run = 0
		case run > 0 || i%4 == 0:
			run++
		}
		longest = max(longest, run)
	}
	return longest
}

// lay puts a capability where it stands and links it to the one before.
func (m *spaceModel) lay(c capabilityModel, off, size int) error {
	for i := off; i < off+size; i++ {
		if m.used[i] {
			return fmt.Errorf("capability %#x at %#x stands on another one", c.id, off)
		}
		m.used[i] = true
	}
	if c.extended {
		if m.extLink != 0 {
			m.put(m.extLink, 4, m.get(m.extLink, 4)|uint64(off)<<20)
		}
		m.put(off, 4, uint64(c.id)|uint64(c.version)<<16)
		copy(m.now[off+4:], c.data)
		m.extLink = off
	} else {
		m.put(m.link, 1, uint64(off))
		m.put(off, 2, uint64(c.id))
		copy(m.now[off+2:], c.data)
		m.now[0x06] |= 0x10 // the status register tells that there is a list
		m.link = off + 1
	}
	m.at = 0
	m.caps = append(m.caps, Capability{Offset: off, ID: c.id, Extended: c.extended, Version: c.version})
	m.spots = append(m.spots, off, off+2)
	if c.registers != nil {
		c.registers(off)
	}
	return nil
}

// has tells whether there is such a capability already, where there can be only one.
func (m *spaceModel) has(id uint16, extended bool) bool {
	for _, c := range m.caps {
		if c.ID == id && c.Extended == extended {
			return true
		}
	}
	return false
}

// le lays out numbers one behind the other: width, value.
func le(fields ...uint64) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		b = append(b, binary.LittleEndian.AppendUint64(nil, fields[i+1])[:fields[i]]...)
	}
	return b
}

func bit(on bool, n int) uint64 {
	if on {
		return 1 << n
	}
	return 0
}

func anyPM(m *spaceModel, s *choice.Source) capabilityModel {
	p := PM{D1: s.Bool(), D2: s.Bool(), SoftReset: s.Bool(), PME: PME(s.Intn(33))}
	return capabilityModel{
		id: 1, data: le(2, 3|bit(p.D1, 9)|bit(p.D2, 10)|uint64(p.PME)<<11, 2, bit(!p.SoftReset, 3), 2, 0),
		wrong: m.has(1, false) || p.PME > 31 || p.PME&PMED1 != 0 && !p.D1 || p.PME&PMED2 != 0 && !p.D2,
		build: func(space *Space) (int, error) { return space.AddPM(p) },
		registers: func(off int) {
			m.pm, m.softReset, m.states = off+4, p.SoftReset, uint8(9|bit(p.D1, 1)|bit(p.D2, 2))
			if p.PME != 0 {
				m.reg(off+4, 2, 0x103, 0x8000, ChangedCapability)
			} else {
				m.reg(off+4, 2, 3, 0, ChangedCapability)
			}
			m.kind[off+4] = ChangedPM
		},
	}
}

func anyMSI(m *spaceModel, s *choice.Source) capabilityModel {
	log := choice.Pick(s, 5, 4, 3, 2, 1, 0, 6)
	c := MSI{Vectors: 1 << log, Maskable: s.Bool(), Address32: s.Bool()}
	if s.Odds(16) {
		c.Vectors = choice.Pick(s, 3, 0, -1, 33)
	}
	upper, masks := 4, 0
	if c.Address32 {
		upper = 0
	}
	if c.Maskable {
		masks = 10
	}
	return capabilityModel{
		id: 5, data: append(le(2, uint64(log)<<1|bit(!c.Address32, 7)|bit(c.Maskable, 8)), make([]byte, 6+upper+masks)...),
		wrong: m.has(5, false) || c.Vectors != 1<<log || log > 5,
		build: func(space *Space) (int, error) { return space.AddMSI(c) },
		registers: func(off int) {
			m.msi, m.msiData, m.vectors, m.maskable = off, off+8+upper, c.Vectors, c.Maskable
			m.reg(off+2, 2, 0x71, 0, ChangedMSI)
			m.reg(off+4, 4, ^uint32(3), 0, ChangedMSI)
			m.reg(off+8, upper, ^uint32(0), 0, ChangedMSI)
			m.reg(m.msiData, 2, 0xffff, 0, ChangedMSI)
			if c.Maskable {
				m.reg(m.msiData+2, 2, 0, 0, ChangedMSI)
				m.reg(m.msiData+4, 4, uint32(1<<c.Vectors-1), 0, ChangedMSI)
				m.reg(m.msiData+8, 4, 0, 0, ChangedMSI)
			}
		},
	}
}

func anyMSIX(m *spaceModel, s *choice.Source) capabilityModel {
	c := MSIX{Vectors: int(int32(s.Edge(2048))), TableBAR: s.Intn(NumBARs + 1), PBABAR: s.Intn(NumBARs), PBAOffset: 8 * uint32(s.Uint16())}
	if s.Bool() {
		c.Vectors = 1 + s.Intn(70)
	}
	if s.Bool() {
		c.TableOffset = 8 * uint32(s.Intn(300))
	}
	if s.Odds(16) {
		c.PBAOffset++
	}
	table, pba := 16*uint64(max(c.Vectors, 0)), (uint64(max(c.Vectors, 0))+63)/64*8
	room := func(bar int, off uint32, n uint64) bool {
		return bar < NumBARs && m.bars[bar].Size >= uint64(off)+n && m.bars[bar].Type != IO && off%8 == 0
	}
	apart := c.TableBAR != c.PBABAR || uint64(c.TableOffset)+table <= uint64(c.PBAOffset) || uint64(c.PBAOffset)+pba <= uint64(c.TableOffset)
	return capabilityModel{
		id: 0x11, data: le(2, uint64(c.Vectors-1), 4, uint64(c.TableOffset)|uint64(c.TableBAR), 4, uint64(c.PBAOffset)|uint64(c.PBABAR)),
		wrong: m.has(0x11, false) || c.Vectors < 1 || c.Vectors > 2048 ||
			!room(c.TableBAR, c.TableOffset, table) || !room(c.PBABAR, c.PBAOffset, pba) || !apart,
		build: func(space *Space) (int, error) { return space.AddMSIX(c) },
		registers: func(off int) {
			m.msix, m.msixAreas = off, c
			m.reg(off+2, 2, 0xc000, 0, ChangedMSIX)
		},
	}
}

func anyExpress(m *spaceModel, s *choice.Source) capabilityModel {
	e := Express{FLR: s.Bool(), Type: choice.Pick(s, Endpoint, LegacyEndpoint, RootComplexIntegrated, 4),
		Lanes: choice.Pick(s, 0, 1, 2, 4, 8, 16, 0, 3, 32, -1), Speed: LinkSpeed(choice.Pick(s, 0, 1, 2, 3, 4, 5, 0, 6))}
	lanes, speed := uint64(e.Lanes), uint64(e.Speed)
	if lanes == 0 {
		lanes = 4
	}
	if speed == 0 {
		speed = 3
	}
	linked := e.Type != RootComplexIntegrated
	data := make([]byte, 0x3a)
	put := func(off, n int, v uint64) { copy(data[off-2:], le(uint64(n), v)) }
	put(0x02, 2, 2|uint64(e.Type)<<4)
	put(0x04, 4, 0x8021|bit(e.FLR, 28))
	put(0x08, 2, 0x2810)
	put(0x24, 4, 0x1f)
	if linked {
		put(0x04, 4, 0x8fe1|bit(e.FLR, 28))
		put(0x0c, 4, speed|lanes<<4|1<<22)
		put(0x12, 2, speed|lanes<<4|1<<12)
		put(0x2c, 4, 1<<(speed+1)-2)
		put(0x30, 2, speed)
		if speed >= 3 {
			put(0x32, 2, 0x1e)
		}
	}
	return capabilityModel{
		id: 0x10, data: data,
		wrong: m.has(0x10, false) || len(m.now) != 4096 || e.Type == 4 || e.Speed > 5 || lanes == 3 || lanes > 16 || !linked && (e.Lanes != 0 || e.Speed != 0),
		build: func(space *Space) (int, error) { return space.AddExpress(e) },
		registers: func(off int) {
			m.express = off
			if e.FLR {
				m.flr = off + 9
			}
			for i := off + 8; i < off+0x3c; i++ {
				m.kind[i] = ChangedCapability
			}
			m.reg(off+8, 2, 0x79ff, 0, ChangedCapability)
			m.reg(off+0x0a, 2, 0, 0xf, ChangedCapability)
			m.reg(off+0x28, 2, 0x1f, 0, ChangedCapability)
			if linked {
				m.reg(off+0x10, 2, 0x2cb, 0, ChangedCapability)
				m.reg(off+0x30, 2, 0xffbf, 0, ChangedCapability)
			}
		},
	}
}

func anySerial(m *spaceModel, s *choice.Source) capabilityModel {
	eui := s.Uint64()
	return capabilityModel{
		id: 3, version: 1, extended: true, data: le(8, eui), wrong: m.has(3, true),
		build: func(space *Space) (int, error) { return space.AddSerial(eui) },
	}
}

func anyAER(m *spaceModel, _ *choice.Source) capabilityModel {
	const uncorrectable, correctable = 1<<4 | 0x7f<<12 | 1<<20, 1 | 7<<6 | 3<<12
	return capabilityModel{
		id: 1, version: 2, extended: true, wrong: m.has(1, true) || m.express == 0,
		data:  append(le(8, 0, 4, 1<<4|1<<13|3<<17, 4, 0, 4, 1<<13), make([]byte, 0x2c-0x18)...),
		build: func(space *Space) (int, error) { return space.AddAER() },
		registers: func(off int) {
			for i := off + 4; i < off+0x2c; i++ {
				m.kind[i] = ChangedCapability
			}
			m.reg(off+4, 4, 0, uncorrectable, ChangedCapability)
			m.reg(off+8, 4, uncorrectable, 0, ChangedCapability)
			m.reg(off+0xc, 4, uncorrectable, 0, ChangedCapability)
			m.reg(off+0x10, 4, 0, correctable, ChangedCapability)
			m.reg(off+0x14, 4, correctable, 0, ChangedCapability)
		},
	}
}

func anyARI(m *spaceModel, s *choice.Source) capabilityModel {
	next := s.Uint8()
	return capabilityModel{
		id: 0xe, version: 1, extended: true, data: le(1, 0, 1, uint64(next), 2, 0), wrong: m.has(0xe, true) || m.express == 0,
		build: func(space *Space) (int, error) { return space.AddARI(next) },
	}
}

func anyLTR(m *spaceModel, _ *choice.Source) capabilityModel {
	return capabilityModel{
		id: 0x18, version: 1, extended: true, data: make([]byte, 4), wrong: m.has(0x18, true) || m.express == 0,
		build: func(space *Space) (int, error) { return space.AddLTR() },
		registers: func(off int) {
			m.reg(off+4, 2, 0x1fff, 0, ChangedCapability)
			m.reg(off+6, 2, 0x1fff, 0, ChangedCapability)
			m.now[m.express+0x25] |= 8 // the PCI Express capability says so too, and enables it
			m.reg(m.express+0x28, 2, 0x41f, 0, ChangedCapability)
		},
	}
}
