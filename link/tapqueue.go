package link

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

const (
	// minFrame is the smallest frame, in bytes: an Ethernet header.
	minFrame = 14

	tapBatch  = 32 // frames that one Poll reads
	tapBuffer = 3 * (vnet.HeaderSize + vnet.MaxFrame)
	tapMisses = 15   // polls without a look at an empty queue
	tapDrain  = 4096 // stale frames that are dropped when a driver starts
)

// tapQueue is one queue of a tap device. What Poll uses belongs to the queue's worker; Send
// may run for several pairs at the same time.
type tapQueue struct {
	port *tapPort
	fd   int
	key  int32
	on   atomic.Bool // in service

	mu      sync.Mutex
	want    atomic.Uint32 // events that the watcher is armed for; changed under mu
	blocked atomic.Bool   // the device took no more, and EPOLLOUT is wanted

	buf    []byte
	frames [tapBatch]vnet.Frame
	parts  [tapBatch][1][]byte
	kept   []vnet.Frame // the rest of frames, for which the card had no room
	starts uint32       // of the port, when frames was read
	misses int          // how often in a row nothing was there
	skip   int          // polls until the next look

	gather sync.Mutex
	whole  []byte // for a frame with more than tapParts parts
}

func newTapQueue(p *tapPort, fd int, key int32) *tapQueue {
	q := &tapQueue{port: p, fd: fd, key: key, buf: make([]byte, tapBuffer)}
	for i := range q.frames {
		q.frames[i].Parts = q.parts[i][:]
	}
	q.on.Store(key == 0)
	return q
}

// arm asks for an event beside those that are asked for already. Any goroutine.
func (q *tapQueue) arm(event uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if want := q.want.Load() | event; want != q.want.Load() {
		q.want.Store(want)
		if q.port.watch.arm(q.fd, q.key, want) != nil {
			q.want.Store(0)
		}
	}
}

// fired takes note of an event, and returns what of it was asked for.
func (q *tapQueue) fired(events uint32) uint32 {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		events |= unix.EPOLLIN | unix.EPOLLOUT
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	want := q.want.Load()
	got, rest := want&events, want&^events
	if got&unix.EPOLLOUT != 0 {
		q.blocked.Store(false)
	}
	q.want.Store(rest)
	if rest != 0 && q.port.watch.arm(q.fd, q.key, rest) != nil {
		q.want.Store(0)
	}
	return got
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
	// As long as the reactor watches the queue it is known to be empty. Before, while the
	// worker polls, it is looked at less and less often.
	if q.want.Load()&unix.EPOLLIN != 0 || !q.on.Load() {
		return 0
	}
	if q.skip > 0 {
		q.skip--
		return 0
	}
	q.starts = p.starts.Load()
	n := q.read()
	if n == 0 {
		q.misses = min(2*q.misses+1, tapMisses)
		q.skip = q.misses
		return 0
	}
	q.misses = 0
	p.tap.stats.received.Add(uint64(n))
	q.kept = q.frames[:n]
	q.deliver(i)
	return n
}

// deliver offers the card what was read, and keeps what it does not take.
func (q *tapQueue) deliver(i int) int {
	n := q.port.card.Receive(i, q.kept)
	q.kept = q.kept[n:]
	return n
}

// read fills frames and returns how many there are.
func (q *tapQueue) read() int {
	free := q.buf
	n := 0
	for n < tapBatch && len(free) >= vnet.HeaderSize+vnet.MaxFrame {
		size, errno := readNow(q.fd, free)
		if errno != 0 {
			if errno == unix.EINTR {
				continue
			}
			if errno != unix.EAGAIN && q.on.Load() {
				q.port.lost()
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
		free = free[(size+63)&^63:] // each frame begins with a cache line
		n++
	}
	return n
}

// Arm has the card woken when a frame arrives. It need not look for one: an event for what
// is there already comes at once.
func (p *tapPort) Arm(i int) bool {
	if i < len(p.queues) {
		if q := p.queues[i]; len(q.kept) == 0 && q.on.Load() {
			q.skip, q.misses = 0, 0
			q.arm(unix.EPOLLIN)
		}
	}
	return false
}
