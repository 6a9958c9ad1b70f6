package virtionet

import (
	"math/bits"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/dma"
	"vfiouser/link/vnet"
)

// receiver is a pair's receive queue. Any goroutine delivers, with the lock held, which is
// never held while something blocks. By message the pair's goroutine is the only one that
// uses the ring, without the lock, and all others fill the backlog.
type receiver struct {
	p *pair
	// turn is held by the pair's goroutine while it delivers by message, which may block. It
	// is taken before mu. What the driver can finish is changed with both held.
	turn      sync.Mutex
	mu        sync.Mutex
	q         *virtio.Queue // nil: not started
	started   atomic.Bool   // q is not nil: looked at without the lock
	inUse     bool          // one of those in which the driver wants frames
	byMessage bool          // frames go to the backlog
	header    int           // bytes in front of a frame
	mergeable bool          // a frame may take several buffers
	can       vnet.Offloads // what the driver finishes itself
	longest   int           // bytes of a frame that is not to be segmented

	buffers buffers
	backlog backlog
	// starved: the driver gave too few buffers, and is asked to tell of new ones. Frames, if
	// any, wait in the backlog.
	starved atomic.Bool
	refused uint64    // pairs whose link has more frames for this queue
	cut     int       // segments of the next frame that were delivered already
	waiting time.Time // since when there are too few buffers for the next frame; 0: there are not
	lower   vnet.Scratch
	single  [1]vnet.Frame
	same    [32]spec.HashReport // of the segments of a frame
	stats   receiveStats

	coalescer coalescer
	round     int // frames of this section
}

// start takes a queue over; the pair is paused.
func (rx *receiver) start(q *virtio.Queue) {
	// Without the lock: by message this waits for the client.
	if q.Enter() {
		q.Disarm()
		q.Exit()
	}
	rx.mu.Lock()
	defer rx.mu.Unlock()
	rx.q = q
	rx.started.Store(true)
	rx.starved.Store(false)
	rx.round, rx.cut, rx.waiting = 0, 0, time.Time{}
	b := &rx.buffers
	b.next, b.end, b.broken, b.asked = 0, 0, false, 0 // a fault may have left some
}

// stop gives it back. What waits is lost, as it is on a wire.
func (rx *receiver) stop() {
	rx.mu.Lock()
	defer rx.mu.Unlock()
	rx.q = nil
	rx.started.Store(false)
	rx.discard()
}

// discard forgets what waits.
func (rx *receiver) discard() {
	rx.starved.Store(false)
	rx.stats.noBuffer.Add(uint64(rx.backlog.count))
	rx.backlog.clear()
	rx.cut = 0
	rx.wakeRefused()
}

// place has the ring used by message or not, from now on; the pair is paused. What waited for
// the goroutine goes on at once.
func (rx *receiver) place(byMessage bool) {
	rx.mu.Lock()
	onFault := debug.SetPanicOnFault(true)
	var n int
	defer rx.unlock(onFault, &n, 0)
	rx.byMessage = byMessage
	if !byMessage && rx.q != nil && !rx.backlog.empty() && rx.q.Enter() {
		rx.flush()
		rx.publish()
	}
}

// receive takes frames for this queue; from is the pair whose link delivers them. It returns
// how many were taken.
func (rx *receiver) receive(frames []vnet.Frame, reports []spec.HashReport, from int) (taken int) {
	rx.mu.Lock()
	onFault := debug.SetPanicOnFault(true)
	defer rx.unlock(onFault, &taken, len(frames))
	if rx.q == nil || !rx.inUse {
		rx.stats.noDriver.Add(uint64(len(frames)))
		return len(frames)
	}
	if rx.byMessage {
		if taken = rx.keep(frames, reports); taken > 0 {
			rx.p.wake()
		}
	} else {
		taken = rx.now(frames, reports)
	}
	if taken < len(frames) {
		rx.refused |= 1 << from
		rx.stats.refused.Add(uint64(len(frames) - taken))
	}
	return taken
}

