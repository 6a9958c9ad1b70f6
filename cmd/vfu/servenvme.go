package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

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
device), nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH (an NBD server), or
null:SIZE (stores nothing). Sizes take K, M, G or T. Filters stand in front, such as
delay:2ms,error:read:1%,file:disk.img; docs/backends.md has them all.`

func serveNVMeCommand(p *process) *cobra.Command {
	return serveKind(p, nvmeKind(), &cobra.Command{
		Use:   "nvme --socket PATH --namespace KIND:ARGUMENT …",
		Short: "Serve NVMe controllers",
		Long:  serveNVMeLong,
	})
}

func nvmeKind() kind {
	return kind{"nvme", func() device { return &controller{} }}
}

// controller is what is said of an NVMe controller.
type controller struct {
	common
	namespaces []namespace
	incoming   bool
	config     nvme.Config
}

type namespace struct {
	backend   string
	blockSize int
}

func (*controller) kind() string { return "nvme" }

func (c *controller) options() []option {
	return append(c.places("controller"),
		option{name: "namespace", key: "namespace.backend", value: "KIND:ARG", usage: "add a namespace: mem:SIZE, file:PATH, an nbd URI or null:SIZE, with filters in front",
			set: func(s string) error {
				c.namespaces = append(c.namespaces, namespace{backend: s, blockSize: 512})
				return block.Check(s)
			}},
		option{name: "block-size", key: "namespace.block-size", form: integer, value: "BYTES",
			usage: "logical block size of the namespace before it: 512 (default) or 4096",
			set: func(s string) error {
				if len(c.namespaces) == 0 {
					return errors.New("stands before the controller's first --namespace")
				}
				n, err := strconv.Atoi(s)
				if err != nil || n != 512 && n != 4096 {
					return errors.New("must be 512 or 4096")
				}
				c.namespaces[len(c.namespaces)-1].blockSize = n
				return nil
			}},
		option{name: "queues", form: integer, value: "N", usage: fmt.Sprintf("I/O queue pairs, 1 to %d (default 63)", nvme.MaxQueues),
			set: between(1, nvme.MaxQueues, func(n int) { c.config.Queues = n })},
		option{name: "doorbells", value: "MODE", usage: "auto, trap, shadow or mmap (default auto)", set: func(s string) (err error) {
			c.config.Doorbells, err = nvme.ParseDoorbellMode(s)
			return err
		}},
		option{name: "idle-poll", value: "DURATION",
			usage: fmt.Sprintf("longest pause between two looks at idle mapped doorbells (default %v)", engine.DefaultMaxSleep),
			set:   pause(func(d time.Duration) { c.config.IdlePoll = d })},
		option{name: "incoming", form: boolean,
			usage: "the drive's state will come from another server, which may have its files in use until then",
			set:   yesOrNo(func(v bool) { c.incoming = v })},
		option{name: "serial", value: "TEXT", usage: "serial number", set: func(s string) error {
			c.config.Serial = s
			return nil
		}},
	)
}

func (c *controller) check() error {
	if len(c.namespaces) == 0 {
		return c.missing("--namespace", "[[nvme.namespace]]", "what should be on the disk?")
	}
	return nil
}

func (c *controller) open(*environment) (d served, err error) {
	opt := block.OpenOptions{Unclaimed: c.incoming}
	config := c.config
	for _, ns := range c.namespaces {
		b, openErr := block.OpenWith(ns.backend, opt)
		if openErr != nil {
			err = openErr
			break
		}
		config.Namespaces = append(config.Namespaces, nvme.Namespace{Backend: b, BlockSize: ns.blockSize})
	}
	var ctrl *nvme.Controller
	if err == nil {
		if ctrl, err = nvme.New(config); err == nil {
			return served{device: ctrl, close: ctrl.Close}, nil
		}
	}
	for _, ns := range config.Namespaces {
		err = errors.Join(err, ns.Backend.Close())
	}
	return d, err
}
