package nvme

import (
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// Arbitration decides whose commands are fetched next (Base 1.4, 4.13). The admin queue is
// not part of it: its commands have a goroutine of their own and so wait for nobody. Queues
// in memory that is reached by message, which run with goroutines of their own as
// well, are not either.

// arbitration is the value of the feature (Base 1.4, 5.21.1.1).
type arbitration uint32

// arbitrate has the queues follow the feature.
func (h *host) arbitrate() { h.arbitration.Store(h.number(spec.FeatArbitration)) }

// recommendedBurst is an exponent (Identify Controller, RAB): with smaller bursts queues
// cost more.
const recommendedBurst = 5

// noBurstLimit is the value of the arbitration burst that means no limit.
const noBurstLimit = 7

// burst is the number of commands that a queue may have at a time.
func (a arbitration) burst() uint32 {
	if a&noBurstLimit == noBurstLimit {
		return 1 << 31
	}
	return 1 << (a & noBurstLimit)
}

// weight is the number of commands that a priority level below urgent may have in
// each arbitration round.
func (a arbitration) weight(p priority) uint32 {
	return uint32(a>>(32-8*uint32(p)))&0xff + 1
}

// priority is the class of a queue as Create I/O Submission Queue has it (QPRIO).
type priority uint8

const (
	priorityUrgent priority = iota
	priorityHigh
	priorityMedium
	priorityLow
	priorities
)

// level is the queues of one priority.
type level struct {
	queues []*subQueue
	turn   int    // whose turn it is
	burst  uint32 // commands left of that turn
	credit uint32 // commands left in this arbitration round
}

func (l *level) pass(burst uint32) {
	if l.turn++; l.turn >= len(l.queues) {
		l.turn = 0
	}
	l.burst = burst
}

// outlook is what a round has to know of a queue that has nothing to do, close to that of
// the next: with many queues most have not.
type outlook struct {
	door *[4]byte // the queue's
	head uint32   // the queue's, as of the last fetch
}

// activate lets a queue have its turns.
func (g *group) activate(q *subQueue) {
	g.active = append(g.active, q)
	g.outlooks = append(g.outlooks, outlook{(*[4]byte)(q.door), q.head})
	l := &g.levels[q.priority]
	l.queues = append(l.queues, q)
}

// forget is for when the queues come or go, or their memory does.
func (g *group) forget() {
	clear(g.active) // what is gone is not to be held
	clear(g.outlooks)
	g.active, g.outlooks, g.first = g.active[:0], g.outlooks[:0], 0
	for i := range g.levels {
		l := &g.levels[i]
		clear(l.queues)
		*l = level{queues: l.queues[:0]}
	}
}

// serveAll looks at all queues.
func (g *group) serveAll() (n int) {
	g.left = maxRoundBytes
	a := arbitration(g.h.arbitration.Load())
	if g.weighted {
		n = g.serveWeighted(a)
	} else {
		n = g.serveRoundRobin(a)
	}
	if g.batch.n > 0 {
		g.run()
	}
	return n
}

// serveRoundRobin gives each queue its turn, beginning with the one that is next. With small
// bursts there are several turns, as much as one without limit would do.
func (g *group) serveRoundRobin(a arbitration) (n int) {
	burst := min(a.burst(), maxBurst)
	for done := uint32(0); done < maxBurst; done += burst {
		before, first := n, g.first
		for k := range g.outlooks {
			i := first + k
			if i >= len(g.outlooks) {
				i -= len(g.outlooks)
			}
			at := &g.outlooks[i]
			tail := dma.Load32(at.door[:], 0)
			if tail == at.head {
				continue
			}
			if g.left <= 0 {
				g.first = i
				return n
			}
			q := g.active[i]
			n += int(g.fetch(q, tail, burst))
			at.head = q.head
		}
		if n == before {
			break
		}
	}
	if g.inflight >= maxInflight {
		g.turn() // the same queue must not have every place that becomes free
	}
	return n
}

func (g *group) turn() {
	if g.first++; g.first >= len(g.active) {
		g.first = 0
	}
}

// serveWeighted is weighted round robin with urgent priority class (4.13.2): urgent queues
// first, then in each arbitration round as many commands of the other levels as they
// have weight. A queue has no more than a burst at a time. Rounds go on from poll to poll.
func (g *group) serveWeighted(a arbitration) (n int) {
	for most := maxBurst * len(g.active); n < most && g.left > 0; {
		l := g.choose(a)
		if l == nil {
			break
		}
		q := l.queues[l.turn]
		k := g.fetch(q, dma.Load32(q.door, 0), min(l.burst, l.credit, uint32(most-n)))
		if k == 0 {
			break // its memory cannot be reached
		}
		n += int(k)
		l.credit -= min(k, l.credit) // a fused pair may be one too many
		if l.burst -= min(k, l.burst); l.burst == 0 || l.credit == 0 {
			l.pass(a.burst())
		}
	}
	return n
}

// choose finds the level that is served next; its turn is that of a queue that has commands.
func (g *group) choose(a arbitration) *level {
	const unlimited = 1 << 31
	urgent := &g.levels[priorityUrgent]
	if urgent.credit = unlimited; g.ready(urgent, a) {
		return urgent
	}
	exhausted := false
	for p := priorityHigh; p < priorities; p++ {
		l := &g.levels[p]
		if g.ready(l, a) {
			if l.credit > 0 {
				return l
			}
			exhausted = true
		}
	}
	// Nobody who has commands may go on, so the next arbitration round begins.
	for p := priorityHigh; p < priorities; p++ {
		g.levels[p].credit = a.weight(p)
	}
	if !exhausted {
		return nil
	}
	return g.choose(a)
}

// ready finds the queue of a level that is served next, if there is any with commands.
func (g *group) ready(l *level, a arbitration) bool {
	for range l.queues {
		q := l.queues[l.turn]
		if tail := dma.Load32(q.door, 0); tail != q.head && g.servable(q, tail) > 0 {
			if l.burst == 0 {
				l.burst = a.burst()
			}
			return true
		}
		l.pass(a.burst())
	}
	return false
}
