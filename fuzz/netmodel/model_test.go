package netmodel

import (
	"slices"
	"testing"

	"vfiouser/fuzz/choice"
	"vfiouser/test/holdings"
)

// TestModel runs programs of seeds.
func TestModel(t *testing.T) {
	choice.Programs(t, 12, 60, func(t *testing.T, src *choice.Source) {
		holdings.CheckLeaks(t)
		run(t, src)
	})
}

// FuzzVirtioNet runs programs that are inputs.
//
//fuzz:covers devices/virtio devices/virtio/virtqueue devices/virtio-net link/loop.go link/switch.go link/forward.go
func FuzzVirtioNet(f *testing.F) {
	choice.Corpus(f, 12, 500)
	f.Fuzz(func(t *testing.T, program []byte) {
		run(t, choice.FromBytes(program[:min(len(program), 2000)]))
	})
}

// run makes a world, has it go through a program, an input's up to 100 steps, and looks whether all
// has arrived.
func run(t *testing.T, src *choice.Source) {
	w := newWorld(t, src)
	defer w.close()
	for steps := 0; src.More() && (src.Seeded() || steps < 100); steps++ {
		w.step()
	}
	for _, h := range w.hosts {
		if h.stalled {
			h.stall()
		}
	}
	for _, h := range w.hosts {
		h.settle()
	}
	for _, h := range w.hosts {
		h.drain()
		h.count()
	}
}

// operations are what there is to do; below says how often, of 32.
var operations = []operation{
	{12, "send", (*host).send}, {16, "drain", (*host).drain}, {21, "command", (*host).command}, {22, "count", (*host).count},
	{24, "reopen", (*host).reopen}, {25, "reconnect", (*host).reconnect}, {27, "reset a queue", (*host).resetQueue},
	{29, "unmap", (*host).unmap}, {31, "stall", (*host).stall}, {32, "carrier", (*host).carrier},
}

type operation struct {
	below int
	name  string
	do    func(*host)
}

// step is one operation.
func (w *world) step() {
	w.watchdog.Reset(patience)
	h := w.hosts[w.src.Intn(len(w.hosts))]
	k := w.src.Intn(32)
	i := slices.IndexFunc(operations, func(o operation) bool { return k < o.below })
	if testing.Verbose() {
		w.t.Logf("%x: %s", h.mac, operations[i].name)
	}
	operations[i].do(h)
}
