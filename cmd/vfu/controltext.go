package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
)

// lines prints a table whose columns are separated by tabs.
func lines(out io.Writer, print func(w io.Writer)) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	print(w)
	_ = w.Flush()                                 // a builder takes everything
	for line := range strings.Lines(b.String()) { // an empty last column leaves blanks
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func bytesText(n int64) string { return units.BytesSize(float64(n)) }

// plural is a number with what it counts: "1 cache", "2 caches".
func plural[N int | uint64](n N, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func (r *statusReport) print(out io.Writer) error {
	return lines(out, func(w io.Writer) {
		fmt.Fprintf(w, "process %d, up for %v\n", r.PID, time.Duration(r.Uptime*float64(time.Second)).Round(time.Second))
		for _, d := range r.Devices {
			client := "no client"
			if d.Client {
				client = "client attached"
			}
			fmt.Fprintf(w, "%s: %s, %s", d.Device, d.Kind, client)
			if d.Subsystem != "" {
				fmt.Fprintf(w, ", subsystem %s", d.Subsystem)
			}
			if d.Link != "" {
				fmt.Fprintf(w, ", link %s", d.Link)
			}
			fmt.Fprintln(w)
			for _, n := range d.Namespaces {
				n.print(w)
			}
		}
	})
}

// String is a format such as "512", or "4096+8, protection 1".
func (f formatReport) String() string {
	text := strconv.Itoa(f.BlockSize)
	if f.Metadata > 0 {
		text += fmt.Sprintf("+%d", f.Metadata)
	}
	if f.Protection > 0 {
		text += fmt.Sprintf(", protection %d with a guard of %d bits", f.Protection, f.Guard)
	}
	return text
}

// print is the line of a namespace.
func (n *namespaceReport) print(w io.Writer) {
	backend := n.Backend
	if backend == "" {
		backend = n.Kind + " of the pool"
	}
	attached := ""
	if len(n.Controllers) == 0 {
		attached = "not attached"
	} else if len(n.Controllers) > 1 {
		attached = "controllers " + strings.Trim(fmt.Sprint(n.Controllers), "[]")
	}
	if slices.ContainsFunc(n.Filters, func(f filterReport) bool { return f.Cache != nil && !f.Cache.Power }) {
		backend += "  without power"
	}
	fmt.Fprintf(w, "  %d\t%s\tblocks of %s\t%s\t%s\n", n.Namespace, bytesText(n.Size), n.formatReport, backend, attached)
}

func (l *driveList) printNamespaces(out io.Writer) error {
	return lines(out, func(w io.Writer) {
		for _, d := range l.Devices {
			fmt.Fprintln(w, d.Device)
			for _, n := range d.Namespaces {
				n.print(w)
			}
		}
	})
}

func (l *driveList) printFilters(out io.Writer) error {
	return lines(out, func(w io.Writer) {
		for _, d := range l.Devices {
			for _, n := range d.Namespaces {
				fmt.Fprintf(w, "%s namespace %d", d.Device, n.Namespace)
				if len(n.Filters) == 0 {
					fmt.Fprint(w, ": no filters")
				}
				fmt.Fprintln(w)
				for _, f := range n.Filters {
					f.print(w)
				}
			}
		}
	})
}

// print is the line of a filter, and one for each operation of its figures.
func (f *filterReport) print(w io.Writer) {
	fmt.Fprintf(w, "  %d\t%s\t%s\t", f.Filter, f.Kind, f.Settings)
	if c := f.Cache; c != nil {
		power := "without power"
		if c.Power {
			power = "with power"
		}
		fmt.Fprintf(w, "%s, %s not flushed, %s\n", power, bytesText(c.Unflushed), plural(c.Cuts, "power cut"))
		return
	}
	fmt.Fprintln(w, plural(f.Hits, "hit"))
	for _, s := range f.Stats {
		fmt.Fprintf(w, "  \t  %s\t%s\t%s, %s, %d in flight, mean %.1f µs, longest %.1f µs\n", s.Operation, plural(s.Requests, "request"),
			bytesText(int64(s.Bytes)), plural(s.Errors, "error"), s.InFlight, s.Mean, s.Longest)
	}
}
