package virtionet

import (
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link/vnet"
)

const (
	backlogBytes  = 256 << 10 // of frames that wait for one queue: a few of the largest
	backlogFrames = 512
	backlogPeek   = 32
)

// backlog is the frames that wait until the driver gives buffers, or until the goroutine
// comes that delivers by message. They are copies, as the sender's memory may be used again.
// The memory is allocated when it is needed first.
type backlog struct {
	data    []byte
	records []record // a ring
	first   int
	count   int
	tail    int // where the next frame goes
	peeked  [backlogPeek]vnet.Frame
	parts   [backlogPeek][1][]byte
	reports [backlogPeek]spec.HashReport
}

// record is a frame in the backlog: n bytes from at on.
type record struct {
	at, n  int
	header vnet.Header
	report spec.HashReport
}

func (b *backlog) empty() bool { return b.count == 0 }

// add copies a frame, if there is room.
func (b *backlog) add(f *vnet.Frame, report *spec.HashReport) bool {
	if b.data == nil {
		b.data, b.records = make([]byte, backlogBytes), make([]record, backlogFrames)
	}
	at, ok := b.room(f.Len)
	if !ok {
		return false
	}
	r := &b.records[(b.first+b.count)%backlogFrames]
	*r = record{at: at, n: f.CopyTo(b.data[at:at+f.Len], 0), header: f.Header}
	if report != nil {
		r.report = *report
	}
	b.tail = at + f.Len
	b.count++
	return true
}

// room finds n bytes in one piece.
func (b *backlog) room(n int) (at int, ok bool) {
	if b.count == 0 {
		b.tail = 0
		return 0, n <= backlogBytes
	}
	if b.count == backlogFrames {
		return 0, false
	}
	head := b.records[b.first].at
	switch {
	case b.tail <= head:
		// Wrapped around. It is full where both are the same.
		return b.tail, n <= head-b.tail
	case n <= backlogBytes-b.tail:
		return b.tail, true
	default:
		return 0, n <= head
	}
}

// peek gives the first frames. They stay where they are until drop.
func (b *backlog) peek() ([]vnet.Frame, []spec.HashReport) {
	n := min(b.count, backlogPeek)
	for i := range n {
		r := &b.records[(b.first+i)%backlogFrames]
		b.parts[i][0] = b.data[r.at : r.at+r.n]
		b.peeked[i] = vnet.Frame{Header: r.header, Parts: b.parts[i][:], Len: r.n}
		b.reports[i] = r.report
	}
	return b.peeked[:n], b.reports[:n]
}

// drop forgets the first n frames.
func (b *backlog) drop(n int) {
	b.first = (b.first + n) % backlogFrames
	b.count -= n
}

// clear forgets all frames and the memory.
func (b *backlog) clear() { *b = backlog{} }
