package hostile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vfiouser/client"
	driver "vfiouser/drivers/nvme"
)

const (
	// pace is the time between two operations of the healthy device. Its doorbells
	// are trapped and its completions interrupt, so it depends on both the reactor
	// and the worker.
	pace = 500 * time.Microsecond
	// progress is how many operations it must do while an attack lasts, if an operation is
	// small.
	progress = 20
)

// healthy is the device that nobody attacks, and its client.
type healthy struct {
	done   atomic.Int64 // operations
	worst  atomic.Int64 // longest of them, ns
	since  atomic.Int64 // beginning of the current one, ns after start
	start  time.Time
	few    int64        // in place of progress, if operations are large
	late   atomic.Int64 // the most by which somebody who slept came late, ns
	mu     sync.Mutex
	failed error
}

// newHealthy begins to work on the device at path until the test ends.
func newHealthy(t *testing.T, path string) *healthy {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	dev, err := client.Attach(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	mem, err := client.NewMemory(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	c, err := driver.Open(ctx, dev, mem, driver.WithDoorbells(driver.Trap))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &healthy{start: time.Now()}
	h.work(t, h.storage(c.Namespace(1)))
	return h
}

// work does something again and again until the test ends, or fails.
func (h *healthy) work(t *testing.T, round func(i uint64) error) {
	t.Helper()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for i := uint64(0); ; i++ {
			begin := time.Now()
			select {
			case <-stop:
				return
			case <-tick.C:
				h.woke(begin)
			}
			if err := round(i); err != nil {
				h.mu.Lock()
				h.failed = err
				h.mu.Unlock()
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
	})
	h.goesOn(t, h.mark()) // everything that it starts is there
}

// storage writes and reads back.
func (h *healthy) storage(n *driver.Namespace) func(i uint64) error {
	out, in := make([]byte, 2*pageSize), make([]byte, 2*pageSize)
	return func(i uint64) error {
		for k := 0; k < len(out); k += 8 {
			binary.LittleEndian.PutUint64(out[k:], (i<<16|uint64(k))*0x9e3779b97f4a7c15)
		}
		off := int64(i*uint64(len(out))) % diskSize
		err := h.timed(func() error { _, err := n.WriteAt(out, off); return err })
		if err == nil {
			err = h.timed(func() error { _, err := n.ReadAt(in, off); return err })
		}
		if err == nil && !bytes.Equal(in, out) {
			err = errors.New("read something else than was written")
		}
		return err
	}
}

func (h *healthy) timed(op func() error) error {
	begin := time.Since(h.start)
	h.since.Store(int64(begin))
	err := op()
	took := int64(time.Since(h.start) - begin)
	if took > h.worst.Load() {
		h.worst.Store(took)
	}
	h.done.Add(1)
	return err
}

func (h *healthy) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// handovers is how often one thread waits for another in an operation, about: each of them
// comes late on a machine that has too much to do.
const handovers = 20

// longest is what an operation may take at worst, on this machine at this time.
func (h *healthy) longest() time.Duration {
	return longestPause + handovers*time.Duration(h.late.Load())
}

// woke notes how late somebody is who began to sleep for a pace at the time given.
func (h *healthy) woke(begin time.Time) {
	late := int64(time.Since(begin) - pace)
	for was := h.late.Load(); late > was && !h.late.CompareAndSwap(was, late); was = h.late.Load() {
	}
}

// mark is the beginning of an attack.
func (h *healthy) mark() int64 {
	h.worst.Store(0)
	h.late.Store(0)
	return h.done.Load()
}

// goesOn waits for operations done since mark; each of them must be quick.
func (h *healthy) goesOn(t *testing.T, mark int64) {
	t.Helper()
	for h.done.Load() < mark+cmp.Or(h.few, progress) {
		if err := h.err(); err != nil {
			t.Fatalf("the healthy device: %v", err)
		}
		if since := time.Duration(h.since.Load()); time.Since(h.start)-since > 2*h.longest() {
			t.Fatalf("the healthy device stands still since %v", time.Since(h.start)-since)
		}
		begin := time.Now()
		time.Sleep(pace) // polls
		h.woke(begin)
	}
	h.unharmed(t, mark)
}

// unharmed checks all operations since mark.
func (h *healthy) unharmed(t *testing.T, mark int64) {
	t.Helper()
	if err := h.err(); err != nil {
		t.Fatalf("the healthy device: %v", err)
	}
	if worst := time.Duration(h.worst.Load()); worst > h.longest() {
		t.Errorf("an operation of the healthy device took %v; who sleeps comes up to %v late", worst, time.Duration(h.late.Load()))
	}
	if testing.Verbose() {
		t.Logf("healthy: %d operations, the longest %v", h.done.Load()-mark, time.Duration(h.worst.Load()))
	}
}

// stores is a client of the victim that behaves.
func (l *lab) stores(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dev, err := client.Attach(ctx, l.victim.Path())
	if err != nil {
		t.Fatalf("the victim afterwards: %v", err)
	}
	defer dev.Close()
	mem, err := client.NewMemory(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	c, err := driver.Open(ctx, dev, mem)
	if err != nil {
		t.Fatalf("the victim afterwards: %v", err)
	}
	for id := uint32(memNS); id <= fileNS; id++ {
		n := c.Namespace(id)
		out, in := bytes.Repeat([]byte{byte(id), 0x5a}, 8<<10), make([]byte, 16<<10)
		if _, err := n.WriteAt(out, 4096); err != nil {
			t.Errorf("the victim afterwards: %v", err)
		}
		if err := n.Flush(ctx); err != nil {
			t.Errorf("the victim afterwards: %v", err)
		}
		if _, err := n.ReadAt(in, 4096); err != nil || !bytes.Equal(in, out) {
			t.Errorf("the victim afterwards: %v, data correct: %v", err, bytes.Equal(in, out))
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("the victim afterwards: %v", err)
	}
}
