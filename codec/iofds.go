package codec

import "encoding/binary"

const (
	// IOFDsSize is the size in bytes of GET_REGION_IO_FDS, and of what precedes the
	// sub-regions of its reply.
	IOFDsSize = 16
	// IOFDSize is the size of a sub-region in bytes.
	IOFDSize = 40
	// shadowIOFDSize is what libvfio-user gives every sub-region of a reply, for one with
	// a shadow: the shadow's offset precedes an eventfd's datamatch, and a regionfd's user
	// data is followed by padding.
	shadowIOFDSize = 48
)

// IOFDType says what the descriptor of a sub-region is.
type IOFDType uint32

const (
	IOEventfd       IOFDType = 0 // signalled by a write that matches
	IORegionfd      IOFDType = 1 // a socket on which accesses are sent
	IOEventfdShadow IOFDType = 2 // from libvfio-user: the value is left in shared memory, then as IOEventfd
)

// Flags of a sub-region; those of an eventfd are KVM_IOEVENTFD_FLAG_*, those of a
// regionfd KVM_IOREGION_*.
const (
	IOEventfdDatamatch   uint32 = 1 << 0 // only writes of Data count
	IOEventfdPIO         uint32 = 1 << 1 // the region is in I/O space
	IORegionPIO          uint32 = 1 << 0
	IORegionPostedWrites uint32 = 1 << 1
)

// IOFD is a sub-region to which a client can write through a descriptor.
type IOFD struct {
	Offset  uint64 // in the region, bytes
	Size    uint64 // of a write, bytes; 0: any
	FDIndex uint32 // of the reply's descriptors; several sub-regions may share one
	Type    IOFDType
	Flags   uint32
	Data    uint64 // an eventfd's datamatch, a regionfd's user data

	// Of an IOEventfdShadow: where the value that is written goes.
	ShadowFDIndex uint32
	ShadowOffset  uint64 // in the file, bytes
}

// IOFDs is the payload of GET_REGION_IO_FDS, both ways. In the request only ArgSz and
// Index count.
type IOFDs struct {
	ArgSz   uint32 // request: room for the reply; reply: what the whole takes, bytes
	Flags   uint32 // 0
	Index   uint32 // of the region
	Count   uint32 // of sub-regions
	Regions []IOFD // of a reply that was not cut, Count of them
}

// DecodeRequest reads a request.
func (m *IOFDs) DecodeRequest(b []byte) error {
	if err := m.decodeHead(b); err != nil {
		return err
	}
	if m.Flags != 0 {
		return invalid(CmdGetRegionIOFDs, ErrFlags, "flags must be 0")
	}
	if m.Count != 0 {
		return invalid(CmdGetRegionIOFDs, ErrRange, "count must be 0")
	}
	return nil
}

// DecodeReply reads a reply. Regions is overwritten and grows only if it has no room.
// A reply that was cut because the request's argsz was too small has none: see Truncated.
func (m *IOFDs) DecodeReply(b []byte) error {
	if err := m.decodeHead(b); err != nil {
		return err
	}
	if m.Count == 0 || m.Truncated(len(b)) {
		return nil
	}
	// That one takes 40 bytes "is not to be relied on": it follows from the whole. (The
	// specification subtracts 32, from when argsz still counted the message's header.)
	b = b[IOFDsSize:m.ArgSz]
	stride := uint64(len(b)) / uint64(m.Count)
	if stride < IOFDSize || stride*uint64(m.Count) != uint64(len(b)) {
		return invalid(CmdGetRegionIOFDs, ErrSize, "sub-regions are cut")
	}
	for range m.Count {
		r := decodeIOFD(b[:stride])
		if r.Type == IOEventfdShadow && stride != shadowIOFDSize {
			return invalid(CmdGetRegionIOFDs, ErrSize, "a sub-region with a shadow needs 48 bytes")
		}
		m.Regions = append(m.Regions, r)
		b = b[stride:]
	}
	return nil
}

