// Command suites runs test suites of other projects against an NVMe disk of `vfu serve nvme`,
// in the test guest:
//
//	git clone https://github.com/linux-nvme/nvme-cli && git clone https://github.com/linux-blktests/blktests
//	go run ./test/guest/suites -nvme-cli nvme-cli -blktests blktests
//
// Of nvme-cli it runs the end-to-end tests, of blktests those cases of the groups block and
// nvme that use a test device; arguments are the names of those to run, with the wildcards of
// path.Match ("block/*"). It prints a line for each case; what each printed, and the kernel's
// messages, go to files in the folder -out. The exit status is 1 if a case failed. blktests'
// own programs are built if there are make and C compilers.
//
// [vfiouser/test/guest.Lab.Tools] says what it downloads. Any server will do (-socket), and so
// will the NVMe disk that QEMU itself emulates (-reference): what fails there as well is not this
// project's fault.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"time"

	"vfiouser/test/guest"
)

// suite is a suite that is ready to run.
type suite struct {
	name   string
	folder string   // its files, for the guest
	cases  []string // their names
	// script is what runs a case in the guest, on the disk at $disk of the controller $ctrl.
	script func(name string) string
	// results reads what the script printed.
	results func(name, output string) []result
}

// result is what came of a case, or of a part of it.
type result struct {
	name, outcome, why string
}

const failed = "failed"

type options struct {
	socket, options, reference, out string
	timeout                         time.Duration
	cpus                            int
	patterns                        []string
}

func main() {
	var o options
	nvmecli := flag.String("nvme-cli", "", "folder with a checkout of nvme-cli")
	blktests := flag.String("blktests", "", "folder with a checkout of blktests")
	flag.StringVar(&o.socket, "socket", "", "socket of a server; else one of `vfu serve nvme` is started")
	flag.StringVar(&o.options, "options", "--pool mem:2G", "options for that; a namespace is created if there is none")
	flag.StringVar(&o.reference, "reference", "", "use QEMU's own disk; properties of its nvme-ns, such as logical_block_size=512")
	flag.StringVar(&o.out, "out", "suites-out", "folder for logs")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "for each case")
	flag.IntVar(&o.cpus, "cpus", 2, "virtual processors")
	flag.Parse()
	o.patterns = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, *nvmecli, *blktests, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, nvmecli, blktests string, o options) (ok bool, err error) {
	if nvmecli == "" && blktests == "" {
		return false, errors.New("name a checkout with -nvme-cli or -blktests")
	}
	lab, err := guest.Open(ctx, os.Stderr)
	if err != nil {
		return false, err
	}
	tools, err := lab.Tools(ctx, os.Stderr)
	if err != nil {
		return false, err
	}
	scratch, err := os.MkdirTemp("", "suites")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return false, err
	}
	if versions, err := tools.Versions(); err != nil {
		return false, err
	} else if err := os.WriteFile(filepath.Join(o.out, "VERSIONS"), []byte(versions), 0o644); err != nil {
		return false, err
	}
	ok = true
	for _, prepare := range []func() (*suite, error){
		func() (*suite, error) { return prepareNVMeCLI(nvmecli, filepath.Join(scratch, "nvme-cli")) },
		func() (*suite, error) {
			return prepareBlktests(ctx, blktests, filepath.Join(scratch, "blktests"), tools.Build())
		},
	} {
		s, err := prepare()
		if err != nil {
			return false, err
		}
		if s == nil {
			continue
		}
		r := runner{o: o, lab: lab, suite: s, image: s.folder + ".img", scratch: scratch, passed: true}
		if err := lab.Image(ctx, r.image, s.folder); err != nil {
			return false, err
		}
		r.args = tools.Args(r.image)
		err = r.run(ctx)
		r.stop()
		if err != nil {
			return false, err
		}
		ok = ok && r.passed
	}
	return ok, nil
}

// runner runs one suite. The guest and the server are started anew when a case has not ended.
type runner struct {
	o       options
	lab     *guest.Lab
	suite   *suite
	image   string
	args    []string
	scratch string
	passed  bool

	server *server
	guest  *guest.Guest
}

