package nvme

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"vfiouser/client"
	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

func TestOpenAgain(t *testing.T) {
	holdings.CheckLeaks(t)
	d := newDisk(t, device.Config{})
	for i := range 3 {
		c, err := Open(testContext(t), d.dev, d.mem)
		if err != nil {
			t.Fatal(err)
		}
		p := []byte{byte(i)}
		if _, err := c.Namespace(1).ReadAt(p, 0); err != nil || i > 0 && p[0] != byte(i) {
			t.Error(p, err)
		}
		if _, err := c.Namespace(1).WriteAt([]byte{byte(i + 1)}, 0); err != nil {
			t.Error(err)
		}
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		if _, err := c.Namespace(1).ReadAt(p, 0); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := c.NewQueue(testContext(t), QueueConfig{}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := c.Smart(testContext(t)); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if whole, err := d.mem.Alloc(d.mem.Size(), 0); err != nil {
			t.Error("memory was not given back:", err)
		} else {
			d.mem.Free(whole)
		}
		if _, mapped := d.dev.MappingOf(d.mem); mapped {
			t.Error("the memory is still mapped")
		}
	}
	// A controller that somebody left running is reset.
	first := d.open(t)
	second, err := Open(testContext(t), d.dev, d.mem)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Namespace(1).WriteAt([]byte{7}, 0); err != nil {
		t.Error(err)
	}
	second.Close()
	_ = first
}

func TestTwoControllersShareMemory(t *testing.T) {
	holdings.CheckLeaks(t)
	a, b := newDisk(t, device.Config{}), newDisk(t, device.Config{})
	b.mem = a.mem
	ca, cb := a.open(t), b.open(t, WithIOVA(1<<40))
	var wg sync.WaitGroup
	for i, c := range []*Controller{ca, cb} {
		wg.Go(func() {
			q, err := c.NewQueue(testContext(t), QueueConfig{Interrupts: true})
			if err != nil {
				t.Error(err)
				return
			}
			run(t, q, c.Namespace(1), 500+i, 8)
		})
	}
	wg.Wait()
}

func TestSessionLoss(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, c *Controller, lose func()) error{
		"while polling": func(t *testing.T, c *Controller, lose func()) error {
			q, err := c.NewQueue(testContext(t), QueueConfig{})
			if err != nil {
				t.Fatal(err)
			}
			lose()
			for done := make([]Completion, 1); ; {
				if _, err := q.Poll(done); err != nil {
					return err
				}
			}
		},
		"while waiting for an interrupt": func(t *testing.T, c *Controller, lose func()) error {
			q, err := c.NewQueue(testContext(t), QueueConfig{Interrupts: true})
			if err != nil {
				t.Fatal(err)
			}
			lose()
			return q.Wait(context.Background())
		},
		"while reading": func(t *testing.T, c *Controller, lose func()) error {
			lose()
			for p := make([]byte, 100_000); ; {
				if _, err := c.Namespace(1).ReadAt(p, 0); err != nil {
					return err
				}
			}
		},
		"in an admin command": func(t *testing.T, c *Controller, lose func()) error {
			lose()
			_, err := c.Admin(context.Background(), &spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent}, nil)
			return err
		},
	} {
		for _, mode := range []device.DoorbellMode{device.Trap, device.Shadow, device.Mmap} {
			t.Run(fmt.Sprintf("%s, %v", name, mode), func(t *testing.T) {
				holdings.CheckLeaks(t)
				d := newDisk(t, device.Config{Doorbells: mode})
				c := d.open(t)
				var wg sync.WaitGroup
				err := use(t, c, func() { wg.Go(func() { d.endpoint.Close() }) })
				wg.Wait()
				if !errors.Is(err, client.ErrDisconnected) {
					t.Error(err)
				}
				if _, err := c.Namespace(1).ReadAt(make([]byte, 1), 0); !errors.Is(err, client.ErrDisconnected) {
					t.Error(err)
				}
				if _, err := c.NewQueue(testContext(t), QueueConfig{}); !errors.Is(err, client.ErrDisconnected) {
					t.Error(err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if whole, err := d.mem.Alloc(d.mem.Size(), 0); err != nil {
					t.Error("memory was not given back:", err)
				} else {
					d.mem.Free(whole)
				}
			})
		}
	}
}

func TestCloseWhileNamespacesAreUsed(t *testing.T) {
	holdings.CheckLeaks(t)
	d := newDisk(t, device.Config{})
	c := d.open(t)
	var started, wg sync.WaitGroup
	for i := range int64(4) {
		started.Add(1)
		wg.Go(func() {
			p := make([]byte, 300_000)
			for round := 0; ; round++ {
				_, err := c.Namespace(1).WriteAt(p, i*1_000_000)
				if round == 0 {
					started.Done()
				}
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	started.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	d.dev.Close()
	d.mem.Close() // nobody touches it any more
	wg.Wait()
}
