package main

import (
	"errors"
	"fmt"
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
delay:2ms,error:read:1%,file:disk.img; docs/backends.md has them all.

Controllers of one --subsystem share their namespaces, whichever of them these are
given to. With --pool hosts can create namespaces of their own, and with --state-dir these
and other settings are there again after a restart:

  vfu serve nvme --socket /run/a.sock --subsystem s --pool dir:/srv/ns:16G --state-dir /var/lib/vfu/s \
                 --socket /run/b.sock --subsystem s`

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
	subsystem  string // that it shares; empty: one of its own
	pool       string
	stateDir   string
	serial     string
	config     nvme.Config
}

type namespace struct {
	backend string
	format  nvme.Namespace // without a backend
}

func (*controller) kind() string { return "nvme" }

func (c *controller) options() []option {
	return append(c.places("controller"),
		option{name: "namespace", key: "namespace.backend", value: "KIND:ARG", usage: "add a namespace: mem:SIZE, file:PATH, an nbd URI or null:SIZE, with filters in front",
			set: func(s string) error {
				c.namespaces = append(c.namespaces, namespace{s, nvme.Namespace{BlockSize: 512}})
				return block.Check(s)
			}},
		c.formatOption("block-size", integer, "BYTES", "logical block size of the namespace before it: 512 (default) or 4096",
			func(n *nvme.Namespace) func(string) error { return oneOf(&n.BlockSize, 512, 4096) }),
		c.formatOption("metadata", integer, "BYTES", "metadata of each of its blocks: 0 (default), 8, 16 or 64",
			func(n *nvme.Namespace) func(string) error { return oneOf(&n.Metadata, 0, 8, 16, 64) }),
		c.formatOption("extended", boolean, "", "its metadata is transferred at the end of each block, not in a buffer of its own",
			func(n *nvme.Namespace) func(string) error { return yesOrNo(func(v bool) { n.Extended = v }) }),
		c.formatOption("protection", integer, "TYPE", "type of the protection information in its metadata: 0 (none, default), 1, 2 or 3",
			func(n *nvme.Namespace) func(string) error { return oneOf(&n.Protection, 0, 1, 2, 3) }),
		c.formatOption("guard", integer, "BITS", "size of the guard of that: 16 (default), or 64 with blocks of 4096",
			func(n *nvme.Namespace) func(string) error { return oneOf(&n.Guard, 16, 64) }),
		c.formatOption("storage-tag", integer, "BITS", "size of the storage tag of that: 0 (default) or 16",
			func(n *nvme.Namespace) func(string) error { return oneOf(&n.StorageTag, 0, 16) }),
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
			c.serial = s
			alone, err := nvme.NewSubsystem(nvme.SubsystemConfig{Serial: s})
			if err != nil {
				return err
			}
			return alone.Close()
		}},
		option{name: "subsystem", value: "NAME", usage: "share the namespaces of the controllers before it that have the same name", set: func(s string) error {
			if s == "" {
				return errors.New("is empty")
			}
			c.subsystem = s
			return nil
		}},
		option{name: "pool", value: "KIND:ARG", usage: "storage of namespaces that hosts create: mem:SIZE or dir:PATH:SIZE", set: func(s string) error {
			c.pool = s
			return block.CheckPool(s)
		}},
		option{name: "state-dir", value: "PATH", usage: "directory for what outlives the process: saved features, namespaces that hosts created, reservations, logs", set: func(s string) error {
			if s == "" {
				return errors.New("is empty")
			}
			c.stateDir = s
			return nil
		}},
	)
}

// formatOption is one of the format of the namespace before it.
func (c *controller) formatOption(name string, form form, value, usage string, set func(*nvme.Namespace) func(string) error) option {
	return option{name: name, key: "namespace." + name, form: form, value: value, usage: usage, set: func(s string) error {
		if len(c.namespaces) == 0 {
			return errors.New("stands before the controller's first --namespace")
		}
		return set(&c.namespaces[len(c.namespaces)-1].format)(s)
	}}
}

func (c *controller) check() error { return nil } // its subsystem's is all that can be missing

func (c *controller) open(env *environment) (served, error) {
	sub := env.subsystems[c]
	if err := sub.enter(env.log); err != nil {
		return served{}, err
	}
	config := c.config
	config.Subsystem = sub.made
	ctrl, err := nvme.New(config)
	if err != nil {
		return served{}, errors.Join(err, sub.leave())
	}
	return served{device: ctrl, subsystem: sub, close: func() error { return errors.Join(ctrl.Close(), sub.leave()) }}, nil
}
