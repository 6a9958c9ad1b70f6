package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"vfiouser/block"
	"vfiouser/devices/nvme"
)

const namespaceLong = `List and change the namespaces of a drive while guests use it. Guests are told by events,
and Linux follows at once.

  vfu namespace list --control /run/vfu.sock
  vfu namespace add --control /run/vfu.sock mem:1G
  vfu namespace add --control /run/vfu.sock --block-size 4096 file:/srv/c.img
  vfu namespace resize --control /run/vfu.sock 2 4G
  vfu namespace remove --control /run/vfu.sock 2`

func namespaceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "namespace", Short: "List, add, remove and resize the namespaces of a running server", Long: namespaceLong}
	cmd.AddCommand(namespaceListCommand(), namespaceAddCommand(), namespaceRemoveCommand(), namespaceResizeCommand())
	onlyCommands(cmd)
	return cmd
}

func namespaceListCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{Use: "list --control PATH", Short: "List the namespaces of all drives, or of one", Args: noArguments}
	a.add(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var l driveList
		return a.ask(cmd, requestNamespaceList, a.target(), &l, l.printNamespaces)
	}
	return cmd
}

func namespaceAddCommand() *cobra.Command {
	var a asking
	var c controller // whose options of a namespace these are
	cmd := &cobra.Command{Use: "add --control PATH KIND:ARGUMENT", Short: "Add a namespace, which is attached to every controller",
		Long: `Add a namespace with the lowest number that is free. It is attached to every controller of
the drive. KIND:ARGUMENT is what --namespace of vfu serve nvme takes, filters included. A
relative path is the server's.

  vfu namespace add --control /run/vfu.sock delay:off,stats,file:/srv/c.img
  vfu namespace add --control /run/vfu.sock --metadata 8 --protection 1 mem:1G`, Args: arguments("KIND:ARGUMENT")}
	a.add(cmd, true)
	c.namespaces = []namespace{{format: nvme.Namespace{BlockSize: 512}}}
	for _, o := range c.options() {
		if strings.HasPrefix(o.fileKey(), "namespace.") && o.name != "namespace" {
			o.usage = strings.Replace(o.usage, " of the namespace before it", "", 1)
			o.add(cmd.Flags(), o.set)
		}
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := block.Check(args[0]); err != nil {
			return usageError{err}
		}
		n := newNamespace{a.target(), args[0], formatOf(c.namespaces[0].format)}
		var l driveList
		return a.ask(cmd, requestNamespaceAdd, n, &l, l.printNamespaces)
	}
	return cmd
}

func namespaceRemoveCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{Use: "remove --control PATH NAMESPACE", Short: "Remove a namespace; its I/O in flight ends first",
		Args: arguments("NAMESPACE")}
	a.add(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := namespaceNumber(args[0])
		if err != nil {
			return err
		}
		return a.ask(cmd, requestNamespaceRemove, namespaceTarget{a.target(), n}, &nothing{}, quiet)
	}
	return cmd
}

func namespaceResizeCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{Use: "resize --control PATH NAMESPACE SIZE", Short: "Give a namespace another size",
		Long: `Give a namespace another size, in bytes or with K, M, G or T behind it. What is added reads as
zeroes; what lies behind a smaller size is lost. A file is made longer or shorter, a block
device must have the size already, and an export of an NBD server keeps its own.`,
		Args: arguments("NAMESPACE", "SIZE")}
	a.add(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := namespaceNumber(args[0])
		if err != nil {
			return err
		}
		size, err := units.RAMInBytes(args[1])
		if err != nil || size <= 0 {
			return usageError{fmt.Errorf("size %q: must be a number of bytes, or one with K, M, G or T such as 4G", args[1])}
		}
		var l driveList
		return a.ask(cmd, requestNamespaceResize, newSize{namespaceTarget{a.target(), n}, size}, &l, l.printNamespaces)
	}
	return cmd
}

// quiet prints nothing.
func quiet(io.Writer) error { return nil }

func namespaceNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, usageError{errors.New("namespace " + strconv.Quote(s) + ": must be a number from 1 on, as vfu namespace list shows it")}
	}
	return uint32(n), nil
}
