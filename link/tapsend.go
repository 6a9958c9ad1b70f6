package link

import (
	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

// tapParts is how many parts of a frame are written from where they are.
const tapParts = 64

// tapSender is what the worker of one transmit queue of a card has to itself. Several may
// write to the same queue of the device, if the card has more.
type tapSender struct {
	queue   *tapQueue
	header  [vnet.HeaderSize]byte
	iov     [1 + tapParts]unix.Iovec // the first is header; see setIovec for the others
	whole   []byte                   // for a frame with more parts
	scratch vnet.Scratch
	emit    func([]vnet.Frame) bool
	cut     outcome // of the frame that is being cut
}

func newTapSender() *tapSender {
	s := &tapSender{}
	setIovec(&s.iov[0], s.header[:])
	s.emit = s.segments
	return s
}

// outcome is what became of a frame.
type outcome int

const (
	done outcome = iota
	dropped
	full // it is to be offered again
)

// Send writes frames from where they are to the device.
func (p *tapPort) Send(i int, frames []vnet.Frame) int {
	q := p.queues[i%len(p.queues)]
	if !q.on.Load() {
		q = p.queues[0]
	}
	if q.blocked.Load() {
		return 0
	}
	if !p.up.Load() {
		p.counts.send(frames, len(frames))
		return len(frames)
	}
	if i < len(p.queues) {
		p.queues[i].nudge()
	}
	s := p.senders[i]
	if s == nil {
		s = newTapSender()
		p.senders[i] = s
	}
	s.queue = q
	taken, lost := 0, 0
	for taken < len(frames) {
		f := &frames[taken]
		var o outcome
		if f.Header.GSOType == vnet.GSOUDPL4 && !p.tap.uso {
			o = s.segment(f)
		} else {
			o = s.put(f)
		}
		if o == full {
			break
		}
		taken++
		if o == dropped {
			lost++
		}
	}
	p.counts.send(frames[:taken], lost)
	return taken
}

// put writes a frame.
func (s *tapSender) put(f *vnet.Frame) outcome {
	h := f.Header
	if h.Clean(f.Len) != vnet.ReasonNone {
		return dropped
	}
	h.Put(s.header[:], 0)
	n := 1
	if len(f.Parts) > tapParts {
		if s.whole == nil {
			s.whole = make([]byte, vnet.MaxFrame)
		}
		setIovec(&s.iov[1], s.whole[:f.CopyTo(s.whole, 0)])
		n++
	} else {
		for _, part := range f.Parts {
			setIovec(&s.iov[n], part)
			n++
		}
	}
	o, errno := s.write(n)
	clear(s.iov[1:n])
	if errno == unix.EFAULT {
		// A guest's memory has gone. The kernel tells with an error what would have been a
		// fault here, so it is made one: whoever the memory belongs to is told that way.
		for _, part := range f.Parts {
			touch(part)
		}
	}
	return o
}

// write writes the first n of iov.
func (s *tapSender) write(n int) (outcome, unix.Errno) {
	q := s.queue
	for {
		switch _, errno := writev(q.fd, s.iov[:n]); errno {
		case 0:
			return done, 0
		case unix.EINTR:
		case unix.EAGAIN:
			q.block()
			return full, 0
		case unix.EIO, unix.EBADFD: // down, or gone
			q.port.lookCarrier()
			return dropped, 0
		default:
			// The memory is gone, the header is wrong, or the kernel is short of memory.
			return dropped, errno
		}
	}
}

// segment cuts a frame into datagrams, because the kernel does not know how to. If it takes
// only some of them, the others are lost.
func (s *tapSender) segment(f *vnet.Frame) outcome {
	s.cut = done
	if s.scratch.Lower(f, vnet.OffloadChecksum, s.emit) != vnet.ReasonNone {
		return dropped
	}
	return s.cut
}

// segments is called by vnet with what a frame was cut into.
func (s *tapSender) segments(frames []vnet.Frame) bool {
	for i := range frames {
		if s.put(&frames[i]) != done {
			s.cut = dropped
			return false
		}
	}
	return true
}

// touch reads a byte of every page of b.
//
//go:noinline
func touch(b []byte) (sum byte) {
	const page = 4096 // the smallest there is
	for i := 0; i < len(b); i += page {
		sum ^= b[i]
	}
	if len(b) > 0 {
		sum ^= b[len(b)-1]
	}
	return sum
}
