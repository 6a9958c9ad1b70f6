package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strconv"
)

// VersionSize is the size in bytes of VERSION without its optional JSON, both ways.
const VersionSize = 4

// What a peer means that leaves a capability out (specification, "VFIO_USER_VERSION").
const (
	DefaultMaxMsgFDs       = 1
	DefaultMaxDataXferSize = 1 << 20
	DefaultMaxDMAMaps      = 65535
	DefaultPgSizes         = 4096
)

// VersionMsg opens a session: the client proposes, the server replies.
type VersionMsg struct {
	Major, Minor uint16
	Caps         Capabilities
}

// Present tells which of the numbers in Capabilities were there.
type Present uint8

const (
	HasMaxMsgFDs Present = 1 << iota
	HasMaxDataXferSize
	HasMaxDMAMaps
	HasPgSizes
)

// Capabilities is the JSON object of VERSION.
type Capabilities struct {
	MaxMsgFDs       uint64 // descriptors that the sender takes in one message
	MaxDataXferSize uint64 // bytes of data in one message
	MaxDMAMaps      uint64 // DMA regions at one time
	PgSizes         uint64 // page sizes for DMA_MAP or'ed together, bytes
	WriteMultiple   bool   // REGION_WRITE_MULTI is understood
	TwinSocket      *TwinSocket
	Migration       *MigrationCaps
	Present         Present // set by Decode; Append also writes any number that is not 0
}

// TwinSocket is about a second socket for the server's commands.
type TwinSocket struct {
	Supported bool
	FDIndex   *uint64 // reply only: which of the descriptors it is
}

// MigrationCaps is not in the specification, but every implementation has it.
type MigrationCaps struct {
	PgSize        uint64 // bytes to a bit of the dirty log; always written, since cloud-hypervisor wants it
	MaxBitmapSize uint64 // bytes; written if it is not 0
}

// Defaults fills in the numbers that were absent.
func (c *Capabilities) Defaults() {
	for _, f := range c.numbers() {
		if c.Present&f.bit == 0 && *f.value == 0 {
			*f.value = f.absent
		}
	}
}

type number struct {
	name   string
	value  *uint64
	bit    Present
	absent uint64
}

func (c *Capabilities) numbers() [4]number {
	return [4]number{
		{"max_msg_fds", &c.MaxMsgFDs, HasMaxMsgFDs, DefaultMaxMsgFDs},
		{"max_data_xfer_size", &c.MaxDataXferSize, HasMaxDataXferSize, DefaultMaxDataXferSize},
		{"max_dma_maps", &c.MaxDMAMaps, HasMaxDMAMaps, DefaultMaxDMAMaps},
		{"pgsizes", &c.PgSizes, HasPgSizes, DefaultPgSizes},
	}
}

// Decode reads a request or a reply. The JSON may be left out; if it is there, it
// must end with a NUL and be an object. Unknown members are ignored, a known one of
// the wrong type is refused.
func (m *VersionMsg) Decode(b []byte) error {
	if len(b) < VersionSize {
		return invalid(CmdVersion, ErrShort, "payload needs 4 bytes")
	}
	m.Major = binary.NativeEndian.Uint16(b[0:])
	m.Minor = binary.NativeEndian.Uint16(b[2:])
	m.Caps = Capabilities{}
	b = b[VersionSize:]
	if len(b) == 0 {
		return nil
	}
	if b[len(b)-1] != 0 {
		return invalid(CmdVersion, ErrJSON, "version data does not end with a NUL")
	}
	return m.Caps.decode(b[:bytes.IndexByte(b, 0)])
}

// object is a JSON object whose members are still unparsed. (A struct would do,
// but encoding/json takes null for any type and does not mind the case of names.)
type object map[string]json.RawMessage

