package virtionet

import (
	"encoding/binary"
	"sync/atomic"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link/vnet"
)

// reception is what becomes of arriving frames. It is immutable: commands publish a new one.
type reception struct {
	pairs    int      // that the driver uses
	filter   *filter  // nil: everything passes
	hash     *hashing // nil: nobody needs a hash
	report   bool     // the header of a frame has it
	rss      *scaling // nil: automatic steering
	straight bool     // nothing has to be looked at: frames go to the first queue
}

// scaling is the queues of RSS, by hash.
type scaling struct {
	table        []uint8 // a power of two of receive queues
	unclassified uint8
}

// complete derives what is derived.
func (r *reception) complete() *reception {
	if r.filter != nil && r.filter.open() {
		r.filter = nil
	}
	if r.pairs == 1 && !r.report {
		r.rss, r.hash = nil, nil
	}
	r.straight = r.filter == nil && r.hash == nil && r.pairs == 1
	return r
}

// nowhere is the queue of a frame that is filtered out.
const nowhere = 0xff

// Receive takes frames from the link. On a switch q is the sender's queue, who may have more
// of them.
func (c *card) Receive(q int, frames []vnet.Frame) int {
	if q >= len(c.pairs) {
		q %= len(c.pairs)
	}
	r := c.reception.Load()
	if r == nil {
		c.pairs[q].rx.stats.noDriver.Add(uint64(len(frames)))
		return len(frames)
	}
	if r.straight {
		return c.pairs[0].rx.receive(frames, nil, q)
	}
	return c.sort(r, q, frames)
}

// sort gives each frame to its queue, those for the same queue that follow each other at
// once, in their order.
func (c *card) sort(r *reception, q int, frames []vnet.Frame) (taken int) {
	var s sorter
	for taken < len(frames) {
		chunk := frames[taken:min(taken+batch, len(frames))]
		s.look(c, r, q, chunk)
		for i := 0; i < len(chunk); {
			to, end := s.to[i], i+1
			for end < len(chunk) && s.to[end] == to {
				end++
			}
			if to == nowhere {
				c.pairs[q].rx.stats.filtered.Add(uint64(end - i))
				i = end
				continue
			}
			var reports []spec.HashReport
			if r.report {
				reports = s.reports[i:end]
			}
			if n := c.pairs[to].rx.receive(chunk[i:end], reports, q); n < end-i {
				return taken + i + n
			}
			i = end
		}
		taken += len(chunk)
	}
	return taken
}

// sorter is the queues of a batch of frames, and what they are found with.
type sorter struct {
	to      [batch]uint8
	reports [batch]spec.HashReport
	head    head
	flow    flow
}

// look finds the queues of frames.
func (s *sorter) look(c *card, r *reception, q int, frames []vnet.Frame) {
	for i := range frames {
		s.head.read(&frames[i])
		if r.filter != nil && !r.filter.pass(&s.head) {
			s.to[i] = nowhere
			continue
		}
		if r.hash == nil && r.pairs == 1 {
			s.to[i] = 0
			continue
		}
		s.flow.parse(&s.head)
		if r.hash != nil {
			s.reports[i] = r.hash.sum(&s.flow)
		}
		switch {
		case r.pairs == 1:
			s.to[i] = 0
		case r.rss != nil:
			s.to[i] = r.rss.queue(s.reports[i])
		default:
			s.to[i] = c.flows.queue(&s.flow, q, r.pairs)
			if !c.pairs[s.to[i]].rx.started.Load() {
				s.to[i] = c.otherQueue(s.to[i], r.pairs)
			}
		}
	}
}

// otherQueue is where frames go whose queue is being reset (5.1.6.5.6): the first that is
// not.
func (c *card) otherQueue(q uint8, pairs int) uint8 {
	for i, p := range c.pairs[:pairs] {
		if p.rx.started.Load() {
			return uint8(i)
		}
	}
	return q
}

// queue is where RSS has a frame go (5.1.6.5.7.2).
func (s *scaling) queue(h spec.HashReport) uint8 {
	if h.Report == spec.ReportNone {
		return s.unclassified
	}
	return s.table[int(h.Value)&(len(s.table)-1)]
}

// flowTable is the pair on which each flow was last sent, plus 1, for automatic steering
// (5.1.6.5.6). Flows share entries.
type flowTable [4096]atomic.Uint32

// entry is that of a flow, in either direction; nil for what has no addresses.
func (t *flowTable) entry(f *flow) *atomic.Uint32 {
	var key uint64
	switch in := f.input[:]; f.addr {
	case 4:
		key = uint64(binary.BigEndian.Uint32(in) ^ binary.BigEndian.Uint32(in[4:]))
	case ipv6AddressSize:
		key = binary.BigEndian.Uint64(in) ^ binary.BigEndian.Uint64(in[8:]) ^
			binary.BigEndian.Uint64(in[16:]) ^ binary.BigEndian.Uint64(in[24:])
	default:
		return nil
	}
	if f.proto != 0 {
		ports := f.input[2*f.addr:]
		key ^= uint64(binary.BigEndian.Uint16(ports)^binary.BigEndian.Uint16(ports[2:])) << 40
	}
	return &t[key*0x9e3779b97f4a7c15>>52]
}

// learn keeps on which pair frames are sent.
func (t *flowTable) learn(pair int, frames []vnet.Frame) {
	var h head
	var f flow
	for i := range frames {
		h.read(&frames[i])
		f.parse(&h)
		// Most flows stay where they are: do not take the line from those who read it.
		if e := t.entry(&f); e != nil && e.Load() != uint32(pair)+1 {
			e.Store(uint32(pair) + 1)
		}
	}
}

// queue is where the answers to a flow go: to the pair that sent it, else where the link
// delivered it.
func (t *flowTable) queue(f *flow, q, pairs int) uint8 {
	if e := t.entry(f); e != nil {
		if pair := int(e.Load()); pair > 0 && pair <= pairs {
			return uint8(pair - 1)
		}
	}
	if q < pairs {
		return uint8(q)
	}
	return uint8(q % pairs)
}

// clear forgets all flows.
func (t *flowTable) clear() {
	for i := range t {
		t[i].Store(0)
	}
}
