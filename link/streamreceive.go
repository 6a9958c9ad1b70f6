package link

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

const (
	lengthSize   = 4  // bytes of the length before a frame
	streamBatch  = 64 // frames that one Poll hands over
	streamBuffer = 4 * (lengthSize + vnet.MaxFrame)
)

// streamReceiver takes frames out of a stream. It belongs to the worker of queue 0, or to the
// loop while there is none.
type streamReceiver struct {
	port *streamPort

	mu     sync.Mutex
	buf    []byte
	r, w   int // what of buf is still to be taken apart
	frames [streamBatch]vnet.Frame
	parts  [streamBatch][1][]byte
	kept   []vnet.Frame // the rest of frames, for which the card had no room
}

func (x *streamReceiver) init(p *streamPort) {
	x.port, x.buf = p, make([]byte, streamBuffer)
	for i := range x.frames {
		x.frames[i].Parts = x.parts[i][:]
	}
}

func (x *streamReceiver) reset() { x.r, x.w, x.kept = 0, 0, nil }

// poll hands over what has arrived and returns the number of frames. Reading stops while
// the card has no room. It is never called twice at the same time, but for the moment in which
// the loop takes over from a worker; then one of them does nothing.
func (x *streamReceiver) poll() int {
	if !x.mu.TryLock() {
		return 0
	}
	defer x.mu.Unlock()
	c := x.port.conn.Load()
	if c == nil || !x.port.live.Load() {
		return 0
	}
	if len(x.kept) > 0 {
		return x.deliver()
	}
	n, err := x.cut()
	if n == 0 && err == nil {
		if c.quiet() || !x.read(c) {
			return 0
		}
		n, err = x.cut()
	}
	x.kept = x.frames[:n]
	x.deliver()
	if err != nil {
		x.port.fail(err)
	}
	return n
}

// deliver offers the card what there is, and keeps what it does not take.
func (x *streamReceiver) deliver() int {
	if len(x.kept) == 0 {
		return 0
	}
	n := x.port.card.Receive(0, x.kept)
	x.port.counts.receive(x.kept[:n])
	x.kept = x.kept[n:]
	return n
}

// read reads once, and returns whether there was something.
func (x *streamReceiver) read(c *ready) bool {
	if x.r > 0 {
		x.w = copy(x.buf, x.buf[x.r:x.w])
		x.r = 0
	}
	n, errno := readNow(c.fd, x.buf[x.w:])
	switch {
	case errno == 0 && n > 0:
		x.w += n
		c.hit()
		return true
	case errno == 0:
		x.port.fail(io.EOF)
	case errno == unix.EAGAIN:
		c.missed()
	case errno != unix.EINTR:
		x.port.fail(errno)
	}
	return false
}

// next looks at the frame that comes next: its length, and whether all of it is there.
func (x *streamReceiver) next() (length int, whole bool, err error) {
	have := x.w - x.r
	if have < lengthSize {
		return 0, false, nil
	}
	announced := binary.BigEndian.Uint32(x.buf[x.r:])
	if announced == 0 || announced > vnet.MaxFrame {
		return 0, false, &framingError{announced}
	}
	return int(announced), have-lengthSize >= int(announced), nil
}

// cut finds the frames in the buffer, and returns how many there are, and what is wrong with
// the one behind them.
func (x *streamReceiver) cut() (n int, err error) {
	for n < streamBatch {
		length, whole, err := x.next()
		if !whole {
			return n, err
		}
		from := x.r + lengthSize
		x.r = from + length
		if length < minFrame {
			x.port.counts.receiveDropped.Add(1)
			continue
		}
		f := &x.frames[n]
		f.Parts[0] = x.buf[from:x.r:x.r]
		f.Len = length
		n++
	}
	return n, nil
}

// arm has the card woken when there is something to be read. It returns true if a frame is
// in the buffer, or one is to be sent and nobody does.
func (x *streamReceiver) arm() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.port.conn.Load()
	if c == nil || !x.port.live.Load() {
		return false
	}
	if x.port.tx.stuck(c) {
		return true
	}
	if len(x.kept) > 0 {
		return false
	}
	if _, whole, err := x.next(); whole || err != nil {
		return true
	}
	c.sleep()
	return false
}

// framingError says that what a peer sent is no frame.
type framingError struct{ length uint32 }

func (e *framingError) Error() string {
	return fmt.Sprintf("the peer announced a frame of %d bytes, and 1 to %d are possible", e.length, vnet.MaxFrame)
}
