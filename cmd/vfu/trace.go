package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vfiouser/cmd/vfu/internal/trace"
	"vfiouser/codec"
)

const traceLong = `Stand between a vfio-user client and its server, pass on all that they send, bytes
and descriptors, and print each message with its time and, for a reply, how long the
server took (or the client, for a command of the server).

  vfu trace --listen A --connect B             clients come to A, the server is at B
  vfu trace --print FILE                       print what --write FILE recorded
  vfu trace --replay FILE --connect B          play the recorded client against the server
                                               at B; status 1 at the first difference`

// traceOptions are the options of vfu trace.
type traceOptions struct {
	listen, connect      string
	write, print, replay string
	only                 []string
	json, summary, quiet bool
	settle               time.Duration
}

func traceCommand() *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Show what a client and a server say to each other; record it; play it again",
		Long:  traceLong,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.replay == "" && cmd.Flags().Changed("settle") {
				return usageError{errors.New("--settle goes with --replay")}
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "", "socket for clients")
	f.StringVar(&o.connect, "connect", "", "the server's socket")
	f.StringVar(&o.write, "write", "", "record to this file")
	f.StringVar(&o.print, "print", "", "print this recording")
	f.StringVar(&o.replay, "replay", "", "play the client of this recording")
	f.StringSliceVar(&o.only, "only", nil, "commands to print, for example REGION_READ,REGION_WRITE")
	f.BoolVar(&o.json, "json", false, "print objects of JSON, one a line")
	f.BoolVar(&o.summary, "summary", false, "at the end print counts, bytes and latencies of each command")
	f.BoolVar(&o.quiet, "quiet", false, "print no messages")
	f.DurationVar(&o.settle, "settle", 2*time.Second, "how long a replay waits for the server to do what it did in the recording")
	return cmd
}

func (o *traceOptions) run(ctx context.Context, out, warnings io.Writer) error {
	only, err := commandsNamed(o.only)
	if err != nil {
		return err
	}
	switch {
	case o.replay != "" && (o.json || o.summary || o.quiet || only != nil):
		return usageError{errors.New("--replay compares and prints no messages: see those of the recording with --print")}
	case o.quiet && only != nil:
		return usageError{errors.New("--quiet prints no messages, --only some: give one of them")}
	case o.replay != "" && o.connect != "" && o.listen == "" && o.print == "" && o.write == "":
		return o.play(ctx, out)
	case o.print != "" && o.listen == "" && o.connect == "" && o.replay == "" && o.write == "":
		return o.printRecording(out, only)
	case o.listen != "" && o.connect != "" && o.replay == "" && o.print == "":
		return o.proxy(ctx, out, warnings, only)
	}
	return usageError{errors.New("trace: give --listen and --connect, or --print, or --replay and --connect")}
}

// commandsNamed finds commands by their names; nil for none.
func commandsNamed(names []string) (map[codec.Command]bool, error) {
	if len(names) == 0 {
		return nil, nil
	}
	var known []string
	byName := make(map[string]codec.Command)
	for c := range codec.Command(codec.NumCommands) {
		if op, ok := codec.Lookup(c); ok {
			known = append(known, op.Name)
			byName[op.Name] = c
		}
	}
	only := make(map[codec.Command]bool)
	for _, name := range names {
		c, ok := byName[strings.ToUpper(strings.TrimSpace(name))]
		if !ok {
			return nil, usageError{fmt.Errorf("--only %q: must be some of %s", name, strings.Join(known, ", "))}
		}
		only[c] = true
	}
	return only, nil
}

// output is where messages are shown.
type output struct {
	options *traceOptions
	out     *bufio.Writer
	printer *trace.Printer // nil if quiet
	summary *trace.Summary // nil if not wanted
	viewer  *trace.Viewer
}

func (o *traceOptions) output(w io.Writer, only map[codec.Command]bool) *output {
	p := &output{options: o, out: bufio.NewWriterSize(w, 64<<10)}
	p.viewer = trace.NewViewer()
	if !o.quiet {
		p.printer = &trace.Printer{Only: only, JSON: o.json, Out: p.out}
		p.viewer.Add(p.printer)
	}
	if o.summary {
		p.summary = trace.NewSummary()
		p.viewer.Add(p.summary)
	}
	return p
}

func (p *output) flush() error {
	err := p.out.Flush()
	if p.printer != nil {
		err = errors.Join(p.printer.Err, err)
	}
	return err
}

// end prints the summary.
func (p *output) end() error {
	if p.summary != nil {
		show := p.summary.Text
		if p.options.json {
			show = p.summary.JSON
		}
		if err := show(p.out); err != nil {
			return err
		}
	}
	return p.flush()
}

func (o *traceOptions) printRecording(out io.Writer, only map[codec.Command]bool) error {
	file, err := os.Open(o.print)
	if err != nil {
		return err
	}
	defer file.Close()
	p := o.output(out, only)
	err = trace.ReadRecording(file, func(e *trace.Event) error { p.viewer.Show(e); return nil })
	if err != nil {
		err = fmt.Errorf("%s: %w", o.print, err)
	}
	return errors.Join(err, p.end())
}

// proxy stands between clients and the server until the context ends, or until what is
// shown can no longer be written.
func (o *traceOptions) proxy(ctx context.Context, out, warnings io.Writer, only map[codec.Command]bool) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := o.output(out, only)
	var recorder *trace.Recorder
	if o.write != "" {
		file, err := os.Create(o.write)
		if err != nil {
			return err
		}
		defer file.Close()
		if recorder, err = trace.NewRecorder(file); err != nil {
			return err
		}
	}
	var failed error
	show := func(events []trace.Event) {
		if failed != nil {
			return
		}
		for i := range events {
			p.viewer.Show(&events[i])
			if recorder != nil && failed == nil {
				failed = recorder.Write(&events[i])
			}
		}
		if recorder != nil {
			failed = errors.Join(failed, recorder.Flush())
		}
		if failed = errors.Join(failed, p.flush()); failed != nil {
			cancel(failed)
		}
	}
	proxy, err := trace.Listen(o.listen, o.connect, show, func(err error) { fmt.Fprintln(warnings, "vfu: trace:", err) })
	if err != nil {
		return err
	}
	fmt.Fprintf(warnings, "ready: trace on %s of the server at %s\n", o.listen, o.connect)
	if err := proxy.Serve(ctx); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	return p.end()
}

// play plays a recorded client against a server.
func (o *traceOptions) play(ctx context.Context, out io.Writer) error {
	if o.settle <= 0 {
		return usageError{fmt.Errorf("--settle %v: must be positive", o.settle)}
	}
	file, err := os.Open(o.replay)
	if err != nil {
		return err
	}
	defer file.Close()
	played, err := trace.Replay(ctx, file, o.connect, o.settle)
	if err != nil {
		return fmt.Errorf("%s: %w", o.replay, err)
	}
	fmt.Fprintf(out, "no difference: %d sessions, %d messages sent, %d of the server compared\n",
		played.Sessions, played.Sent, played.Compared)
	return nil
}
