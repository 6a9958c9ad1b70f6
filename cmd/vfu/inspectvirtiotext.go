package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

func (v *virtioReport) print(w io.Writer) {
	fmt.Fprintf(w, "\nvirtio\n")
	fmt.Fprintf(w, "  type\t%d, %s\n", v.Type, v.TypeName)
	for _, s := range v.Structures {
		if s.Size == 0 { // the window of the capability itself
			fmt.Fprintf(w, "  %s\tthrough the configuration space\n", s.Name)
			continue
		}
		fmt.Fprintf(w, "  %s\tBAR %d at %#x, %s", s.Name, s.BAR, s.Offset, size(uint64(s.Size)))
		if s.Multiplier != 0 {
			fmt.Fprintf(w, "; queues %d bytes apart", s.Multiplier)
		}
		fmt.Fprintln(w)
	}
	if v.Status != "" {
		fmt.Fprintf(w, "  status\t%s (%s)\n", strings.Join(v.States, ", "), v.Status)
		fmt.Fprintf(w, "  queues\t%s\n", v.describeQueues())
	}
	switch {
	case v.Error != "":
		fmt.Fprintf(w, "  refused\t%s\n", v.Error)
	case v.Features != "":
		fmt.Fprintf(w, "  features\t%s\n", v.Features)
		const inLine = 6
		for names := range slices.Chunk(v.FeatureNames, inLine) {
			fmt.Fprintf(w, "  \t%s\n", strings.Join(names, " "))
		}
	case len(v.States) > 0 && v.States[0] == "reset":
		fmt.Fprintf(w, "  features\tnot asked for: the registers cannot be written\n")
	case v.Status != "":
		fmt.Fprintf(w, "  features\tnot asked for: the device has a driver\n")
	}
	if v.Network != nil {
		v.Network.print(w)
	}
}

// describeQueues says how many there are and how large they may be.
func (v *virtioReport) describeQueues() string {
	switch {
	case len(v.QueueSizes) == 0:
		return fmt.Sprint(v.Queues)
	case slices.Min(v.QueueSizes) == slices.Max(v.QueueSizes):
		return fmt.Sprintf("%d, up to %d entries", v.Queues, v.QueueSizes[0])
	}
	return fmt.Sprintf("%d, up to %d to %d entries", v.Queues, slices.Min(v.QueueSizes), slices.Max(v.QueueSizes))
}

func (n *networkReport) print(w io.Writer) {
	fmt.Fprintf(w, "\nNetwork\n")
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %s\t%s\n", name, value)
		}
	}
	number := func(n int, unit string) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n, unit)
	}
	line("address", n.MAC)
	line("link", n.Link)
	line("queue pairs", number(n.MaxPairs, ""))
	line("MTU", number(n.MTU, " bytes"))
	if n.Speed != nil {
		line("speed", fmt.Sprintf("%d Mbit/s", *n.Speed))
	}
	line("duplex", n.Duplex)
	line("RSS key", number(n.RSSKeySize, " bytes"))
	line("RSS table", number(n.RSSTableSize, " entries"))
	line("hash types", strings.Join(n.HashTypes, ", "))
}
