package irq

import (
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// event is an eventfd with its users.
type event struct {
	fd int
	// word holds, from the low end: closed, dead, the number of users (16 bits), and a
	// count of ended uses. The count wraps around at the top and disturbs nothing.
	word atomic.Uint64
	seen uint64   // word at the last check with a user inside; under Set.mu
	_    [40]byte // word changes with every trigger: a cache line of its own
}

const (
	eventClosed = 1 << 0 // no new users; the last one closes fd
	eventDead   = 1 << 1 // fd is closed
	eventUser   = 1 << 2
	eventUsers  = 0xffff * eventUser
	eventUse    = 1 << 18
)

// acquire makes the caller a user, unless the event is closed.
func (e *event) acquire() bool {
	if e.word.Add(eventUser)&eventClosed != 0 {
		e.leave(e.word.Add(^uint64(eventUser - 1)))
		return false
	}
	return true
}

// release ends a use.
func (e *event) release() { e.leave(e.word.Add(eventUse - eventUser)) }

// leave closes the descriptor if w, the word just left behind, says that nobody
// uses it any more. Somebody who came since then takes over that duty.
func (e *event) leave(w uint64) {
	if w&(eventClosed|eventDead|eventUsers) == eventClosed && e.word.CompareAndSwap(w, w|eventDead) {
		_ = unix.Close(e.fd)
	}
}

// close lets nobody in any more. Idempotent.
func (e *event) close() { e.leave(e.word.Or(eventClosed) | eventClosed) }

// peek makes the caller a user if there is another one now, closed or not.
func (e *event) peek() (before uint64, ok bool) {
	for {
		w := e.word.Load()
		if w&eventUsers == 0 {
			return w, false
		}
		if e.word.CompareAndSwap(w, w+eventUser) {
			return w, true
		}
	}
}

// unpeek ends a peek and counts no use.
func (e *event) unpeek() { e.leave(e.word.Add(^uint64(eventUser - 1))) }

// isEventfd tells what fd really is. A pipe would block, a file would be written to.
func isEventfd(fd int) bool {
	var buf [64]byte
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf[:])
	return err == nil && string(buf[:n]) == "anon_inode:[eventfd]"
}
