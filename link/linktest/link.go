package linktest

import (
	"sync"

	"vfiouser/link"
	"vfiouser/link/vnet"
)

// Link keeps what its card sends and hands the card what a test gives it. The zero value is
// ready. It may be used by any goroutine.
type Link struct {
	// OnSend, if set, is asked before the frames are kept, and returns how many are taken.
	OnSend func(q int, frames []vnet.Frame) int

	mu       sync.Mutex
	card     link.Card
	sent     []Frame
	incoming map[int][]Frame
	armed    map[int]bool
	offloads vnet.Offloads
	pairs    int
}

// Attach takes one card.
func (l *Link) Attach(c link.Card) (link.Port, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.card != nil {
		return nil, link.ErrBusy
	}
	l.card, l.incoming, l.armed = c, map[int][]Frame{}, map[int]bool{}
	return port{l}, nil
}

// Close does nothing.
func (l *Link) Close() error { return nil }

// Sent returns what was sent since the last call.
func (l *Link) Sent() []Frame {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

// Arrive has frames ready for the card's next Poll of f.Queue, and wakes the queue if it is
// armed.
func (l *Link) Arrive(frames ...Frame) {
	l.mu.Lock()
	var wake []int
	for _, f := range frames {
		l.incoming[f.Queue] = append(l.incoming[f.Queue], f)
		if l.armed[f.Queue] {
			l.armed[f.Queue] = false
			wake = append(wake, f.Queue)
		}
	}
	card := l.card
	l.mu.Unlock()
	for _, q := range wake {
		card.Wake(q)
	}
}

// Card is the attached card, nil if there is none.
func (l *Link) Card() link.Card {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.card
}

// Offloads is what the card told last.
func (l *Link) Offloads() (o vnet.Offloads, pairs int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offloads, l.pairs
}

// port is the card's side.
type port struct{ l *Link }

func (p port) Send(q int, frames []vnet.Frame) int {
	n := len(frames)
	if p.l.OnSend != nil {
		n = p.l.OnSend(q, frames)
	}
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	for i := range frames[:n] {
		p.l.sent = append(p.l.sent, Keep(q, &frames[i]))
	}
	return n
}

func (p port) Poll(q int) int {
	p.l.mu.Lock()
	waiting := p.l.incoming[q]
	card := p.l.card
	p.l.mu.Unlock()
	if len(waiting) == 0 || card == nil {
		return 0
	}
	frames := make([]vnet.Frame, len(waiting))
	for i, f := range waiting {
		frames[i] = f.Frame()
	}
	n := card.Receive(q, frames)
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.incoming[q] = p.l.incoming[q][n:]
	return n
}

func (p port) Arm(q int) bool {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.armed[q] = true
	return len(p.l.incoming[q]) > 0
}

func (p port) SetOffloads(o vnet.Offloads, pairs int) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.offloads, p.l.pairs = o, pairs
}

func (p port) Close() error {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.card = nil
	return nil
}
