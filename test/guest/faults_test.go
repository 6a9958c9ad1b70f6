package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withFilters serves one device whose filters can be changed: the function that is returned
// sets that of a kind, in front of its only namespace.
func withFilters(t *testing.T, namespace string) (s *server, set func(kind, settings string)) {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(dir, "control.sock")
	s = serve(t, served{[]string{namespace}, []string{"--control", control}})
	return s, func(kind, settings string) {
		t.Helper()
		output, err := exec.Command(buildCommand(t), "filter", "set", "--control", control, "1", kind, settings).CombinedOutput()
		if err != nil {
			t.Fatalf("filter set 1 %s %s: %v\n%s", kind, settings, err, output)
		}
	}
}

// quiet keeps what the kernel will say about faults off the console, where nothing is
// expected, and empties its log.
const quiet = "dmesg -n 1; dmesg -C; "

// TestInjectedErrors has a filter fail requests: the guest's programs get the error that belongs
// to it, its kernel says what it was, and the drive's error log has it.
func TestInjectedErrors(t *testing.T) {
	s, set := withFilters(t, "error:off,file:"+image(t, 64<<20)) // (a disk with a cache, so that the kernel flushes it)
	g := boot(t, Config{Sockets: s.sockets})
	d := disk{nsid: 1, size: 64 << 20}
	run(t, g, quiet)
	const (
		read  = "dd if=$disk of=/dev/null bs=4k skip=256 count=1 iflag=direct"
		write = "dd if=/dev/zero of=$disk bs=4k seek=256 count=1 oflag=direct"
	)
	for _, fault := range []struct {
		settings, script string
		errno, kernel    string // what dd and the kernel say
		status           string // in the error log: Base 1.4, figures 128 to 130, without More and DNR
	}{
		{"read:at=1M+4K", read, "No data available", "critical medium error, .* sector 2048 op 0x0:(READ)", "0x281"},
		{"write:at=1M+4K", write, "No data available", "critical medium error, .* sector 2048 op 0x1:(WRITE)", "0x280"},
		{"write:enospc", write, "No space left on device", "critical space allocation error, .* sector 2048", "0x81"},
		{"write:erofs", write, "Input/output error", "I/O error, .* sector 2048", "0x20"},
		{"flush", write + " conv=fsync", "No data available", "op 0x1:(WRITE)", "0x280"},
	} {
		t.Run(fault.settings, func(t *testing.T) {
			set("error", fault.settings)
			run(t, g, d.script(fmt.Sprintf(`
fails() { # COMMAND...
  if out=$("$@" 2>&1); then echo "$*: succeeds"; return 1; fi
  echo "$out" | grep -q %q || { echo "$*: $out"; return 1; }
}
dmesg -C
fails %s
dmesg | grep -q %q || { dmesg; exit 1; }
last=$(nvme error-log $ctrl -e 1 -o json)
status=$(echo "$last" | sed -n 's/.*"status_field" *: *\([0-9]*\).*/\1/p')
[ $((status & 0x7ff)) = $((%s)) ] || { echo "$last"; exit 1; }`, fault.errno, fault.script, fault.kernel, fault.status)))
			set("error", "off")
			run(t, g, d.script(fault.script))
		})
	}
	// What fails once the driver tries again, and nobody else hears of it.
	set("error", "read:once")
	run(t, g, d.script(read))
	powerOff(t, g)
}

// TestHungCommand has a filter hold requests for longer than the driver waits: it aborts
// them, and where that is not possible resets the controller. In both cases the requests are
// done in the end, and the disk is there as before.
func TestHungCommand(t *testing.T) {
	for _, hung := range []struct {
		name, namespace, settings string
		aborted                   bool
		least                     time.Duration
	}{
		{"that can be aborted", "delay:off,mem:64M", "write:once:1h", true, time.Second},
		// (a cache gives nothing back that it has begun)
		{"that has begun", "volatile,delay:off,mem:64M", "read:once:5s", false, 5 * time.Second},
	} {
		t.Run(hung.name, func(t *testing.T) {
			s, set := withFilters(t, hung.namespace)
			g := boot(t, Config{Sockets: s.sockets, CPUs: 2})
			d := disk{nsid: 1, size: 64 << 20}
			run(t, g, quiet+d.script("echo 1000 > $sysfs/queue/io_timeout; seq 1000 | head -c 512 > /tmp/data"))
			set("delay", hung.settings)
			started := time.Now()
			command := "dd if=/tmp/data of=$disk bs=512 count=1 oflag=direct"
			if strings.HasPrefix(hung.settings, "read") {
				command = "dd if=$disk of=/dev/null bs=512 count=1 iflag=direct"
			}
			log := run(t, g, d.script(command+"; dmesg"))
			took := time.Since(started)
			t.Logf("the command took %v", took.Round(time.Millisecond))
			for said, want := range map[string]bool{
				"timeout, aborting":         true,
				"timeout, reset controller": !hung.aborted,
			} {
				if strings.Contains(log, said) != want {
					t.Errorf("the kernel says %q: %t, want %t:\n%s", said, !want, want, log)
				}
			}
			if took < hung.least || took > hung.least+15*time.Second {
				t.Errorf("the command took %v, want %v", took, hung.least)
			}
			checkVerifiedIO(t, g, d, 2, 4)
			checkHealth(t, g, d)
			powerOff(t, g)
		})
	}
}
