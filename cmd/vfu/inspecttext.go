package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"

	"vfiouser/codec"
	"vfiouser/pci"
)

// print writes the report for people.
func (r *inspection) print(out io.Writer) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	r.printDevice(w)
	r.printProtocol(w)
	r.printRegions(w)
	r.printInterrupts(w)
	if r.PCI != nil {
		r.printCapabilities(w)
	}
	if r.NVMe != nil {
		r.NVMe.print(w)
	}
	if r.Virtio != nil {
		r.Virtio.print(w)
	}
	_ = w.Flush() // a buffer takes everything
	text := b.Bytes()
	b = bytes.Buffer{}
	for line := range bytes.Lines(text) { // an empty last column leaves blanks
		b.Write(bytes.TrimRight(line, " \n"))
		b.WriteByte('\n')
	}
	if r.PCI != nil {
		b.WriteString("\nConfiguration space\n")
		b.Write(bytes.TrimSuffix(r.dump(r.shown()), []byte("\n")))
	}
	_, err := out.Write(b.Bytes())
	return err
}

// shown is how much of the configuration space the text shows: all that is not zeroes
// behind the first 256 bytes, in whole lines.
func (r *inspection) shown() int {
	n := len(bytes.TrimRight(r.space, "\x00"))
	return min(len(r.space), max(pci.SpaceSize, (n+15)&^15))
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func orNone(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

func size(n uint64) string { return units.BytesSize(float64(n)) }

func (r *inspection) printDevice(w io.Writer) {
	fmt.Fprintf(w, "Device\n")
	fmt.Fprintf(w, "  socket\t%s\n", r.Socket)
	if r.PCI != nil {
		h := &r.header
		fmt.Fprintf(w, "  id\t%04x:%04x, subsystem %04x:%04x, revision %d\n", h.Vendor, h.Device, h.SubVendor, h.SubDevice, h.Revision)
		fmt.Fprintf(w, "  class\t%06x, %s\n", h.Class, r.PCI.ClassName)
		var on []string
		for _, f := range []struct {
			set  bool
			name string
		}{
			{h.Command.IOEnable(), "I/O"}, {h.Command.MemoryEnable(), "memory"},
			{h.Command.BusMaster(), "bus master"}, {h.Command.INTxDisable(), "pin disabled"},
		} {
			if f.set {
				on = append(on, f.name)
			}
		}
		fmt.Fprintf(w, "  command\t%s (%s)\n", orNone(on, "nothing is enabled"), r.PCI.Command)
		if r.PCI.InterruptPin != "" {
			fmt.Fprintf(w, "  pin\t%s\n", r.PCI.InterruptPin)
		}
	}
	fmt.Fprintf(w, "  flags\t%s\n", orNone(r.Device.Flags, "none"))
	fmt.Fprintf(w, "  migration\t%s\n", orNone(r.Device.Migration, "no"))
}

func (r *inspection) printProtocol(w io.Writer) {
	p := &r.Protocol
	fmt.Fprintf(w, "\nProtocol\n")
	fmt.Fprintf(w, "  version\t%s\n", p.Version)
	fmt.Fprintf(w, "  max_msg_fds\t%d\n", p.MaxMsgFDs)
	fmt.Fprintf(w, "  max_data_xfer_size\t%s\n", size(p.MaxDataXferSize))
	fmt.Fprintf(w, "  max_dma_maps\t%d\n", p.MaxDMAMaps)
	fmt.Fprintf(w, "  pgsizes\t%#x\n", p.PgSizes)
	fmt.Fprintf(w, "  write_multiple\t%s\n", yesNo(p.WriteMultiple))
	fmt.Fprintf(w, "  twin_socket\t%s\n", yesNo(p.TwinSocket))
	if m := p.Migration; m != nil {
		fmt.Fprintf(w, "  migration\tpages of %s", size(m.PgSize))
		if m.MaxBitmapSize != 0 {
			fmt.Fprintf(w, ", bitmaps up to %s", size(m.MaxBitmapSize))
		}
		fmt.Fprintln(w)
	}
}

// maxPrinted bounds how many ioeventfds of a region the text shows; a device may have one
// for each of its queues.
const maxPrinted = 8

func (r *inspection) printRegions(w io.Writer) {
	fmt.Fprintf(w, "\nRegions\n")
	for i := range r.Regions {
		g := &r.Regions[i]
		name := g.Name
		if g.Index >= codec.NumRegions {
			name = fmt.Sprintf("%d", g.Index)
		}
		if g.Size == 0 && g.Error == "" {
			continue
		}
		fmt.Fprintf(w, "  %s\t%s\t%s", name, size(g.Size), orNone(g.Flags, "no access"))
		if g.Type != nil {
			fmt.Fprintf(w, "; type %#x, subtype %#x", g.Type.Type, g.Type.Subtype)
		}
		if g.Error != "" {
			fmt.Fprintf(w, "; refused: %s", g.Error)
		}
		fmt.Fprintln(w)
		for _, a := range g.Areas {
			fmt.Fprintf(w, "  \t\tmappable at %#x, %s\n", a.Offset, size(a.Size))
		}
		for i, e := range g.IOEventfds {
			if i == maxPrinted {
				fmt.Fprintf(w, "  \t\tand %d more\n", len(g.IOEventfds)-i)
				break
			}
			fmt.Fprintf(w, "  \t\t%s at %#x", e.Kind, e.Offset)
			if e.Size != 0 {
				fmt.Fprintf(w, ", %d bytes", e.Size)
			}
			if e.Match != nil {
				fmt.Fprintf(w, ", of value %#x", *e.Match)
			}
			fmt.Fprintln(w)
		}
	}
	if n := int(r.Device.Regions) - len(r.Regions); n > 0 {
		fmt.Fprintf(w, "  and %d more, which were not asked for\n", n)
	}
}

func (r *inspection) printInterrupts(w io.Writer) {
	fmt.Fprintf(w, "\nInterrupts\n")
	for _, i := range r.Interrupts {
		if i.Error != "" {
			fmt.Fprintf(w, "  %s\t-\trefused: %s\n", i.Name, i.Error)
			continue
		}
		fmt.Fprintf(w, "  %s\t%d\t%s\n", i.Name, i.Count, orNone(i.Flags, "no flags"))
	}
	if n := int(r.Device.Interrupts) - len(r.Interrupts); n > 0 {
		fmt.Fprintf(w, "  and %d more, which were not asked for\n", n)
	}
}

func (r *inspection) printCapabilities(w io.Writer) {
	fmt.Fprintf(w, "\nCapabilities\n")
	for _, c := range r.PCI.Capabilities {
		fmt.Fprintf(w, "  %02x\t%s\t%s\n", c.Offset, c.Name, c.Detail)
	}
	if r.PCI.CapabilityError != "" {
		fmt.Fprintf(w, "  the list is broken: %s\n", r.PCI.CapabilityError)
	}
	if len(r.PCI.Capabilities) == 0 && r.PCI.CapabilityError == "" {
		fmt.Fprintf(w, "  none\n")
	}
}

func (n *nvmeReport) print(w io.Writer) {
	bytes := func(v int) string { return size(uint64(v)) }
	fmt.Fprintf(w, "\nNVMe\n")
	fmt.Fprintf(w, "  version\t%s\n", n.Version)
	fmt.Fprintf(w, "  queues\tup to %d entries, doorbells %d bytes apart\n", n.MaxQueueEntries, n.DoorbellStride)
	fmt.Fprintf(w, "  pages\t%s to %s\n", bytes(n.MinPageSize), bytes(n.MaxPageSize))
	fmt.Fprintf(w, "  command sets\t%s\n", orNone(n.CommandSets, "none"))
	fmt.Fprintf(w, "  ready within\t%d ms\n", n.ReadyTimeoutMS)
	fmt.Fprintf(w, "  enabled\t%s\n", yesNo(n.Enabled))
	state := "not ready"
	switch {
	case n.Fatal:
		state = "failed"
	case n.Ready:
		state = "ready"
	}
	if n.Shutdown != "none" {
		state += ", shutdown " + n.Shutdown
	}
	fmt.Fprintf(w, "  state\t%s\n", state)
	if n.Enabled {
		fmt.Fprintf(w, "  admin queues\t%d entries at %s, %d at %s\n",
			n.AdminSubmissionEntries, n.AdminSubmissionAddress, n.AdminCompletionEntries, n.AdminCompletionAddress)
	}
	fmt.Fprintf(w, "  registers\tCAP %s, VS %s, CC %s, CSTS %s\n", n.CAP, n.VS, n.CC, n.CSTS)
}
