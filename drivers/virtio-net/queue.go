package virtionet

import (
	"context"
	"fmt"

	"vfiouser/client"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/drivers/virtio"
	"vfiouser/link/vnet"
)

// batch is how many used chains are taken from a ring at a time.
const batch = 64

// Queue is a queue pair. Its two halves may belong to two goroutines: one that calls Alloc, Send, Discard, Reap, WaitSend and WriteFrame, and one
// that calls Recv, Release, WaitRecv and ReadFrame. A program that sends what it has received, without a copy, calls all
// of them from one.
type Queue struct {
	nic     *NIC
	index   int
	header  uint32 // bytes before a frame
	buffers []Buffer
	memory  client.Chunk

	tx transmitter
	rx receiver
}

// newQueue makes a pair. The device has no receive buffers yet.
func (n *NIC) newQueue(ctx context.Context, index int) (*Queue, error) {
	q := &Queue{nic: n, index: index, header: n.header}
	n.queues = append(n.queues, q)
	var err error
	if q.rx.vq, err = n.newVirtqueue(ctx, spec.ReceiveQueue(index), 1); err != nil {
		return nil, err
	}
	segments := (vnet.MaxFrame + int(q.header) + n.bufferSize - 1) / n.bufferSize
	if q.tx.vq, err = n.newVirtqueue(ctx, spec.TransmitQueue(index), max(2, segments)); err != nil {
		return nil, err
	}
	count, size := q.rx.vq.Size()+q.tx.vq.Size(), n.bufferSize
	if q.memory, err = n.mem.Alloc(uint64(count*size), 0); err != nil {
		return nil, fmt.Errorf("virtio-net: %d buffers of %d bytes: %w", count, size, err)
	}
	q.buffers = make([]Buffer, count)
	for i := range q.buffers {
		q.buffers[i] = Buffer{token: uint32(i), header: q.header, mem: q.memory.Bytes[i*size : (i+1)*size : (i+1)*size],
			addr: n.d.Addr(q.memory) + uint64(i*size)}
	}
	q.rx.pool = newPool(q.buffers[:q.rx.vq.Size()])
	q.tx.pool = newPool(q.buffers[q.rx.vq.Size():])
	q.tx.segments = make([]virtio.Segment, 0, max(2, segments))
	return q, nil
}

func (n *NIC) newVirtqueue(ctx context.Context, index, segments int) (*virtio.Queue, error) {
	return n.d.NewQueue(ctx, index, virtio.QueueConfig{Size: n.queueSize(ctx, index), Segments: segments, Interrupts: index+1 < n.d.Vectors()})
}

// Index is the number of the pair.
func (q *Queue) Index() int { return q.index }

// Reset resets both queues of the pair (RING_RESET): frames that were being sent or received are lost, and buffers, the program's
// too, are back where they were at first. No other method of the pair may run at the same time.
func (q *Queue) Reset(ctx context.Context) error {
	if err := q.tx.vq.Disable(ctx); err != nil {
		return err
	}
	if err := q.rx.vq.Disable(ctx); err != nil {
		return err
	}
	for i := range q.buffers {
		q.buffers[i].owner, q.buffers[i].Next = inPool, nil
	}
	size := q.rx.vq.Size()
	q.rx.restart(newPool(q.buffers[:size]))
	q.tx.pool, q.tx.lent = newPool(q.buffers[size:]), 0
	// Nothing is sent before what comes back can be received.
	if err := q.rx.vq.Enable(ctx); err != nil {
		return err
	}
	if err := q.post(); err != nil {
		return err
	}
	return q.tx.vq.Enable(ctx)
}

// Stats counts what a pair has done.
type Stats struct {
	Sent, Received           uint64 // frames
	SentBytes, ReceivedBytes uint64 // of frames
	Notifications            uint64 // given to the device, for both queues
}

// Stats must be called by the goroutine, or with those, that own the pair.
func (q *Queue) Stats() Stats {
	return Stats{Sent: q.tx.frames, Received: q.rx.frames, SentBytes: q.tx.bytes, ReceivedBytes: q.rx.bytes,
		Notifications: q.tx.vq.Notifications() + q.rx.vq.Notifications()}
}
