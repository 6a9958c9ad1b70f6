package codec

import "encoding/binary"

// DeviceInfoSize is the size of GET_INFO's payload in bytes, both ways.
const DeviceInfoSize = 16

// DeviceFlags say what a device is (VFIO_DEVICE_FLAGS_*).
type DeviceFlags uint32

const (
	DeviceFlagReset DeviceFlags = 1 << 0 // RESET is understood
	DeviceFlagPCI   DeviceFlags = 1 << 1
)

// DeviceInfo is the request, in which only ArgSz counts, and the reply.
type DeviceInfo struct {
	ArgSz      uint32 // request: room for the reply; reply: what it takes, bytes
	Flags      DeviceFlags
	NumRegions uint32
	NumIRQs    uint32 // number of interrupt indexes
}

// Decode reads a request or a reply.
func (m *DeviceInfo) Decode(b []byte) error {
	if len(b) < DeviceInfoSize {
		return invalid(CmdGetInfo, ErrShort, "payload needs 16 bytes")
	}
	m.ArgSz = binary.NativeEndian.Uint32(b[0:])
	m.Flags = DeviceFlags(binary.NativeEndian.Uint32(b[4:]))
	m.NumRegions = binary.NativeEndian.Uint32(b[8:])
	m.NumIRQs = binary.NativeEndian.Uint32(b[12:])
	if m.ArgSz < DeviceInfoSize {
		return invalid(CmdGetInfo, ErrSize, "argsz is smaller than 16")
	}
	return nil
}

// Append appends a request or a reply.
func (m *DeviceInfo) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, m.ArgSz)
	dst = binary.NativeEndian.AppendUint32(dst, uint32(m.Flags))
	dst = binary.NativeEndian.AppendUint32(dst, m.NumRegions)
	return binary.NativeEndian.AppendUint32(dst, m.NumIRQs)
}
