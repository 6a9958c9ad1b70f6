package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"vfiouser/block"
	"vfiouser/client"
	device "vfiouser/devices/nvme"
	driver "vfiouser/drivers/nvme"
	"vfiouser/engine"
)

// nvmeRig is an NVMe device whose worker has a CPU of its own, attached by the driver of the
// measuring thread.
type nvmeRig struct {
	ctrl *driver.Controller
	ns   *driver.Namespace // the first one
}

// nvmeMemory is what the driver has for queues and buffers, bytes: 256 buffers of 128 KiB, and
// as much again.
const nvmeMemory = 64 << 20

// newNVMe makes a device with a namespace for each backend (block.Open), with blocks of blockSize
// bytes.
func newNVMe(env *Env, mode device.DoorbellMode, blockSize int, backends ...string) (*nvmeRig, error) {
	cfg := device.Config{Queues: device.MaxQueues, Doorbells: mode}
	for _, text := range backends {
		store, err := block.Open(text)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(text, "mem:") {
			if err := populate(store); err != nil {
				return nil, errors.Join(err, store.Close())
			}
		}
		cfg.Namespaces = append(cfg.Namespaces, device.Namespace{Backend: store, BlockSize: blockSize})
	}
	disk, err := device.New(cfg)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { disk.Close() })
	e, err := engine.New(engine.Config{Workers: 1, WorkerCPUs: env.DeviceCPUs})
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { e.Close() })
	dev, err := serve(env, e, disk, "nvme")
	if err != nil {
		return nil, err
	}
	mem, err := client.NewMemory(nvmeMemory)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { mem.Close() })
	ctrl, err := driver.Open(context.Background(), dev, mem, driver.WithQueues(device.MaxQueues))
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { ctrl.Close() })
	return &nvmeRig{ctrl, ctrl.Namespaces()[0]}, nil
}

// serve has a device of an engine attached by package client.
func serve(env *Env, e *engine.Engine, d engine.Device, name string, opts ...client.Option) (*client.Device, error) {
	ep, err := e.Register(filepath.Join(env.Dir, name), d)
	if err != nil {
		return nil, err
	}
	if err := ep.Start(); err != nil {
		return nil, err
	}
	dev, err := client.Attach(context.Background(), ep.Path(), opts...)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { dev.Close() })
	return dev, nil
}

// newQueue makes a queue that lives as long as the controller, and touches its buffers.
func (r *nvmeRig) newQueue(depth, size int) (*driver.Queue, error) {
	q, err := r.ctrl.NewQueue(context.Background(), driver.QueueConfig{Depth: depth, BufferSize: max(size, 4096)})
	if err != nil {
		return nil, err
	}
	for tag := range depth {
		clear(q.Buffer(uint16(tag)))
	}
	return q, nil
}

// populate writes all of a backend that is memory, or reads would find one page of zeroes again
// and again.
func populate(store block.Backend) error {
	chunk := make([]byte, min(1<<20, store.Size()))
	for i := range chunk {
		chunk[i] = byte(i >> 12)
	}
	r := block.Request{Op: block.Write, Length: int64(len(chunk)), Buffers: [][]byte{chunk}}
	for ; r.Offset < store.Size(); r.Offset += r.Length {
		done, err := store.Submit(&r)
		if err != nil {
			return err
		}
		if !done {
			return errors.New("bench: memory is not written at once")
		}
	}
	return nil
}

// load is commands, in one queue or in turn in several, so many under way that no tag of a
// queue is idle.
type load struct {
	queues []*driver.Queue
	post   func(queue int, tag uint16) error
	done   []driver.Completion
}

func newLoad(post func(queue int, tag uint16) error, queues ...*driver.Queue) *load {
	return &load{queues, post, make([]driver.Completion, queues[0].Depth())}
}

// run does n commands.
func (l *load) run(n int) error {
	left, inflight := n, 0
	for i, q := range l.queues {
		for tag := range min(q.Depth(), left) {
			if err := l.post(i, uint16(tag)); err != nil {
				return err
			}
			left--
			inflight++
		}
		if err := q.Ring(); err != nil {
			return err
		}
	}
	for inflight > 0 {
		for i, q := range l.queues {
			k, err := q.Poll(l.done)
			if err != nil {
				return err
			}
			for c := range l.done[:k] {
				if err := l.done[c].Err(); err != nil {
					return err
				}
				if left == 0 {
					inflight--
					continue
				}
				if err := l.post(i, l.done[c].Tag); err != nil {
					return err
				}
				left--
			}
			if k > 0 {
				if err := q.Ring(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// commands is how many reads and writes the device has counted.
func (r *nvmeRig) commands() (uint64, error) {
	log, err := r.ctrl.Smart(context.Background())
	if err != nil {
		return 0, fmt.Errorf("bench: the device's log: %w", err)
	}
	return log.HostReads + log.HostWrites, nil
}
