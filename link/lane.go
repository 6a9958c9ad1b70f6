package link

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/link/vnet"
)

const (
	// heldOverhead is what a frame that waits counts beside its bytes.
	heldOverhead = 128
	// spareSize and spareFrames bound the memory that a lane keeps for later frames.
	spareSize   = 2048
	spareFrames = 512
)

// lane is one direction of a queue pair on a link with faults.
type lane struct {
	way   *way
	waits atomic.Int32 // frames that are held

	mu     sync.Mutex
	rnd    *rand.Rand
	held   []heldFrame // from head on, by the time when they are due
	head   int
	spare  [][]byte
	last   time.Duration // when the latest one is due, but for those that others overtake
	stuck  bool          // the receiver had no room for the first one
	passes [chunk]vnet.Frame
	parts  [chunk][1][]byte // of frames that were held
}

// heldFrame is a copy of a frame that waits.
type heldFrame struct {
	due    time.Duration // on the port's clock
	header vnet.Header
	data   []byte
}

// pass decides about each frame: it is lost, handed on to deliver, or held.
func (l *lane) pass(f *Faults, now time.Duration, frames []vnet.Frame, deliver func([]vnet.Frame) int) {
	l.mu.Lock()
	defer l.mu.Unlock() // also if a guest's memory faults
	passes := l.passes[:0]
	for i := range frames {
		copies := 1
		if l.chance(f.Loss) {
			copies = 0
			l.way.lost.Add(1)
		} else if l.chance(f.Duplicate) {
			copies = 2
		}
		for range copies {
			due, ok := l.due(f, now, frames[i].Len)
			switch {
			case !ok:
				l.way.lost.Add(1)
			case due > now || l.overdue(due):
				l.hold(&frames[i], due)
			default:
				if len(passes) == chunk {
					passes = l.hand(passes, now, deliver)
				}
				passes = append(passes, frames[i])
			}
		}
	}
	l.hand(passes, now, deliver)
}

// hand delivers frames that need not wait, and holds those that are refused.
func (l *lane) hand(passes []vnet.Frame, now time.Duration, deliver func([]vnet.Frame) int) []vnet.Frame {
	if len(passes) == 0 {
		return passes
	}
	n := deliver(passes)
	l.stuck = n < len(passes)
	for i := range passes[n:] {
		l.hold(&passes[n+i], now)
	}
	return passes[:0]
}

// overdue tells whether something is held that comes before a frame that is due then.
func (l *lane) overdue(due time.Duration) bool {
	return l.head < len(l.held) && l.held[l.head].due <= due
}

func (l *lane) chance(p float64) bool { return p > 0 && l.rnd.Float64() < p }

// due is when a frame comes; not at all if it is not ok.
func (l *lane) due(f *Faults, now time.Duration, bytes int) (due time.Duration, ok bool) {
	due = now
	if f.Rate > 0 {
		if due, ok = l.way.line(now, bytes, f.Rate); !ok {
			return 0, false
		}
	}
	due += f.Delay
	if f.Jitter > 0 {
		due += time.Duration(l.rnd.Int64N(int64(f.Jitter)))
	}
	l.last = max(l.last, due)
	if due = l.last; l.chance(f.Reorder) {
		due += reorderBy
	}
	return due, true
}

// hold copies a frame, if there is room.
func (l *lane) hold(f *vnet.Frame, due time.Duration) {
	size := int64(f.Len + heldOverhead)
	if l.way.held.Add(size) > maxHeld {
		l.way.held.Add(-size)
		l.way.lost.Add(1)
		return
	}
	var data []byte
	if n := len(l.spare); n > 0 && f.Len <= spareSize {
		data, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		data = make([]byte, max(f.Len, spareSize))
	}
	data = data[:f.Len]
	f.CopyTo(data, 0)
	if len(l.held) == cap(l.held) && l.head > len(l.held)/2 {
		l.held = l.held[:copy(l.held, l.held[l.head:])]
		l.head = 0
	}
	i := len(l.held)
	l.held = append(l.held, heldFrame{})
	for ; i > l.head && l.held[i-1].due > due; i-- {
		l.held[i] = l.held[i-1]
	}
	l.held[i] = heldFrame{due, f.Header, data}
	l.waits.Add(1)
}

// flush delivers what is due, and returns how much that was.
func (l *lane) flush(now time.Duration, deliver func([]vnet.Frame) int) (total int) {
	if l.waits.Load() == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		n := 0
		for h := l.held[l.head:]; n < min(len(h), chunk) && h[n].due <= now; n++ {
			l.parts[n][0] = h[n].data
			l.passes[n] = vnet.Frame{Header: h[n].header, Parts: l.parts[n][:], Len: len(h[n].data)}
		}
		if n == 0 {
			l.stuck = false
			return total
		}
		took := deliver(l.passes[:n])
		l.drop(took)
		total += took
		if l.stuck = took < n; l.stuck {
			return total
		}
	}
}

// drop forgets the first n frames.
func (l *lane) drop(n int) {
	for i := range l.held[l.head:][:n] {
		h := &l.held[l.head+i]
		l.way.held.Add(-int64(len(h.data) + heldOverhead))
		if cap(h.data) == spareSize && len(l.spare) < spareFrames {
			l.spare = append(l.spare, h.data)
		}
		h.data = nil
	}
	l.head += n
	if l.head == len(l.held) {
		l.held, l.head = l.held[:0], 0
	}
	l.waits.Add(-int32(n))
}

// next is when the next frame is due, unless somebody else tells when it can go on.
func (l *lane) next() (due time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stuck || l.head == len(l.held) {
		return 0, false
	}
	return l.held[l.head].due, true
}

// blocked tells whether the receiver has no room.
func (l *lane) blocked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stuck && l.head < len(l.held)
}
