package virtionet

import (
	"context"
	"fmt"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/drivers/virtio"
	"vfiouser/link/vnet"
)

// receiver is the half of a pair that receives.
type receiver struct {
	vq     *virtio.Queue
	pool   *pool // of buffers that are to be posted
	used   [batch]virtio.Used
	first  *Buffer // of a frame that is not complete; nil: none
	last   *Buffer
	left   int // buffers that it still takes
	frames uint64
	bytes  uint64
	one    [1]*Buffer
	err    error // sticky
}

func (r *receiver) restart(p *pool) {
	r.pool, r.first, r.last, r.left, r.err = p, nil, nil, 0, nil
}

// post gives the device all buffers of the pool.
func (q *Queue) post() error {
	r := &q.rx
	for r.pool.n > 0 {
		b := r.pool.get()
		if err := r.vq.AddWritable(b.token, b.addr, uint32(len(b.mem))); err != nil {
			r.pool.give(b)
			return err
		}
		b.owner = byDevice
	}
	return r.vq.Kick()
}

// Recv takes frames that have arrived, without waiting, as many as there are and frames has room for, and returns the number. They
// are the program's until Release, or Send. An error says that the queue is out of use; frames that it comes with are good.
func (q *Queue) Recv(frames []*Buffer) (n int, err error) {
	r := &q.rx
	if r.err != nil {
		return 0, r.err
	}
	if q.tx.lent > 0 { // then this goroutine sends, too
		if _, err := q.Reap(); err != nil {
			return 0, err
		}
	}
	if r.pool.n > 0 { // received frames that were sent
		if err := q.post(); err != nil {
			return 0, err
		}
	}
	for n < len(frames) {
		used := r.used[:min(len(r.used), len(frames)-n)]
		k, err := r.vq.Reap(used)
		for i := range used[:k] {
			complete, broken := q.take(&used[i])
			if broken != nil {
				r.err = broken
				return n, broken
			}
			if complete != nil {
				frames[n] = complete
				n++
			}
		}
		if err != nil || k < len(used) {
			return n, err
		}
	}
	return n, nil
}

// take handles a buffer that the device has filled, and returns the frame if it is complete.
func (q *Queue) take(u *virtio.Used) (*Buffer, error) {
	r := &q.rx
	b := &q.buffers[u.Token]
	b.owner, b.Next = byProgram, nil
	if r.first != nil {
		b.start, b.length = 0, u.Len
		r.last.Next, r.last = b, b
	} else {
		if u.Len < q.header {
			return nil, fmt.Errorf("%w: frame of %d bytes, its header has %d", ErrDevice, u.Len, q.header)
		}
		var header [spec.HeaderSizeHash]byte
		copy(header[:spec.HeaderSize], b.mem) // once: the device may change it
		b.Header.Get(header[:])
		b.put = vnet.Header{Flags: 0xff} // unknown
		b.start, b.length = q.header, u.Len-q.header
		r.left = 1
		if q.nic.mergeable {
			r.left = int(header[10]) | int(header[11])<<8
			if r.left == 0 || r.left > r.vq.Size() {
				return nil, fmt.Errorf("%w: frame of %d buffers", ErrDevice, r.left)
			}
		}
		if q.header == spec.HeaderSizeHash {
			copy(header[spec.HeaderSize:], b.mem[spec.HeaderSize:spec.HeaderSizeHash])
			b.Hash.Get(header[spec.HeaderSize:])
		}
		r.first, r.last = b, b
	}
	r.bytes += uint64(b.length)
	if r.left--; r.left > 0 {
		return nil, nil
	}
	b, r.first = r.first, nil
	r.frames++
	return b, nil
}

// Release gives received frames back to the device, for which they are room for others. It is notified once, if at all. An error
// says that the queue is out of use.
func (q *Queue) Release(frames []*Buffer) error {
	q.Discard(frames)
	return q.post()
}

// WaitRecv waits until there is something for Recv.
func (q *Queue) WaitRecv(ctx context.Context) error { return q.rx.vq.Wait(ctx) }

// ReadFrame waits for a frame, copies it to p and returns its length. A frame that is longer than p is lost, and the error ErrSize. What the
// driver has promised to do itself with its features (checksums, segments) is left to do.
func (q *Queue) ReadFrame(ctx context.Context, p []byte) (int, error) {
	r := &q.rx
	for {
		n, err := q.Recv(r.one[:])
		if n == 1 {
			break
		}
		if err == nil {
			err = q.WaitRecv(ctx)
		}
		if err != nil {
			return 0, err
		}
	}
	length := r.one[0].Len()
	r.one[0].CopyTo(p)
	if err := q.Release(r.one[:]); err != nil {
		return 0, err
	}
	if length > len(p) {
		return 0, fmt.Errorf("%w: %d bytes", ErrSize, length)
	}
	return length, nil
}
