package fuzz_test

import (
	"encoding/binary"
	"testing"

	"vfiouser/codec"
	virtionet "vfiouser/devices/virtio-net"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	"vfiouser/fuzz"
	"vfiouser/link"
)

// card is a network card with a loop behind it: what it sends arrives again.
type card struct {
	*virtionet.Card
	link link.Link
}

func newCard() (*card, error) {
	l := link.Loop()
	c, err := virtionet.New(virtionet.Config{Link: l, MAC: []byte{2, 0, 0, 0, 0, 1}, Pairs: 2, QueueSize: 64})
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &card{c, l}, nil
}

func (c *card) Close() error {
	err := c.Card.Close()
	if e := c.link.Close(); err == nil {
		err = e
	}
	return err
}

// The structures of the card, and of a driver's queues.
const (
	netDevice  = 0x2000
	netNotify  = 0x3000
	queueSpace = 0x3000 // bytes of memory that a queue has
	queueSize  = 16
	frames     = ram + 0x8_0000
	frameSpace = 0x1000

	receiveQueue, transmitQueue, controlQueue = 0, 1, 2
	controlOfTwo                              = 4 // with two pairs of queues
)

// netDriver writes down what a driver does.
type netDriver struct {
	steps   []fuzz.Step
	packed  bool
	control uint16 // the control queue
	indexes [5]uint16
}

func (d *netDriver) do(steps ...fuzz.Step) { d.steps = append(d.steps, steps...) }

func (d *netDriver) set(off uint32, size uint8, v uint64) { d.do(fuzz.Write(0, off, size, v)) }

func queueAt(q uint16) uint64 { return ram + uint64(q)*queueSpace }

// begin brings the card up.
func (d *netDriver) begin(memory fuzz.Step, features uint64) {
	const agreed = ring.StatusAcknowledge | ring.StatusDriver
	d.packed, d.control = features&ring.FeatureRingPacked != 0, controlQueue
	if features&spec.FeatureMQ != 0 {
		d.control = controlOfTwo
	}
	d.do(memory, fuzz.Eventfds(codec.IRQMSIX, 0, 4), fuzz.Write(codec.RegionConfig, 4, 2, 6))
	d.set(ring.DeviceStatus, 1, uint64(agreed))
	for word := range uint64(2) {
		d.set(ring.DriverFeatureSelect, 4, word)
		d.set(ring.DriverFeature, 4, features>>(32*word)&(1<<32-1))
	}
	d.set(ring.DeviceStatus, 1, uint64(agreed|ring.StatusFeaturesOK))
	for q := range d.control + 1 {
		d.set(ring.QueueSelect, 2, uint64(q))
		d.set(ring.QueueSize, 2, queueSize)
		d.set(ring.QueueMSIXVector, 2, uint64(q))
		d.set(ring.QueueDesc, 8, queueAt(q))
		d.set(ring.QueueDriver, 8, queueAt(q)+0x1000)
		d.set(ring.QueueDevice, 8, queueAt(q)+0x2000)
		d.set(ring.QueueEnable, 2, 1)
	}
	d.set(ring.DeviceStatus, 1, uint64(agreed|ring.StatusFeaturesOK|ring.StatusDriverOK))
}

// piece is a part of a buffer.
type piece struct {
	addr  uint64
	size  uint32
	write bool
}

// put gives a buffer to a queue, and rings.
func (d *netDriver) put(q uint16, pieces ...piece) {
	at, index := queueAt(q), d.indexes[q]
	var table []byte
	for i, p := range pieces {
		flags := uint16(0)
		if p.write {
			flags |= ring.DescWrite
		}
		if i < len(pieces)-1 {
			flags |= ring.DescNext
		}
		table = binary.LittleEndian.AppendUint64(table, p.addr)
		table = binary.LittleEndian.AppendUint32(table, p.size)
		if d.packed {
			table = binary.LittleEndian.AppendUint16(table, index)
			table = binary.LittleEndian.AppendUint16(table, flags|ring.DescAvail)
			continue
		}
		table = binary.LittleEndian.AppendUint16(table, flags)
		table = binary.LittleEndian.AppendUint16(table, index+uint16(i)+1)
	}
	d.do(fuzz.Store(at+uint64(index)*ring.DescSize, table))
	n := uint16(len(pieces))
	if !d.packed {
		d.do(fuzz.Store(at+0x1000+ring.AvailRing+uint64(index)*ring.AvailEntrySize, le16(index)),
			fuzz.Store(at+0x1000+ring.AvailIndex, le16(index+1)))
		n = 1
	}
	d.indexes[q] += n
	d.do(fuzz.Post(0, netNotify+4*uint32(q), 2, uint64(q)))
}

// used waits until a split queue has used so many buffers.
func (d *netDriver) used(q, n uint16) {
	if !d.packed {
		d.do(fuzz.AwaitMemory(queueAt(q)+0x2000, 0xffff<<16, uint32(n)<<16))
	}
}

func le16(v uint16) []byte { return []byte{byte(v), byte(v >> 8)} }

