package spec

import "encoding/binary"

// Sizes in the persistent event log in bytes.
const (
	PersistentEventsHeader = 512
	PersistentEventHeader  = 24
	PowerOnEventSize       = 44
	NamespaceEventSize     = 48
	FirmwareEventSize      = 22
	TimestampEventSize     = 16
	FormatStartEventSize   = 12
	FormatEndEventSize     = 12
	SanitizeStartEventSize = 12
	SanitizeEndEventSize   = 8
)

// Types of persistent events (Base 2.0, figure 224).
const (
	EventSmart          = 0x01
	EventFirmwareCommit = 0x02
	EventTimestamp      = 0x03
	EventPowerOn        = 0x04
	EventNamespace      = 0x06
	EventFormatStart    = 0x07
	EventFormatEnd      = 0x08
	EventSanitizeStart  = 0x09
	EventSanitizeEnd    = 0x0a
	EventThermal        = 0x0d
)

// PersistentEvent is an event of the persistent event log.
type PersistentEvent struct {
	Type       uint8
	Revision   uint8
	Controller uint16
	Time       uint64 // as the timestamp feature
	Data       []byte
}

// Size is the size of the event in bytes.
func (e *PersistentEvent) Size() int { return PersistentEventHeader + len(e.Data) }

// PersistentEventLog is the persistent event log (Base 2.0, 5.16.1.14).
type PersistentEventLog struct {
	Timestamp                   uint64
	PowerOnHours                uint64
	PowerCycles                 uint64
	VendorID, SubsystemVendorID uint16
	Serial, Model, SubNQN       string
	Supported                   uint64 // types of events, a bit each
	Events                      []PersistentEvent
}

// Size is the size of the log in bytes.
func (l *PersistentEventLog) Size() int {
	n := PersistentEventsHeader
	for i := range l.Events {
		n += l.Events[i].Size()
	}
	return n
}

// PersistentEventLogSize reads the size of the whole log from its header.
func PersistentEventLogSize(header []byte) uint64 { return binary.LittleEndian.Uint64(header[8:]) }

// Put writes the log.
func (l *PersistentEventLog) Put(b []byte) {
	b = b[:l.Size()]
	clear(b)
	le := binary.LittleEndian
	b[0] = LogPersistentEvents
	le.PutUint32(b[4:], uint32(len(l.Events)))
	le.PutUint64(b[8:], uint64(len(b)))
	b[16] = 1 // revision
	le.PutUint16(b[18:], PersistentEventsHeader-20)
	le.PutUint64(b[20:], l.Timestamp)
	le.PutUint64(b[28:], l.PowerOnHours)
	le.PutUint64(b[44:], l.PowerCycles)
	le.PutUint16(b[52:], l.VendorID)
	le.PutUint16(b[54:], l.SubsystemVendorID)
	putText(b[56:76], l.Serial)
	putText(b[76:116], l.Model)
	copy(b[116:372], l.SubNQN)
	le.PutUint64(b[480:], l.Supported)
	b = b[PersistentEventsHeader:]
	for i := range l.Events {
		e := &l.Events[i]
		b[0], b[1], b[2] = e.Type, e.Revision, PersistentEventHeader-3
		le.PutUint16(b[4:], e.Controller)
		le.PutUint64(b[6:], e.Time)
		le.PutUint16(b[22:], uint16(len(e.Data)))
		copy(b[PersistentEventHeader:], e.Data)
		b = b[e.Size():]
	}
}

// Get reads the header and the events that are whole in b; Data refers to b.
func (l *PersistentEventLog) Get(b []byte) {
	_ = b[PersistentEventsHeader-1]
	le := binary.LittleEndian
	*l = PersistentEventLog{
		Timestamp: le.Uint64(b[20:]), PowerOnHours: le.Uint64(b[28:]), PowerCycles: le.Uint64(b[44:]),
		VendorID: le.Uint16(b[52:]), SubsystemVendorID: le.Uint16(b[54:]),
		Serial: text(b[56:76]), Model: text(b[76:116]), SubNQN: text(b[116:372]), Supported: le.Uint64(b[480:]),
	}
	n := le.Uint32(b[4:])
	for b = b[PersistentEventsHeader:]; n > 0 && len(b) >= PersistentEventHeader; n-- {
		head, vendor, size := int(b[2])+3, int(le.Uint16(b[20:])), int(le.Uint16(b[22:]))
		if vendor > size || len(b) < head+size {
			return
		}
		l.Events = append(l.Events, PersistentEvent{b[0], b[1], le.Uint16(b[4:]), le.Uint64(b[6:]), b[head+vendor : head+size]})
		b = b[head+size:]
	}
}

