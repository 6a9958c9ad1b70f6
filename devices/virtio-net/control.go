package virtionet

import (
	"context"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/link/vnet"
)

// control is what the driver has set with commands. It belongs to the control goroutine of
// the transport, and to the goroutine of the control queue while that runs.
type control struct {
	c        *card
	index    int // of the control queue, -1: there is none
	server   *virtio.Server
	features uint64

	filter   filter
	offloads uint64 // GUEST_ features that are on
	pairs    int    // receive queues in use
	transmit int    // transmit queues in use
	hash     *hashing
	rss      *scaling
	told     told

	data  [maxCommand]byte
	reply [spec.CoalesceSize + 1]byte // with the acknowledgement
}

// maxCommand bounds the bytes of a command: more than the longest table of addresses that a
// driver has reason to send.
const maxCommand = 64 << 10

// reset is the state that a driver finds (5.1.5).
func (k *control) reset(features uint64) {
	k.features = features
	k.index = -1
	if features&spec.FeatureCtrlVQ != 0 {
		k.index = spec.ControlQueue(features, len(k.c.pairs))
	}
	k.filter = *newFilter(k.c.mac, features)
	k.offloads = features & spec.GuestOffloads
	k.pairs, k.transmit, k.hash, k.rss = 1, 1, nil, nil
	k.told = told{}
	k.publish()
}

// publish makes the data path follow. When it returns no frame goes to a queue that is not
// in use, and none asks for what the driver does not finish any more; one that is on its way
// may have passed the filter as it was before.
func (k *control) publish() {
	can := guestOffloads(k.offloads)
	for i, p := range k.c.pairs {
		p.steers.Store(k.pairs > 1 && k.rss == nil)
		p.rx.turn.Lock()
		p.rx.mu.Lock()
		p.rx.inUse = p.rx.inUse || i < k.pairs
		if p.rx.can != can {
			p.rx.can, p.rx.cut = can, 0 // the next frame is cut in another way, or not at all
		}
		p.rx.mu.Unlock()
		p.rx.turn.Unlock()
	}
	filter := k.filter
	r := &reception{pairs: k.pairs, filter: &filter, hash: k.hash, rss: k.rss, report: k.features&spec.FeatureHashReport != 0}
	k.c.reception.Store(r.complete())
	for _, p := range k.c.pairs[k.pairs:] {
		p.rx.turn.Lock()
		p.rx.mu.Lock()
		p.rx.inUse = false
		p.rx.wakeRefused()
		p.rx.mu.Unlock()
		p.rx.turn.Unlock()
		p.wake() // discards what waits
	}
	// Most commands are about something else, and the link may have to ask the kernel.
	if told := (told{can, max(k.pairs, k.transmit)}); told != k.told {
		k.told = told
		k.c.port.SetOffloads(told.offloads, told.pairs)
	}
}

// told is what the link knows of the driver.
type told struct {
	offloads vnet.Offloads
	pairs    int
}

// serve executes a command (5.1.6.5).
func (k *control) serve(_ context.Context, c *virtqueue.Chain) (written uint32) {
	if c.WritableLen == 0 {
		return 0
	}
	w := writer{chains: []virtqueue.Chain{*c}}
	reply := k.execute(k.gather(c))
	w.write(reply)
	return uint32(len(reply))
}

// gather gives the bytes of a command, nil if they are too many.
func (k *control) gather(c *virtqueue.Chain) []byte {
	if c.ReadableLen > maxCommand {
		return nil
	}
	n := 0
	for _, p := range c.Readable {
		n += copy(k.data[n:], p)
	}
	return k.data[:n]
}

// command is one that the card knows.
type command struct {
	feature uint64 // must be negotiated
	size    int    // of the data, bytes; -1: any
	run     func(k *control, data []byte) (ok bool)
	result  int // bytes in front of the acknowledgement
}

// commands are those of each class.
var commands = [...][]command{
	spec.ClassRx: {
		spec.RxPromisc:  {spec.FeatureCtrlRx, 1, setMode(spec.RxPromisc), 0},
		spec.RxAllMulti: {spec.FeatureCtrlRx, 1, setMode(spec.RxAllMulti), 0},
		spec.RxAllUni:   {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxAllUni), 0},
		spec.RxNoMulti:  {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxNoMulti), 0},
		spec.RxNoUni:    {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxNoUni), 0},
		spec.RxNoBcast:  {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxNoBcast), 0},
	},
	spec.ClassMAC: {
		spec.MACTableSet: {spec.FeatureCtrlRx, -1, (*control).setAddresses, 0},
		spec.MACAddrSet:  {spec.FeatureCtrlMACAddr, macSize, (*control).setMAC, 0},
	},
	spec.ClassVLAN: {
		spec.VLANAdd: {spec.FeatureCtrlVLAN, 2, setVLAN(true), 0},
		spec.VLANDel: {spec.FeatureCtrlVLAN, 2, setVLAN(false), 0},
	},
	spec.ClassAnnounce: {
		spec.AnnounceAck: {spec.FeatureGuestAnnounce, 0, (*control).announced, 0},
	},
	spec.ClassMQ: {
		spec.MQPairsSet:   {spec.FeatureMQ, 2, (*control).setPairs, 0},
		spec.MQRSSConfig:  {spec.FeatureRSS, -1, (*control).setRSS, 0},
		spec.MQHashConfig: {spec.FeatureHashReport, -1, (*control).setHash, 0},
	},
	spec.ClassGuestOffloads: {
		spec.GuestOffloadsSet: {spec.FeatureCtrlGuestOffloads, 8, (*control).setOffloads, 0},
	},
	spec.ClassNotfCoal: {
		spec.CoalTxSet: {spec.FeatureNotfCoal, spec.CoalesceSize, coalesceAll(1), 0},
		spec.CoalRxSet: {spec.FeatureNotfCoal, spec.CoalesceSize, coalesceAll(0), 0},
		spec.CoalVQSet: {spec.FeatureVQNotfCoal, spec.CoalesceVQSize, (*control).coalesceQueue, 0},
		spec.CoalVQGet: {spec.FeatureVQNotfCoal, 4, (*control).tellCoalescing, spec.CoalesceSize},
	},
}

// execute runs a command, class and number first, and returns the reply.
func (k *control) execute(b []byte) []byte {
	if len(b) < 2 {
		return []byte{spec.AckErr}
	}
	class, number, data := int(b[0]), int(b[1]), b[2:]
	if class >= len(commands) || number >= len(commands[class]) {
		return []byte{spec.AckErr}
	}
	c := &commands[class][number]
	ack := spec.AckErr
	clear(k.reply[:])
	if k.features&c.feature != 0 && (c.size < 0 || c.size == len(data)) && c.run(k, data) {
		ack = spec.AckOK
	}
	k.reply[c.result] = ack
	return k.reply[:c.result+1]
}
