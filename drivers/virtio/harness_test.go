package virtio

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vfiouser/client"
	device "vfiouser/devices/virtio"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/engine"
)

const (
	testTimeout = 20 * time.Second
	testType    = 42
	testQueues  = 3
	testConfig  = 16 // bytes
	ownFeature  = 1 << 3
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// echoer is a device on this project's transport whose queues answer with the complement of what they read.
type echoer struct {
	device.BaseDevice
	servers [testQueues]*device.Server
	refuse  atomic.Bool // features

	mu     sync.Mutex
	config [testConfig]byte
}

func (e *echoer) StartQueue(i int, q *device.Queue) { e.servers[i] = device.Serve(q, complement) }
func (e *echoer) StopQueue(i int)                   { e.servers[i].Stop() }
func (e *echoer) CheckFeatures(uint64) bool         { return !e.refuse.Load() }

func (e *echoer) ReadConfig(off int, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(p, e.config[off:])
}

func (e *echoer) WriteConfig(off int, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(e.config[off:], p)
}

func complement(_ context.Context, c *virtqueue.Chain) (written uint32) {
	var in []byte
	for _, b := range c.Readable {
		in = append(in, b...)
	}
	for _, b := range c.Writable {
		for i := 0; i < len(b) && len(in) > 0; i++ {
			b[i] = ^in[0]
			in = in[1:]
			written++
		}
	}
	return written
}

// machine is the device behind an engine, and a client attached to it.
type machine struct {
	dev      *client.Device
	mem      *client.Memory
	endpoint *engine.Endpoint
	function *device.Function
	echo     *echoer
}

func newMachine(t testing.TB, cfg device.Config) *machine {
	t.Helper()
	m := &machine{echo: &echoer{}}
	if cfg.Type == 0 {
		cfg.Type = testType
	}
	cfg.Class, cfg.Queues, cfg.ConfigSize = 0xff0000, testQueues, testConfig
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	if m.function, err = device.New(cfg, m.echo); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.function.Close() })
	if m.endpoint, err = eng.Register(filepath.Join(t.TempDir(), "virtio"), m.function); err != nil {
		t.Fatal(err)
	}
	if err := m.endpoint.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.endpoint.Close() })
	if m.dev, err = client.Attach(testContext(t), m.endpoint.Path()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.dev.Close() })
	if m.mem, err = client.NewMemory(4 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.mem.Close() })
	return m
}

func (m *machine) open(t testing.TB, o Options) *Device {
	t.Helper()
	d, err := Open(testContext(t), m.dev, m.mem, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// checkFreed fails the test if the driver has left something in the memory, or has not unmapped it.
func (m *machine) checkFreed(t testing.TB) {
	t.Helper()
	if whole, err := m.mem.Alloc(m.mem.Size(), 0); err != nil {
		t.Error("memory was not given back:", err)
	} else {
		m.mem.Free(whole)
	}
	if _, mapped := m.dev.MappingOf(m.mem); mapped && m.dev.Err() == nil {
		t.Error("the memory is still mapped")
	}
}

// ready negotiates features, makes queue 0 and starts the device.
func ready(t testing.TB, d *Device, features uint64, cfg QueueConfig) *Queue {
	t.Helper()
	if err := d.Negotiate(testContext(t), features); err != nil {
		t.Fatal(err)
	}
	q, err := d.NewQueue(testContext(t), 0, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return q
}

// roundTrip sends words through a queue with interrupts and checks what comes back.
func roundTrip(t testing.TB, d *Device, q *Queue, rounds int) {
	t.Helper()
	buf, err := d.alloc(8192, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.mem.Free(buf)
	done := make([]Used, 8)
	for round := range rounds {
		n := 1 + round%5
		for i := range n {
			at := uint64(i) * 64
			binary.LittleEndian.PutUint64(buf.Bytes[at:], uint64(round)<<8|uint64(i))
			if err := q.Add(uint32(i), []Segment{{d.Addr(buf) + at, 8}}, []Segment{{d.Addr(buf) + 4096 + at, 16}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Kick(); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < n; {
			k, err := q.Reap(done)
			if err == nil && k == 0 {
				err = q.Wait(testContext(t))
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range done[:k] {
				answer := binary.LittleEndian.Uint64(buf.Bytes[4096+64*u.Token:])
				if u.Len != 8 || answer != ^(uint64(round)<<8|uint64(u.Token)) {
					t.Fatalf("round %d: %+v %#x", round, u, answer)
				}
			}
			got += k
		}
	}
}
