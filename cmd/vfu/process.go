package main

import (
	"errors"
	"log/slog"
	"os"
)

// maxWorkers bounds --workers: each takes a processor while it is busy.
const maxWorkers = 256

// process is what is said of a serving process, as opposed to a device.
type process struct {
	logLevel slog.Level
	logJSON  bool
	workers  int
	// writeMultiple offers REGION_WRITE_MULTI.
	writeMultiple bool
	control       string // path of the control socket; empty: there is none
}

func newProcess() *process { return &process{logLevel: slog.LevelWarn} }

func (p *process) options() []option {
	return []option{
		{name: "log-level", value: "LEVEL", usage: "what to log on standard error: debug, info, warn or error (default warn)", set: func(s string) error {
			if err := p.logLevel.UnmarshalText([]byte(s)); err != nil {
				return errors.New("must be debug, info, warn or error")
			}
			return nil
		}},
		{name: "log-format", value: "FORMAT", usage: "text or json (default text)", set: func(s string) error {
			if s != "text" && s != "json" {
				return errors.New("must be text or json")
			}
			p.logJSON = s == "json"
			return nil
		}},
		{name: "write-multiple", form: boolean, usage: "offer REGION_WRITE_MULTI (QEMU then queues its writes)",
			set: yesOrNo(func(v bool) { p.writeMultiple = v })},
		{name: "workers", form: integer, value: "N", usage: "threads that poll queues (default one fewer than CPUs)",
			set: between(1, maxWorkers, func(n int) { p.workers = n })},
		{name: "control", value: "PATH", usage: "take requests of vfu status, namespace, filter and power on this unix socket", set: func(s string) error {
			if s == "" {
				return errors.New("is empty")
			}
			p.control = s
			return nil
		}},
	}
}

func (p *process) logger() *slog.Logger {
	opt := &slog.HandlerOptions{Level: p.logLevel}
	if p.logJSON {
		return slog.New(slog.NewJSONHandler(os.Stderr, opt))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opt))
}
