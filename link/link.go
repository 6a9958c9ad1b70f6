package link

import "vfiouser/link/vnet"

// MaxPairs is the most queue pairs that a card has: q is below it everywhere.
const MaxPairs = 64

// Link is something that cards are attached to.
type Link interface {
	// Attach connects a card. A link that has room for one card only refuses a second
	// one (ErrBusy). The port stays until it is closed: drivers and clients of the card
	// come and go meanwhile.
	Attach(c Card) (Port, error)
	// Close releases what is behind the link. Ports are closed before.
	Close() error
}

// Port is a card's side of a link. Send, Poll and Arm of one queue are for one goroutine at a
// time, usually the queue's worker; different queues run at the same time. None of the
// methods blocks, and none allocates for a frame.
type Port interface {
	// Send takes frames from the card's transmit queue q and returns how many it has
	// taken; taken is also what it had to drop. The others are to be offered again, after
	// Card.Wake or with the next Poll. Frames that ask for more than the link can do are
	// finished here in software.
	Send(q int, frames []vnet.Frame) int
	// Poll does a bounded amount of what is to be done for queue q: it hands what has
	// arrived to Card.Receive. It returns the number of frames; 0 means that there was
	// nothing to do.
	Poll(q int) int
	// Arm asks for a Card.Wake(q) when there is something to poll, or room for what Send
	// refused. It returns true if there is something already.
	Arm(q int) bool
	// SetOffloads tells what the card's driver can finish itself, and how many queue
	// pairs it uses. Without a driver that is nothing, and 0. Any goroutine; it may block
	// for a moment.
	SetOffloads(o vnet.Offloads, pairs int)
	// Close detaches the card. No method of the card is called when it has returned: it
	// waits for those that run, so the caller holds no lock that they take.
	// The card's queues are not polled any more when it is called. Idempotent.
	Close() error
}

// Card is what a link knows of a network card. The methods may be called from any goroutine
// and do not block.
type Card interface {
	// Receive hands frames to the driver, which finds them in receive queue q unless the
	// card steers them elsewhere. It returns how many were taken; what the card filters
	// out, or drops because no driver is there, is taken too. The others found no room:
	// the link drops them, or offers them again with the next Poll, which comes when the
	// driver has made room.
	//
	// The frames are not changed (others may get the same ones), and their memory is not
	// used after the call. If touching it faults (it is another
	// guest's, and has gone), the fault is the caller's; one in the card's own guest's
	// memory is the card's, and the frames count as taken.
	Receive(q int, frames []vnet.Frame) int
	// Wake has the worker of queue pair q call Port.Poll, and Send if something waits.
	Wake(q int)
	// SetCarrier tells whether there is anybody at the other end. It is up until told
	// otherwise.
	SetCarrier(up bool)
	// Announce asks the driver to make itself known to its neighbours, because the other
	// end may have changed (VIRTIO_NET_S_ANNOUNCE).
	Announce()
}
