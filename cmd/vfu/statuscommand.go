package main

import "github.com/spf13/cobra"

const statusLong = `Show the devices of a running vfu serve that was given --control PATH, with their clients
and namespaces.

  vfu status --control /run/vfu.sock
  vfu status --control /run/vfu.sock --json | jq '.devices[].device'

docs/control.md describes the JSON.`

func statusCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{Use: "status --control PATH", Short: "Show the devices of a running server", Long: statusLong, Args: noArguments}
	a.add(cmd, false)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var r statusReport
		return a.ask(cmd, requestStatus, nil, &r, r.print)
	}
	return cmd
}
