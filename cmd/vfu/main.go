// Command vfu serves PCI devices over vfio-user and uses them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"vfiouser/bench"
)

// Exit statuses other than 0.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	if played, err := bench.Play(); played {
		if err != nil {
			fmt.Fprintln(os.Stderr, "vfu:", err)
			os.Exit(exitFailure)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := root().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "vfu:", err)
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "vfu",
		Short:         "Emulate PCI devices outside the virtual machine monitor, over vfio-user",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(serveCommand(), demoCommand(), inspectCommand(), traceCommand(),
		statusCommand(), namespaceCommand(), filterCommand(), powerCommand(), benchCommand())
	onlyCommands(cmd)
	return cmd
}

// onlyCommands has a command that is nothing without one of its own say so.
func onlyCommands(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		names := strings.Join(subcommands(cmd), ", ")
		if len(args) == 0 {
			return usageError{fmt.Errorf("%q needs one of: %s; --help explains", cmd.CommandPath(), names)}
		}
		return usageError{fmt.Errorf("unknown command %q for %q; known are: %s", args[0], cmd.CommandPath(), names)}
	}
}

func subcommands(cmd *cobra.Command) (names []string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// noArguments refuses what stands on the command line outside of options.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q: %q takes options only; does the one before it lack its value?", args[0], cmd.CommandPath())}
	}
	return nil
}
