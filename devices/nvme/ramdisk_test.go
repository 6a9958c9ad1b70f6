package nvme

import (
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"

	"vfiouser/block"
)

// ramDisk is storage for a fuzzer: it is made and forgotten quickly, and fails when it is told to.
type ramDisk struct {
	failing [block.Discard + 1]atomic.Bool // by operation
	closed  atomic.Bool
	mu      sync.Mutex
	content []byte
}

func newRAMDisk(size int64) *ramDisk { return &ramDisk{content: make([]byte, size)} }

func (d *ramDisk) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.content))
}

func (d *ramDisk) Info() block.Info {
	return block.Info{Kind: "test", Private: true, CanDiscard: true, VolatileCache: true}
}

func (d *ramDisk) Close() error {
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
	if d.failing[r.Op].Load() {
		return true, &block.Error{Op: r.Op, Offset: r.Offset, Length: r.Length, Err: syscall.EIO}
	}
	if r.Op == block.Flush {
		return true, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Offset < 0 || r.Length < 0 || r.Offset > int64(len(d.content))-r.Length {
		return true, block.ErrRange
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
			return true, block.ErrRequest
		}
	}
	return true, nil
}

// ramPool is a pool of such storage. What is in it outlives a subsystem.
type ramPool struct {
	mu   sync.Mutex
	size int64
	used map[string]*ramDisk
}

func newRAMPool(size int64) *ramPool { return &ramPool{size: size, used: map[string]*ramDisk{}} }

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
	p.used[name] = newRAMDisk(size)
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
