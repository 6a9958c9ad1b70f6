package pci

import (
	"bytes"
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
	spots      []int     // registers that are worth a write
	plain      []int     // bytes of capabilities that were given as bytes
	windows    []*windowModel

	bars [NumBARs]BAR
	rom  uint32

	caps          []Capability
	used          []bool
	at            int // where the next capability is to stand, 0: anywhere
	link, extLink int // where the offset of the next capability goes; 0: there is no extended one

	states    uint8 // a bit for each power state
	softReset bool
	pm, flr   int // bytes of the power state and of the request for a reset; 0: none

	// Offsets of capabilities, 0: none.
	express, msix, msi int

	msixAreas MSIX
	msiData   int // offset
	vectors   int // of MSI
	maskable  bool
}

// windowModel is what a window shows, and has seen.
type windowModel struct {
	off            int
	shows, written []byte
}

// put lays down a number of n bytes as it is at power-on.
func (m *spaceModel) put(off, n int, v uint64) {
	copy(m.now[off:off+n], binary.LittleEndian.AppendUint64(nil, v))
}

func (m *spaceModel) get(off, n int) uint64 {
	var b [8]byte
	copy(b[:n], m.now[off:])
	return binary.LittleEndian.Uint64(b[:])
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
	c := Config{Vendor: s.Uint16(), Device: s.Uint16(), SubVendor: s.Uint16(), SubDevice: s.Uint16(), Class: s.Uint32() >> 8,
		Revision: s.Uint8(), InterruptPin: uint8(s.Intn(5)), Express: !s.Odds(4)}
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
	if c.Vendor == 0xffff {
		if _, err := NewSpace(c); !errors.Is(err, ErrConfig) {
			return nil, nil, fmt.Errorf("the vendor of no function: %w", err)
		}
		c.Vendor = 0x1af4
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
	m := modelOf(c)
	for range s.Intn(12) {
		if err := m.add(s, space); err != nil {
			return nil, nil, err
		}
	}
	for range s.Intn(3) {
		if err := m.addWindow(s, space); err != nil {
			return nil, nil, err
		}
	}
	m.power = slices.Clone(m.now)
	if power := space.Snapshot(); !bytes.Equal(power, m.power) {
		return nil, nil, fmt.Errorf("at power-on: %s", difference(power, m.power))
	}
	return space, m, nil
}

// modelOf is a header without capabilities.
func modelOf(c Config) *spaceModel {
	size := 256
	if c.Express {
		size = 4096
	}
	m := &spaceModel{now: make([]byte, size), store: make([]byte, size), clear: make([]byte, size), kind: make([]Changed, size),
		used: make([]bool, size), link: 0x34, bars: c.BARs, rom: c.ROMSize}
	m.put(0x00, 2, uint64(c.Vendor))
	m.put(0x02, 2, uint64(c.Device))
	m.put(0x08, 4, uint64(c.Revision)|uint64(c.Class)<<8)
	m.put(0x2c, 2, uint64(c.SubVendor))
	m.put(0x2e, 2, uint64(c.SubDevice))
	m.put(0x3d, 1, uint64(c.InterruptPin))
	m.header()
	return m
}

// difference tells the first byte in which two spaces differ.
func difference(got, want []byte) string {
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			return fmt.Sprintf("%#x holds % x, want % x", i, got[i:min(i+4, len(got))], want[i:min(i+4, len(want))])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
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
	case 9:
		i %= NumBARs - 1
		c.BARs[i], c.BARs[i+1], what = BAR{Size: 16, Type: Mem64}, BAR{Size: 16}, "64 bits where the next register is not free"
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
		if b.Type == IO {
			command |= 1 << 0
		} else {
			command |= 1 << 1
		}
		m.put(0x10+4*i, 1, bit(b.Type == IO, 0)|bit(b.Type == Mem64, 2)|bit(b.Prefetch, 3))
		m.reg(0x10+4*i, 4, uint32(-b.Size), 0, ChangedBAR)
		if b.Type == Mem64 {
			i++
			m.reg(0x10+4*i, 4, uint32(-b.Size>>32), 0, ChangedBAR)
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

// addWindow lets some bytes of a capability be made when they are read, unless it cannot.
func (m *spaceModel) addWindow(s *choice.Source, space *Space) error {
	w := &windowModel{off: s.Intn(len(m.now)), shows: s.Bytes(1 + s.Intn(4))}
	if len(m.plain) > 0 && !s.Odds(8) {
		w.off = choice.Pick(s, m.plain...)
	}
	free, plain := w.off+len(w.shows) <= len(m.now), true
	for i := w.off; free && i < w.off+len(w.shows); i++ {
		free, plain = m.used[i], plain && slices.Contains(m.plain, i)
	}
	for _, o := range m.windows {
		free = free && !o.touches(w.off, len(w.shows))
	}
	if free && !plain {
		return nil // it would make the registers of a builder something else
	}
	err := space.AddWindow(w.off, len(w.shows), Window{
		Read:    func(p []byte) { copy(p, w.shows) },
		Written: func(p []byte) { w.written = append(w.written, p...) },
	})
	if (err == nil) != free {
		return fmt.Errorf("window of %d bytes at %#x; it can stand there: %v; %w", len(w.shows), w.off, free, err)
	}
	if free {
		m.windows = append(m.windows, w)
	}
	return nil
}

func (w *windowModel) touches(off, n int) bool {
	for i := range w.shows {
		if at := w.off + i - off; at >= 0 && at < n {
			return true
		}
	}
	return false
}

// told tells whether the windows have seen just what a write left in them.
func (m *spaceModel) told(off, n int) bool {
	right := true
	for _, w := range m.windows {
		var want []byte
		if w.touches(off, n) {
			want = m.now[w.off : w.off+len(w.shows)]
		}
		right = right && bytes.Equal(w.written, want)
		w.written = nil
	}
	return right
}

// read is what a read gives.
func (m *spaceModel) read(off, n int) []byte {
	for _, w := range m.windows {
		if w.touches(off, n) {
			copy(m.now[w.off:], w.shows)
		}
	}
	return m.now[off : off+n]
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

// restorable tells whether a snapshot can be one of a space like this.
func (m *spaceModel) restorable(from []byte) bool {
	return len(from) == len(m.now) && (m.pm == 0 || m.states>>(from[m.pm]&3)&1 == 1)
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
