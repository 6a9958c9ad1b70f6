package link

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

const (
	streamIovecs  = 256 // buffers in one system call
	streamPending = 4 * (lengthSize + vnet.MaxFrame)
)

// streamSender puts frames into a stream. All transmit queues share it.
type streamSender struct {
	port *streamPort

	mu      sync.Mutex
	iov     [streamIovecs]unix.Iovec
	lengths [streamIovecs / 2][lengthSize]byte
	memory  []byte
	pending []byte      // in memory: frames that were taken and are not sent yet
	left    atomic.Bool // something is pending
	scratch vnet.Scratch
	emit    func([]vnet.Frame) bool
	lost    int // frames of this call that reach nobody
}

func (x *streamSender) init(p *streamPort) {
	x.port, x.memory = p, make([]byte, streamPending)
	x.emit = x.segments
}

func (x *streamSender) reset() {
	x.pending = nil
	x.left.Store(false)
}

// send takes frames as long as the socket does.
func (x *streamSender) send(frames []vnet.Frame) (taken int) {
	x.mu.Lock()
	defer x.mu.Unlock() // also if a guest's memory faults
	x.left.Store(true)  // as long as it is not known
	x.lost = 0
	for taken < len(frames) {
		c := x.usable()
		if c == nil {
			x.lost += len(frames) - taken
			taken = len(frames)
			break
		}
		if !x.flush(c) {
			break
		}
		taken += x.some(c, frames[taken:])
	}
	if c := x.usable(); c != nil {
		x.flush(c)
		c.nudge()
	}
	x.left.Store(len(x.pending) > 0)
	x.port.counts.send(frames[:taken], x.lost)
	return taken
}

// usable is the connection, if it works.
func (x *streamSender) usable() *ready {
	if !x.port.live.Load() {
		return nil
	}
	return x.port.conn.Load()
}

// some takes some of the frames: as many as go into one system call, or one that asks for
// more. It is none only if the socket has no room.
func (x *streamSender) some(c *ready, frames []vnet.Frame) int {
	f := &frames[0]
	h := f.Header
	switch {
	case f.Len < minFrame || f.Len > vnet.MaxFrame || h.Clean(f.Len) != vnet.ReasonNone:
		x.lost++
	case h.Needs() == 0:
		return x.put(c, frames)
	case x.scratch.Lower(f, vnet.OffloadNone, x.emit) != vnet.ReasonNone:
		x.lost++
	}
	return 1
}

// put takes some of the frames, of which the first is complete.
func (x *streamSender) put(c *ready, frames []vnet.Frame) int {
	n := 0
	for n < len(frames) && plain(&frames[n]) {
		n++
	}
	if n == 0 { // too many parts
		x.keep(&frames[0])
		return 1
	}
	return x.write(c, frames[:n])
}

// plain tells whether a frame can be sent from where it is.
func plain(f *vnet.Frame) bool {
	const asks = vnet.FlagNeedsChecksum
	return f.Header.Flags&asks == 0 && f.Header.GSOType == vnet.GSONone &&
		f.Len >= minFrame && f.Len <= vnet.MaxFrame && len(f.Parts) < streamIovecs
}

// segments sends what one frame was made into. What the socket does not take is kept, and
// dropped if it is too much.
func (x *streamSender) segments(frames []vnet.Frame) bool {
	c := x.usable()
	if c == nil {
		return false
	}
	for len(frames) > 0 && x.flush(c) {
		frames = frames[x.put(c, frames):]
	}
	for i := range frames {
		x.keep(&frames[i])
	}
	return true
}

// write sends plain frames with one system call, and returns how many are taken. Nothing is
// pending before; the rest of a frame that was sent in part is pending afterwards.
func (x *streamSender) write(c *ready, frames []vnet.Frame) int {
	count, vecs, size := 0, 0, 0
	for count < len(frames) && count < len(x.lengths) {
		f := &frames[count]
		if vecs+1+len(f.Parts) > len(x.iov) {
			break
		}
		binary.BigEndian.PutUint32(x.lengths[count][:], uint32(f.Len))
		setIovec(&x.iov[vecs], x.lengths[count][:])
		vecs++
		for _, p := range f.Parts {
			setIovec(&x.iov[vecs], p)
			vecs++
		}
		size += lengthSize + f.Len
		count++
	}
	n, errno := sendNow(c.fd, x.iov[:vecs])
	clear(x.iov[:vecs]) // see setIovec
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		n = 0
	case unix.EFAULT:
		for i := range frames[:count] {
			for _, p := range frames[i].Parts {
				touch(p)
			}
		}
		x.lost += count
		return count
	default:
		x.port.fail(errno)
		x.lost += count
		return count
	}
	if n == size {
		return count
	}
	if errno != unix.EINTR {
		c.block()
	}
	return x.rest(frames[:count], n)
}

// rest keeps what is missing of the frame in which a write of n bytes has ended, and returns
// how many frames are taken.
func (x *streamSender) rest(frames []vnet.Frame, n int) int {
	for i := range frames {
		f := &frames[i]
		whole := lengthSize + f.Len
		if n == 0 {
			return i
		}
		if n >= whole {
			n -= whole
			continue
		}
		// The peer waits for that many bytes, also if the guest's memory is no longer there.
		x.pending = x.memory[:whole-n]
		clear(x.pending)
		to := x.pending
		if n < lengthSize {
			var length [lengthSize]byte
			binary.BigEndian.PutUint32(length[:], uint32(f.Len))
			to = to[copy(to, length[n:]):]
			n = lengthSize
		}
		f.CopyTo(to, n-lengthSize)
		return i + 1
	}
	return len(frames)
}

// keep takes a frame to be sent later, or drops it if there is no room.
func (x *streamSender) keep(f *vnet.Frame) {
	whole := lengthSize + f.Len
	used := len(x.pending)
	if used+whole > len(x.memory) {
		x.lost++
		return
	}
	copy(x.memory, x.pending)
	to := x.memory[used : used+whole]
	binary.BigEndian.PutUint32(to, uint32(f.Len))
	f.CopyTo(to[lengthSize:], 0)
	x.pending = x.memory[:used+whole]
}

// flush sends what is pending. It returns false if there is more, or if the socket is known
// to have no room.
func (x *streamSender) flush(c *ready) bool {
	if c.blocked.Load() {
		return false
	}
	for len(x.pending) > 0 {
		setIovec(&x.iov[0], x.pending)
		n, errno := sendNow(c.fd, x.iov[:1])
		switch errno {
		case 0:
			x.pending = x.pending[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			c.block()
			return false
		default:
			x.port.fail(errno)
			x.pending = nil
		}
	}
	return true
}

// drain sends what is pending, unless somebody else sends.
func (x *streamSender) drain() {
	if !x.left.Load() || !x.mu.TryLock() {
		return
	}
	defer x.mu.Unlock()
	if c := x.usable(); c != nil {
		x.flush(c)
	}
	x.left.Store(len(x.pending) > 0)
}

// stuck tells whether something is pending for which there may be room.
func (x *streamSender) stuck(c *ready) bool { return x.left.Load() && !c.blocked.Load() }