// traffic gives buffers for what arrives, and sends.
func (d *netDriver) traffic() {
	d.put(receiveQueue, piece{frames, frameSpace, true})
	frame := make([]byte, 12+60)
	copy(frame[12:], "\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x01\x08\x00")
	d.do(fuzz.Store(frames+frameSpace, frame))
	d.put(transmitQueue, piece{frames + frameSpace, uint32(len(frame)), false})
	d.used(transmitQueue, 1)
	d.used(receiveQueue, 1)
}

// command sends a command on the control queue.
func (d *netDriver) command(class, command uint8, data ...byte) {
	const at = frames + 4*frameSpace
	d.do(fuzz.Store(at, append([]byte{class, command}, data...)))
	pieces := []piece{{at, 2, false}, {at + 2, uint32(len(data)), false}, {at + 256, 1, true}}
	if d.packed || len(data) == 0 {
		pieces = []piece{{at, 2 + uint32(len(data)), false}, {at + 256, 1, true}}
	}
	d.put(d.control, pieces...)
}

func netSeed(play func(d *netDriver)) fuzz.Option {
	var d netDriver
	play(&d)
	return fuzz.Seed(d.steps...)
}

func netSeeds() []fuzz.Option {
	const split = ring.FeatureVersion1 | spec.FeatureCtrlVQ | spec.FeatureCtrlRx | spec.FeatureCtrlMACAddr | spec.FeatureCtrlVLAN
	const wide = split | spec.FeatureMQ | spec.FeatureMrgRxBuf | spec.FeatureRSS | spec.FeatureHashReport | spec.FeatureNotfCoal |
		spec.FeatureGuestAnnounce | spec.FeatureCtrlGuestOffloads | spec.FeatureCSUM | spec.FeatureGuestCSUM | spec.FeatureHostTSO4 | ring.FeatureIndirectDesc
	const packed = split | ring.FeatureRingPacked
	mapped, asked := fuzz.Map(0, 0, ram, ramSize), fuzz.MapByMessage(0, 0, ram, ramSize)
	common := []uint64{ring.DriverFeatureSelect, ring.DriverFeature, ring.ConfigMSIXVector, ring.DeviceStatus, ring.QueueSelect,
		ring.QueueSize, ring.QueueMSIXVector, ring.QueueEnable, ring.QueueDesc, ring.QueueDriver, ring.QueueDevice, ring.QueueReset,
		netDevice, netNotify, netNotify + 4, netNotify + 8, netNotify + 12, netNotify + 16}
	return []fuzz.Option{
		fuzz.Registers(0, common...),
		netSeed(func(d *netDriver) { d.begin(mapped, split); d.traffic() }),
		netSeed(func(d *netDriver) { d.begin(mapped, packed); d.traffic() }),
		netSeed(func(d *netDriver) { d.begin(mapped, split|spec.FeatureMrgRxBuf|ring.FeatureEventIdx); d.traffic() }),
		netSeed(func(d *netDriver) { d.begin(asked, split); d.traffic() }),
		netSeed(func(d *netDriver) { d.do(fuzz.Reconnect(true)); d.begin(asked, packed); d.traffic() }),
		netSeed(func(d *netDriver) {
			d.begin(mapped, split)
			d.command(spec.ClassRx, spec.RxPromisc, 1)
			d.used(controlQueue, 1)
		}),
		netSeed(func(d *netDriver) {
			d.begin(mapped, split)
			d.command(spec.ClassMAC, spec.MACAddrSet, 2, 0, 0, 0, 0, 2)
			d.used(controlQueue, 1)
			d.traffic()
		}),
		netSeed(func(d *netDriver) { d.begin(mapped, packed); d.command(spec.ClassVLAN, spec.VLANAdd, 1, 0) }),
		netSeed(func(d *netDriver) { // two pairs, and all that can be commanded
			d.begin(mapped, wide)
			for _, c := range [][]byte{
				{spec.ClassMQ, spec.MQPairsSet, 2, 0}, {spec.ClassMAC, spec.MACTableSet, 0, 0, 0, 0, 0, 0, 0, 0},
				{spec.ClassGuestOffloads, spec.GuestOffloadsSet, 0, 0, 0, 0, 0, 0, 0, 0},
				{spec.ClassNotfCoal, spec.CoalTxSet, 4, 0, 0, 0, 9, 0, 0, 0},
				{spec.ClassMQ, spec.MQHashConfig, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {spec.ClassAnnounce, spec.AnnounceAck},
			} {
				d.command(c[0], c[1], c[2:]...)
				d.used(d.control, d.indexes[d.control])
			}
			d.traffic()
		}),
		netSeed(func(d *netDriver) { // one queue is reset, then the card
			d.begin(mapped, split|ring.FeatureRingReset)
			d.traffic()
			d.set(ring.QueueSelect, 2, transmitQueue)
			d.set(ring.QueueReset, 2, 1)
			d.set(ring.DeviceStatus, 1, 0)
			d.do(fuzz.Reset())
			*d = netDriver{steps: d.steps}
			d.begin(mapped, packed)
			d.traffic()
		}),
	}
}

// FuzzVirtioNetDevice fuzzes the network card as a client sees it.
//
//fuzz:covers devices/virtio devices/virtio/virtqueue devices/virtio-net
func FuzzVirtioNetDevice(f *testing.F) { fuzz.Device(f, newCard, netSeeds()...) }
