package codec

import "math/bits"

// What the specification says of the messages, with the names of this package.
type (
	oHeader struct {
		ID, Command uint16
		Size        uint32 `min:"16"`
		Flags       uint32
		Errno       uint32
	}
	oDMAMap struct {
		ArgSz              uint32 `min:"32"`
		Flags              uint32 `bits:"0xf"`
		Offset, Addr, Size uint64
	}
	oBitmap struct{ PgSize, Size uint64 }
	oUnmap  struct {
		ArgSz      uint32 `min:"24"`
		Flags      uint32 `oneof:"0 1 2"`
		Addr, Size uint64
		Bitmap     oBitmap `if:"Flags&1"`
	}
	oUnmapReply struct {
		ArgSz      uint32 `min:"24"`
		Flags      uint32 `oneof:"0 1 2"`
		Addr, Size uint64
		Bitmap     oBitmapData `if:"Flags&1"`
	}
	oBitmapData struct {
		PgSize, Size uint64
		Data         []byte `rest:""`
	}
	oDeviceInfo struct {
		ArgSz                      uint32 `min:"16"`
		Flags, NumRegions, NumIRQs uint32
	}
	oRegionInfo struct {
		ArgSz                   uint32 `min:"32"`
		Flags, Index, CapOffset uint32
		Size, Offset            uint64
	}
	oRegionInfoReply struct {
		ArgSz                   uint32 `min:"32"`
		Flags, Index, CapOffset uint32
		Size, Offset            uint64
		Rest                    []byte      `rest:""`
		Sparse                  []oArea     `derived:""`
		Type                    oRegionType `derived:""`
	}
	oArea       struct{ Offset, Size uint64 }
	oRegionType struct{ Type, Subtype uint32 }
	oCapHeader  struct {
		ID, Version uint16
		Next        uint32
	}
	oSparse struct {
		Areas, _ uint32
		Rest     []byte `rest:""`
	}
	oIOFDsRequest struct {
		ArgSz uint32 `min:"16"`
		Flags uint32 `oneof:"0"`
		Index uint32
		Count uint32 `oneof:"0"`
	}
	oIOFDs struct {
		ArgSz               uint32 `min:"16"`
		Flags, Index, Count uint32
		Rest                []byte  `rest:""`
		Regions             []oIOFD `derived:""`
	}
	oIOFD struct {
		Offset, Size         uint64
		FDIndex, Type, Flags uint32
		ShadowFDIndex        uint32
		ShadowOffset, Data   uint64
	}
	oIRQInfo struct {
		ArgSz               uint32 `min:"16"`
		Flags, Index, Count uint32
	}
	oSetIRQs struct {
		ArgSz               uint32 `min:"20"`
		Flags               uint32 `bits:"0x3f"`
		Index, Start, Count uint32
		Data                []byte `if:"Flags&2" len:"Count"`
	}
	oRegionAccess struct {
		Offset        uint64
		Region, Count uint32
	}
	oRegionData struct {
		Offset        uint64
		Region, Count uint32
		Data          []byte `len:"Count"`
	}
	oDMAAccess struct{ Addr, Count uint64 }
	oDMAData   struct {
		Addr, Count uint64
		Data        []byte `len:"Count"`
	}
	oWriteReply struct {
		Addr  uint64
		Rest  []byte `rest:""`
		Count uint64 `derived:""`
	}
	oWriteMultiReply struct{ Count uint64 }
	oWriteMulti      struct {
		Count  uint64         `min:"1"`
		Writes []oSingleWrite `len:"Count"`
	}
	oSingleWrite struct {
		Offset uint64
		Region uint32
		Count  uint32
		Data   [8]byte
	}
	oFeature struct {
		ArgSz uint32 `min:"8"`
		Flags uint32 `bits:"0x7ffff"`
		Data  []byte `rest:""`
	}
	oMigrationFlags struct{ Value uint64 }
	oMigState       struct {
		Value uint32 `oneof:"0 1 2 3 4 5 6 7"`
		_     uint32 // a descriptor, in VFIO
	}
	oLogging struct {
		PageSize uint64
		Count    uint32
		_        uint32
		Ranges   []oRange `len:"Count"`
	}
	oRange  struct{ IOVA, Length uint64 }
	oReport struct{ IOVA, Length, PageSize uint64 }

	oReportReply struct {
		IOVA, Length, PageSize uint64
		Bitmap                 []byte `rest:""`
	}
	oMigRead struct{ ArgSz, Size uint32 }
	oMigData struct {
		ArgSz, Size uint32
		Data        []byte `len:"Size"`
	}
	oMigReadReply struct {
		ArgSz, Size uint32
		Rest        []byte `rest:""`
		Data        []byte `derived:""`
	}
)

func (m *oHeader) valid(int) bool { return m.Flags&0xf <= 1 }

// A descriptor is mmapped or read and written, not both.
func (m *oDMAMap) valid(int) bool { return m.Flags&0xc != 0xc }

func (m *oUnmap) valid(int) bool {
	room := uint64(m.ArgSz)
	return unmapAll(m.Flags, m.Addr, m.Size) && (m.Flags != 1 || room >= 40 && room-40 >= m.Bitmap.Size)
}

func (m *oUnmapReply) valid(int) bool {
	return unmapAll(m.Flags, m.Addr, m.Size) &&
		(m.Flags != 1 || m.ArgSz >= 40 && m.Bitmap.Size == uint64(len(m.Bitmap.Data)))
}

// To unmap all is to name no region.
func unmapAll(flags uint32, addr, size uint64) bool { return flags != 2 || addr == 0 && size == 0 }

