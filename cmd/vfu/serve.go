package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vfiouser/engine"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve devices until SIGTERM",
	}
	cmd.AddCommand(serveNVMeCommand())
	onlyCommands(cmd)
	return cmd
}

// process holds the options of a serving process, which are not those of a device.
type process struct {
	logLevel  slog.Level
	logFormat string
	workers   int
	// writeMultiple offers REGION_WRITE_MULTI.
	writeMultiple bool
}

func (p *process) flags(f *pflag.FlagSet) {
	f.TextVar(&p.logLevel, "log-level", slog.LevelWarn, "what to log on standard error: debug, info, warn or error")
	f.StringVar(&p.logFormat, "log-format", "text", "text or json")
	f.BoolVar(&p.writeMultiple, "write-multiple", false, "offer REGION_WRITE_MULTI (QEMU then queues its writes)")
	f.IntVar(&p.workers, "workers", 0, "threads that poll queues (default: one fewer than CPUs)")
}

func (p *process) logger() (*slog.Logger, error) {
	opt := &slog.HandlerOptions{Level: p.logLevel}
	switch p.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opt)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format %q: must be text or json", p.logFormat)}
}

// place is where a device is served: a socket path, or an inherited descriptor.
type place struct {
	path string
	fd   int // used if path is empty
}

func (p place) String() string {
	if p.path == "" {
		return fmt.Sprintf("descriptor %d", p.fd)
	}
	return p.path
}

func (p place) register(e *engine.Engine, d engine.Device) (*engine.Endpoint, error) {
	if p.path == "" {
		return e.RegisterFD(p.fd, d)
	}
	return e.Register(p.path, d)
}

// served is one device of the process.
type served struct {
	place  place
	device engine.Device
	close  func() error // of what is behind the device, after its clients are gone
}

// serve runs devices until the context ends, or none can have a client any more, then lets
// their I/O in flight finish.
func (p *process) serve(ctx context.Context, kind string, devices []served) (err error) {
	defer func() {
		for _, d := range devices {
			err = errors.Join(err, d.close())
		}
	}()
	log, err := p.logger()
	if err != nil {
		return err
	}
	if p.workers < 0 {
		return usageError{fmt.Errorf("--workers %d: must be positive", p.workers)}
	}
	e, err := engine.New(engine.Config{Logger: log, Workers: p.workers, WriteMultiple: p.writeMultiple})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	places := make([]string, len(devices))
	endpoints := make([]*engine.Endpoint, len(devices))
	for i, d := range devices {
		places[i] = d.place.String()
		ep, err := d.place.register(e, d.device)
		if err != nil {
			return err
		}
		if err := ep.Start(); err != nil {
			return err
		}
		endpoints[i] = ep
	}
	fmt.Printf("ready: %s on %s\n", kind, strings.Join(places, ", "))
	for _, ep := range endpoints {
		select {
		case <-ep.Done():
		case <-ctx.Done():
			log.Info("ending", "cause", context.Cause(ctx))
			return nil
		}
	}
	log.Info("ending", "cause", "no client can come any more")
	return nil
}
