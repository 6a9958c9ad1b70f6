// Command vfio-user-conformance runs the conformance suite against any vfio-user server.
// It is one file that needs nothing beside it:
//
//	CGO_ENABLED=0 go build ./test/conformance/vfio-user-conformance
//	vfio-user-conformance -socket /run/dev.sock
//	vfio-user-conformance -serve './gpio-pci-idio-16 -v {}' -run irqs
//
// With -socket all cases run one after the other against the device there. With -serve
// each case has a server of its own: the command is started with a socket path in place
// of {}, and killed after the case.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"vfiouser/test/conformance"
)

// Exit codes.
const (
	exitFailed = 1 // cases failed
	exitUsage  = 2
)

type options struct {
	out           io.Writer
	socket, serve string
	run           *regexp.Regexp
	list, verbose bool
	roles         conformance.Roles
}

func main() {
	o := options{out: os.Stdout, roles: conformance.Roles{}}
	flag.StringVar(&o.socket, "socket", "", "unix socket of the server")
	flag.StringVar(&o.serve, "serve", "", "command that serves a device; {} is its socket")
	pattern := flag.String("run", "", "run the cases whose file/name matches this regular expression")
	flag.BoolVar(&o.list, "list", false, "list the cases with their rules")
	flag.BoolVar(&o.verbose, "v", false, "show cases that pass, too")
	flag.Func("scratch", "index of a region that is plain memory: what is written there is read back, and does nothing", o.role("scratch"))
	flag.Func("big", "index of such a region of more than 1 MiB", o.role("big"))
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil || flag.NArg() > 0 || !o.list && (o.socket == "") == (o.serve == "") {
		fmt.Fprintln(os.Stderr, "one of -socket, -serve and -list is needed", err)
		flag.Usage()
		os.Exit(exitUsage)
	}
	failed, err := o.main()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vfio-user-conformance:", err)
		os.Exit(exitUsage)
	}
	if failed > 0 {
		os.Exit(exitFailed)
	}
}

// role takes the index of a region.
func (o *options) role(name string) func(string) error {
	return func(s string) error {
		index, err := strconv.ParseUint(s, 0, 32)
		o.roles[name] = index
		return err
	}
}

// main runs the cases and counts those that fail.
func (o *options) main() (failed int, err error) {
	cases, err := conformance.Load()
	if err != nil {
		return 0, err
	}
	var has map[string]uint64
	if !o.list {
		if err := o.with(func(dial func() (int, error)) (err error) {
			has, err = conformance.Survey(dial, o.roles)
			return err
		}); err != nil {
			return 0, err
		}
		if o.serve != "" {
			has["fresh"] = 1
		}
	}
	passed, skipped := 0, 0
	for _, c := range cases {
		name := c.File + "/" + c.Name
		if !o.run.MatchString(name) {
			continue
		}
		if o.list {
			fmt.Fprintf(o.out, "%s\n\t%s: %s\n", name, c.Section, c.Rule)
			continue
		}
		err := o.with(func(dial func() (int, error)) error {
			return c.Run(&conformance.Target{Dial: dial, Has: has})
		})
		switch {
		case errors.Is(err, conformance.ErrSkipped):
			skipped++
			if o.verbose {
				fmt.Fprintf(o.out, "skip  %s: %v\n", name, err)
			}
		case err != nil:
			failed++
			fmt.Fprintf(o.out, "FAIL  %s\n      rule: %s: %s\n      %v\n", name, c.Section, c.Rule, err)
		default:
			passed++
			if o.verbose {
				fmt.Fprintf(o.out, "ok    %s\n", name)
			}
		}
	}
	if !o.list {
		fmt.Fprintf(o.out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	}
	return failed, nil
}

// with calls do with a server.
func (o *options) with(do func(dial func() (int, error)) error) error {
	if o.serve == "" {
		return do(func() (int, error) { return conformance.DialUnix(o.socket) })
	}
	dir, err := os.MkdirTemp("", "vfio-user-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	words := strings.Fields(strings.ReplaceAll(o.serve, "{}", socket))
	if len(words) == 0 {
		return errors.New("-serve names no command")
	}
	server := exec.Command(words[0], words[1:]...)
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		_ = server.Process.Kill() // it may have ended with its client
		_ = server.Wait()
	}()
	return do(func() (int, error) { return conformance.DialUnix(socket) })
}
