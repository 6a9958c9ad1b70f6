package nvme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

func TestDoorbellModes(t *testing.T) {
	for _, test := range []struct {
		device device.DoorbellMode
		ask    DoorbellMode
		want   DoorbellMode
		err    error
	}{
		{device.Auto, Auto, Shadow, nil},
		{device.Shadow, Auto, Shadow, nil},
		{device.Shadow, Trap, Trap, nil},
		{device.Shadow, Mapped, 0, ErrUnsupported},
		{device.Trap, Auto, Trap, nil},
		{device.Trap, Shadow, 0, ErrUnsupported},
		{device.Mmap, Auto, Mapped, nil},
		{device.Mmap, Mapped, Mapped, nil},
		{device.Mmap, Trap, Trap, nil},
	} {
		for _, byMessage := range []bool{false, true} {
			name := fmt.Sprintf("device %v, driver %v", test.device, test.ask)
			if byMessage {
				name += ", memory by message"
			}
			t.Run(name, func(t *testing.T) {
				holdings.CheckLeaks(t)
				d := newDisk(t, device.Config{Doorbells: test.device})
				if byMessage {
					if err := d.dev.MapDMA(testContext(t), d.mem.At(1<<20).ByMessage()); err != nil {
						t.Fatal(err)
					}
				}
				c, err := Open(testContext(t), d.dev, d.mem, WithDoorbells(test.ask))
				if !errors.Is(err, test.err) {
					t.Fatal(err)
				}
				if err != nil {
					return
				}
				defer c.Close()
				if c.Doorbells() != test.want {
					t.Errorf("driver chose %v", c.Doorbells())
				}
				p, q := make([]byte, 200<<10), make([]byte, 200<<10)
				pattern(p, 1)
				if _, err := c.Namespace(1).WriteAt(p, 4096); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Namespace(1).ReadAt(q, 4096); err != nil || !bytes.Equal(p, q) {
					t.Error("data differs:", err)
				}
			})
		}
	}
}

