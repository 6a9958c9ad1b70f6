package link

import (
	"encoding/binary"
	"sync/atomic"

	"vfiouser/link/vnet"
)

// chunk is how many frames are looked at before they are handed on.
const chunk = 64

// Where a frame goes: the slot of a port, or one of these.
const (
	toAll    = -1
	toNobody = -2
)

// sendQueue is what the worker of one transmit queue has to itself.
type sendQueue struct {
	visit                  visit
	frames, bytes, dropped atomic.Uint64 // written by one worker, read by others
	mixed                  *mixed
	_                      [24]byte // no other queue in this cache line
}

// mixed is the memory for frames that do not all go to the same port.
type mixed struct {
	group [chunk]vnet.Frame
	all   [chunk]vnet.Frame
}

// count adds to a counter that nobody else writes.
func count(c *atomic.Uint64, n int) { c.Store(c.Load() + uint64(n)) }

// Send hands the frames to the cards that they are for. It takes all of them.
func (p *switchPort) Send(q int, frames []vnet.Frame) int {
	u := &p.queues[q]
	u.visit.enter()
	defer u.visit.leave(&p.sw.grace)
	now := p.sw.seconds()
	if p.sw.table.due(now) {
		p.sw.table.sweep(now)
	}
	ports := *p.sw.ports.Load()
	for rest := frames; len(rest) > 0; {
		n := min(chunk, len(rest))
		p.forward(u, q, ports, rest[:n], now)
		rest = rest[n:]
	}
	return len(frames)
}

// forward finds out where up to chunk frames go and hands them over.
func (p *switchPort) forward(u *sendQueue, q int, ports []*switchPort, frames []vnet.Frame, now uint32) {
	var to [chunk]int16
	lastSource, lastDestination := noAddress, noAddress
	last, same, length := toNobody, true, 0
	for i := range frames {
		f := &frames[i]
		length += f.Len
		destination, source := ends(f)
		if source != lastSource {
			lastSource = source
			lastDestination = noAddress
			if !source.group() && source != 0 {
				p.sw.table.learn(source, p.slot, now)
			}
		}
		if destination != lastDestination {
			lastDestination = destination
			last = p.target(ports, source, destination)
		}
		to[i] = int16(last)
		same = same && to[i] == to[0]
	}
	count(&u.frames, len(frames))
	count(&u.bytes, length)
	if same && last >= 0 {
		ports[last].deliver(q, frames)
		return
	}
	p.distribute(u, q, ports, frames, to[:len(frames)])
}

// target says where a frame goes.
func (p *switchPort) target(ports []*switchPort, source, destination address) int {
	if source.group() || source == 0 {
		return toNobody
	}
	if destination.group() {
		return toAll
	}
	switch slot := p.sw.table.lookup(destination); {
	case slot == p.slot:
		return toNobody
	case slot >= 0 && slot < len(ports) && ports[slot] != nil:
		return slot
	}
	return toAll
}

// distribute hands every card its frames at once, in their order.
func (p *switchPort) distribute(u *sendQueue, q int, ports []*switchPort, frames []vnet.Frame, to []int16) {
	if u.mixed == nil {
		u.mixed = new(mixed)
	}
	all := u.mixed.all[:0]
	for i, slot := range to {
		if slot == toAll {
			all = append(all, frames[i])
		}
	}
	reached := 0 // ports
	for slot, t := range ports {
		if t == nil || t == p {
			continue
		}
		reached++
		own := all
		if has(to, int16(slot)) {
			own = u.mixed.group[:0]
			for i, s := range to {
				if s == toAll || int(s) == slot {
					own = append(own, frames[i])
				}
			}
		}
		if len(own) > 0 {
			t.deliver(q, own)
		}
	}
	lost := 0
	for _, slot := range to {
		if slot == toNobody || slot == toAll && reached == 0 {
			lost++
		}
	}
	count(&u.dropped, lost)
}

func has(to []int16, slot int16) bool {
	for _, s := range to {
		if s == slot {
			return true
		}
	}
	return false
}

// deliver gives frames that came out of somebody's queue q to the port's card.
func (p *switchPort) deliver(q int, frames []vnet.Frame) {
	if pairs := int(p.pairs.Load()); q >= pairs {
		q %= max(pairs, 1)
	}
	n := p.card.Receive(q, frames)
	length := 0
	for i := range frames[:n] {
		length += frames[i].Len
	}
	p.received.frames.Add(uint64(n))
	p.received.bytes.Add(uint64(length))
	if n < len(frames) {
		p.received.dropped.Add(uint64(len(frames) - n))
	}
}

// ends reads a frame's two addresses, each once: the guest may change them at any time. What
// is too short to have both is from nobody.
func ends(f *vnet.Frame) (destination, source address) {
	const mask = 1<<addressBits - 1
	if len(f.Parts) > 0 && len(f.Parts[0]) >= 14 {
		p := f.Parts[0]
		return address(binary.LittleEndian.Uint64(p) & mask), address(binary.LittleEndian.Uint64(p[6:]) & mask)
	}
	var b [14]byte
	if f.CopyTo(b[:], 0) < len(b) {
		return 0, 0
	}
	return address(binary.LittleEndian.Uint64(b[:]) & mask), address(binary.LittleEndian.Uint64(b[6:]) & mask)
}
