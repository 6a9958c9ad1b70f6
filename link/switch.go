package link

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vfiouser/link/vnet"
)

// maxPorts is the most cards on a switch.
const maxPorts = 1024

// SwitchConfig bounds a switch. The zero value gives the defaults.
type SwitchConfig struct {
	Addresses int           // that it remembers, rounded up to a power of two; 0: 8,192
	PerPort   int           // the most of them behind one port; 0: an eighth
	Age       time.Duration // for which an address is remembered, seconds at least; 0: 5 minutes
}

// Switch connects the cards of a process. It learns from source addresses which card is
// where; frames to group addresses and to addresses that it does not know go to all cards
// but the sender. A frame goes from the sender's memory into the receiver's by Card.Receive,
// on the sender's worker: nothing is queued or copied here. A card that has no room loses
// its frames and nobody else's.
//
// It is transparent: VLAN tags are not looked at (one table of addresses for all VLANs), the
// group addresses that IEEE 802.1Q keeps from being forwarded are forwarded, and there is no
// spanning tree. A card is believed what source address it writes: one that takes another's
// address gets its frames.
type Switch struct {
	table addresses
	ports atomic.Pointer[[]*switchPort] // by slot, nil where there is none
	start time.Time
	now   func(start time.Time) time.Duration

	mu     sync.Mutex
	taken  []bool // slots, also of ports that are being closed
	closed bool

	grace gate
}

// NewSwitch makes a switch without cards.
func NewSwitch(cfg SwitchConfig) *Switch {
	s := &Switch{start: time.Now(), now: time.Since, taken: make([]bool, maxPorts)}
	n := cmp.Or(cfg.Addresses, 8192)
	age := cmp.Or(cfg.Age, 5*time.Minute)
	s.table.init(n, cmp.Or(cfg.PerPort, max(n/8, 1)), uint32(max(age/time.Second, 1)))
	s.ports.Store(&[]*switchPort{})
	s.grace.left = sync.NewCond(&s.grace.mu)
	return s
}

// Attach connects a card. Errors are ErrClosed, and ErrFull when there are 1,024 cards.
func (s *Switch) Attach(c Card) (Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := slices.Index(s.taken, false)
	switch {
	case s.closed:
		return nil, ErrClosed
	case slot < 0:
		return nil, ErrFull
	}
	s.taken[slot] = true
	p := &switchPort{sw: s, card: c, slot: slot}
	p.close = sync.OnceFunc(p.detach)
	s.publish(slot, p)
	return p, nil
}

// publish changes who is in slot. The lock is held.
func (s *Switch) publish(slot int, p *switchPort) {
	ports := slices.Clone(*s.ports.Load())
	for len(ports) <= slot {
		ports = append(ports, nil)
	}
	ports[slot] = p
	s.ports.Store(&ports)
}

// Close refuses further cards. Idempotent.
func (s *Switch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// SwitchStats is what a switch has now.
type SwitchStats struct {
	Cards     int
	Addresses int // that it remembers
}

// Stats counts. Any goroutine.
func (s *Switch) Stats() (st SwitchStats) {
	for _, p := range *s.ports.Load() {
		if p != nil {
			st.Cards++
			st.Addresses += s.table.count(p.slot)
		}
	}
	return st
}

// seconds is the switch's clock.
func (s *Switch) seconds() uint32 { return uint32(s.now(s.start) / time.Second) }

// gate lets somebody wait until others have left what they are in.
type gate struct {
	waiting atomic.Int32
	mu      sync.Mutex
	left    *sync.Cond
}

// visit is one that may be inside: odd while it is.
type visit struct{ n atomic.Uint64 }

func (v *visit) enter() { v.n.Store(v.n.Load() + 1) }

func (v *visit) leave(g *gate) {
	v.n.Store(v.n.Load() + 1)
	if g.waiting.Load() != 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.left.Broadcast()
	}
}

// wait returns when the visit that is inside now, if any, has left.
func (g *gate) wait(v *visit) {
	now := v.n.Load()
	if now&1 == 0 {
		return
	}
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	g.mu.Lock()
	defer g.mu.Unlock()
	for v.n.Load() == now {
		g.left.Wait()
	}
}

// switchPort is a card's place on a switch.
type switchPort struct {
	sw    *Switch
	card  Card
	slot  int
	pairs atomic.Int32
	close func()

	received receiveStats
	queues   [MaxPairs]sendQueue
}

func (p *switchPort) Poll(int) int { return 0 } // what arrives is pushed
func (p *switchPort) Arm(int) bool { return false }

func (p *switchPort) SetOffloads(_ vnet.Offloads, pairs int) { p.pairs.Store(int32(pairs)) }

func (p *switchPort) Close() error {
	p.close()
	return nil
}

// detach forgets the card, and waits for those who are just handing it something.
func (p *switchPort) detach() {
	s := p.sw
	s.mu.Lock()
	s.publish(p.slot, nil)
	ports := *s.ports.Load()
	s.mu.Unlock()
	for _, other := range ports {
		if other != nil {
			for q := range other.queues {
				s.grace.wait(&other.queues[q].visit)
			}
		}
	}
	s.table.forget(p.slot)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[p.slot] = false
}

// Stats reads the port's counters.
func (p *switchPort) Stats() Stats {
	st := Stats{
		Received:       p.received.frames.Load(),
		ReceivedBytes:  p.received.bytes.Load(),
		ReceiveDropped: p.received.dropped.Load(),
	}
	for q := range p.queues {
		u := &p.queues[q]
		st.Sent += u.frames.Load()
		st.SentBytes += u.bytes.Load()
		st.SendDropped += u.dropped.Load()
	}
	return st
}
