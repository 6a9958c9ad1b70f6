package virtionet

import (
	"context"
	"errors"
	"fmt"

	"vfiouser/drivers/virtio"
	"vfiouser/link/vnet"
)

// transmitter is the half of a pair that sends.
type transmitter struct {
	vq       *virtio.Queue
	pool     *pool
	used     [batch]virtio.Used
	segments []virtio.Segment
	lent     int // buffers of the receive queue that are being sent
	frames   uint64
	bytes    uint64
}

// Alloc takes transmit buffers, as many as are free and frames has room for, and returns the number. They are the program's until
// Send or Discard. An error says that the queue is out of use.
func (q *Queue) Alloc(frames []*Buffer) (int, error) {
	t := &q.tx
	if int(t.pool.n) < len(frames) {
		if _, err := q.Reap(); err != nil {
			return 0, err
		}
	}
	n := min(len(frames), int(t.pool.n))
	for i := range n {
		b := t.pool.get()
		b.owner, b.Header, b.Next = byProgram, vnet.Header{}, nil
		frames[i] = b
	}
	return n, nil
}

// Discard gives back buffers from Alloc that are not to be sent, with all that follows them.
func (q *Queue) Discard(frames []*Buffer) {
	for _, b := range frames {
		for b != nil {
			next := b.Next
			if b.owner == byProgram {
				b.home.give(b)
			}
			b = next
		}
	}
}

// Reap takes back what the device has sent, without waiting, and returns the number of frames. Alloc and Send do so when they need
// room.
func (q *Queue) Reap() (total int, err error) {
	t := &q.tx
	for {
		n, err := t.vq.Reap(t.used[:])
		for i := range t.used[:n] {
			for b := &q.buffers[t.used[i].Token]; b != nil; {
				next := b.Next
				if b.home != t.pool {
					t.lent--
				}
				b.home.give(b)
				b = next
			}
		}
		total += n
		if err != nil || n < len(t.used) {
			return total, err
		}
	}
}

// Send sends frames, which begin with a buffer each, as many as the ring has room for, and returns the number; those are the device's
// now and come back by themselves. The device is notified once, if at all.
//
// Received frames may be sent, too: they go back to the receive queue when they are sent. Errors: ErrInvalid for a buffer that is not
// the program's, ErrSize, or why the queue is out of use. Frames before the broken one are sent.
func (q *Queue) Send(frames []*Buffer) (n int, err error) {
	t := &q.tx
	for n < len(frames) {
		if err = q.add(frames[n]); err == nil {
			n++
			continue
		}
		if !errors.Is(err, virtio.ErrFull) {
			break
		}
		var freed int
		if freed, err = q.Reap(); freed == 0 || err != nil {
			break
		}
	}
	if kicked := t.vq.Kick(); err == nil {
		err = kicked
	}
	return n, err
}

// add adds a frame to the ring.
func (q *Queue) add(b *Buffer) error {
	t := &q.tx
	if b.owner != byProgram {
		return errOwner
	}
	if b.start != b.header {
		return errStart
	}
	if b.Header != b.put {
		b.Header.Put(b.mem, 0)
		b.put = b.Header
	}
	if b.Next != nil {
		return q.addChain(b)
	}
	if err := t.vq.AddReadable(b.token, b.addr, b.header+b.length); err != nil {
		return err
	}
	t.lend(b)
	t.frames++
	t.bytes += uint64(b.length)
	return nil
}

// lend gives a buffer to the device.
func (t *transmitter) lend(b *Buffer) {
	b.owner = byDevice
	if b.home != t.pool {
		t.lent++
	}
}

var (
	errOwner = fmt.Errorf("%w: the buffer is not the program's", ErrInvalid)
	errStart = fmt.Errorf("%w: the buffer is not the first one of a frame", ErrInvalid)
)

func (q *Queue) addChain(first *Buffer) error {
	t := &q.tx
	s := append(t.segments[:0], virtio.Segment{Addr: first.addr, Len: first.header + first.length})
	length := uint64(first.length)
	for b := first.Next; b != nil; b = b.Next {
		if b.owner != byProgram {
			return errOwner
		}
		if len(s) == cap(t.segments) {
			return fmt.Errorf("%w: it takes more than %d buffers", ErrSize, len(s))
		}
		s = append(s, virtio.Segment{Addr: b.addr + uint64(b.start), Len: b.length})
		length += uint64(b.length)
	}
	if err := t.vq.Add(first.token, s, nil); err != nil {
		return err
	}
	for b := first; b != nil; b = b.Next {
		t.lend(b)
	}
	t.frames++
	t.bytes += length
	return nil
}

// WaitSend waits until the device has sent something that Reap can take back.
func (q *Queue) WaitSend(ctx context.Context) error { return q.tx.vq.Wait(ctx) }

// WriteFrame sends a copy of frame, waiting for buffers if it must. It returns before the frame has been sent. ErrSize if it is longer
// than vnet.MaxFrame, or than all buffers.
func (q *Queue) WriteFrame(ctx context.Context, frame []byte) error {
	first, err := q.copyIn(ctx, frame)
	if err != nil {
		return err
	}
	for {
		n, err := q.Send([]*Buffer{first})
		if n == 1 {
			return nil
		}
		if err == nil || errors.Is(err, virtio.ErrFull) {
			if err = q.WaitSend(ctx); err == nil {
				continue
			}
		}
		q.Discard([]*Buffer{first})
		return err
	}
}

// copyIn copies a frame into as many buffers as it takes.
func (q *Queue) copyIn(ctx context.Context, frame []byte) (*Buffer, error) {
	room := q.nic.bufferSize - int(q.header)
	count := max(1, (len(frame)+room-1)/room)
	if len(frame) > vnet.MaxFrame || count > cap(q.tx.segments) || count > len(q.tx.pool.ring) {
		return nil, fmt.Errorf("%w: %d bytes", ErrSize, len(frame))
	}
	buffers := make([]*Buffer, count)
	for got := 0; got < count; {
		n, err := q.Alloc(buffers[got:])
		if got += n; err == nil && got < count {
			err = q.WaitSend(ctx)
		}
		if err != nil {
			q.Discard(buffers[:got])
			return nil, err
		}
	}
	for i, b := range buffers {
		n := copy(b.Room(), frame)
		b.SetLen(n)
		frame = frame[n:]
		if i > 0 {
			buffers[i-1].Next = b
		}
	}
	return buffers[0], nil
}
