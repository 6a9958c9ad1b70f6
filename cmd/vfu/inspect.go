package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
)

const inspectLong = `Attach to a device as a client and show what it is: regions with the parts that can be
mapped, interrupts, capabilities, configuration space, what was negotiated, and what an
NVMe controller or a virtio device says of itself.

Nothing is written to the device, but for the selectors that show the features and queues
of a virtio device; only while that has no driver, and they are put back. While it is
looked at it has no room for another client, as a device has one at a time; a device that
is in use cannot be looked at.

  vfu inspect /run/disk0.sock
  vfu inspect --json /run/disk0.sock | jq .regions
  vfu inspect --lspci /run/disk0.sock | lspci -vvv -F /dev/stdin

docs/inspect.md describes the JSON, which stays as it is but for new members.`

// inspect holds the options of vfu inspect.
type inspect struct {
	json    bool
	lspci   bool
	timeout time.Duration
}

func inspectCommand() *cobra.Command {
	var o inspect
	cmd := &cobra.Command{
		Use:   "inspect SOCKET",
		Short: "Show what a device is",
		Long:  inspectLong,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("inspect needs one socket, %d arguments are there", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), args[0])
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	cmd.Flags().BoolVar(&o.lspci, "lspci", false, "print the whole configuration space alone, for lspci -F")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Second, "how long the server may take to answer everything")
	return cmd
}

func (o *inspect) run(ctx context.Context, out io.Writer, socket string) error {
	switch {
	case o.timeout <= 0:
		return usageError{fmt.Errorf("--timeout %v: must be positive", o.timeout)}
	case o.json && o.lspci:
		return usageError{errors.New("--json and --lspci: one or the other")}
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	dev, err := client.Attach(ctx, socket, client.WithTwinSocket()) // so that the server says whether it has one
	if err != nil {
		return o.explain(err, socket)
	}
	defer dev.Close()
	r, err := examine(ctx, dev)
	if err != nil {
		return o.explain(err, socket)
	}
	r.Socket = socket
	switch {
	case o.json:
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case o.lspci:
		if r.PCI == nil {
			return fmt.Errorf("%s: the device has no configuration space", socket)
		}
		_, err = out.Write(r.dump(len(r.space)))
		return err
	}
	return r.print(out)
}

// explain says what stands in the way of looking at a device, and what to do about it.
func (o *inspect) explain(err error, socket string) error {
	var says string
	switch {
	case errors.Is(err, codec.ErrRemote):
		says = "the server refuses"
	case errors.Is(err, client.ErrProtocol):
		says = "what listens there is no vfio-user server, or a broken one"
	case errors.Is(err, fs.ErrNotExist):
		says = "there is no such socket: is the server running, and is this its path?"
	case errors.Is(err, unix.ECONNREFUSED) && !isSocket(socket):
		says = "is no socket: name the one that the server listens on"
	case errors.Is(err, unix.ECONNREFUSED):
		says = "nobody listens: the server that left the socket has ended; start it again, it replaces the file"
	case errors.Is(err, fs.ErrPermission):
		says = "may not be connected to by this user: run vfu as the server's user or as root"
	case errors.Is(err, unix.EPROTOTYPE):
		says = "is not a stream socket: name the one that the server listens on"
	case errors.Is(err, unix.EINVAL) && len(socket) > maxSocketPath:
		says = fmt.Sprintf("is longer than %d bytes, which no socket's path can be: use a shorter one", maxSocketPath)
	case errors.Is(err, context.DeadlineExceeded):
		says = fmt.Sprintf("no answer within %v: the server hangs, or is no vfio-user server; --timeout waits longer", o.timeout)
	case errors.Is(err, client.ErrDisconnected):
		says = "the server has hung up: it serves one client at a time and may have one, such as a virtual machine; " +
			"try again when that is gone. If it has none, it is no vfio-user server, or has ended"
	default:
		return fmt.Errorf("%s: %w", socket, err)
	}
	return fmt.Errorf("%s: %s (%w)", socket, says, err)
}

// maxSocketPath is what sun_path has room for, less the byte that ends it.
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeSocket != 0
}
