package link

import (
	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

// tapParts is how many parts of a frame are written from where they are.
const tapParts = 64

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
	var (
		header [vnet.HeaderSize]byte
		iov    [1 + tapParts]unix.Iovec
	)
	setIovec(&iov[0], header[:])
	taken, lost := 0, 0
	for taken < len(frames) {
		f := &frames[taken]
		var o outcome
		if len(f.Parts) > tapParts {
			o = q.sendWhole(f)
		} else {
			f.Header.Put(header[:], 0)
			for k, part := range f.Parts {
				setIovec(&iov[1+k], part)
			}
			o = q.write(f, iov[:1+len(f.Parts)])
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

// outcome is what became of a frame.
type outcome int

const (
	done outcome = iota
	dropped
	full // it is to be offered again
)

func (q *tapQueue) write(f *vnet.Frame, iov []unix.Iovec) outcome {
	for {
		switch _, errno := writev(q.fd, iov); errno {
		case 0:
			return done
		case unix.EINTR:
		case unix.EAGAIN:
			q.block()
			return full
		case unix.EIO:
			q.port.lookCarrier()
			return dropped
		case unix.EBADFD:
			if q.on.Load() {
				q.port.lost()
			}
			return dropped
		case unix.EFAULT:
			// A guest's memory has gone. The kernel tells with an error what would have been
			// a fault here, so it is made one: whoever the memory belongs to is told that way.
			for _, part := range f.Parts {
				touch(part)
			}
			return dropped
		default:
			// The header is wrong, or the kernel is short of memory.
			return dropped
		}
	}
}

// sendWhole sends a frame that has too many parts.
func (q *tapQueue) sendWhole(f *vnet.Frame) outcome {
	if f.Len > vnet.MaxFrame {
		return dropped
	}
	q.gather.Lock()
	defer q.gather.Unlock() // also if the guest's memory faults
	if q.whole == nil {
		q.whole = make([]byte, vnet.HeaderSize+vnet.MaxFrame)
	}
	f.Header.Put(q.whole, 0)
	n := vnet.HeaderSize
	for _, part := range f.Parts {
		n += copy(q.whole[n:], part)
	}
	var iov [1]unix.Iovec
	setIovec(&iov[0], q.whole[:n])
	return q.write(f, iov[:])
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
