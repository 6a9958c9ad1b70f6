package spec

import "encoding/binary"

// DirectiveParametersSize is the size of DirectiveParameters in bytes.
const DirectiveParametersSize = 4096

// DirectiveParameters is what Directive Receive returns of the identify directive (Base 2.0,
// figure 608): directives, a bit each.
type DirectiveParameters struct {
	Supported  uint64
	Enabled    uint64
	Persistent uint64
}

// Put writes the 4,096 bytes of the structure.
func (d *DirectiveParameters) Put(b []byte) {
	b = b[:DirectiveParametersSize]
	clear(b)
	binary.LittleEndian.PutUint64(b[0:], d.Supported)
	binary.LittleEndian.PutUint64(b[32:], d.Enabled)
	binary.LittleEndian.PutUint64(b[64:], d.Persistent)
}

// Get reads the structure.
func (d *DirectiveParameters) Get(b []byte) {
	_ = b[95]
	*d = DirectiveParameters{binary.LittleEndian.Uint64(b[0:]), binary.LittleEndian.Uint64(b[32:]), binary.LittleEndian.Uint64(b[64:])}
}
