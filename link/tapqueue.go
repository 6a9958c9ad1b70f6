package link

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

const (
	// minFrame is the smallest frame, in bytes: an Ethernet header.
	minFrame = 14

	tapBatch  = 32 // frames that one Poll reads
	tapBuffer = 3 * (vnet.HeaderSize + vnet.MaxFrame)
	tapDrain  = 4096 // stale frames that are dropped when a driver starts
)

// tapQueue is one queue of a tap device. What it reads belongs to the worker of the card's
// queue of the same number.
type tapQueue struct {
	ready
	port *tapPort
	on   atomic.Bool // in service

	buf    []byte
	frames [tapBatch]vnet.Frame
	parts  [tapBatch][1][]byte
	kept   []vnet.Frame // the rest of frames, for which the card had no room
	starts uint32       // of the port, when frames was read
}

func newTapQueue(p *tapPort, fd int, key int32) *tapQueue {
	q := &tapQueue{ready: ready{watch: p.watch, fd: fd, key: key}, port: p}
	for i := range q.frames {
		q.frames[i].Parts = q.parts[i][:]
	}
	q.on.Store(key == 0)
	return q
}

// drain drops what waits, which was meant for a driver that has gone.
func (q *tapQueue) drain() {
	var p [vnet.HeaderSize + minFrame]byte
	for range tapDrain {
		if _, errno := readNow(q.fd, p[:]); errno != 0 && errno != unix.EINTR {
			return
		}
	}
}

// Poll hands the card what has arrived for queue i.
func (p *tapPort) Poll(i int) int {
	if i >= len(p.queues) {
		return 0
	}
	q := p.queues[i]
	if len(q.kept) > 0 {
		if q.starts == p.starts.Load() {
			return q.deliver(i)
		}
		q.kept = nil
	}
	if !q.on.Load() || q.quiet() {
		return 0
	}
	q.starts = p.starts.Load()
	n := q.read()
	if n == 0 {
		q.missed()
		return 0
	}
	q.hit()
	q.kept = q.frames[:n]
	q.deliver(i)
	return n
}

// deliver offers the card what was read, and keeps what it does not take.
func (q *tapQueue) deliver(i int) int {
	n := q.port.card.Receive(i, q.kept)
	q.port.counts.receive(q.kept[:n])
	q.kept = q.kept[n:]
	return n
}

// read fills frames and returns how many there are.
func (q *tapQueue) read() int {
	if q.buf == nil {
		q.buf = make([]byte, tapBuffer)
	}
	free := q.buf
	n := 0
	for n < tapBatch && len(free) >= vnet.HeaderSize+vnet.MaxFrame {
		size, errno := readNow(q.fd, free)
		if errno != 0 {
			if errno == unix.EINTR {
				continue
			}
			if errno != unix.EAGAIN && q.on.Load() {
				q.port.lookCarrier()
			}
			break
		}
		if size < vnet.HeaderSize+minFrame || size > vnet.HeaderSize+vnet.MaxFrame {
			continue
		}
		f := &q.frames[n]
		f.Header.Get(free)
		f.Parts[0] = free[vnet.HeaderSize:size:size]
		f.Len = size - vnet.HeaderSize
		free = free[min((size+63)&^63, len(free)):] // no two frames in a cache line
		n++
	}
	return n
}

// Arm has the card woken when a frame arrives. It need not look for one: an event for what
// is there already comes at once.
func (p *tapPort) Arm(i int) bool {
	if i < len(p.queues) {
		if q := p.queues[i]; len(q.kept) == 0 && q.on.Load() {
			q.sleep()
		}
	}
	return false
}
