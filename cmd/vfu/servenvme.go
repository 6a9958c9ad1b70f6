package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vfiouser/block"
	"vfiouser/devices/nvme"
	"vfiouser/engine"
)

const serveNVMeLong = `Serve NVMe controllers.

Each --socket (or --fd) begins a controller; the options of a controller that follow
it are its own:

  vfu serve nvme --socket /run/a.sock --namespace mem:1G \
                 --socket /run/b.sock --namespace file:/srv/b.img --queues 8

A namespace is mem:SIZE (anonymous memory), file:PATH (a regular file or a block
device) or null:SIZE (stores nothing). Sizes take K, M, G or T.`

func serveNVMeCommand() *cobra.Command {
	var p process
	var list controllers
	cmd := &cobra.Command{
		Use:   "nvme --socket PATH --namespace KIND:ARGUMENT …",
		Short: "Serve NVMe controllers",
		Long:  serveNVMeLong,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			devices, err := list.open()
			if err != nil {
				return err
			}
			return p.serve(cmd.Context(), "nvme", devices)
		},
	}
	p.flags(cmd.Flags())
	list.flags(cmd.Flags())
	return cmd
}

// controllers collects the controllers of a command line, in order.
type controllers struct{ list []controller }

// controller is what the command line says of one controller.
type controller struct {
	place      place
	namespaces []namespace
	incoming   bool
	config     nvme.Config
}

type namespace struct {
	backend   string
	blockSize int
}

// errOutside is for an option of a controller that stands before any controller.
var errOutside = errors.New("stands before the first --socket or --fd, and so belongs to no device")

// option is a flag whose place among the others matters.
type option struct {
	kind string
	set  func(string) error
}

func (o option) String() string     { return "" }
func (o option) Type() string       { return o.kind }
func (o option) Set(s string) error { return o.set(s) }

func (c *controllers) flags(f *pflag.FlagSet) {
	f.SortFlags = false
	// The name that vfio-user gives it for all programs (specification, "Backend Program Conventions").
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "socket-path" {
			name = "socket"
		}
		return pflag.NormalizedName(name)
	})
	begin := func(p place) error {
		c.list = append(c.list, controller{place: p})
		return nil
	}
	own := func(set func(c *controller, s string) error) func(string) error {
		return func(s string) error {
			if len(c.list) == 0 {
				return errOutside
			}
			return set(&c.list[len(c.list)-1], s)
		}
	}
	f.Var(option{"PATH", func(s string) error {
		if s == "" {
			return errors.New("is empty")
		}
		return begin(place{path: s})
	}}, "socket", "begin a controller on a unix socket (also --socket-path)")
	f.Var(option{"N", func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return errors.New("must be the number of an open descriptor")
		}
		return begin(place{fd: n})
	}}, "fd", "begin a controller on an inherited socket, listening or connected")
	f.Var(option{"KIND:ARG", own(func(c *controller, s string) error {
		c.namespaces = append(c.namespaces, namespace{backend: s, blockSize: 512})
		return nil
	})}, "namespace", "add a namespace: mem:SIZE, file:PATH or null:SIZE")
	f.Var(option{"BYTES", own(func(c *controller, s string) error {
		if len(c.namespaces) == 0 {
			return errors.New("stands before the controller's first --namespace")
		}
		n, err := strconv.Atoi(s)
		if err != nil || n != 512 && n != 4096 {
			return errors.New("must be 512 or 4096")
		}
		c.namespaces[len(c.namespaces)-1].blockSize = n
		return nil
	})}, "block-size", "logical block size of the namespace before it: 512 (default) or 4096")
	f.Var(option{"N", own(func(c *controller, s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > nvme.MaxQueues {
			return fmt.Errorf("must be from 1 to %d", nvme.MaxQueues)
		}
		c.config.Queues = n
		return nil
	})}, "queues", fmt.Sprintf("I/O queue pairs, 1 to %d (default 63)", nvme.MaxQueues))
	f.Var(option{"MODE", own(func(c *controller, s string) (err error) {
		c.config.Doorbells, err = nvme.ParseDoorbellMode(s)
		return err
	})}, "doorbells", "auto, trap, shadow or mmap (default auto)")
	f.Var(option{"DURATION", own(func(c *controller, s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return errors.New("must be a time such as 500us or 10ms")
		}
		c.config.IdlePoll = d
		return nil
	})}, "idle-poll", fmt.Sprintf("longest pause between two looks at idle mapped doorbells (default %v)", engine.DefaultMaxSleep))
	f.Var(option{"bool", own(func(c *controller, s string) (err error) {
		c.incoming, err = strconv.ParseBool(s)
		return err
	})}, "incoming", "the drive's state will come from another server, which may have its files in use until then")
	f.Lookup("incoming").NoOptDefVal = "true"
	f.Var(option{"TEXT", own(func(c *controller, s string) error {
		c.config.Serial = s
		return nil
	})}, "serial", "serial number")
}

// open makes the controllers, or none.
func (c *controllers) open() (devices []served, err error) {
	if len(c.list) == 0 {
		return nil, usageError{errors.New("no --socket (or --fd): where should the device be served?")}
	}
	defer func() {
		if err != nil {
			for _, d := range devices {
				err = errors.Join(err, d.close())
			}
		}
	}()
	for i := range c.list {
		d, err := c.list[i].open()
		if err != nil {
			return devices, err
		}
		devices = append(devices, d)
	}
	return devices, nil
}

func (c *controller) open() (d served, err error) {
	if len(c.namespaces) == 0 {
		return d, usageError{fmt.Errorf("%s: no --namespace: what should be on the disk?", c.place)}
	}
	open := block.Open
	if c.incoming {
		open = block.OpenUnclaimed
	}
	for _, ns := range c.namespaces {
		b, openErr := open(ns.backend)
		if openErr != nil {
			err = openErr
			break
		}
		c.config.Namespaces = append(c.config.Namespaces, nvme.Namespace{Backend: b, BlockSize: ns.blockSize})
	}
	var ctrl *nvme.Controller
	if err == nil {
		if ctrl, err = nvme.New(c.config); err == nil {
			return served{place: c.place, device: ctrl, close: ctrl.Close}, nil
		}
		err = fmt.Errorf("%s: %w", c.place, err)
	}
	for _, ns := range c.config.Namespaces {
		err = errors.Join(err, ns.Backend.Close())
	}
	return d, err
}
