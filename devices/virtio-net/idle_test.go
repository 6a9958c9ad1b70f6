package virtionet

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// countingLink counts how often its card looks for frames.
type countingLink struct {
	linktest.Link
	polls atomic.Int64
}

type countingPort struct {
	link.Port
	l *countingLink
}

func (l *countingLink) Attach(c link.Card) (link.Port, error) {
	p, err := l.Link.Attach(c)
	return countingPort{p, l}, err
}

func (p countingPort) Poll(q int) int {
	p.l.polls.Add(1)
	return p.Port.Poll(q)
}

// awaitIdle waits until the card does not look any more.
func (l *countingLink) awaitIdle(t testing.TB) {
	t.Helper()
	idle := 0 // times in a row
	eventually(t, "the card is idle", func() bool {
		before := l.polls.Load()
		time.Sleep(10 * time.Millisecond)
		if idle++; l.polls.Load() != before {
			idle = 0
		}
		return idle == 5
	})
}

// A client that takes its memory away costs no time, and finds its card in order when it gives the
// memory back.
func TestRingThatIsAwayCostsNoTime(t *testing.T) {
	for name, ring := range layouts {
		for _, byMessage := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", name, byMessage), func(t *testing.T) {
				holdings.CheckLeaks(t)
				l := &countingLink{}
				r := newRig(t, Config{Link: l})
				g := r.attach(options{features: ring, byMessage: byMessage})
				data := frameOf(1, 100)
				g.pairs[0].send(vnet.Header{}, data)
				equal(t, l.Sent(), data)
				mapping := g.mem.At(g.d.Addr(g.pairs[0].rxBuf) - g.pairs[0].rxBuf.Offset)
				if byMessage {
					mapping = mapping.ByMessage()
				}
				l.awaitIdle(t) // memory that is being used is not to be taken away
				must(t, g.dev.UnmapDMA(testContext(t), mapping.IOVA, mapping.Size))
				l.awaitIdle(t)
				must(t, g.dev.MapDMA(testContext(t), mapping))
				g.pairs[0].send(vnet.Header{}, data)
				l.Arrive(linktest.Frame{Data: data})
				equal(t, g.pairs[0].receive(1), data)
			})
		}
	}
}
