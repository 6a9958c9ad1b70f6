package hostile

import (
	"sync"

	"vfiouser/block"
)

// gate is a backend that can hold back its requests: they are in flight then for as
// long as a test wants.
type gate struct {
	block.Backend

	mu     sync.Mutex
	closed bool
	held   []*block.Request
}

func (g *gate) Submit(r *block.Request) (bool, error) {
	g.mu.Lock()
	if g.closed {
		g.held = append(g.held, r)
		g.mu.Unlock()
		return false, nil
	}
	g.mu.Unlock()
	return g.Backend.Submit(r)
}

// shut holds back what comes from now on.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// waiting is how many requests are held back.
func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held)
}

// open lets everything through.
func (g *gate) open() {
	g.mu.Lock()
	held := g.held
	g.closed, g.held = false, nil
	g.mu.Unlock()
	for _, r := range held {
		if done, err := g.Backend.Submit(r); done {
			r.Completer.CompleteBlock(r, err)
		}
	}
}
