package nvme

import (
	"sync"
	"sync/atomic"

	"vfiouser/block"
)

// slowBackend is an asynchronous backend whose requests end when the test says so.
type slowBackend struct {
	block.Backend
	hold atomic.Bool // requests wait for release
	// stubborn: it gives no request back.
	stubborn bool
	fail     func(*block.Request) error
	flushes  atomic.Int32

	mu      sync.Mutex
	waiting []*block.Request
}

func holding(of block.Backend) *slowBackend {
	b := &slowBackend{Backend: of}
	b.hold.Store(true)
	return b
}

func (b *slowBackend) Info() block.Info {
	return block.Info{Kind: "slow", Async: true, VolatileCache: true, CanDiscard: true}
}

func (b *slowBackend) Submit(r *block.Request) (bool, error) {
	if r.Op == block.Flush {
		b.flushes.Add(1)
	}
	if b.fail != nil {
		if err := b.fail(r); err != nil {
			return true, err
		}
	}
	if !b.hold.Load() {
		return b.Backend.Submit(r)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, r)
	return false, nil
}

// held is the number of requests that wait.
func (b *slowBackend) held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

// release ends what waits, in its own goroutine as a backend does.
func (b *slowBackend) release() {
	b.mu.Lock()
	list := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	for _, r := range list {
		_, err := b.Backend.Submit(r)
		r.Completer.CompleteBlock(r, err)
	}
}
