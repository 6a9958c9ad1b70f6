package nvme

import (
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"vfiouser/block"
)

// ramDisk is storage for a fuzzer: it is made and forgotten quickly, and fails when it is told to.
type ramDisk struct {
	failing [block.Discard + 1]atomic.Bool // by operation
	closed  atomic.Bool
	// slow: requests end some time after they were submitted, in another order, and until then
	// they can be taken back.
	slow bool

	mu      sync.Mutex
	content []byte
	waiting []*block.Request
	busy    chan struct{} // closed when nothing waits any more; nil: nothing does
	turns   uint32        // of a generator: how long, and in what order
}

func newRAMDisk(size int64, slow bool) *ramDisk {
	return &ramDisk{content: make([]byte, size), slow: slow, turns: uint32(size)}
}

func (d *ramDisk) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.content))
}

func (d *ramDisk) Info() block.Info {
	return block.Info{Kind: "test", Async: d.slow, Private: true, CanDiscard: true, VolatileCache: true}
}

func (d *ramDisk) Close() error {
	d.mu.Lock()
	busy := d.busy
	d.mu.Unlock()
	if busy != nil {
		<-busy
	}
	d.closed.Store(true)
	return nil
}

func (d *ramDisk) Resize(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := make([]byte, size)
	copy(next, d.content)
	d.content = next
	return nil
}

func (d *ramDisk) Submit(r *block.Request) (done bool, err error) {
	if !d.slow {
		return true, d.execute(r)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = append(d.waiting, r)
	if d.busy == nil {
		d.busy = make(chan struct{})
		go d.serve()
	}
	return false, nil
}

// turn is a number below n.
func (d *ramDisk) turn(n int) int {
	d.turns = d.turns*1664525 + 1013904223
	return int(d.turns>>16) % n
}

// serve ends what waits.
func (d *ramDisk) serve() {
	for {
		d.mu.Lock()
		rounds := d.turn(8)
		d.mu.Unlock()
		for range rounds {
			runtime.Gosched()
		}
		d.mu.Lock()
		if len(d.waiting) == 0 {
			close(d.busy)
			d.busy = nil
			d.mu.Unlock()
			return
		}
		i := d.turn(len(d.waiting))
		r := d.waiting[i]
		d.waiting = slices.Delete(d.waiting, i, i+1)
		d.mu.Unlock()
		r.Completer.CompleteBlock(r, d.execute(r))
	}
}

// Cancel takes back a request that waits.
func (d *ramDisk) Cancel(r *block.Request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.waiting)
	d.waiting = slices.DeleteFunc(d.waiting, func(x *block.Request) bool { return x == r })
	return len(d.waiting) < before
}

func (d *ramDisk) execute(r *block.Request) error {
	if d.failing[r.Op].Load() {
		return &block.Error{Op: r.Op, Offset: r.Offset, Length: r.Length, Err: syscall.EIO}
	}
	if r.Op == block.Flush {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Offset < 0 || r.Length < 0 || r.Offset > int64(len(d.content))-r.Length {
		return block.ErrRange
	}
	p := d.content[r.Offset:][:r.Length]
	switch r.Op {
	case block.WriteZeroes, block.Discard:
		clear(p)
	default:
		for _, b := range r.Buffers {
			if r.Op == block.Read {
				copy(b, p)
			} else {
				copy(p, b)
			}
			p = p[len(b):]
		}
		if len(p) > 0 {
			return block.ErrRequest
		}
	}
	return nil
}

// ramPool is a pool of such storage. What is in it outlives a subsystem.
type ramPool struct {
	mu   sync.Mutex
	size int64
	slow bool // what is made
	used map[string]*ramDisk
}

func newRAMPool(size int64, slow bool) *ramPool {
	return &ramPool{size: size, slow: slow, used: map[string]*ramDisk{}}
}

func (p *ramPool) Capacity() (total, free int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	free = p.size
	for _, d := range p.used {
		free -= d.Size()
	}
	return p.size, free
}

func (p *ramPool) Create(name string, size int64) (block.Backend, error) {
	if _, free := p.Capacity(); size > free {
		return nil, block.ErrPoolFull
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[name] = newRAMDisk(size, p.slow)
	return p.used[name], nil
}

func (p *ramPool) Open(name string) (block.Backend, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.used[name]
	switch {
	case d == nil:
		return nil, fs.ErrNotExist
	case !d.closed.Swap(false):
		return nil, block.ErrInUse
	}
	return d, nil
}

func (p *ramPool) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used[name] == nil {
		return fs.ErrNotExist
	}
	delete(p.used, name)
	return nil
}

func (p *ramPool) Close() error { return nil }
