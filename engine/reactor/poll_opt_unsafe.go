//go:build poll_opt

package reactor

import (
	"unsafe"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// polling runs the loop; each descriptor carries its callback in the attachment of its slot.
func (r *Reactor) polling() error { return r.poller.Polling() }

// eventFD is the descriptor that an event is about. The kernel returns the pointer that netpoll gave it: sound, since it
// is that of a slot's attachment (or of the poller's own), and those live as long as the reactor.
func eventFD(ev *unix.EpollEvent) int {
	data := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32 // (of 64-bit, little-endian machines)
	return (*(**netpoll.PollAttachment)(unsafe.Pointer(&data))).FD
}
