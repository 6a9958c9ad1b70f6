package pci

import "vfiouser/fuzz/choice"

// raw says that the n bytes behind a header of front bytes are a capability's own, and that the
// masks are for the last of them.
func (m *spaceModel) raw(front, n int, c Masks, masked int) func(off int) {
	return func(off int) {
		for i := range n {
			m.kind[off+front+i] = ChangedCapability
		}
		at := off + front + n - masked
		for i := range masked {
			m.plain = append(m.plain, at+i)
		}
		copy(m.store[at:], c.Writable)
		copy(m.clear[at:], c.Clear)
		m.spots = append(m.spots, at)
	}
}

// anyMasks are masks for n bytes, seldom wrong ones.
func anyMasks(s *choice.Source, n int) (c Masks, wrong bool) {
	c = Masks{Writable: s.Bytes(s.Intn(n + 1)), Clear: s.Bytes(s.Intn(n + 1))}
	for i := range min(len(c.Writable), len(c.Clear)) {
		c.Clear[i] &^= c.Writable[i]
	}
	switch s.Intn(32) {
	case 30:
		c.Writable, wrong = make([]byte, n+1), true
	case 31:
		c.Clear, wrong = make([]byte, n+1), true
	}
	return c, wrong
}

func anyVendor(_ *spaceModel, s *choice.Source) capabilityModel {
	data := s.Bytes(s.Intn(20))
	if s.Odds(32) {
		data = make([]byte, 250+s.Intn(5))
	}
	return capabilityModel{
		id: 9, data: append(le(1, uint64(3+len(data))), data...), wrong: len(data) > 252,
		build: func(space *Space) (int, error) { return space.AddVendor(data) },
	}
}

// anyRaw is any standard capability by its bytes, among them vendor-specific ones, which have
// their length in front, and those that have builders of their own.
func anyRaw(m *spaceModel, s *choice.Source) capabilityModel {
	id, data := choice.Pick[uint8](s, 0x20, 3, 9, 0x27, 9, 1, 5, 0x10, 0x11), s.Bytes(s.Intn(24))
	if id == 9 && len(data) > 0 && !s.Odds(8) {
		data[0] = uint8(2 + len(data))
	}
	masks, wrong := anyMasks(s, len(data))
	return capabilityModel{
		id: uint16(id), data: data,
		wrong: wrong || id == 1 || id == 5 || id == 0x10 || id == 0x11 || id == 9 && (len(data) == 0 || int(data[0]) != 2+len(data)),
		build: func(space *Space) (int, error) {
			return space.AddRaw(RawCapability{ID: id, Data: data, Masks: masks})
		},
		registers: m.raw(2, len(data), masks, len(data)),
	}
}

func anyRawExtended(m *spaceModel, s *choice.Source) capabilityModel {
	id, version, data := uint16(0x30+s.Intn(4)), uint8(s.Intn(17)), s.Bytes(s.Intn(40))
	masks, wrong := anyMasks(s, len(data))
	return capabilityModel{
		id: id, version: version, extended: true, data: data, wrong: wrong || version > 15,
		build: func(space *Space) (int, error) {
			return space.AddRawExtended(RawExtended{ID: id, Version: version, Data: data, Masks: masks})
		},
		registers: m.raw(4, len(data), masks, len(data)),
	}
}

func anyVendorExtended(m *spaceModel, s *choice.Source) capabilityModel {
	v := VendorExtended{ID: s.Uint16(), Revision: uint8(s.Intn(17)), Data: s.Bytes(s.Intn(40))}
	if s.Odds(32) {
		v.Data = make([]byte, 4080+s.Intn(10))
	}
	var wrong bool
	v.Masks, wrong = anyMasks(s, len(v.Data))
	n := len(v.Data)
	return capabilityModel{
		id: 0xb, version: 1, extended: true, wrong: wrong || v.Revision > 15 || n > 4087,
		data:      append(le(4, uint64(v.ID)|uint64(v.Revision)<<16|uint64(8+n)<<20), v.Data...),
		build:     func(space *Space) (int, error) { return space.AddVendorExtended(v) },
		registers: m.raw(4, 4+n, v.Masks, n),
	}
}

func anyDVSEC(m *spaceModel, s *choice.Source) capabilityModel {
	v := DVSEC{Vendor: s.Uint16(), ID: s.Uint16(), Revision: uint8(s.Intn(17)), Data: s.Bytes(s.Intn(40))}
	var wrong bool
	v.Masks, wrong = anyMasks(s, len(v.Data))
	n := len(v.Data)
	return capabilityModel{
		id: 0x23, version: 1, extended: true, wrong: wrong || v.Revision > 15,
		data:      append(le(4, uint64(v.Vendor)|uint64(v.Revision)<<16|uint64(10+n)<<20, 2, uint64(v.ID)), v.Data...),
		build:     func(space *Space) (int, error) { return space.AddDVSEC(v) },
		registers: m.raw(4, 6+n, v.Masks, n),
	}
}