func (r *runner) run(ctx context.Context) error {
	for _, name := range r.suite.cases {
		if !matches(r.o.patterns, name) {
			continue
		}
		if err := r.start(ctx); err != nil {
			return err
		}
		began := time.Now()
		output, ended := r.try(ctx, name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		results := r.suite.results(name, output)
		if !ended || len(results) == 0 {
			results = append(results, result{name, failed, "the case did not end as it should"})
		}
		for _, x := range results {
			fmt.Printf("| %s | %s | %s | %.0f s |\n", x.name, x.outcome, x.why, time.Since(began).Seconds())
			r.passed = r.passed && x.outcome != failed
		}
		log := filepath.Join(r.o.out, r.suite.name+"-"+strings.ReplaceAll(name, "/", "-")+".log")
		if err := os.WriteFile(log, []byte(output), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// try runs a case. If it does not end, the guest is stopped.
func (r *runner) try(ctx context.Context, name string) (output string, ended bool) {
	limit, cancel := context.WithTimeout(ctx, r.o.timeout)
	defer cancel()
	output, err := r.guest.Run(limit, findDisk+guest.InTools("export $(cat /tmp/disk)\n"+r.suite.script(name)))
	var exit *guest.ExitError
	if ended = err == nil || errors.As(err, &exit); ended {
		log, err := r.guest.Run(ctx, "dmesg -c")
		if err == nil {
			return output + "\nKernel:\n" + log, true
		}
	}
	output += fmt.Sprintf("\nConsole (%v):\n%s", err, r.guest.Console())
	r.stop()
	return output, false
}

// findDisk is a script that notes the names of the first device's disk and controller, and
// links what udev would link.
const findDisk = `
for i in $(seq 50); do
  for sysfs in /sys/bus/pci/devices/0000:00:04.0/nvme/nvme*; do ctrl=${sysfs##*/}; done
  [ -b /dev/${ctrl}n1 ] && break
  sleep 0.1
done
mkdir -p /dev/char
ln -sfn "/dev/$ctrl" "/dev/char/$(cat "/sys/class/nvme/$ctrl/dev")"
echo "ctrl=/dev/$ctrl disk=/dev/${ctrl}n1" > /tools/tmp/disk
`

func (r *runner) start(ctx context.Context) error {
	if r.guest != nil {
		return nil
	}
	cfg := guest.Config{CPUs: r.o.cpus, Args: r.args}
	switch {
	case r.o.reference != "":
		image := filepath.Join(r.scratch, "reference.img")
		if err := os.WriteFile(image, nil, 0o644); err != nil {
			return err
		}
		if err := os.Truncate(image, 2<<30); err != nil {
			return err
		}
		cfg.Args = append(cfg.Args, "-drive", "if=none,id=reference,format=raw,file.filename="+image,
			"-device", "nvme,serial=reference,addr=4", "-device", "nvme-ns,drive=reference,"+r.o.reference)
	case r.o.socket != "":
		cfg.Sockets = []string{r.o.socket}
	default:
		var err error
		if r.server, err = startServer(ctx, r.scratch, filepath.Join(r.o.out, "server.log"), r.o.options); err != nil {
			return err
		}
		cfg.Sockets = []string{r.server.socket}
	}
	g, err := r.lab.Boot(ctx, cfg)
	if err != nil {
		return err
	}
	r.guest = g
	_, err = g.Run(ctx, guest.MountTools+findDisk+guest.InTools("export $(cat /tmp/disk)\n"+createDisk))
	return err
}

// createDisk is a script that creates a namespace if there is none, of all capacity, as the
// tests of nvme-cli do after they have deleted it.
const createDisk = `
[ -b $disk ] && exit
capacity=$(nvme id-ctrl $ctrl -o json | sed -n 's/.*"tnvmcap" *: *\([0-9]*\).*/\1/p')
nvme create-ns $ctrl --nsze=$((capacity/512)) --ncap=$((capacity/512)) --flbas=0 --dps=0 &&
  nvme attach-ns $ctrl --namespace-id=1 --controllers=$(nvme list-ctrl $ctrl -o json | grep -o '[0-9]*' | tail -1)
for i in $(seq 50); do [ -b $disk ] && exit; sleep 0.1; done
echo "there is no $disk"
exit 1
`

func (r *runner) stop() {
	if r.guest != nil {
		r.guest.Close()
		r.guest = nil
	}
	if r.server != nil {
		r.server.stop()
		r.server = nil
	}
}

// matches says whether a case is to be run.
func matches(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return len(patterns) == 0
}