func (c *Capabilities) decode(text []byte) error {
	var top object
	if json.Unmarshal(text, &top) != nil || top == nil {
		return invalid(CmdVersion, ErrJSON, "version data is not a JSON object")
	}
	caps, there, err := top.object("capabilities")
	if err != nil || !there {
		return err
	}
	for _, f := range c.numbers() {
		there, err := caps.number(f.name, f.value)
		if err != nil {
			return err
		}
		if there {
			c.Present |= f.bit
		}
	}
	if err := caps.boolean("write_multiple", &c.WriteMultiple); err != nil {
		return err
	}
	twin, there, err := caps.object("twin_socket")
	if err != nil {
		return err
	}
	if there {
		c.TwinSocket = new(TwinSocket)
		if err := c.TwinSocket.decode(twin); err != nil {
			return err
		}
	}
	migration, there, err := caps.object("migration")
	if err != nil {
		return err
	}
	if there {
		c.Migration = new(MigrationCaps)
		if _, err := migration.number("pgsize", &c.Migration.PgSize); err != nil {
			return err
		}
		if _, err := migration.number("max_bitmap_size", &c.Migration.MaxBitmapSize); err != nil {
			return err
		}
	}
	return nil
}

func (t *TwinSocket) decode(o object) error {
	if err := o.boolean("supported", &t.Supported); err != nil {
		return err
	}
	var index uint64
	there, err := o.number("fd_index", &index)
	if there {
		t.FDIndex = &index
	}
	return err
}

func (o object) object(name string) (value object, there bool, err error) {
	raw, there := o[name]
	if !there {
		return nil, false, nil
	}
	if json.Unmarshal(raw, &value) != nil || value == nil {
		return nil, true, invalid(CmdVersion, ErrJSON, name+" is not an object")
	}
	return value, true, nil
}

func (o object) number(name string, value *uint64) (there bool, err error) {
	raw, there := o[name]
	if !there {
		return false, nil
	}
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		return false, invalid(CmdVersion, ErrJSON, name+" is not a non-negative integer")
	}
	*value = n
	return true, nil
}

func (o object) boolean(name string, value *bool) error {
	switch raw, there := o[name]; {
	case !there:
		return nil
	case string(raw) == "true":
		*value = true
	case string(raw) == "false":
		*value = false
	default:
		return invalid(CmdVersion, ErrJSON, name+" is not a boolean")
	}
	return nil
}

// Append appends a request or a reply with its JSON, without a blank: QEMU gives the
// reply no more room than its own request took.
func (m *VersionMsg) Append(dst []byte) []byte {
	dst = binary.NativeEndian.AppendUint16(dst, m.Major)
	dst = binary.NativeEndian.AppendUint16(dst, m.Minor)
	dst = append(dst, `{"capabilities":`...)
	dst = m.Caps.append(dst)
	return append(dst, '}', 0)
}

func (c *Capabilities) append(dst []byte) []byte {
	open := len(dst)
	for _, f := range c.numbers() {
		if c.Present&f.bit != 0 || *f.value != 0 {
			dst = appendNumber(dst, f.name, *f.value)
		}
	}
	if c.WriteMultiple {
		dst = append(dst, `,"write_multiple":true`...)
	}
	if t := c.TwinSocket; t != nil {
		dst = append(dst, `,"twin_socket":{"supported":`...)
		dst = strconv.AppendBool(dst, t.Supported)
		if t.FDIndex != nil {
			dst = appendNumber(dst, "fd_index", *t.FDIndex)
		}
		dst = append(dst, '}')
	}
	if g := c.Migration; g != nil {
		dst = append(dst, `,"migration":{"pgsize":`...)
		dst = strconv.AppendUint(dst, g.PgSize, 10)
		if g.MaxBitmapSize != 0 {
			dst = appendNumber(dst, "max_bitmap_size", g.MaxBitmapSize)
		}
		dst = append(dst, '}')
	}
	if len(dst) == open {
		return append(dst, '{', '}')
	}
	dst[open] = '{' // in place of the first member's comma
	return append(dst, '}')
}

func appendNumber(dst []byte, name string, value uint64) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	return strconv.AppendUint(dst, value, 10)
}
