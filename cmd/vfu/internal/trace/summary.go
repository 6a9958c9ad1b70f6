package trace

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"vfiouser/codec"
)

// Summary counts messages and times replies, for each command.
type Summary struct {
	rows   map[rowKey]*row
	broken uint64
}

type rowKey struct {
	channel Channel
	command codec.Command
}

// unknown stands for all commands that there are not: one can send tens of thousands, and each
// row takes its memory.
const unknown codec.Command = 0xffff

func (k rowKey) name() string {
	if k.command == unknown {
		return "unknown"
	}
	return k.command.String()
}

// row is a command.
type row struct {
	commands, replies, errors uint64
	bytes                     uint64                  // of commands and replies, with headers
	latency                   *hdrhistogram.Histogram // ns
}

// maxLatency is the longest latency that is told apart.
const maxLatency = int64(10 * time.Minute)

// NewSummary makes an empty one.
func NewSummary() *Summary { return &Summary{rows: make(map[rowKey]*row)} }

func (s *Summary) session(*Event) {}

func (s *Summary) message(m *message, latency time.Duration, answered bool) {
	if m.broken != nil {
		s.broken++
	}
	if m.broken != nil || m.again {
		return
	}
	command := m.header.Command
	if _, known := codec.Lookup(command); !known {
		command = unknown
	}
	r := s.row(rowKey{m.channel, command})
	r.bytes += uint64(len(m.bytes))
	switch {
	case m.header.IsError():
		r.errors++
		r.replies++
	case m.header.IsReply():
		r.replies++
	default:
		r.commands++
	}
	if answered {
		_ = r.latency.RecordValue(min(max(latency.Nanoseconds(), 1), maxLatency))
	}
}

func (s *Summary) row(key rowKey) *row {
	r := s.rows[key]
	if r == nil {
		r = &row{latency: hdrhistogram.New(1, maxLatency, 3)}
		s.rows[key] = r
	}
	return r
}

// keys are the commands in the order of their numbers, those of the twin socket last.
func (s *Summary) keys() []rowKey {
	var keys []rowKey
	for k := range s.rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rowKey) int {
		return cmp.Or(cmp.Compare(a.channel, b.channel), cmp.Compare(a.command, b.command))
	})
	return keys
}

// Text writes the summary as a table.
func (s *Summary) Text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "command\tcommands\treplies\terrors\tbytes\tp50\tp99\tmax\t")
	for _, k := range s.keys() {
		r, name := s.rows[k], k.name()
		if k.channel != Main {
			name = string(k.channel) + " " + name
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", name, r.commands, r.replies, r.errors, r.bytes,
			r.quantile(50), r.quantile(99), r.quantile(100))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if s.broken > 0 {
		_, err := fmt.Fprintf(out, "%d times something that is no message\n", s.broken)
		return err
	}
	return nil
}

func (r *row) quantile(percent float64) string {
	if r.latency.TotalCount() == 0 {
		return "-"
	}
	return time.Duration(r.latency.ValueAtPercentile(percent)).Round(100 * time.Nanosecond).String()
}

// JSON writes a line for each command.
func (s *Summary) JSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	for _, k := range s.keys() {
		r := s.rows[k]
		line := struct {
			Summary  string  `json:"summary"` // the command
			Channel  Channel `json:"channel,omitempty"`
			Commands uint64  `json:"commands"`
			Replies  uint64  `json:"replies"`
			Errors   uint64  `json:"errors"`
			Bytes    uint64  `json:"bytes"`
			P50      int64   `json:"p50_ns"`
			P99      int64   `json:"p99_ns"`
			Max      int64   `json:"max_ns"`
		}{k.name(), k.channel, r.commands, r.replies, r.errors, r.bytes,
			r.latency.ValueAtPercentile(50), r.latency.ValueAtPercentile(99), r.latency.ValueAtPercentile(100)}
		if err := enc.Encode(&line); err != nil {
			return err
		}
	}
	return nil
}
