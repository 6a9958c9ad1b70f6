package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vfiouser/cmd/vfu/internal/control"
	"vfiouser/engine"
	"vfiouser/engine/reactor"
	"vfiouser/link"
)

const serveLong = `Serve devices until SIGTERM: those of one kind that the command line describes, or
those of a file.

  vfu serve nvme --socket /run/disk0.sock --namespace mem:1G
  vfu serve --config /etc/vfu.toml

docs/config.md describes the file. What the command line says of the process, such as
--log-level, holds in place of what the file says.`

func serveCommand() *cobra.Command {
	p := newProcess()
	var file string
	var checkOnly bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve devices until SIGTERM",
		Long:  serveLong,
	}
	cmd.AddCommand(serveNVMeCommand(p), serveVirtioNetCommand(p))
	onlyCommands(cmd)
	withoutFile := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f := cmd.Flags()
		switch {
		case file == "" && f.Changed("config"):
			return usageError{errors.New("--config: is empty")}
		case file == "" && checkOnly:
			return usageError{errors.New("--check goes with --config")}
		case file == "" && len(args) == 0:
			return usageError{fmt.Errorf("%q needs --config FILE, or one of: %s; --help explains", cmd.CommandPath(), strings.Join(subcommands(cmd), ", "))}
		case file == "" || len(args) > 0:
			return withoutFile(cmd, args)
		}
		list, err := readConfig(file, p, f.Changed)
		if err != nil {
			return err
		}
		if checkOnly {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", file, counted(list))
			return nil
		}
		return p.serve(cmd.Context(), list)
	}
	f := cmd.PersistentFlags()
	f.SortFlags = false
	for _, o := range p.options() {
		o.add(f, o.set)
	}
	f = cmd.Flags()
	f.StringVar(&file, "config", "", "serve the devices of this `FILE`")
	f.BoolVar(&checkOnly, "check", false, "look whether the file is right, and serve nothing")
	return cmd
}

// serveKind is the command that serves devices of one kind.
func serveKind(p *process, k kind, cmd *cobra.Command) *cobra.Command {
	var list []device
	cmd.Args = noArguments
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(list) == 0 {
			return usageError{errors.New("no --socket (or --fd): where should the device be served?")}
		}
		if err := check(list, p.control); err != nil {
			return err
		}
		return p.serve(cmd.Context(), list)
	}
	deviceFlags(cmd.Flags(), k, &list)
	return cmd
}

// served is one device of the process.
type served struct {
	device engine.Device
	close  func() error // of what is behind the device, after its clients are gone
	// subsystem is that of an NVMe controller, link what a network card is connected to.
	subsystem *subsystem
	link      string
}

// serve runs devices that were checked until the context ends, or none can have a client
// any more, then lets their I/O in flight finish.
func (p *process) serve(ctx context.Context, list []device) (err error) {
	log := p.logger()
	r, err := reactor.New(reactor.Config{Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	env := environment{log: log, links: link.Set{Reactor: r, Logger: log}, subsystems: make(map[*controller]*subsystem)}
	subs, err := subsystems(list)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		for _, c := range sub.members {
			env.subsystems[c] = sub
		}
	}
	var opened []served
	defer func() {
		for _, s := range opened {
			err = errors.Join(err, s.close())
		}
	}()
	for _, d := range list {
		s, err := d.open(&env)
		if err != nil {
			return fmt.Errorf("%s: %w", d.base(), err)
		}
		opened = append(opened, s)
	}
	var requests *control.Server
	defer func() {
		if requests != nil {
			requests.Wait() // what it waits for may be I/O of the clients
		}
	}()
	e, err := engine.New(engine.Config{Logger: log, Reactor: r, Workers: p.workers, WriteMultiple: p.writeMultiple})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	endpoints := make([]*engine.Endpoint, len(list))
	for i, d := range list {
		c := d.base()
		ep, err := c.place.register(e, opened[i].device)
		if err == nil {
			err = ep.Start()
		}
		if err != nil {
			if c.at != "" {
				err = fmt.Errorf("%s: %w", c.at, err)
			}
			return err
		}
		endpoints[i] = ep
	}
	if p.control != "" {
		c := controls{started: time.Now()}
		for i, d := range list {
			c.devices = append(c.devices, controlled{d.base().place.String(), d.kind(), endpoints[i], opened[i]})
		}
		if requests, err = control.Serve(p.control, log, c.handlers()); err != nil {
			return err
		}
		defer requests.Close()
	}
	fmt.Printf("ready: %s\n", listed(list))
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