// unlock ends every delivery with the lock held, also one that a panic ended. If memory of
// this queue's guest has gone that costs its client the session, and its frames count as
// taken. Everything else is the caller's: the memory of the sender's guest, or a defect.
func (rx *receiver) unlock(onFault bool, taken *int, all int) {
	v := recover()
	debug.SetPanicOnFault(onFault)
	if v == nil {
		rx.mu.Unlock()
		return
	}
	// By message the ring is not touched here, and the backlog is private memory.
	if rx.q != nil && !rx.byMessage {
		if addr, ok := dma.IsFault(v); ok && rx.q.Reader().Holds(addr) {
			rx.q.Fault(v, debug.Stack())
			*taken = all
			rx.mu.Unlock()
			return
		}
		rx.untake()
		rx.q.Exit()
	}
	rx.mu.Unlock()
	panic(v)
}

// now delivers to the ring what it can, and keeps of the rest what it can.
func (rx *receiver) now(frames []vnet.Frame, reports []spec.HashReport) (taken int) {
	if !rx.q.Enter() {
		rx.stats.noBuffer.Add(uint64(len(frames)))
		return len(frames)
	}
	if !rx.starved.Load() || rx.flush() {
		taken = rx.deliver(frames, reports)
	}
	if taken < len(frames) {
		var rest []spec.HashReport
		if reports != nil {
			rest = reports[taken:]
		}
		taken += rx.keep(frames[taken:], rest)
	}
	rx.publish()
	return taken
}

// publish ends a section: what was delivered becomes visible, and the driver is interrupted
// once for all of it.
func (rx *receiver) publish() {
	interrupt := rx.q.Publish()
	rx.q.Exit()
	if err := rx.q.Err(); err != nil {
		rx.q.Fail(err) // a write by message has failed
	}
	n := rx.round
	rx.round = 0
	// Outside of the section: the write may take its time.
	if rx.coalescer.used(n, interrupt) {
		rx.q.Interrupt()
		rx.stats.interrupts.Add(1)
	}
}

// keep puts frames into the backlog.
func (rx *receiver) keep(frames []vnet.Frame, reports []spec.HashReport) (n int) {
	for ; n < len(frames); n++ {
		var report *spec.HashReport
		if reports != nil {
			report = &reports[n]
		}
		if !rx.backlog.add(&frames[n], report) {
			break
		}
	}
	if n > 0 {
		rx.stats.waited.Add(uint64(n))
	}
	return n
}

// flush delivers from the backlog, inside a section, and says whether it is empty. Then the
// driver need not tell of new buffers any more, and links that were refused are told.
func (rx *receiver) flush() bool {
	for !rx.backlog.empty() {
		frames, reports := rx.backlog.peek()
		n := rx.deliver(frames, reports)
		rx.backlog.drop(n)
		if n < len(frames) {
			return false
		}
	}
	rx.starved.Store(false)
	rx.q.Disarm()
	rx.wakeRefused()
	return true
}

// wakeRefused has the links that were refused deliver again.
func (rx *receiver) wakeRefused() {
	for ; rx.refused != 0; rx.refused &= rx.refused - 1 {
		rx.p.card.pairs[bits.TrailingZeros64(rx.refused)].wake()
	}
}

// refill goes on after the driver gave buffers, and returns how many frames it delivered.
// The pair's worker calls it.
func (rx *receiver) refill() (n int) {
	rx.mu.Lock()
	onFault := debug.SetPanicOnFault(true)
	defer rx.unlock(onFault, &n, 0)
	if rx.q == nil || rx.byMessage {
		return 0
	}
	if !rx.inUse {
		rx.discard()
		return 0
	}
	if !rx.q.Enter() {
		return 0
	}
	if before := rx.backlog.count; rx.q.Available() > 0 {
		if rx.flush() {
			n = 1 // if the backlog was empty the links have something to do
		}
		n += before - rx.backlog.count
	}
	rx.publish()
	return n
}

// drain delivers from the backlog by message. The pair's goroutine calls it.
func (rx *receiver) drain() int {
	rx.turn.Lock()
	defer rx.turn.Unlock()
	rx.mu.Lock()
	if rx.q != nil && !rx.inUse {
		rx.discard()
	}
	if rx.q == nil || rx.backlog.empty() {
		rx.mu.Unlock()
		return 0
	}
	frames, reports := rx.backlog.peek()
	rx.mu.Unlock()
	if !rx.q.Enter() {
		return 0
	}
	n := rx.deliver(frames, reports)
	rx.publish()
	rx.mu.Lock()
	rx.backlog.drop(n)
	if n > 0 {
		rx.wakeRefused()
	}
	rx.mu.Unlock()
	return n
}
