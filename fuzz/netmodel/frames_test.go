package netmodel

import (
	"bytes"
	"encoding/binary"
	"slices"

	"vfiouser/devices/virtio-net/spec"
	driver "vfiouser/drivers/virtio-net"
	"vfiouser/fuzz/choice"
)

const broadcast = "\xff\xff\xff\xff\xff\xff"

// Buffers of the driver: a longer frame takes several.
const bufferSize = 2048

// arrival is a frame that a host is to receive.
type arrival struct {
	data  []byte
	from  *host
	queue int  // on which it was sent: these stay in their order
	maybe bool // it was under way when something broke
}

// totals are a card's counters, all pairs together.
type totals struct{ sent, sentBytes, received, receivedBytes, filtered, tooLong uint64 }

// send sends frames, to hosts and to others, on one queue.
func (h *host) send() {
	src := h.w.src
	n := 1 + src.Intn(6)
	to := make([]string, n)
	for i := range to {
		to[i] = h.w.address()
	}
	h.sendTo(src.Intn(len(h.flying)), to)
	if !src.Odds(4) && !h.stalled {
		h.settle()
	}
}

// address is a host's, that of a group, or somebody's.
func (w *world) address() string {
	switch w.src.Intn(8) {
	case 0:
		return broadcast
	case 1:
		return string([]byte{3, 0, 0, 0, 0, byte(w.src.Intn(3))})
	case 2:
		return string([]byte{2, 0, 0, 0, 0, byte(w.src.Intn(3))})
	default:
		return w.hosts[w.src.Intn(len(w.hosts))].mac
	}
}

// length is that of a frame. Where buffers run out it takes one of them: for several a card does
// not wait for ever.
func (w *world) length() int {
	if w.starves {
		return 60 + w.src.Intn(1400)
	}
	switch w.src.Intn(6) {
	case 0:
		return choice.Pick(w.src, 60, 1514, 1515, 1518, 1519, bufferSize-12, bufferSize-11)
	case 1:
		return 60 + w.src.Intn(9000)
	default:
		return 60 + w.src.Intn(1400)
	}
}

// sendTo sends a frame to each address, and says what is to arrive.
func (h *host) sendTo(queue int, to []string) {
	w := h.w
	for _, other := range w.hosts {
		if other.hasRoom() {
			continue
		}
		if h.away {
			return
		}
		other.drain()
	}
	if h.flying[queue] > 8 {
		if h.stalled || h.away {
			return
		}
		h.settle()
	}
	q := h.nic.Queue(queue)
	var frames []*driver.Buffer
	for _, dst := range to {
		data, vlan := w.frame(h.mac, dst)
		first := h.fill(q, data)
		if first == nil {
			break
		}
		frames = append(frames, first)
		h.total.sent++
		h.total.sentBytes += uint64(len(data))
		for _, other := range w.reached(h, dst) {
			other.arrives(h, queue, dst, vlan, data)
		}
	}
	for len(frames) > 0 {
		k, err := q.Send(frames)
		w.must(err)
		h.flying[queue] += k
		if frames = frames[k:]; k == 0 {
			w.must(q.WaitSend(w.ctx))
		}
	}
}

// fill makes a frame of buffers, nil if there are not enough.
func (h *host) fill(q *driver.Queue, data []byte) *driver.Buffer {
	buffers := make([]*driver.Buffer, (len(data)+bufferSize-21)/(bufferSize-20))
	n, err := q.Alloc(buffers)
	h.w.must(err)
	if n < len(buffers) {
		q.Discard(buffers[:n])
		return nil
	}
	for i, b := range buffers {
		part := data[:min(len(data), bufferSize-20)]
		data = data[len(part):]
		copy(b.Room(), part)
		b.SetLen(len(part))
		if i > 0 {
			buffers[i-1].Next = b
		}
	}
	return buffers[0]
}

// frame makes one that is like no other, with a tag or without.
func (w *world) frame(from, to string) (data []byte, vlan int) {
	w.seq++
	data = append([]byte(to), from...)
	if vlan = -1; w.src.Odds(3) {
		vlan = w.src.Intn(4)
		data = append(data, 0x81, 0x00, byte(w.src.Intn(16)<<4), byte(vlan))
	}
	data = append(data, 0x88, 0xb5)
	data = binary.BigEndian.AppendUint32(data, w.seq)
	for i, n := len(data), w.length(); i < n; i++ {
		data = append(data, byte(i*7)+byte(w.seq))
	}
	return data, vlan
}

// reached are the hosts to which the link carries a frame.
func (w *world) reached(from *host, to string) []*host {
	if w.loop {
		return w.hosts
	}
	if there := w.learned[to]; there == from {
		return nil
	} else if there != nil {
		return []*host{there}
	}
	others := slices.Clone(w.hosts)
	return slices.DeleteFunc(others, func(h *host) bool { return h == from })
}

