package guest

import (
	"fmt"
	"strings"
	"testing"
)

// saw waits until a script in the guest prints what is wanted.
func saw(t *testing.T, g *Guest, script, want string) {
	t.Helper()
	eventually(t, func() error {
		ctx, cancel := timeout(t, scriptTimeout)
		defer cancel()
		if got, err := g.Run(ctx, script); err != nil || strings.TrimSpace(got) != want {
			return fmt.Errorf("%q: %q, %v, want %q", script, got, err, want)
		}
		return nil
	})
}

// Through the control socket namespaces come and go and change their size, and a request hangs, all
// under a guest's eyes.
func TestControlSocket(t *testing.T) {
	p := servePowered(t, "delay:off,error:off,stats", "")
	p.boot()
	g := p.guest
	name := p.disk.name(t, g) // /dev/nvme0n1
	var list struct{}
	vfu := func(args string) { t.Helper(); p.ask(&list, strings.Fields(args)...) }

	t.Run("namespaces", func(t *testing.T) {
		vfu("namespace add --block-size 4096 mem:64M")
		second := disk{nsid: 2, size: 64 << 20}
		run(t, g, second.script("mkfs.ext4 -q -F $disk; mount $disk /mnt; echo hello > /mnt/file; sync; cat /mnt/file"))
		vfu("namespace resize 2 96M")
		saw(t, g, second.script("cat $sysfs/size"), fmt.Sprint(96<<20/512))
		run(t, g, "grep -q hello /mnt/file; umount /mnt")
		vfu("namespace remove 2")
		saw(t, g, "ls -d /dev/nvme*n*", name)
		vfu("namespace add mem:32M")
		saw(t, g, second.script("cat $sysfs/size"), fmt.Sprint(32<<20/512))
		vfu("namespace remove 2")
		saw(t, g, "ls -d /dev/nvme*n*", name)
	})
	dd := func(what string) string {
		return fmt.Sprintf("dd if=%s of=%s bs=4k count=1 %s 2>&1 | grep error || echo done", "%s", "%s", what)
	}
	read := fmt.Sprintf(dd("iflag=direct"), name, "/dev/null")
	write := fmt.Sprintf(dd("oflag=direct"), "/dev/zero", name)
	t.Run("a hung command", func(t *testing.T) {
		vfu("filter set 1 delay write:1h:once")
		run(t, g, p.disk.script("echo 1000 > $sysfs/queue/io_timeout")) // milliseconds
		// The driver aborts the command, then resets the controller, and sends it again.
		if got := strings.TrimSpace(run(t, g, write)); got != "done" {
			t.Errorf("a write that hung once: %q", got)
		}
		if log := run(t, g, "dmesg"); !strings.Contains(log, "timeout, aborting") && !strings.Contains(log, "timeout, reset controller") {
			t.Errorf("the driver did not notice:\n%s", log)
		}
		saw(t, g, read, "done")
	})
	powerOff(t, g)
}
