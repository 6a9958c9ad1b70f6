package link

import (
	"sync/atomic"

	"vfiouser/link/vnet"
)

// Stats counts what went through a port, as its card sees it.
type Stats struct {
	Sent, SentBytes         uint64 // taken from the card, whatever became of it
	SendDropped             uint64 // frames of these that reached nobody
	Received, ReceivedBytes uint64 // taken by the card
	ReceiveDropped          uint64 // frames for which the card had no room
}

// Counter is a Port that counts.
type Counter interface {
	// Stats reads the counters, which move on meanwhile. Any goroutine.
	Stats() Stats
}

// receiveStats are the counters of the receiving side, which many senders add to.
type receiveStats struct {
	frames, bytes, dropped atomic.Uint64
	_                      [40]byte // no other variable in this cache line
}

// counters are those of a port whose frames each take a system call or a good part of one.
type counters struct {
	sent, sentBytes, sendDropped            atomic.Uint64
	received, receivedBytes, receiveDropped atomic.Uint64
}

// send counts frames that were taken, and how many of them reach nobody.
func (c *counters) send(frames []vnet.Frame, dropped int) {
	c.sent.Add(uint64(len(frames)))
	c.sentBytes.Add(size(frames))
	if dropped > 0 {
		c.sendDropped.Add(uint64(dropped))
	}
}

// receive counts frames that the card has taken.
func (c *counters) receive(frames []vnet.Frame) {
	c.received.Add(uint64(len(frames)))
	c.receivedBytes.Add(size(frames))
}

func size(frames []vnet.Frame) (n uint64) {
	for i := range frames {
		n += uint64(frames[i].Len)
	}
	return n
}

func (c *counters) stats() Stats {
	return Stats{
		Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(), SendDropped: c.sendDropped.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(), ReceiveDropped: c.receiveDropped.Load(),
	}
}
