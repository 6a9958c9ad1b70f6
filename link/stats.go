package link

import "sync/atomic"

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
