package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"vfiouser/block"
	"vfiouser/client"
	"vfiouser/devices/nvme"
	driver "vfiouser/drivers/nvme"
	"vfiouser/engine"
)

const demoLong = `Serve an NVMe device on a socket and use it, all in this process: attach with the
user-space driver, write all of it, read it back in another order, compare every
byte, and report what it took. Then do so with a network card: send frames, get them
back, compare. Needs neither root, nor a virtual machine, nor huge pages.`

// demo holds the options of vfu demo.
type demo struct {
	size  string
	depth int
}

func demoCommand() *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Serve an NVMe device and a network card and use them, in one go",
		Long:  demoLong,
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	cmd.Flags().StringVar(&d.size, "size", "256M", "size of the disk, which is kept in memory")
	cmd.Flags().IntVar(&d.depth, "depth", 32, fmt.Sprintf("commands under way at a time, 1 to %d", driver.MaxDepth))
	return cmd
}

func (d *demo) run(ctx context.Context, out io.Writer) (err error) {
	size, err := units.RAMInBytes(d.size)
	if err != nil || size < transferSize || size%transferSize != 0 {
		return usageError{fmt.Errorf("--size %q: must be a multiple of 4K, for example 256M", d.size)}
	}
	if d.depth < 1 || d.depth > driver.MaxDepth {
		return usageError{fmt.Errorf("--depth %d: must be from 1 to %d", d.depth, driver.MaxDepth)}
	}
	dir, err := os.MkdirTemp("", "vfu-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk, card := filepath.Join(dir, "nvme.sock"), filepath.Join(dir, "net.sock")
	stop, err := serveDemoDisk(disk, size)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "An NVMe device of %s listens on %s.\n", units.BytesSize(float64(size)), disk)
	if err := errors.Join(d.useDisk(ctx, out, disk), stop()); err != nil {
		return err
	}
	if stop, err = serveDemoCard(card); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nA network card listens on %s. What it sends comes back.\n", card)
	return errors.Join(useCard(ctx, out, card), stop())
}

// serveDemoDisk serves a disk in memory until stop is called.
func serveDemoDisk(socket string, size int64) (stop func() error, err error) {
	backend, err := block.Memory(size)
	if err != nil {
		return nil, err
	}
	disk, err := nvme.New(nvme.Config{
		Namespaces: []nvme.Namespace{{Backend: backend}},
		Doorbells:  nvme.Mmap,
	})
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	return serveDemo(socket, disk, disk.Close)
}

// serveDemo serves a device, which is closed with the engine when stop is called.
func serveDemo(socket string, d engine.Device, closeDevice func() error) (stop func() error, err error) {
	e, err := engine.New(engine.Config{Workers: 1})
	if err != nil {
		return nil, errors.Join(err, closeDevice())
	}
	stop = func() error { return errors.Join(e.Close(), closeDevice()) }
	ep, err := e.Register(socket, d)
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// useDisk attaches to the device and does I/O on it.
func (d *demo) useDisk(ctx context.Context, out io.Writer, socket string) (err error) {
	closing := func(c io.Closer) { err = errors.Join(err, c.Close()) }
	dev, err := client.Attach(ctx, socket)
	if err != nil {
		return err
	}
	defer closing(dev)
	mem, err := client.NewMemory(32 << 20)
	if err != nil {
		return err
	}
	defer closing(mem)
	ctrl, err := driver.Open(ctx, dev, mem)
	if err != nil {
		return err
	}
	defer closing(ctrl)
	ns := ctrl.Namespaces()[0]
	fmt.Fprintf(out, "The driver is attached: %s, %d queues, %s doorbells.\n\n",
		ctrl.Identify().Model, ctrl.Queues(), ctrl.Doorbells())
	q, err := ctrl.NewQueue(ctx, driver.QueueConfig{Depth: d.depth, BufferSize: transferSize})
	if err != nil {
		return err
	}
	defer closing(q)

	var results []result
	for _, p := range []pass{{"write", fillBlock, false}, {"verify", checkBlock, true}} {
		r, err := p.run(ctx, q, ns)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		results = append(results, r)
	}
	if err := ns.Flush(ctx); err != nil {
		return err
	}
	report(out, d.depth, results)
	return nil
}

// report prints the results as a table.
func report(out io.Writer, depth int, results []result) {
	fmt.Fprintf(out, "\n4 KiB commands, depth %d; latency from submission to completion\n", depth)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "pass\tcommands\tIOPS\tMiB/s\tp50\tp99\tp99.9\t")
	for _, r := range results {
		rate := float64(r.commands) / r.elapsed.Seconds()
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.0f\t%v\t%v\t%v\t\n", r.name, r.commands, rate, rate*transferSize/units.MiB,
			r.quantile(50), r.quantile(99), r.quantile(99.9))
	}
	_ = w.Flush()
	fmt.Fprintln(out, "\nEvery byte was read back as it was written.")
}

func (r *result) quantile(percent float64) time.Duration {
	return time.Duration(r.latency.ValueAtPercentile(percent))
}
