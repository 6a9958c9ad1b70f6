package nvme

import (
	"sync"
	"sync/atomic"
	"syscall"

	"vfiouser/block"
)

// ramDisk is storage for a fuzzer: it is made and forgotten quickly, and fails when it is told to.
type ramDisk struct {
	failing [block.Discard + 1]atomic.Bool // by operation
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

func (d *ramDisk) Close() error { return nil }

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

// ramPool is a pool of such storage.
type ramPool struct {
	mu   sync.Mutex
	size int64
	used map[string]int64
}

func newRAMPool(size int64) *ramPool { return &ramPool{size: size, used: map[string]int64{}} }

func (p *ramPool) Capacity() (total, free int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	free = p.size
	for _, n := range p.used {
		free -= n
	}
	return p.size, free
}

func (p *ramPool) Create(name string, size int64) (block.Backend, error) {
	if _, free := p.Capacity(); size > free {
		return nil, block.ErrPoolFull
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[name] = size
	return newRAMDisk(size), nil
}

func (p *ramPool) Open(string) (block.Backend, error) { return nil, syscall.ENOENT }

func (p *ramPool) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, name)
	return nil
}

func (p *ramPool) Close() error { return nil }
