package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/block"
	"vfiouser/client"
	nvme "vfiouser/devices/nvme"
	"vfiouser/devices/virtio"
	virtionet "vfiouser/devices/virtio-net"
	nvmedriver "vfiouser/drivers/nvme"
	netdriver "vfiouser/drivers/virtio-net"
	"vfiouser/engine"
	"vfiouser/engine/reactor"
	"vfiouser/link"
)

// How long nothing happens before CPU time is counted, so that workers have gone to sleep, and
// how long it is counted.
const (
	idleSettle = 100 * time.Millisecond
	idleTime   = 250 * time.Millisecond
)

// idler attaches device i of an engine with its driver, ready for use.
type idler func(env *Env, e *engine.Engine, shared client.Option, i int) error

// idleCases are the CPU time that devices take with which nobody does anything, each attached by
// a driver that has set up its queues: of the whole process, in milliseconds for each second.
func idleCases() (cases []Case) {
	add := func(device, doorbells string, devices int, quick, full bool, attach idler) {
		cases = append(cases, Case{
			Name: fmt.Sprintf("idle/%s/%s/devices=%d", device, doorbells, devices), Quick: quick, Full: full,
			Setup: func(env *Env) (Subject, error) { return idleSubject(env, devices, attach) },
		})
	}
	for _, n := range []int{1, 16, 64} {
		for _, mode := range []nvme.DoorbellMode{nvme.Mmap, nvme.Shadow, nvme.Trap} {
			add("nvme", mode.String(), n, n == 16 && mode == nvme.Mmap, n != 16 && mode != nvme.Mmap, idleNVMe(mode))
		}
		for _, mode := range []virtio.Doorbells{virtio.Mmap, virtio.Trap} {
			add("virtio-net", mode.String(), n, false, n != 16, idleNet(mode))
		}
	}
	return cases
}

func idleSubject(env *Env, devices int, attach idler) (Subject, error) {
	e, err := engine.New(engine.Config{})
	if err != nil {
		return Subject{}, err
	}
	env.Cleanup(func() { e.Close() })
	clients, err := reactor.New(reactor.Config{})
	if err != nil {
		return Subject{}, err
	}
	env.Cleanup(func() { clients.Close() })
	for i := range devices {
		if err := attach(env, e, client.WithReactor(clients), i); err != nil {
			return Subject{}, err
		}
	}
	return Subject{Gauge: func() (float64, string, error) {
		time.Sleep(idleSettle)
		before, err := cpuTime()
		if err != nil {
			return 0, "", err
		}
		begin := time.Now()
		time.Sleep(idleTime)
		elapsed := time.Since(begin)
		after, err := cpuTime()
		return float64(after-before) / float64(elapsed) * 1e3, "ms/s", err
	}}, nil
}

// cpuTime is what the process has used.
func cpuTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

func idleNVMe(mode nvme.DoorbellMode) idler {
	return func(env *Env, e *engine.Engine, shared client.Option, i int) error {
		disk, err := emptyDisk(mode)
		if err != nil {
			return err
		}
		env.Cleanup(func() { disk.Close() })
		dev, mem, err := serveIdle(env, e, disk, shared, i)
		if err != nil {
			return err
		}
		ctx := context.Background()
		ctrl, err := nvmedriver.Open(ctx, dev, mem)
		if err != nil {
			return err
		}
		env.Cleanup(func() { ctrl.Close() })
		_, err = ctrl.NewQueue(ctx, nvmedriver.QueueConfig{})
		return err
	}
}

func idleNet(mode virtio.Doorbells) idler {
	return func(env *Env, e *engine.Engine, shared client.Option, i int) error {
		served, err := virtionet.New(virtionet.Config{Link: link.Null(), Doorbells: mode})
		if err != nil {
			return err
		}
		env.Cleanup(func() { served.Close() })
		dev, mem, err := serveIdle(env, e, served, shared, i)
		if err != nil {
			return err
		}
		nic, err := netdriver.Open(context.Background(), dev, mem, netdriver.Options{})
		if err != nil {
			return err
		}
		env.Cleanup(func() { nic.Close() })
		return nil
	}
}

// serveIdle attaches a device, with memory for its driver.
func serveIdle(env *Env, e *engine.Engine, d engine.Device, shared client.Option, i int) (*client.Device, *client.Memory, error) {
	dev, err := serve(env, e, d, deviceName(i), shared)
	if err != nil {
		return nil, nil, err
	}
	mem, err := client.NewMemory(4 << 20)
	if err != nil {
		return nil, nil, err
	}
	env.Cleanup(func() { mem.Close() })
	return dev, mem, nil
}

// emptyDisk is an NVMe controller with one namespace that stores nothing.
func emptyDisk(mode nvme.DoorbellMode) (*nvme.Controller, error) {
	store, err := block.Null(1 << 30)
	if err != nil {
		return nil, err
	}
	return nvme.New(nvme.Config{Doorbells: mode, Namespaces: []nvme.Namespace{{Backend: store}}})
}
