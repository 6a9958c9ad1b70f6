package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

const powerLong = `Cut the power of disks: of the namespaces that have the filter volatile in front, all of the
server or those that are named. What a guest has written and not flushed is forgotten,
and everything fails until the power is on again, so that nothing is mixed with what was
lost. Stop or reset the guest in between, as a power cut would.

  vfu serve nvme --control /run/vfu.sock --socket /run/a.sock --namespace volatile:keep=30%,file:a.img

  vfu power cut --control /run/vfu.sock
  vfu power on --control /run/vfu.sock`

func powerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "power", Short: "Cut the power of a running server's disks, and switch it on again", Long: powerLong}
	cmd.AddCommand(
		powerSwitchCommand("cut", requestPowerCut, "Forget what was not flushed, and have everything fail",
			func(w io.Writer, r *powerReport) error {
				_, err := fmt.Fprintf(w, "%s without power, %s forgotten\n", plural(r.Caches, "cache"), bytesText(r.Forgotten))
				return err
			}),
		powerSwitchCommand("on", requestPowerOn, "Have the disks work again",
			func(w io.Writer, r *powerReport) error {
				_, err := fmt.Fprintf(w, "%s with power\n", plural(r.Caches, "cache"))
				return err
			}))
	onlyCommands(cmd)
	return cmd
}

func powerSwitchCommand(name, request, short string, show func(io.Writer, *powerReport) error) *cobra.Command {
	var a asking
	t := optionalNamespace{}
	cmd := &cobra.Command{Use: name + " --control PATH", Short: short, Args: noArguments}
	a.add(cmd, true)
	cmd.Flags().Uint32Var(&t.Namespace, "namespace", 0, "of this `NAMESPACE` only")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t.target = a.target()
		var r powerReport
		return a.ask(cmd, request, t, &r, func(w io.Writer) error { return show(w, &r) })
	}
	return cmd
}