// run has a queue write, then read and compare, count transfers of blocks blocks.
func run(t *testing.T, q *Queue, n *Namespace, count int, blocks uint32) {
	t.Helper()
	ctx := testContext(t)
	done := make([]Completion, q.Depth())
	size := int(blocks) * n.BlockSize()
	for _, write := range []bool{true, false} {
		at := make([]int, q.Depth()) // which transfer a tag carries
		next, finished := 0, 0
		submit := func(tag uint16) {
			if next == count {
				return
			}
			at[tag] = next
			op := q.Read
			if write {
				op = q.Write
				pattern(q.Buffer(tag)[:size], uint64(next))
			} else {
				clear(q.Buffer(tag)[:size])
			}
			if err := op(tag, n, uint64(next)*uint64(blocks), blocks); err != nil {
				t.Fatal(err)
			}
			next++
		}
		for tag := range uint16(q.Depth()) {
			submit(tag)
		}
		want := make([]byte, size)
		for finished < count {
			if err := q.Ring(); err != nil {
				t.Fatal(err)
			}
			k, err := q.Poll(done)
			if err != nil {
				t.Fatal(err)
			}
			if k == 0 && q.Interrupts() {
				if err := q.Wait(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if ctx.Err() != nil {
				t.Fatalf("%d of %d finished", finished, count)
			}
			for _, c := range done[:k] {
				if c.Err() != nil {
					t.Fatal(c.Err())
				}
				if pattern(want, uint64(at[c.Tag])); !write && !bytes.Equal(want, q.Buffer(c.Tag)[:size]) {
					t.Fatalf("transfer %d differs", at[c.Tag])
				}
				finished++
				submit(c.Tag)
			}
		}
	}
}

func TestQueues(t *testing.T) {
	for _, mode := range []device.DoorbellMode{device.Trap, device.Shadow, device.Mmap} {
		for _, test := range []struct {
			cfg    QueueConfig
			count  int
			blocks uint32
		}{
			{QueueConfig{}, 1000, 8},
			{QueueConfig{Depth: 1}, 50, 1},
			{QueueConfig{Depth: 1024}, 3000, 8},
			{QueueConfig{Depth: 16, BufferSize: 128 << 10}, 100, 256},
			{QueueConfig{Depth: 16, BufferSize: 64 << 10}, 100, 17},
			{QueueConfig{Depth: 4, BufferSize: 1 << 20}, 20, 2048},
			{QueueConfig{Interrupts: true}, 1000, 8},
			{QueueConfig{Depth: 1, Interrupts: true}, 100, 8},
		} {
			t.Run(fmt.Sprintf("%v %+v", mode, test.cfg), func(t *testing.T) {
				holdings.CheckLeaks(t)
				c := newDisk(t, device.Config{Doorbells: mode}).open(t)
				q, err := c.NewQueue(testContext(t), test.cfg)
				if err != nil {
					t.Fatal(err)
				}
				run(t, q, c.Namespace(1), test.count, test.blocks)
				if err := errors.Join(q.Close(), q.Close()); err != nil {
					t.Error(err)
				}
				if err := q.Ring(); !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		}
	}
}

func TestQueuesRunBesideEachOther(t *testing.T) {
	holdings.CheckLeaks(t)
	c := newDisk(t, device.Config{Queues: 4}).open(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				q, err := c.NewQueue(testContext(t), QueueConfig{Depth: 8, Interrupts: true})
				if err != nil {
					t.Error(err)
					return
				}
				done := make([]Completion, 8)
				for i := range uint64(200) {
					if err := errors.Join(q.Read(0, c.Namespace(1), i, 1), q.Ring()); err != nil {
						t.Error(err)
					}
					for {
						if k, err := q.Poll(done); k > 0 || err != nil {
							break
						}
						if err := q.Wait(testContext(t)); err != nil {
							t.Error(err)
							return
						}
					}
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestQueueLimits(t *testing.T) {
	holdings.CheckLeaks(t)
	c := newDisk(t, device.Config{Queues: 3, QueueEntries: 64, MaxTransfer: 64 << 10}).open(t, WithQueues(2))
	ctx := testContext(t)
	if c.Queues() != 2 || c.MaxTransfer() != 64<<10 {
		t.Errorf("%d queues, %d bytes", c.Queues(), c.MaxTransfer())
	}
	for _, cfg := range []QueueConfig{
		{Depth: -1}, {Depth: 64}, {Depth: 1025}, {BufferSize: 1}, {BufferSize: 5000}, {BufferSize: 128 << 10}, {BufferSize: 4 << 20},
	} {
		if _, err := c.NewQueue(ctx, cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	var queues []*Queue
	for range 2 {
		q, err := c.NewQueue(ctx, QueueConfig{Depth: 63})
		if err != nil {
			t.Fatal(err)
		}
		queues = append(queues, q)
	}
	if _, err := c.NewQueue(ctx, QueueConfig{}); !errors.Is(err, ErrNoQueue) {
		t.Error(err)
	}
	queues[0].Close()
	q, err := c.NewQueue(ctx, QueueConfig{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, q, c.Namespace(1), 100, 8)
}

func TestAdminCommands(t *testing.T) {
	holdings.CheckLeaks(t)
	c := newDisk(t, device.Config{Serial: "SN-42", Model: "a model"}).open(t)
	ctx := testContext(t)
	if id := c.Identify(); id.Serial != "SN-42" || id.Model != "a model" {
		t.Errorf("%q %q", id.Serial, id.Model)
	}
	if smart, err := c.Smart(ctx); err != nil || smart.Temperature < 250 || smart.Temperature > 400 {
		t.Errorf("%+v, %v", smart, err)
	}
	effects := make([]byte, spec.EffectsSize+0)
	if err := c.GetLogPage(ctx, spec.LogEffects, 0, 0, effects); err != nil {
		t.Error(err)
	}
	var log spec.EffectsLog
	if log.Get(effects); log.IO[spec.NVMRead]&spec.EffectSupported == 0 {
		t.Error("read is not supported")
	}
	if err := c.GetLogPage(ctx, spec.LogEffects, 0, 0, make([]byte, 3)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := c.SetFeature(ctx, spec.FeatTemperature, 0, 333, nil); err != nil {
		t.Error(err)
	}
	if v, err := c.GetFeature(ctx, spec.FeatTemperature, spec.SelectCurrent, 0, nil); err != nil || v != 333 {
		t.Error(v, err)
	}
	if _, err := c.Admin(ctx, &spec.SubmissionEntry{Opcode: 0x7f}, nil); !errors.Is(err, spec.InvalidOpcode) {
		t.Error(err)
	}
	if _, err := c.Admin(ctx, &spec.SubmissionEntry{Opcode: spec.AdminIdentify}, make([]byte, 4097)); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	// More at a time than the admin queue has room for; the last kind never ends by itself.
	var wg sync.WaitGroup
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	for i := range 3 * adminDepth {
		wg.Go(func() {
			if i%adminDepth == 0 {
				if _, err := c.Admin(short, &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}, nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			} else if _, err := c.IdentifyData(ctx, spec.CNSController, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