// arrives says what becomes of a frame that the link carries to the host.
func (h *host) arrives(from *host, queue int, to string, vlan int, data []byte) {
	if !h.filter.passes(to, vlan) {
		h.total.filtered++
		return
	}
	longest := len(data)
	if h.nic.Has(spec.FeatureMTU) {
		longest = h.mtu + 14
		if vlan >= 0 {
			longest += 4
		}
	}
	if len(data) > longest || !h.nic.Has(spec.FeatureMrgRxBuf) && len(data) > bufferSize-12 {
		h.total.tooLong++
		return
	}
	h.total.received++
	h.total.receivedBytes += uint64(len(data))
	a := &arrival{data: data, from: from, queue: queue}
	// A frame without addresses of IP goes where the link delivers it. A switch knows how many
	// queues there are.
	h.expected[queue%h.pairs] = append(h.expected[queue%h.pairs], a)
	from.fresh = append(from.fresh, a)
}

// hasRoom says whether no frame is lost: there are buffers, or the card keeps what comes until
// there are.
func (h *host) hasRoom() bool {
	if !h.w.starves {
		return h.waits() <= queueSize/4
	}
	for _, list := range h.expected {
		bytes := 0
		for _, a := range list {
			bytes += len(a.data)
		}
		if bytes > 128<<10 || len(list) > 300 {
			return false
		}
	}
	return true
}

// waits is how many buffers frames take that were not fetched, on the queue with the most.
func (h *host) waits() (most int) {
	for _, list := range h.expected {
		n := 0
		for _, a := range list {
			n += 1 + len(a.data)/(bufferSize-12)
		}
		most = max(most, n)
	}
	return most
}

// settle waits until all that the host has sent is sent.
func (h *host) settle() {
	for i := range h.flying {
		q := h.nic.Queue(i)
		for h.flying[i] > 0 {
			n, err := q.Reap()
			h.w.must(err)
			h.flying[i] -= n
			if n > 0 {
				continue
			}
			if err := q.WaitSend(h.w.ctx); err != nil {
				h.w.t.Fatalf("queue %d of %x has %d frames that are not sent: %v; %v, by message %v, features %#x, %+v",
					i, h.mac, h.flying[i], err, h.nic.Err(), h.byMessage, h.nic.Features(), h.card.Stats())
			}
		}
	}
	h.fresh = nil
}

// settleAll does so for all hosts that can.
func (h *host) settleAll() {
	for _, other := range h.w.hosts {
		if other.stalled {
			other.stall()
		}
		other.settle()
	}
}

// drain fetches what has arrived, and compares it.
func (h *host) drain() {
	h.settleAll()
	for i := range h.expected {
		q := h.nic.Queue(i)
		for {
			var frames [4]*driver.Buffer
			n, err := q.Recv(frames[:])
			h.w.must(err)
			for _, b := range frames[:n] {
				h.compare(i, b)
			}
			w := h.w
			w.must(q.Release(frames[:n]))
			if n > 0 {
				continue
			}
			if !slices.ContainsFunc(h.expected[i], func(a *arrival) bool { return !a.maybe }) {
				break
			}
			if err := q.WaitRecv(w.ctx); err != nil {
				w.t.Fatalf("queue %d of %x waits for %d frames: %v; %+v", i, h.mac, len(h.expected[i]), err, h.card.Stats())
			}
		}
	}
}

// compare holds a frame against those that are to come on its queue. What was sent on one
// queue comes in its order.
func (h *host) compare(queue int, b *driver.Buffer) {
	got := make([]byte, b.Len())
	b.CopyTo(got)
	list := h.expected[queue]
	i := slices.IndexFunc(list, func(a *arrival) bool { return bytes.Equal(a.data, got) })
	if i < 0 {
		h.w.t.Fatalf("queue %d of %x has a frame of %d bytes that is not for it: % x", queue, h.mac, len(got), got[:min(len(got), 40)])
	}
	found, rest := list[i], slices.Clone(list[i+1:])
	for _, a := range slices.Backward(list[:i]) {
		if a.from != found.from || a.queue != found.queue {
			rest = append([]*arrival{a}, rest...)
		} else if !a.maybe {
			h.w.t.Fatalf("queue %d of %x has % x before % x", queue, h.mac, got[:40], a.data[:40])
		}
	}
	h.expected[queue] = rest
}

// counters are the card's.
func (h *host) counters() (c totals) {
	for _, s := range h.card.Stats() {
		c.sent += s.Transmit.Frames
		c.sentBytes += s.Transmit.Bytes
		c.received += s.Receive.Frames
		c.receivedBytes += s.Receive.Bytes
		c.filtered += s.Receive.Filtered
		c.tooLong += s.Receive.TooLong
	}
	return c
}

// count compares counters when all has arrived. Where it may have been lost they begin anew.
func (h *host) count() {
	for _, other := range h.w.hosts {
		other.drain()
	}
	got, want := h.counters(), h.total
	want.add(h.base)
	if h.byMessage { // such a frame is looked at some time
		got.tooLong, want.tooLong = 0, 0
	}
	if got != want && !h.doubtful {
		h.w.t.Fatalf("%x counts %+v, want %+v", h.mac, got, want)
	}
	// What may be on its way still may be counted by message at any time.
	h.base, h.total, h.doubtful = h.counters(), totals{}, h.doubtful && h.byMessage
}

func (t *totals) add(b totals) {
	t.sent += b.sent
	t.sentBytes += b.sentBytes
	t.received += b.received
	t.receivedBytes += b.receivedBytes
	t.filtered += b.filtered
	t.tooLong += b.tooLong
}
