package virtionet

import (
	"context"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/virtqueue"
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

	data [maxCommand]byte
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
	k.publish()
}

// publish makes the data path follow. When it returns no frame goes to a queue that is not
// in use, and none asks for what the driver does not finish any more; one that is on its way
// may have passed the filter as it was before.
func (k *control) publish() {
	can := guestOffloads(k.offloads)
	for i, p := range k.c.pairs {
		p.steers.Store(k.pairs > 1 && k.rss == nil)
		p.rx.mu.Lock()
		p.rx.inUse, p.rx.can = p.rx.inUse || i < k.pairs, can
		p.rx.mu.Unlock()
	}
	filter := k.filter
	r := &reception{pairs: k.pairs, filter: &filter, hash: k.hash, rss: k.rss, report: k.features&spec.FeatureHashReport != 0}
	k.c.reception.Store(r.complete())
	for _, p := range k.c.pairs[k.pairs:] {
		p.rx.mu.Lock()
		p.rx.inUse = false
		p.rx.wakeRefused()
		p.rx.mu.Unlock()
	}
	k.c.port.SetOffloads(can, max(k.pairs, k.transmit))
}

// serve executes a command (5.1.6.5).
func (k *control) serve(_ context.Context, c *virtqueue.Chain) (written uint32) {
	if c.WritableLen == 0 {
		return 0
	}
	var reply [spec.CoalesceSize + 1]byte
	n := k.execute(k.gather(c), reply[:])
	w := writer{chains: []virtqueue.Chain{*c}}
	w.write(reply[:n])
	return uint32(n)
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
}

// commands are those of each class.
var commands = [...][]command{
	spec.ClassRx: {
		spec.RxPromisc:  {spec.FeatureCtrlRx, 1, setMode(spec.RxPromisc)},
		spec.RxAllMulti: {spec.FeatureCtrlRx, 1, setMode(spec.RxAllMulti)},
		spec.RxAllUni:   {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxAllUni)},
		spec.RxNoMulti:  {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxNoMulti)},
		spec.RxNoUni:    {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxNoUni)},
		spec.RxNoBcast:  {spec.FeatureCtrlRxExtra, 1, setMode(spec.RxNoBcast)},
	},
	spec.ClassMAC: {
		spec.MACTableSet: {spec.FeatureCtrlRx, -1, (*control).setAddresses},
		spec.MACAddrSet:  {spec.FeatureCtrlMACAddr, macSize, (*control).setMAC},
	},
	spec.ClassVLAN: {
		spec.VLANAdd: {spec.FeatureCtrlVLAN, 2, setVLAN(true)},
		spec.VLANDel: {spec.FeatureCtrlVLAN, 2, setVLAN(false)},
	},
	spec.ClassAnnounce: {
		spec.AnnounceAck: {spec.FeatureGuestAnnounce, 0, (*control).announced},
	},
	spec.ClassMQ: {
		spec.MQPairsSet:   {spec.FeatureMQ, 2, (*control).setPairs},
		spec.MQRSSConfig:  {spec.FeatureRSS, -1, (*control).setRSS},
		spec.MQHashConfig: {spec.FeatureHashReport, -1, (*control).setHash},
	},
	spec.ClassGuestOffloads: {
		spec.GuestOffloadsSet: {spec.FeatureCtrlGuestOffloads, 8, (*control).setOffloads},
	},
}

// execute runs a command, class and number first, and returns the size of the reply.
func (k *control) execute(b, reply []byte) int {
	reply[0] = spec.AckErr
	if len(b) < 2 {
		return 1
	}
	class, number, data := int(b[0]), int(b[1]), b[2:]
	if class >= len(commands) || number >= len(commands[class]) {
		return 1
	}
	c := &commands[class][number]
	if k.features&c.feature != 0 && (c.size < 0 || c.size == len(data)) && c.run(k, data) {
		reply[0] = spec.AckOK
	}
	return 1
}
