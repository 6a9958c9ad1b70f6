package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vfiouser/cmd/vfu/internal/control"
)

// asking holds the options of the commands that ask a running server.
type asking struct {
	socket  string
	device  string
	json    bool
	timeout time.Duration
}

// add makes the options flags of a command. Some requests are about the whole process.
func (a *asking) add(cmd *cobra.Command, device bool) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&a.socket, "control", "", "`PATH` of the server's control socket")
	if device {
		f.StringVar(&a.device, "device", "", "`SOCKET` of the drive that is meant, if the server has several")
	}
	f.BoolVar(&a.json, "json", false, "print JSON")
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "how long the server may take to answer")
}

func (a *asking) target() target { return target{a.device} }

// ask sends a request and prints its result: as JSON, or with show, which knows it in r.
func (a *asking) ask(cmd *cobra.Command, request string, arguments, r any, show func(io.Writer) error) error {
	switch {
	case a.socket == "":
		return usageError{errors.New("no --control: give the path that the server was given with --control")}
	case a.timeout <= 0:
		return usageError{fmt.Errorf("--timeout %v: must be positive", a.timeout)}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	var result json.RawMessage
	if err := control.Call(ctx, a.socket, request, arguments, &result); err != nil {
		return a.explain(err)
	}
	out := cmd.OutOrStdout()
	if a.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(result)
	}
	if err := json.Unmarshal(result, r); err != nil {
		return a.explain(fmt.Errorf("%w: %w", control.ErrProtocol, err))
	}
	return show(out)
}

// explain says what stands in the way of an answer. What the server calls a wrong argument is
// one of this command.
func (a *asking) explain(err error) error {
	var refused *control.Error
	var says string
	switch {
	case errors.As(err, &refused) && refused.Code == control.Argument:
		return usageError{err}
	case errors.As(err, &refused):
		return err
	case errors.Is(err, control.ErrProtocol):
		says = "what listens there is no control socket of vfu serve, or of another version"
	case errors.Is(err, fs.ErrNotExist):
		says = "there is no such socket: is the server running, and was it given this path with --control?"
	case errors.Is(err, unix.ECONNREFUSED) && !isSocket(a.socket):
		says = "is no socket: name the one that the server was given with --control"
	case errors.Is(err, unix.ECONNREFUSED):
		says = "nobody listens: the server that left the socket has ended"
	case errors.Is(err, fs.ErrPermission):
		says = "may not be connected to by this user: run vfu as the server's user or as root"
	case errors.Is(err, unix.EINVAL) && len(a.socket) > maxSocketPath:
		says = fmt.Sprintf("is longer than %d bytes, which no socket's path can be", maxSocketPath)
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		says = "hung up without an answer: the server is ending, or this is the socket of a device and not the one of --control"
	case errors.Is(err, context.DeadlineExceeded):
		says = fmt.Sprintf("no answer within %v; the server may still be at it, such as waiting for I/O in flight. --timeout waits longer", a.timeout)
	default:
		return fmt.Errorf("%s: %w", a.socket, err)
	}
	return fmt.Errorf("%s: %s (%w)", a.socket, says, err)
}

// arguments wants so many arguments with these names.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for i, name := range names {
			if i >= len(args) {
				return usageError{fmt.Errorf("%q lacks %s; --help explains", cmd.CommandPath(), name)}
			}
		}
		if len(args) > len(names) {
			return usageError{fmt.Errorf("unexpected argument %q: %q takes %d", args[len(names)], cmd.CommandPath(), len(names))}
		}
		return nil
	}
}
