package hostile

import (
	"testing"

	virtionet "vfiouser/devices/virtio-net"
	ring "vfiouser/devices/virtio/spec"
)

const (
	// longChain is the victim's largest ring as one chain of buffers of a byte.
	longChain = 32768
	// manyChains is how many of them there are at once, more than a worker takes at once.
	manyChains = 65
)

// Chains of as many buffers as there can be. What a client may put into a batch must not
// hold the worker.
func TestVirtioNetLongChains(t *testing.T) {
	l := newNetLab(t, virtionet.Config{QueueSize: longChain})
	for _, layout := range layouts {
		for _, c := range []struct {
			name   string
			queue  int
			chains int
		}{
			{"sent, one chain that is the ring", txQueue, 1},
			{"sent, many chains", txQueue, manyChains},
			{"buffers, one chain that is the ring", rxQueue, 1},
			{"buffers, many chains", rxQueue, manyChains},
		} {
			l.attack(t, layout.name+", "+c.name, func(a *attack) {
				defer l.neighbours.underFlood()()
				g := a.newNetRig(64 << 20)
				g.start(layout.features|netFeatures, longChain)
				q := g.rings[c.queue]
				g.frame(foreign(longChain - g.header()))
				list := make([]buf, longChain)
				for i := range list {
					list[i] = buf{ramBase + g.data + uint64(i), 1, ring.DescWrite * uint16(1-c.queue)}
				}
				if c.chains == 1 {
					q.put(list...)
				} else {
					table := q.table(g.ram.alloc(longChain*ring.DescSize), list...)
					for range c.chains {
						q.put(table)
					}
				}
				q.kick()
				q.until(c.chains)
			})
		}
	}
}