// decodeIOFD reads a sub-region. What is longer than IOFDSize and not libvfio-user's is the
// specification's with something new behind it.
func decodeIOFD(b []byte) IOFD {
	r := IOFD{
		Offset:  binary.NativeEndian.Uint64(b[0:]),
		Size:    binary.NativeEndian.Uint64(b[8:]),
		FDIndex: binary.NativeEndian.Uint32(b[16:]),
		Type:    IOFDType(binary.NativeEndian.Uint32(b[20:])),
		Flags:   binary.NativeEndian.Uint32(b[24:]),
	}
	if len(b) != shadowIOFDSize || r.Type == IORegionfd {
		r.Data = binary.NativeEndian.Uint64(b[32:])
		return r
	}
	r.Data = binary.NativeEndian.Uint64(b[40:])
	if r.Type == IOEventfdShadow {
		r.ShadowFDIndex = binary.NativeEndian.Uint32(b[28:])
		r.ShadowOffset = binary.NativeEndian.Uint64(b[32:])
	}
	return r
}

// Truncated tells of a reply with a payload of n bytes whether there is more to be had
// by asking again with ArgSz.
func (m *IOFDs) Truncated(n int) bool { return uint64(m.ArgSz) > uint64(n) }

func (m *IOFDs) decodeHead(b []byte) error {
	if len(b) < IOFDsSize {
		return invalid(CmdGetRegionIOFDs, ErrShort, "payload needs 16 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = binary.NativeEndian.Uint32(b[4:])
	m.Index = binary.NativeEndian.Uint32(b[8:])
	m.Count = binary.NativeEndian.Uint32(b[12:])
	m.Regions = m.Regions[:0]
	if m.ArgSz < IOFDsSize {
		return invalid(CmdGetRegionIOFDs, ErrSize, "argsz is smaller than 16")
	}
	return nil
}

// AppendRequest appends the request.
func (m *IOFDs) AppendRequest(dst []byte) []byte { return m.appendHead(dst) }

// AppendReply appends the reply to a request that has room for argsz bytes. ArgSz and
// Count follow from Regions and are set in m. If argsz is too small, the reply is what
// precedes the sub-regions, which tells the size to ask again with.
func (m *IOFDs) AppendReply(dst []byte, argsz uint32) []byte {
	stride := uint32(IOFDSize)
	for i := range m.Regions {
		if m.Regions[i].Type == IOEventfdShadow {
			stride = shadowIOFDSize
		}
	}
	m.Count = uint32(len(m.Regions))
	m.ArgSz = IOFDsSize + m.Count*stride
	dst = m.appendHead(dst)
	if argsz < m.ArgSz {
		return dst
	}
	for i := range m.Regions {
		dst = m.Regions[i].append(dst, stride)
	}
	return dst
}

func (r *IOFD) append(dst []byte, stride uint32) []byte {
	dst = binary.NativeEndian.AppendUint64(dst, r.Offset)
	dst = binary.NativeEndian.AppendUint64(dst, r.Size)
	dst = binary.NativeEndian.AppendUint32(dst, r.FDIndex)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(r.Type))
	dst = binary.NativeEndian.AppendUint32(dst, r.Flags)
	fdIndex, offset := r.ShadowFDIndex, r.ShadowOffset
	if r.Type != IOEventfdShadow {
		fdIndex, offset = 0, 0
	}
	dst = binary.NativeEndian.AppendUint32(dst, fdIndex)
	if stride == IOFDSize {
		return binary.NativeEndian.AppendUint64(dst, r.Data)
	}
	if r.Type == IORegionfd {
		dst = binary.NativeEndian.AppendUint64(dst, r.Data)
		return binary.NativeEndian.AppendUint64(dst, 0)
	}
	dst = binary.NativeEndian.AppendUint64(dst, offset)
	return binary.NativeEndian.AppendUint64(dst, r.Data)
}

func (m *IOFDs) appendHead(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, m.Flags)
	dst = binary.NativeEndian.AppendUint32(dst, m.Index)
	return binary.NativeEndian.AppendUint32(dst, m.Count)
}
