package netmodel

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"vfiouser/fuzz/choice"
	"vfiouser/test/holdings"
)

var (
	seedFlag  = flag.Uint64("seed", number("VFIOUSER_SEED"), "seed of one program; 0: a few fixed ones")
	stepsFlag = flag.Int("steps", int(number("VFIOUSER_STEPS")), "steps of each program; 0: 60")
)

func number(variable string) uint64 {
	n, _ := strconv.ParseUint(os.Getenv(variable), 0, 63)
	return n
}

// TestModel runs programs of seeds.
func TestModel(t *testing.T) {
	seeds, steps := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 60
	if *stepsFlag != 0 {
		steps = *stepsFlag
	}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			holdings.CheckLeaks(t)
			t.Logf("replay with -seed %d -steps %d", seed, steps)
			run(t, choice.FromSeed(seed, steps))
		})
	}
}

// FuzzVirtioNet runs programs that are inputs.
//
//fuzz:covers devices/virtio devices/virtio/virtqueue devices/virtio-net link/loop.go link/switch.go link/forward.go
func FuzzVirtioNet(f *testing.F) {
	rng := rand.NewChaCha8([32]byte{1})
	for range 12 {
		b := make([]byte, 500)
		_, _ = rng.Read(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		run(t, choice.FromBytes(program[:min(len(program), 2000)]))
	})
}

// run makes a world, has it go through a program, and looks whether all has arrived.
func run(t *testing.T, src *choice.Source) {
	w := newWorld(t, src)
	defer w.close()
	for steps := 0; src.More() && (steps < 100 || *stepsFlag != 0); steps++ {
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
	h := w.hosts[w.src.Intn(len(w.hosts))]
	k := w.src.Intn(32)
	i := slices.IndexFunc(operations, func(o operation) bool { return k < o.below })
	if testing.Verbose() {
		w.t.Logf("%x: %s", h.mac, operations[i].name)
	}
	operations[i].do(h)
}