// Capabilities are linked forward, from CapOffset on, within what ArgSz says that the whole is, and
// none lies in another one. They are missing if that did not fit.
func (m *oRegionInfoReply) valid(n int) bool {
	if m.Flags&8 == 0 || uint64(m.ArgSz) > uint64(n) {
		return true
	}
	whole := append(make([]byte, 32), m.Rest...)[:m.ArgSz]
	for at, end := uint64(m.CapOffset), uint64(32); at != 0; {
		var head oCapHeader
		if at < end || at > uint64(len(whole)) || !consult(&head, whole[at:]) {
			return false
		}
		size, ok := m.capability(head.ID, whole[at+8:])
		if !ok {
			return false
		}
		at, end = uint64(head.Next), at+8+size
	}
	return true
}

// capability takes what is behind a capability's header and tells its size.
func (m *oRegionInfoReply) capability(id uint16, b []byte) (size uint64, ok bool) {
	switch id {
	case 1: // VFIO_REGION_INFO_CAP_SPARSE_MMAP
		var s oSparse
		if !consult(&s, b) || uint64(s.Areas) > uint64(len(s.Rest)/16) {
			return 0, false
		}
		for i := range int(s.Areas) {
			var a oArea
			end, carry := uint64(0), uint64(0)
			if consult(&a, s.Rest[16*i:]) {
				end, carry = bits.Add64(a.Offset, a.Size, 0)
			}
			if carry != 0 || end > m.Size {
				return 0, false
			}
			m.Sparse = append(m.Sparse, a)
		}
		return 8 + 16*uint64(s.Areas), true
	case 2: // VFIO_REGION_INFO_CAP_TYPE
		return 8, consult(&m.Type, b)
	}
	return 0, true
}

// Every sub-region takes the same; what it takes follows from the whole.
func (m *oIOFDs) valid(n int) bool {
	if m.Count == 0 || uint64(m.ArgSz) > uint64(n) {
		return true
	}
	room := uint64(m.ArgSz - 16)
	if room%uint64(m.Count) != 0 || room/uint64(m.Count) < 40 {
		return false
	}
	each := room / uint64(m.Count)
	for i := range uint64(m.Count) {
		b := m.Rest[i*each : (i+1)*each]
		var r oIOFD
		if each != 48 {
			b = append(append([]byte(nil), b[:32]...), append(make([]byte, 8), b[32:40]...)...)
		}
		consult(&r, b)
		switch {
		case r.Type == 2 && each != 48: // a shadow needs the room
			return false
		case r.Type == 1 && each == 48: // a regionfd's user data comes first
			r.ShadowOffset, r.Data = 0, r.ShadowOffset
		}
		if r.Type != 2 {
			r.ShadowFDIndex, r.ShadowOffset = 0, 0
		}
		m.Regions = append(m.Regions, r)
	}
	return true
}

func (m *oSetIRQs) valid(int) bool {
	one := func(v uint32) bool { return v == 1 || v == 2 || v == 4 }
	if !one(m.Flags&7) || !one(m.Flags>>3&7) || uint64(m.Start)+uint64(m.Count) > 0xffffffff {
		return false
	}
	return m.Count > 0 || m.Start == 0 && m.Flags == 0x21 // all off: NONE, TRIGGER
}

// The count takes eight bytes, or four by the letter of the specification.
func (m *oWriteReply) valid(n int) bool {
	if n == 12 {
		var short struct{ Count uint32 }
		consult(&short, m.Rest)
		m.Count = uint64(short.Count)
		return true
	}
	var long struct{ Count uint64 }
	ok := consult(&long, m.Rest)
	m.Count = long.Count
	return ok
}

func (m *oWriteMulti) valid(int) bool {
	for _, w := range m.Writes {
		if w.Count > 8 {
			return false
		}
	}
	return true
}

// Something is to be done, both at once only with PROBE, and the reply repeats what is not read.
func (m *oFeature) valid(n int) bool {
	switch m.Flags >> 16 {
	case 0, 3:
		return false
	case 1:
		return true
	}
	return uint64(m.ArgSz) >= uint64(n)
}

// within tells whether there is such a range of addresses.
func (r oRange) within() bool {
	_, carry := bits.Add64(r.IOVA, r.Length-1, 0)
	return r.Length > 0 && carry == 0
}

func (m *oLogging) valid(int) bool {
	for _, r := range m.Ranges {
		if !r.within() {
			return false
		}
	}
	return true
}

func (m *oReport) valid(int) bool {
	return m.PageSize != 0 && m.PageSize&(m.PageSize-1) == 0 && oRange{m.IOVA, m.Length}.within()
}

// A bit for each page, in words of 64.
func (m *oReportReply) valid(int) bool {
	head := oReport{m.IOVA, m.Length, m.PageSize}
	if !head.valid(0) {
		return false
	}
	pages := (m.Length-1)/m.PageSize + 1
	return uint64(len(m.Bitmap)) == ((pages-1)/64+1)*8
}

func (m *oMigRead) valid(int) bool { return uint64(m.ArgSz) >= uint64(m.Size)+8 }
func (m *oMigData) valid(int) bool { return uint64(m.ArgSz) >= uint64(m.Size)+8 }

// What is behind the data does not count.
func (m *oMigReadReply) valid(int) bool {
	if uint64(m.Size) > uint64(len(m.Rest)) || uint64(m.ArgSz) < uint64(m.Size)+8 {
		return false
	}
	m.Data = m.Rest[:m.Size]
	return true
}
