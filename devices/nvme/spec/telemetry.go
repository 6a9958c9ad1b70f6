package spec

import "encoding/binary"

// TelemetryBlockSize is what the telemetry logs consist of, in bytes.
const TelemetryBlockSize = 512

// Telemetry is a telemetry log page, host-initiated (07h) or controller-initiated (08h) (Base
// 2.0, 5.16.1.8).
type Telemetry struct {
	Page                 uint8
	Areas                [3]uint16 // last block of each data area; block 1 follows the header
	HostGeneration       uint8     // in page 07h
	Available            bool      // there is controller-initiated data
	ControllerGeneration uint8
	Reason               string // up to 128 characters
	Data                 []byte // of all areas
}

// Size is the size of the page in bytes.
func (t *Telemetry) Size() int { return TelemetryBlockSize + len(t.Data) }

// Put writes the page.
func (t *Telemetry) Put(b []byte) {
	b = b[:t.Size()]
	clear(b)
	le := binary.LittleEndian
	b[0] = t.Page
	for i, last := range t.Areas {
		le.PutUint16(b[8+2*i:], last)
	}
	if t.Page == LogHostTelemetry {
		b[381] = t.HostGeneration
	}
	if t.Available {
		b[382] = 1
	}
	b[383] = t.ControllerGeneration
	copy(b[384:512], t.Reason)
	copy(b[512:], t.Data)
}

// Get reads a page, whose data is what follows the header in b.
func (t *Telemetry) Get(b []byte) {
	_ = b[TelemetryBlockSize-1]
	le := binary.LittleEndian
	*t = Telemetry{
		Page: b[0], Areas: [3]uint16{le.Uint16(b[8:]), le.Uint16(b[10:]), le.Uint16(b[12:])},
		Available: b[382] != 0, ControllerGeneration: b[383], Reason: text(b[384:512]), Data: b[512:],
	}
	if t.Page == LogHostTelemetry {
		t.HostGeneration = b[381]
	}
}
