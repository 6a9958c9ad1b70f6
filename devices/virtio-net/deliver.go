package virtionet

import (
	"errors"
	"time"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/dma"
	"vfiouser/link/vnet"
)

// maxMerged is the most receive buffers that a frame may take: at 64 KiB that is enough for
// buffers of 512 bytes.
const maxMerged = 128

// maxAsked bounds how often a driver is asked for buffers in one delivery.
const maxAsked = 2 * maxMerged

// buffers are receive chains that were taken: those from next to end are not yet used.
type buffers struct {
	chains    [maxMerged]virtqueue.Chain
	next, end int
	broken    bool // the queue has failed
	size      int  // bytes of one of those that were taken last
	asked     int  // how often the driver was asked for more in this delivery
}

// maxScattered is the number of descriptors among which those that hold the longest frame must
// be: to look for them takes its time, for each frame, and it is the sender's.
const maxScattered = 4096

// errScattered: receive buffers of so many descriptors that it is not worth to look for bytes.
var errScattered = errors.New("virtio-net: receive buffers have too many descriptors for their bytes")

// wanted is how many buffers to take for so many frames, of which the first needs so many
// bytes: enough for all of them, or for that one if it is large.
func (b *buffers) wanted(frames, need int) int {
	n := min(frames, batch)
	if b.size > 0 && need > b.size {
		n = max(n, need/b.size+1)
	}
	return min(n, maxMerged)
}

// noReport stands for a hash that was not calculated.
var noReport spec.HashReport

// fill delivers frames that the driver can finish, as far as there are buffers, and returns how
// many were taken; what fits no buffer is dropped. reports is nil, or one for each.
func (rx *receiver) fill(frames []vnet.Frame, reports []spec.HashReport) (n int) {
	bytes, lost := 0, 0
	b := &rx.buffers
	for n < len(frames) {
		f := &frames[n]
		if b.next == b.end && !rx.take(b.wanted(len(frames)-n, rx.header+f.Len)) {
			if rx.await() {
				continue
			}
			break
		}
		report := &noReport
		if reports != nil {
			report = &reports[n]
		}
		need := rx.header + f.Len
		fit := rx.one(f, report, need)
		if fit == tooSmall && rx.mergeable {
			fit = rx.merge(f, report, need)
		}
		switch fit {
		case delivered:
			bytes += f.Len
		case tooSmall:
			lost++
		case noRoom:
			if rx.await() {
				continue
			}
		}
		if fit == noRoom {
			break
		}
		n++
	}
	rx.done()
	if n > 0 {
		rx.waiting = time.Time{}
	}
	if n > lost {
		rx.round += n - lost
		rx.stats.frames.Add(uint64(n - lost))
		rx.stats.bytes.Add(uint64(bytes))
	}
	if lost > 0 {
		rx.stats.tooLong.Add(uint64(lost))
	}
	return n
}

// fitting is what became of a frame.
type fitting uint8

const (
	delivered fitting = iota
	tooSmall          // the frame does not fit
	noRoom            // the driver has not given enough buffers
)

// take gets up to n buffers, when all that there were are used.
func (rx *receiver) take(n int) bool {
	b := &rx.buffers
	got, err := rx.q.Take(b.chains[:n])
	if b.broken = got == 0 && err != nil; b.broken {
		rx.q.Fail(err)
	}
	b.next, b.end = 0, got
	if got > 0 {
		b.size = int(b.chains[0].WritableLen)
	}
	for i := range min(ahead, got) {
		b.fetch(i)
	}
	return got > 0
}

// ahead is for how many buffers before it is written to a buffer's first lines are fetched.
const ahead = 8

// fetch begins to fetch the first lines of a buffer, which the driver's core has: it has read
// the frame that was there.
func (b *buffers) fetch(i int) {
	const line = 64
	if w := b.chains[i].Writable; len(w) > 0 {
		dma.PrefetchWrite(&w[0][0])
		if len(w[0]) > line {
			dma.PrefetchWrite(&w[0][line])
		}
	}
}

// takeAll begins anew with all buffers that there are, up to maxMerged, and says whether it has
// found out how many bytes those have. A batch can end before the ring does.
func (rx *receiver) takeAll() bool {
	rx.untake()
	b := &rx.buffers
	for walked := 0; b.end < maxMerged; walked += rx.q.Walked() {
		if walked > maxScattered {
			return false
		}
		got, err := rx.q.Take(b.chains[b.end:])
		if got == 0 {
			if b.broken = err != nil; b.broken {
				rx.q.Fail(err)
			}
			break
		}
		b.end += got
	}
	return true
}

