package machine

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	volleys = 20
	bounces = 50 // of a volley
)

// cacheLine is alone on its own, and on the one that is fetched with it.
type cacheLine struct {
	turn atomic.Uint64
	_    [120]byte
}

// Distance is how long a cache line takes from one CPU to another one and back, at best of
// several times: some tens of nanoseconds between two threads of a core, hundreds between sockets. A
// hypervisor that moves virtual CPUs changes it. 0: it is unknown, because the process may not use them.
func Distance(here, there int) time.Duration {
	var ball [2]cacheLine
	best := time.Duration(math.MaxInt64)
	var allowed atomic.Int32
	onCPU := func(cpu int, play func()) func() {
		return func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, pinned as it is
			if Pin(cpu) == nil {
				allowed.Add(1)
			}
			play()
		}
	}
	var both sync.WaitGroup
	both.Go(onCPU(there, func() {
		for turn := uint64(1); turn <= volleys*bounces; turn++ {
			for ball[0].turn.Load() != turn {
			}
			ball[1].turn.Store(turn)
		}
	}))
	both.Go(onCPU(here, func() {
		turn := uint64(0)
		for range volleys {
			begin := time.Now()
			for range bounces {
				turn++
				ball[0].turn.Store(turn)
				for ball[1].turn.Load() != turn {
				}
			}
			best = min(best, time.Since(begin)/bounces)
		}
	}))
	both.Wait()
	if allowed.Load() < 2 {
		return 0
	}
	return best
}
