package bench

import (
	"runtime"
	"sync"
	"sync/atomic"

	"vfiouser/bench/machine"
	"vfiouser/dma"
)

// laneSize is how many entries a lane has, the most that can be under way.
const laneSize = 256

// lane is a ring by which one core hands entries to another, as a device's queue is: each is so
// many bytes, and its last eight say, by the number that it has, from 1 on, that it is there. Who
// hands over several writes the first of them last. That one is looked at by the other core
// meanwhile, and takes its cache line away with it at each look.
type lane struct {
	entries []byte
	size    uint64 // of an entry, bytes
}

func newLane(env *Env, size int) (lane, error) {
	entries, err := anonymous(env, laneSize*size) // (and not the heap: see dma/access_unsafe.go)
	return lane{entries, uint64(size)}, err
}

// entry is that of a number. It is written before put, and read after there.
func (l *lane) entry(number uint64) []byte {
	at := number % laneSize * l.size
	return l.entries[at : at+l.size]
}

// put hands over n entries from a number on.
func (l *lane) put(number uint64, n int) {
	for i := uint64(n); i > 0; i-- {
		dma.StoreRelease64(l.entry(number+i-1), int(l.size-8), number+i-1)
	}
}

// there says how many entries have come from a number on, at most some.
func (l *lane) there(number uint64, most int) (n int) {
	for n < most && dma.Load64(l.entry(number+uint64(n)), int(l.size-8)) == number+uint64(n) {
		n++
	}
	return n
}

// beside runs work on a device's CPU until the end of env. Work returns soon once stop says so.
func beside(env *Env, work func(stop *atomic.Bool)) {
	var stop atomic.Bool
	var other sync.WaitGroup
	other.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, pinned as it is
		if len(env.DeviceCPUs) > 0 {
			_ = machine.Pin(env.DeviceCPUs[0]) // else it is where it is
		}
		work(&stop)
	})
	env.Cleanup(func() {
		stop.Store(true)
		other.Wait()
	})
}
