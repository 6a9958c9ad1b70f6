package virtio_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/engine"
)

// echo is the device of these tests: it answers each chain with what it has read, in
// reverse. Queue 0 is run by Serve, the others by a worker. It checks that the transport
// keeps the order of its calls.
type echo struct {
	kicks   []atomic.Int32 // calls of Notify
	running []atomic.Pointer[echoQueue]
	// refuse are features without which CheckFeatures accepts, and failStart what Start
	// returns.
	refuse    atomic.Uint64
	failStart atomic.Pointer[error]
	handle    atomic.Pointer[virtio.Handler]
	stopping  atomic.Pointer[func()] // called by Stop

	mu      sync.Mutex
	config  [echoConfigSize]byte
	log     []string
	wrong   []string
	started bool
	s       *virtio.Session
	servers map[int]*virtio.Server
	queues  map[int]*virtio.Queue
}

const echoConfigSize = 10

func newEcho(queues int) *echo {
	return &echo{
		kicks: make([]atomic.Int32, queues), running: make([]atomic.Pointer[echoQueue], queues),
		servers: map[int]*virtio.Server{}, queues: map[int]*virtio.Queue{},
	}
}

// echoed is what a message comes back as.
func echoed(message []byte) []byte {
	p := slices.Clone(message)
	slices.Reverse(p)
	return p
}

func (e *echo) note(format string, args ...any) {
	e.log = append(e.log, fmt.Sprintf(format, args...))
}

// calls gives the calls since the last time.
func (e *echo) calls() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	log := strings.Join(e.log, " ")
	e.log = nil
	return log
}

// queue is the one that runs now.
func (e *echo) queue(i int) *virtio.Queue {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queues[i]
}

// check fails the test if the order of calls was broken, or if the device runs.
func (e *echo) check(t testing.TB) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wrong {
		t.Error(w)
	}
	if e.started || len(e.queues) > 0 {
		t.Errorf("left running: %v, queues %v", e.started, e.queues)
	}
}

func (e *echo) ReadConfig(off int, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(p, e.config[off:])
}

func (e *echo) WriteConfig(off int, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(e.config[off:], p)
}

func (e *echo) CheckFeatures(accepted uint64) bool {
	return accepted&e.refuse.Load() == 0
}

func (e *echo) Start(s *virtio.Session, features uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started {
		e.wrong = append(e.wrong, "Start of a device that runs")
	}
	e.started = true
	e.s = s
	e.note("start(%s)", spec.FeatureNames(features))
	if err := e.failStart.Load(); err != nil {
		return *err
	}
	return nil
}

func (e *echo) Stop() {
	if f := e.stopping.Load(); f != nil {
		(*f)()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.started || len(e.queues) > 0 {
		e.wrong = append(e.wrong, "Stop of a device that does not run, or has queues")
	}
	e.started = false
	e.note("stop")
}

func (e *echo) StartQueue(i int, q *virtio.Queue) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.started || e.queues[i] != nil || q.Index() != i {
		e.wrong = append(e.wrong, fmt.Sprintf("StartQueue(%d) of queue %d out of order", i, q.Index()))
	}
	e.queues[i] = q
	if i == 0 || q.Remote() {
		e.note("+%dr", i)
		e.servers[i] = virtio.Serve(q, e.serve)
		return
	}
	e.note("+%d", i)
	s := &echoQueue{q: q, worker: e.s.Engine().Worker(0), chains: make([]virtqueue.Chain, 4)}
	e.running[i].Store(s)
	s.worker.Attach(s, e.s.Polling())
}

func (e *echo) StopQueue(i int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.queues[i] == nil {
		e.wrong = append(e.wrong, fmt.Sprintf("StopQueue(%d) out of order", i))
	}
	e.note("-%d", i)
	delete(e.queues, i)
	if s := e.servers[i]; s != nil {
		delete(e.servers, i)
		s.Stop()
		return
	}
	s := e.running[i].Swap(nil)
	s.worker.Detach(s)
}

func (e *echo) Notify(i int) {
	e.kicks[i].Add(1)
	if s := e.running[i].Load(); s != nil {
		s.worker.Kick(s)
	}
}

// serve is the handler of queue 0.
func (e *echo) serve(ctx context.Context, c *virtqueue.Chain) uint32 {
	if h := e.handle.Load(); h != nil {
		return (*h)(ctx, c)
	}
	return reflect(c)
}

// reflect writes the answer to a chain.
func reflect(c *virtqueue.Chain) uint32 {
	p := echoed(slices.Concat(c.Readable...))
	n := 0
	for _, w := range c.Writable {
		m := copy(w, p)
		n, p = n+m, p[m:]
	}
	return uint32(n)
}

// echoQueue runs a queue on a worker.
type echoQueue struct {
	q      *virtio.Queue
	worker *engine.Worker
	chains []virtqueue.Chain
}

func (s *echoQueue) Poll() int {
	if !s.q.Enter() {
		return 0
	}
	n, err := s.q.Take(s.chains)
	for i := range n {
		s.q.Push(&s.chains[i], reflect(&s.chains[i]))
	}
	interrupt := s.q.Publish()
	s.q.Exit()
	if err != nil {
		s.q.Fail(err)
	}
	if interrupt {
		s.q.Interrupt()
	}
	return n
}

func (s *echoQueue) Arm() bool {
	if !s.q.Enter() {
		return false
	}
	defer s.q.Exit()
	return s.q.Arm()
}

func (s *echoQueue) Disarm() {}

func (s *echoQueue) Fault(v any, stack []byte) { s.q.Fault(v, stack) }

var errRefused = errors.New("the device does not want to")
