package block

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"sync"
)

// ErrPoolFull: a pool has not got as many bytes left.
var ErrPoolFull = errors.New("block: pool is full")

// Pool is storage that backends are cut out of while the program runs. What one of them may
// grow to is set aside for it at once, so its writes do not fail for want of space in the pool.
// All methods may be called from any goroutine.
//
// A name has up to 64 letters of ASCII, digits, dots, hyphens and underscores, and begins with
// a letter or a digit; another is refused with ErrSpec.
type Pool interface {
	// Capacity returns how many bytes there are, and how many are not set aside.
	Capacity() (total, free int64)
	// Create makes a backend of size bytes that reads as zeroes. It is a Resizer. Errors
	// have fs.ErrExist for a name that is taken, ErrPoolFull, or the storage's.
	Create(name string, size int64) (Backend, error)
	// Open returns what Create made earlier, in this process or, where the pool outlives it,
	// in another. Errors have fs.ErrNotExist, or ErrInUse while it is open.
	Open(name string) (Backend, error)
	// Remove gives the storage back. Errors have fs.ErrNotExist, or ErrInUse while it is open,
	// here or in another process.
	Remove(name string) error
	// Close ends the pool. Backends that are open can be used further but cannot change
	// their size. Closing again does nothing.
	Close() error
}

// OpenPool makes a pool out of a text:
//
//	mem:SIZE         memory; what is in it is gone with the process
//	dir:PATH:SIZE    a sparse file for each backend, NAME.volume in a directory, which
//	                 is one process' at a time (ErrInUse)
//
// SIZE is what all backends may have together, as in Open. Errors are *OpenError.
func OpenPool(spec string) (Pool, error) {
	open, err := readPool(spec)
	if err == nil {
		var p *pool
		if p, err = open(); err == nil {
			return p, nil
		}
	}
	return nil, &OpenError{Spec: "pool " + spec, Err: err}
}

// CheckPool tells what is wrong with a text that is meant for OpenPool. It looks at the text
// only. Errors are *OpenError, with ErrSpec.
func CheckPool(spec string) error {
	if _, err := readPool(spec); err != nil {
		return &OpenError{Spec: "pool " + spec, Err: err}
	}
	return nil
}

func readPool(spec string) (open func() (*pool, error), err error) {
	kind, arg, _ := strings.Cut(spec, ":")
	var path string
	switch kind {
	case "mem":
	case "dir":
		at := strings.LastIndexByte(arg, ':')
		if at <= 0 {
			return nil, because(ErrSpec, "write dir:PATH:SIZE, for example dir:/srv/namespaces:16G")
		}
		path, arg = arg[:at], arg[at+1:]
	default:
		return nil, because(ErrSpec, "unknown kind of pool %q; write mem:SIZE or dir:PATH:SIZE, for example mem:16G", kind)
	}
	size, err := parseSize(arg)
	if err != nil {
		return nil, err
	}
	return func() (*pool, error) {
		p := &pool{total: size, volumes: map[string]*volume{}}
		if kind == "mem" {
			p.store = memoryStore{}
			return p, nil
		}
		return p, openDirectory(p, path)
	}, nil
}

// store is where a pool has its volumes.
type store interface {
	create(v *volume) (Backend, error)
	open(v *volume) (Backend, error)
	remove(v *volume) error
	close() error
}

// pool keeps the books; its store does the rest.
type pool struct {
	store store
	total int64

	mu      sync.Mutex
	volumes map[string]*volume
	closed  bool
}

// volume is what a pool knows of one backend. pool.mu guards it.
type volume struct {
	pool *pool
	name string
	size int64 // bytes set aside
	open bool
	mem  *mapping // of a memoryStore
}

func checkName(name string) error {
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune(".-_", rune(c))) {
			return because(ErrSpec, "bad name %q: it has letters, digits, and behind the first one also dots, hyphens and underscores", name)
		}
	}
	if name == "" || len(name) > 64 {
		return because(ErrSpec, "bad name %q: it has 1 to 64 characters", name)
	}
	return nil
}

// used is how many bytes are set aside. p.mu is held.
func (p *pool) used() (n int64) {
	for _, v := range p.volumes {
		if v.size > math.MaxInt64-n {
			return math.MaxInt64
		}
		n += v.size
	}
	return n
}

// free is how many are not. A directory may hold more than the pool has. p.mu is held.
func (p *pool) free() int64 { return max(0, p.total-p.used()) }

func (p *pool) Capacity() (total, free int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total, p.free()
}

// fits says whether n more bytes can be set aside. p.mu is held.
func (p *pool) fits(n int64) error {
	if free := p.free(); n > free {
		return fmt.Errorf("%w: %d of %d bytes are free, and %d were asked for", ErrPoolFull, free, p.total, n)
	}
	return nil
}

// look finds a volume by its name. p.mu is held.
func (p *pool) look(name string) (*volume, error) {
	if p.closed {
		return nil, ErrClosed
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	return p.volumes[name], nil
}

// closedVolume finds a volume that nobody has open. p.mu is held.
func (p *pool) closedVolume(name string) (*volume, error) {
	v, err := p.look(name)
	switch {
	case err != nil:
		return nil, err
	case v == nil:
		return nil, fmt.Errorf("block: volume %s: %w", name, fs.ErrNotExist)
	case v.open:
		return nil, fmt.Errorf("block: volume %s: %w", name, ErrInUse)
	}
	return v, nil
}

func (p *pool) Create(name string, size int64) (Backend, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, err := p.look(name)
	switch {
	case err != nil:
	case v != nil:
		err = fmt.Errorf("block: volume %s: %w", name, fs.ErrExist)
	default:
		if err = checkSize(size); err == nil {
			err = p.fits(size)
		}
	}
	if err != nil {
		return nil, err
	}
	v = &volume{pool: p, name: name, size: size}
	b, err := p.store.create(v)
	if err != nil {
		return nil, err
	}
	v.open = true
	p.volumes[name] = v
	return b, nil
}

func (p *pool) Open(name string) (Backend, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, err := p.closedVolume(name)
	if err != nil {
		return nil, err
	}
	b, err := p.store.open(v)
	if err != nil {
		return nil, err
	}
	v.open, v.size = true, b.Size()
	return b, nil
}

func (p *pool) Remove(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, err := p.closedVolume(name)
	if err != nil {
		return err
	}
	if err := p.store.remove(v); err != nil {
		return err
	}
	delete(p.volumes, name)
	return nil
}

func (p *pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.store.close()
}

// resize has do change a backend's size to that many bytes, and keeps the books if it belongs
// to a pool.
func (v *volume) resize(size int64, do func() error) error {
	if v == nil {
		return do()
	}
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	if v.pool.closed {
		return ErrClosed
	}
	if more := size - v.size; more > 0 {
		if err := v.pool.fits(more); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	v.size = size
	return nil
}

// close notes that the backend has been closed.
func (v *volume) close() {
	v.pool.mu.Lock()
	defer v.pool.mu.Unlock()
	v.open = false
}

// memoryStore keeps volumes in memory for as long as the pool knows them.
type memoryStore struct{}

func (memoryStore) create(v *volume) (Backend, error) {
	var err error
	if v.mem, err = newMapping(v.size); err != nil {
		return nil, because(err, "cannot reserve %d bytes of memory: %v", v.size, err)
	}
	return v.mem.backend(v.size, v), nil
}

func (memoryStore) open(v *volume) (Backend, error) { return v.mem.backend(v.size, v), nil }

func (memoryStore) remove(v *volume) error {
	v.mem.empty()
	return nil
}

func (memoryStore) close() error { return nil }