// await asks the driver to tell of the next buffer that it gives, and says whether it has
// given one already. What there is must be taken: the driver tells of what comes after it.
func (rx *receiver) await() bool {
	b := &rx.buffers
	if b.broken {
		return false
	}
	rx.starved.Store(true)
	// A driver that takes its word back again and again, or gives one buffer at a time, does not
	// keep us here: the pair's worker goes on.
	if b.asked++; b.asked > maxAsked {
		rx.p.wake()
		return false
	}
	return rx.q.Arm()
}

// untake gives back what was not used.
func (rx *receiver) untake() {
	b := &rx.buffers
	if b.end > b.next {
		rx.q.Untake(b.end - b.next)
	}
	b.next, b.end = 0, 0
}

// done ends a delivery.
func (rx *receiver) done() {
	rx.untake()
	rx.buffers.asked = 0
}

// one delivers a frame in the next chain, if that is long enough.
func (rx *receiver) one(f *vnet.Frame, report *spec.HashReport, need int) fitting {
	b := &rx.buffers
	c := &b.chains[b.next]
	if k := b.next + ahead; k < b.end {
		b.fetch(k)
	}
	switch {
	case int(c.WritableLen) < rx.header:
		b.broken = true
		rx.q.Fail(errNoHeader)
		return noRoom
	case int(c.WritableLen) < need:
		return tooSmall
	}
	if len(c.Writable) == 1 && len(f.Parts) == 1 {
		to := c.Writable[0][:need]
		f.Header.Put(to, 1)
		if rx.header > spec.HeaderSize {
			report.Put(to[spec.HeaderSize:])
		}
		copy(to[rx.header:], f.Parts[0])
	} else {
		rx.write(b.chains[b.next:b.next+1], f, report)
	}
	rx.q.Push(c, uint32(need))
	b.next++
	return delivered
}

// merge delivers a frame in several chains (5.1.6.4.2).
func (rx *receiver) merge(f *vnet.Frame, report *spec.HashReport, need int) fitting {
	b := &rx.buffers
	count, ok := b.enough(need)
	if !ok {
		// Half a ring that is not enough never will be.
		all := rx.takeAll()
		if count, ok = b.enough(need); !ok {
			if !all {
				b.broken = true
				rx.q.Fail(errScattered)
				return noRoom
			}
			if b.end < min(maxMerged, rx.q.Size()/2) && rx.patient() {
				return noRoom
			}
			return tooSmall
		}
	}
	chains := b.chains[b.next : b.next+count]
	rx.write(chains, f, report)
	for i := range chains {
		n := min(need, int(chains[i].WritableLen))
		rx.q.Push(&chains[i], uint32(n))
		need -= n
	}
	b.next += count
	return delivered
}

// patience is for how long a frame waits for a driver that has given buffers, but too few for it.
// There are drivers that never give more, and others' frames wait behind it.
const patience = 100 * time.Millisecond

// patient says whether the next frame should wait on.
func (rx *receiver) patient() bool {
	now := time.Now()
	if rx.waiting.IsZero() {
		rx.waiting = now
	}
	return now.Sub(rx.waiting) < patience
}

// enough is how many of the chains at hand hold need bytes.
func (b *buffers) enough(need int) (count int, ok bool) {
	for i := b.next; i < b.end; i++ {
		if need -= int(b.chains[i].WritableLen); need <= 0 {
			return i - b.next + 1, true
		}
	}
	return 0, false
}

// write writes a frame and its header to chains.
func (rx *receiver) write(chains []virtqueue.Chain, f *vnet.Frame, report *spec.HashReport) {
	var header [spec.HeaderSizeHash]byte
	f.Header.Put(header[:], uint16(len(chains)))
	if rx.header > spec.HeaderSize {
		report.Put(header[spec.HeaderSize:])
	}
	w := writer{chains: chains}
	w.write(header[:rx.header])
	for _, p := range f.Parts {
		w.write(p)
	}
}

// writer writes to the parts of chains, one after the other.
type writer struct {
	chains []virtqueue.Chain
	part   int // of chains[0]
	off    int // in it
}

// write stops where the chains end.
func (w *writer) write(p []byte) {
	for len(p) > 0 && len(w.chains) > 0 {
		parts := w.chains[0].Writable
		if w.part == len(parts) {
			w.chains, w.part = w.chains[1:], 0
			continue
		}
		n := copy(parts[w.part][w.off:], p)
		p = p[n:]
		if w.off += n; w.off == len(parts[w.part]) {
			w.part, w.off = w.part+1, 0
		}
	}
}
