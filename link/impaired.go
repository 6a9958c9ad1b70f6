package link

import (
	"time"

	"vfiouser/link/vnet"
)

// impairedPort is a card's place on a link with faults.
type impairedPort struct {
	Port
	m       *Impairment
	card    impairedCard
	start   time.Time
	out, in way
	queues  [MaxPairs]impairedQueue
}

// impairedQueue is what a queue pair has on its way. What has waited goes on with the pair's
// next Poll; while nobody polls, a timer has it polled.
type impairedQueue struct {
	out, in lane
	alarm   alarm
}

// impairedCard is what the impaired link knows as a card.
type impairedCard struct {
	Card
	port *impairedPort
}

func (p *impairedPort) now() time.Duration { return time.Since(p.start) }

// Send lets frames pass, or holds or loses them. It takes nothing as long as the link has no
// room for what was held before.
func (p *impairedPort) Send(q int, frames []vnet.Frame) int {
	f, u := p.m.faults.Load(), &p.queues[q]
	if *f == (Faults{}) && u.out.waits.Load() == 0 {
		return p.Port.Send(q, frames)
	}
	now := p.now()
	on := func(passes []vnet.Frame) int { return p.Port.Send(q, passes) }
	u.out.flush(now, on)
	if u.out.blocked() {
		return 0
	}
	u.out.pass(f, now, frames, on)
	return len(frames)
}

// Receive does the same for what comes from the link.
func (c *impairedCard) Receive(q int, frames []vnet.Frame) int {
	p := c.port
	f, u := p.m.faults.Load(), &p.queues[q]
	if *f == (Faults{}) && u.in.waits.Load() == 0 {
		return c.Card.Receive(q, frames)
	}
	u.in.pass(f, p.now(), frames, func(passes []vnet.Frame) int { return c.Card.Receive(q, passes) })
	if due, ok := u.in.next(); ok {
		u.alarm.set(due, p.now)
	}
	return len(frames)
}

// Poll lets what has waited go on, and polls the impaired link.
func (p *impairedPort) Poll(q int) int {
	u := &p.queues[q]
	u.alarm.awake()
	now := p.now()
	n := u.out.flush(now, func(passes []vnet.Frame) int { return p.Port.Send(q, passes) })
	n += u.in.flush(now, func(passes []vnet.Frame) int { return p.card.Card.Receive(q, passes) })
	return n + p.Port.Poll(q)
}

// Arm has the queue woken for what the impaired link has, and for the next frame that is due.
func (p *impairedPort) Arm(q int) bool {
	u := &p.queues[q]
	u.alarm.sleep()
	pending := p.Port.Arm(q)
	for _, l := range []*lane{&u.out, &u.in} {
		if due, ok := l.next(); ok {
			pending = pending || due <= p.now()
			u.alarm.set(due, p.now)
		}
	}
	return pending
}

// Close forgets what waits.
func (p *impairedPort) Close() error {
	err := p.Port.Close()
	for q := range p.queues {
		p.queues[q].alarm.close()
	}
	return err
}

// Stats is that of the impaired link's port, and what was lost on the way.
func (p *impairedPort) Stats() (st Stats) {
	if c, ok := p.Port.(Counter); ok {
		st = c.Stats()
	}
	lost := p.out.lost.Load()
	st.Sent += lost
	st.SendDropped += lost
	st.ReceiveDropped += p.in.lost.Load()
	return st
}
