package virtionet

import (
	"errors"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/link/vnet"
)

// batch is the most frames that are handled in one go: enough that what is done once for
// all of them costs little, few enough that other sources of the worker have their turn.
const batch = 64

// errNoHeader: a chain in which the header of a frame has no room.
var errNoHeader = errors.New("virtio-net: chain is shorter than the header of a frame")

// transmitter is a pair's transmit queue. While the pair is attached its worker owns it, or
// its goroutine; else the control goroutine.
type transmitter struct {
	p       *pair
	q       *virtio.Queue // nil: not started
	header  int           // bytes in front of a frame
	can     vnet.Offloads // what the driver may leave to the card
	blocked bool          // the link refused a frame
	away    bool          // the ring could not be read: there is a notification when it can be
	chains  [batch]virtqueue.Chain
	frames  [batch]vnet.Frame
	from    [batch]uint8       // the chain of a frame
	bad     [batch]vnet.Reason // why a chain makes no frame
	stats   transmitStats

	coalescer coalescer
}

// poll sends a batch, and returns how many chains it has used up.
func (t *transmitter) poll() int {
	if t.q == nil || !t.q.Enter() {
		return 0
	}
	n := t.send()
	interrupt := n > 0 && t.q.Publish()
	t.q.Exit()
	if err := t.q.Err(); err != nil {
		t.q.Fail(err) // a write by message has failed
	}
	// Outside of the section: the write may take its time.
	if t.coalescer.used(n, interrupt) {
		t.q.Interrupt()
		t.stats.interrupts.Add(1)
	}
	return n
}

// send hands the frames of a batch to the link, as many as that takes.
func (t *transmitter) send() int {
	n, err := t.q.Take(t.chains[:])
	if t.away = err != nil && n == 0; t.away {
		t.q.Fail(err)
	}
	if n == 0 {
		return 0
	}
	frames, good := t.parseAll(n)
	sent := 0
	if frames > 0 {
		if t.p.steers.Load() {
			t.p.card.flows.learn(t.p.index, t.frames[:frames])
		}
		sent = t.p.card.port.Send(t.p.index, t.frames[:frames])
	}
	used := good
	if t.blocked = sent < frames; t.blocked {
		used = int(t.from[sent])
	}
	bytes := 0
	for i := range t.frames[:sent] {
		bytes += t.frames[i].Len
	}
	for i := range t.chains[:used] {
		t.q.Push(&t.chains[i], 0)
		if r := t.bad[i]; r != vnet.ReasonNone {
			t.stats.dropped[r].Add(1)
		}
	}
	if used < n {
		t.q.Untake(n - used)
	}
	t.stats.add(sent, bytes)
	if used == good && good < n {
		t.q.Fail(errNoHeader)
	}
	return used
}

// parseAll makes frames of n chains. good is how many of the chains are not a reason to
// stop: those that do not make a frame are dropped.
func (t *transmitter) parseAll(n int) (frames, good int) {
	for i := range t.chains[:n] {
		c := &t.chains[i]
		if int(c.ReadableLen) < t.header {
			return frames, i
		}
		if t.bad[i] = t.parse(&t.frames[frames], c); t.bad[i] != vnet.ReasonNone {
			continue
		}
		t.from[frames] = uint8(i)
		frames++
	}
	return frames, n
}

// parse makes a frame of a chain that is long enough for the header.
func (t *transmitter) parse(f *vnet.Frame, c *virtqueue.Chain) vnet.Reason {
	var h [spec.HeaderSizeHash]byte
	header := h[:t.header]
	f.Parts, f.Len = behind(c.Readable, header), int(c.ReadableLen)-len(header)
	f.Header.Get(h[:])
	if r := f.Header.Clean(f.Len); r != vnet.ReasonNone {
		return r
	}
	if f.Header.Needs()&^t.can != 0 {
		return vnet.ReasonKind
	}
	return vnet.ReasonNone
}

// behind copies the header from parts, and returns what follows it.
func behind(parts [][]byte, header []byte) [][]byte {
	for {
		n := copy(header, parts[0])
		header = header[n:]
		switch {
		case n < len(parts[0]):
			parts[0] = parts[0][n:]
			return parts
		case len(header) == 0:
			return parts[1:]
		}
		parts = parts[1:]
	}
}

// arm asks for a notification of the next frame, and says whether there is one already.
func (t *transmitter) arm() (pending bool) {
	if t.q == nil || t.away || !t.q.Enter() {
		return false
	}
	if t.blocked {
		// Nothing can be sent before the link or the receiver has room, of which they tell.
		t.q.Disarm()
	} else {
		pending = t.q.Arm()
	}
	t.q.Exit()
	return pending
}

// disarm tells the driver that the queue is being polled.
func (t *transmitter) disarm() {
	if t.q != nil && t.q.Enter() {
		defer t.q.Exit() // also if the ring has gone
		t.q.Disarm()
	}
}
