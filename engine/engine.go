package engine

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// Config configures an Engine. The zero value works.
type Config struct {
	// Logger receives what happens to endpoints and sessions, never single
	// operations. nil discards.
	Logger *slog.Logger
	// Reactor drives the sockets; nil starts one that the engine owns.
	Reactor *reactor.Reactor
	// Workers is the number of workers; 0 means one fewer than there are CPUs, at
	// least one. A worker's goroutine starts with its first source.
	Workers int
	// WorkerCPUs pins worker i to CPU WorkerCPUs[i]. Missing entries leave workers
	// where the scheduler puts them.
	WorkerCPUs []int
	// SpinTime is how long a worker looks for work before it sleeps; it adapts within
	// a factor of eight. 0 means 50 µs.
	SpinTime time.Duration
	// NegotiateTimeout bounds the time from connect to VERSION. 0 means 5 s.
	NegotiateTimeout time.Duration
	// WriteTimeout bounds how long a client may leave replies unread. 0 means 10 s.
	WriteTimeout time.Duration
	// WriteMultiple offers write_multiple to a client that offers it. REGION_WRITE_MULTI is
	// served in any case. QEMU (as of 11.1) queues writes to a server that offers it.
	WriteMultiple bool
	// NoTwinSocket has DMA messages on the socket that the client connected even if the
	// client offers a second one for them.
	NoTwinSocket bool
	// DMATimeout bounds how long a client may leave a DMA_READ or DMA_WRITE
	// unanswered. 0 means 10 s.
	DMATimeout time.Duration
	// MaxMigrationData bounds the bytes that a client may write as the state of a device.
	// They are not kept: a device bounds what it keeps by itself. 0 means 64 GiB.
	MaxMigrationData int64
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Workers == 0 {
		c.Workers = max(1, runtime.NumCPU()-1)
	}
	c.SpinTime = cmp.Or(c.SpinTime, 50*time.Microsecond)
	c.NegotiateTimeout = cmp.Or(c.NegotiateTimeout, 5*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.DMATimeout = cmp.Or(c.DMATimeout, 10*time.Second)
	c.MaxMigrationData = cmp.Or(c.MaxMigrationData, 64<<30)
	return c
}

// ErrClosed is returned by what needs an engine, endpoint or session that is closed.
var ErrClosed = errors.New("engine: closed")

// Engine serves any number of devices with one reactor and a few workers. Its
// methods may be called from any goroutine but the reactor's.
type Engine struct {
	cfg        Config
	log        *slog.Logger
	reactor    *reactor.Reactor
	ownReactor bool
	workers    []*Worker
	rx         receiver // reactor only
	commands   [codec.NumCommands]command
	features   map[codec.FeatureFlags]feature

	mu        sync.Mutex
	closed    bool
	endpoints []*Endpoint
}

// New starts an engine. It raises GOMAXPROCS to the number of workers plus two if it
// is lower: spinning workers must leave a P for the reactor.
func New(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if cfg.Workers < 0 {
		return nil, fmt.Errorf("engine: %d workers", cfg.Workers)
	}
	e := &Engine{cfg: cfg, log: cfg.Logger, reactor: cfg.Reactor, commands: commandTable(), features: featureTable()}
	for i := range cfg.Workers {
		cpu := -1
		if i < len(cfg.WorkerCPUs) {
			cpu = cfg.WorkerCPUs[i]
		}
		w, err := newWorker(cfg.SpinTime, cpu)
		if err != nil {
			e.closeWorkers()
			return nil, fmt.Errorf("engine: worker: %w", err)
		}
		e.workers = append(e.workers, w)
	}
	if runtime.GOMAXPROCS(0) < cfg.Workers+2 {
		runtime.GOMAXPROCS(cfg.Workers + 2)
	}
	if e.reactor == nil {
		r, err := reactor.New(reactor.Config{Logger: cfg.Logger})
		if err != nil {
			e.closeWorkers()
			return nil, fmt.Errorf("engine: reactor: %w", err)
		}
		e.reactor, e.ownReactor = r, true
	}
	return e, nil
}

// Close closes every endpoint, waits for their clients' I/O to end, and stops the
// workers and the reactor if it is the engine's own. It is idempotent.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	endpoints := slices.Clone(e.endpoints)
	e.mu.Unlock()
	var errs []error
	for _, ep := range endpoints {
		errs = append(errs, ep.Close())
	}
	e.closeWorkers()
	if e.ownReactor {
		errs = append(errs, e.reactor.Close())
	}
	return errors.Join(errs...)
}

func (e *Engine) closeWorkers() {
	for _, w := range e.workers {
		w.close()
	}
}

// Endpoint finds the endpoint that is registered on a socket path, nil if there is none.
func (e *Engine) Endpoint(path string) *Endpoint {
	for _, ep := range e.Endpoints() {
		if !ep.addr.inherited && ep.addr.path == path {
			return ep
		}
	}
	return nil
}

// Endpoints are those that are registered and not closed, in the order of registration.
func (e *Engine) Endpoints() []*Endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.endpoints)
}

// NumWorkers returns the number of workers.
func (e *Engine) NumWorkers() int { return len(e.workers) }

// Worker returns worker i.
func (e *Engine) Worker(i int) *Worker { return e.workers[i] }

// PickWorker returns the worker with the fewest sources.
func (e *Engine) PickWorker() *Worker {
	return slices.MinFunc(e.workers, func(a, b *Worker) int {
		return len(*a.list.Load()) - len(*b.list.Load())
	})
}

// The kernel lets a process have 65,530 mappings (vm.max_map_count), and the Go runtime
// dies when it can have no more. Half of them are for clients, in equal shares.
const (
	clientMmaps = 32 << 10
	maxMmaps    = 1024 // a client needs a few
	minMmaps    = 16
)

// mmapShare is how many files, or parts of files, one client may have mapped here.
func (e *Engine) mmapShare() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return max(minMmaps, min(maxMmaps, clientMmaps/max(1, len(e.endpoints))))
}

func (e *Engine) remove(ep *Endpoint) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endpoints = slices.DeleteFunc(e.endpoints, func(x *Endpoint) bool { return x == ep })
}
