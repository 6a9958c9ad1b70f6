package main

import "github.com/spf13/cobra"

const filterLong = `Show and change the filters in front of namespaces while guests use them. A filter has to be
there from the beginning; off lets all requests pass:

  vfu serve nvme --control /run/vfu.sock --socket /run/a.sock --namespace stats,delay:off,error:off,mem:1G

  vfu filter set --control /run/vfu.sock 1 delay write:50ms:10%
  vfu filter set --control /run/vfu.sock 1 error read:at=1M+4K:once
  vfu filter set --control /run/vfu.sock 1 error off
  vfu filter list --control /run/vfu.sock

docs/backends.md has the filters and their settings.`

func filterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "filter", Short: "Show and change the filters of a running server", Long: filterLong}
	cmd.AddCommand(filterListCommand(), filterSetCommand())
	onlyCommands(cmd)
	return cmd
}

func filterListCommand() *cobra.Command {
	var a asking
	t := optionalNamespace{}
	cmd := &cobra.Command{Use: "list --control PATH", Short: "Show filters with their settings and figures", Args: noArguments}
	a.add(cmd, true)
	cmd.Flags().Uint32Var(&t.Namespace, "namespace", 0, "of this `NAMESPACE` only")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t.target = a.target()
		var l driveList
		return a.ask(cmd, requestFilterList, t, &l, l.printFilters)
	}
	return cmd
}

func filterSetCommand() *cobra.Command {
	var a asking
	cmd := &cobra.Command{Use: "set --control PATH NAMESPACE FILTER SETTINGS", Short: "Change what a filter does from now on",
		Long: `Change what a filter does to the requests that come from now on. FILTER is its kind, or its
place as vfu filter list shows it if there are several of a kind. SETTINGS are what stands
behind the kind in a namespace's text; off switches the filter off. Settings of stats begin
to count anew.

  vfu filter set --control /run/vfu.sock 1 delay 2ms+1ms
  vfu filter set --control /run/vfu.sock 1 rate write:bandwidth=10M
  vfu filter set --control /run/vfu.sock 1 2 off`,
		Args: arguments("NAMESPACE", "FILTER", "SETTINGS")}
	a.add(cmd, true)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := namespaceNumber(args[0])
		if err != nil {
			return err
		}
		var l driveList
		return a.ask(cmd, requestFilterSet, filterChange{namespaceTarget{a.target(), n}, args[1], args[2]}, &l, l.printFilters)
	}
	return cmd
}
