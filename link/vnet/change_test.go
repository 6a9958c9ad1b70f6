package vnet_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

// A guest that changes a frame while it is finished gets what it deserves, but what is sent
// is always what was summed, and has the headers that were checked.
func TestAFrameThatChangesMeanwhile(t *testing.T) {
	// Not Go's memory: changing it under the reader is the very point.
	memory, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	rnd := rand.New(rand.NewPCG(23, 24))
	r := recipe{tags: 1, payload: 20000}
	data, h := r.frame(rnd)
	h.GSOSize = 1000
	copy(memory, data)
	memory = memory[:len(data)]

	var stop atomic.Bool
	var guest sync.WaitGroup
	guest.Go(func() {
		for n := byte(0); !stop.Load(); n++ {
			for i := 0; i < len(memory); i += 7 {
				if at := i % r.data(); n%2 == 0 {
					memory[at] = data[at] ^ n // a header
				}
				memory[i] += n
			}
			copy(memory[:r.data()], data)
		}
	})
	var s vnet.Scratch
	whole := 0
	for i := 0; i < 2000 || whole < 100; i++ {
		frames, _, reason := lower(&s, memory, [][]byte{memory}, h, vnet.OffloadNone)
		if reason != vnet.ReasonNone {
			continue
		}
		whole++
		for _, f := range frames {
			ip, l4 := f[r.network():], f[r.transport():]
			if internet(ip[:20]) != 0 || internet(r.pseudo(f, len(l4)), l4) != 0 || int(ip[2])<<8+int(ip[3]) != len(ip) {
				t.Fatalf("a segment that is not sound: %x", f)
			}
		}
	}
	stop.Store(true)
	guest.Wait()
}