// PowerOnEvent is the data of EventPowerOn of one controller.
type PowerOnEvent struct {
	Firmware   string // 8 ASCII characters
	Controller uint16
	PowerCycle uint32
	PowerOn    uint64 // ms since the power came
	Time       uint64 // as the timestamp feature
}

// Put writes the 44 bytes of the data.
func (e *PowerOnEvent) Put(b []byte) {
	b = b[:PowerOnEventSize]
	clear(b)
	putText(b[:8], e.Firmware)
	binary.LittleEndian.PutUint16(b[8:], e.Controller)
	binary.LittleEndian.PutUint32(b[24:], e.PowerCycle)
	binary.LittleEndian.PutUint64(b[28:], e.PowerOn)
	binary.LittleEndian.PutUint64(b[36:], e.Time)
}

// Get reads the 44 bytes of the data.
func (e *PowerOnEvent) Get(b []byte) {
	b = b[:PowerOnEventSize]
	*e = PowerOnEvent{text(b[:8]), binary.LittleEndian.Uint16(b[8:]), binary.LittleEndian.Uint32(b[24:]),
		binary.LittleEndian.Uint64(b[28:]), binary.LittleEndian.Uint64(b[36:])}
}

// NamespaceEvent is the data of EventNamespace: what Namespace Management was asked for.
type NamespaceEvent struct {
	CDW10            uint32
	NSID             uint32
	Size, Capacity   uint64 // blocks
	FLBAS, DPS, NMIC uint8
}

// Put writes the 48 bytes of the data.
func (e *NamespaceEvent) Put(b []byte) {
	b = b[:NamespaceEventSize]
	clear(b)
	binary.LittleEndian.PutUint32(b, e.CDW10)
	binary.LittleEndian.PutUint64(b[8:], e.Size)
	binary.LittleEndian.PutUint64(b[24:], e.Capacity)
	b[32], b[33], b[34] = e.FLBAS, e.DPS, e.NMIC
	binary.LittleEndian.PutUint32(b[44:], e.NSID)
}

// FormatStartEvent is the data of EventFormatStart.
type FormatStartEvent struct {
	NSID  uint32
	FNA   uint8
	CDW10 uint32
}

// Put writes the 12 bytes of the data.
func (e *FormatStartEvent) Put(b []byte) {
	b = b[:FormatStartEventSize]
	clear(b)
	binary.LittleEndian.PutUint32(b, e.NSID)
	b[4] = e.FNA
	binary.LittleEndian.PutUint32(b[8:], e.CDW10)
}

// FormatEndEvent is the data of EventFormatEnd.
type FormatEndEvent struct {
	NSID      uint32
	Remaining uint8 // percent
	Failed    bool
	Status    Status
}

// Put writes the 12 bytes of the data.
func (e *FormatEndEvent) Put(b []byte) {
	b = b[:FormatEndEventSize]
	clear(b)
	binary.LittleEndian.PutUint32(b, e.NSID)
	b[4] = e.Remaining
	if e.Failed {
		b[5] = 1
	}
	binary.LittleEndian.PutUint32(b[8:], uint32(e.Status)<<1)
}

// FirmwareEvent is the data of EventFirmwareCommit.
type FirmwareEvent struct {
	Old, New string // revisions
	Action   uint8
	Slot     uint8
	Status   Status
}

// Put writes the 22 bytes of the data.
func (e *FirmwareEvent) Put(b []byte) {
	b = b[:FirmwareEventSize]
	clear(b)
	putText(b[:8], e.Old)
	putText(b[8:16], e.New)
	b[16], b[17], b[18], b[19] = e.Action, e.Slot, e.Status.SCT(), e.Status.SC()
}

// Get reads the 22 bytes of the data. Of the status there is the code only.
func (e *FirmwareEvent) Get(b []byte) {
	b = b[:FirmwareEventSize]
	*e = FirmwareEvent{text(b[:8]), text(b[8:16]), b[16], b[17], Status(b[18])<<8 | Status(b[19])}
}
