package spec

import (
	"encoding/binary"
	"errors"
)

// Classes of commands on the control queue (5.1.6.5).
const (
	ClassRx            uint8 = 0
	ClassMAC           uint8 = 1
	ClassVLAN          uint8 = 2
	ClassAnnounce      uint8 = 3
	ClassMQ            uint8 = 4
	ClassGuestOffloads uint8 = 5
	ClassNotfCoal      uint8 = 6
)

// Commands of each class.
const (
	RxPromisc  uint8 = 0 // one byte each, 0 or 1
	RxAllMulti uint8 = 1
	RxAllUni   uint8 = 2
	RxNoMulti  uint8 = 3
	RxNoUni    uint8 = 4
	RxNoBcast  uint8 = 5

	MACTableSet uint8 = 0 // MACTable
	MACAddrSet  uint8 = 1 // 6 bytes

	VLANAdd uint8 = 0 // 16 bits
	VLANDel uint8 = 1

	AnnounceAck uint8 = 0 // no data

	MQPairsSet   uint8 = 0 // 16 bits
	MQRSSConfig  uint8 = 1 // RSSConfig
	MQHashConfig uint8 = 2 // HashConfig

	GuestOffloadsSet uint8 = 0 // 64 bits

	CoalTxSet uint8 = 0 // Coalesce
	CoalRxSet uint8 = 1 // Coalesce
	CoalVQSet uint8 = 2 // CoalesceVQ
	CoalVQGet uint8 = 3 // CoalesceVQ, of which the device writes the parameters
)

// What the device answers to a command.
const (
	AckOK  uint8 = 0
	AckErr uint8 = 1
)

// VLANs is the number of VLAN identifiers.
const VLANs = 4096

// ErrCommand is returned for the data of a command whose length does not fit what it says,
// or that breaks a rule that does not depend on the device.
var ErrCommand = errors.New("virtio-net: malformed command")

// MACTable is the data of MACTableSet: addresses of which frames are received (5.1.6.5.2).
type MACTable struct{ Unicast, Multicast [][6]byte }

// Append appends the wire form to b.
func (t *MACTable) Append(b []byte) []byte {
	for _, list := range [...][][6]byte{t.Unicast, t.Multicast} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(list)))
		for _, mac := range list {
			b = append(b, mac[:]...)
		}
	}
	return b
}

// Parse reads the wire form, which must be all of b.
func (t *MACTable) Parse(b []byte) error {
	var lists [2][][6]byte
	for i := range lists {
		if len(b) < 4 {
			return ErrCommand
		}
		n := binary.LittleEndian.Uint32(b)
		b = b[4:]
		if uint64(n)*6 > uint64(len(b)) {
			return ErrCommand
		}
		lists[i] = make([][6]byte, n)
		for k := range lists[i] {
			lists[i][k] = [6]byte(b)
			b = b[6:]
		}
	}
	if len(b) != 0 {
		return ErrCommand
	}
	t.Unicast, t.Multicast = lists[0], lists[1]
	return nil
}

// Coalesce is the data of CoalTxSet and CoalRxSet (5.1.6.5.9).
type Coalesce struct {
	MaxPackets uint32 // frames
	MaxUsecs   uint32 // µs
}

// Sizes of the data of commands of ClassNotfCoal in bytes.
const (
	CoalesceSize   = 8
	CoalesceVQSize = 4 + CoalesceSize
)

// Put writes CoalesceSize bytes.
func (c *Coalesce) Put(p []byte) {
	p = p[:CoalesceSize]
	binary.LittleEndian.PutUint32(p, c.MaxPackets)
	binary.LittleEndian.PutUint32(p[4:], c.MaxUsecs)
}

// Get reads CoalesceSize bytes.
func (c *Coalesce) Get(p []byte) {
	p = p[:CoalesceSize]
	c.MaxPackets = binary.LittleEndian.Uint32(p)
	c.MaxUsecs = binary.LittleEndian.Uint32(p[4:])
}

// CoalesceVQ is the data of CoalVQSet and CoalVQGet.
type CoalesceVQ struct {
	Queue uint16 // index of the virtqueue
	Coalesce
}

// Put writes CoalesceVQSize bytes.
func (c *CoalesceVQ) Put(p []byte) {
	p = p[:CoalesceVQSize]
	binary.LittleEndian.PutUint32(p, uint32(c.Queue)) // and the reserved bytes
	c.Coalesce.Put(p[4:])
}

// Get reads CoalesceVQSize bytes.
func (c *CoalesceVQ) Get(p []byte) {
	p = p[:CoalesceVQSize]
	c.Queue = binary.LittleEndian.Uint16(p)
	c.Coalesce.Get(p[4:])
}
