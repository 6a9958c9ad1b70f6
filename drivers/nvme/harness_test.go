package nvme

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/client"
	device "vfiouser/devices/nvme"
	"vfiouser/engine"
)

const testTimeout = 20 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// disk is this project's controller behind an engine, and a client attached to it.
type disk struct {
	endpoint *engine.Endpoint
	dev      *client.Device
	mem      *client.Memory
}

const diskSize = 64 << 20

// newDisk serves a controller with one namespace in memory, unless cfg has its own.
func newDisk(t testing.TB, cfg device.Config) *disk {
	t.Helper()
	if cfg.Namespaces == nil && cfg.Subsystem == nil {
		b, err := block.Memory(diskSize)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Namespaces = []device.Namespace{{Backend: b}}
	}
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	ctrl, err := device.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ctrl.Close() })
	d := &disk{}
	if d.endpoint, err = eng.Register(filepath.Join(t.TempDir(), "nvme"), ctrl); err != nil {
		t.Fatal(err)
	}
	if err := d.endpoint.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.endpoint.Close() })
	if d.dev, err = client.Attach(testContext(t), d.endpoint.Path()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.dev.Close() })
	mem, err := client.NewMemory(32 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	d.mem = mem
	return d
}

func (d *disk) open(t testing.TB, opts ...Option) *Controller {
	t.Helper()
	c, err := Open(testContext(t), d.dev, d.mem, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
