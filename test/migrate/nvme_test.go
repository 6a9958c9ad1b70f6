package migrate

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"vfiouser/block"
	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is what a controller is like.
type rig struct {
	mode nvme.DoorbellMode
	file string // that all servers have open, one of them at a time uses it; empty: each has its own memory
}

// open makes the storage of a server.
func (r rig) open(t *testing.T) block.Backend {
	t.Helper()
	if r.file == "" {
		b, err := block.Memory(blocks * page)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b, err := block.File(r.file, block.FileOptions{Unclaimed: true})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serve starts a server of its own and attaches to it.
func (r rig) serve(t *testing.T) *client.Device {
	t.Helper()
	backend := r.open(t)
	c, err := nvme.New(nvme.Config{
		Namespaces: []nvme.Namespace{{Backend: backend, BlockSize: page}}, Doorbells: r.mode, Queues: 2, Serial: "migrate",
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "nvme.sock")
	ep, err := e.Register(path, c)
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	dev := attach(t, path)
	t.Cleanup(func() {
		_ = dev.Close()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

func attach(t *testing.T, path string) *client.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	dev, err := client.Attach(ctx, path, client.WithReattach())
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func newDisk(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, blocks*page), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rigs runs a test with each kind of doorbells and of storage.
func rigs(t *testing.T, test func(*testing.T, rig)) {
	for _, mode := range []nvme.DoorbellMode{nvme.Trap, nvme.Shadow} {
		t.Run(mode.String()+" doorbells, memory", func(t *testing.T) { test(t, rig{mode: mode}) })
		t.Run(mode.String()+" doorbells, shared file", func(t *testing.T) { test(t, rig{mode: mode, file: newDisk(t)}) })
	}
}

func newRAM(t *testing.T) *client.Memory {
	t.Helper()
	m, err := client.NewMemory(ramSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestDriveMovesUnderIO: a drive moves from server to server while its queue is full; no
// command is lost, none is done twice, and every block has what was written last.
func TestDriveMovesUnderIO(t *testing.T) {
	rigs(t, func(t *testing.T, r rig) {
		ram := newRAM(t)
		dev := r.serve(t)
		if err := dev.MapDMA(context.Background(), ram.At(base)); err != nil {
			t.Fatal(err)
		}
		h := newHost(t, dev, ram.Bytes(), r.mode == nvme.Shadow)
		h.work(500)
		for range 3 {
			next := r.serve(t)
			h.moves(dev, next, ram.Bytes())
			dev = next
		}
	})
}

// TestDriveMovesToOtherMemory: the destination's memory is a copy that the log of writes
// keeps up to date, as between two machines. In the end not a byte may differ.
func TestDriveMovesToOtherMemory(t *testing.T) {
	rigs(t, func(t *testing.T, r rig) {
		from, to := newRAM(t), newRAM(t)
		dev, next := r.serve(t), r.serve(t)
		ctx := context.Background()
		if err := dev.MapDMA(ctx, from.At(base)); err != nil {
			t.Fatal(err)
		}
		if err := next.MapDMA(ctx, to.At(base)); err != nil {
			t.Fatal(err)
		}
		h := newHost(t, dev, from.Bytes(), r.mode == nvme.Shadow)
		h.work(200)
		if _, err := dev.StartDMALogging(ctx, page, codec.IOVARange{IOVA: base, Length: ramSize}); err != nil {
			t.Fatal(err)
		}
		copy(to.Bytes(), from.Bytes())
		dirty := 0
		copyDirty := func(ctx context.Context) error {
			b, err := dev.DirtyBitmap(ctx, base, ramSize, page)
			if err != nil {
				return err
			}
			for iova, n := range b.Pages() {
				dirty++
				copy(to.Bytes()[iova-base:][:n], from.Bytes()[iova-base:])
			}
			return nil
		}
		for range 10 {
			h.work(50)
			if err := copyDirty(ctx); err != nil {
				t.Fatal(err)
			}
		}
		h.set(true)
		_, err := client.Migrate(h.ctx, dev, next, client.MigrateOptions{DeviceOnly: true, Stopped: func(ctx context.Context) error {
			if err := copyDirty(ctx); err != nil {
				return err
			}
			// What the host has written its own log would tell.
			copy(to.Bytes()[:hostEnd*page], from.Bytes())
			written := (data + slots) * page
			copy(to.Bytes()[written:], from.Bytes()[written:])
			if pages := differences(from.Bytes(), to.Bytes()); len(pages) != 0 {
				t.Errorf("pages %v differ: they were written and not logged", pages)
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if dirty == 0 {
			t.Error("no page was reported")
		}
		clear(from.Bytes()) // nobody looks there any more
		h.move(next, to.Bytes())
		h.work(500)
	})
}
