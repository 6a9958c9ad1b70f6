package guest

import (
	"strings"
	"testing"
	"time"

	"vfiouser/test/holdings"
)

// TestLifetimes leads one server process through what happens to a disk: a guest that uses
// it, resets it, reboots and powers off; a second guest that finds the first one's files and
// is killed in the middle of its I/O; a third one that goes on.
func TestLifetimes(t *testing.T) {
	file := disk{nsid: 1, size: 256 << 20}
	memory := disk{nsid: 2, size: 128 << 20}
	backing := image(t, file.size)
	s := serve(t, served{namespaces: []string{"file:" + backing, "mem:128M"}})
	before := s.holdings(t)

	t.Run("a guest uses the disk", func(t *testing.T) {
		g := boot(t, Config{Sockets: s.sockets})
		t.Run("it describes itself sanely", func(t *testing.T) {
			checkController(t, g, file, 2)
			checkNamespace(t, g, file)
			checkNamespace(t, g, memory)
			checkListed(t, g, file, memory)
			checkHealth(t, g, file)
			checkQueues(t, g, file, 1)
			// (-c 0: without it nvme-cli wants to map BAR 0, which the kernel does not let it)
			for _, log := range []string{"error-log", "fw-log", "effects-log -c 0"} {
				run(t, g, file.script("nvme "+log+" $ctrl > /dev/null"))
			}
		})
		t.Run("fio finds what it wrote", func(t *testing.T) {
			was := checkHealth(t, g, file)
			checkVerifiedIO(t, g, file, 4, 32)
			checkVerifiedIO(t, g, memory, 4, 16)
			is := checkHealth(t, g, file)
			if written := (is.DataUnitsWritten - was.DataUnitsWritten) * 512000; written < 80<<20 {
				t.Errorf("smart-log counts %d bytes written by runs that wrote some 96 MiB", written)
			}
			if is.DataUnitsRead <= was.DataUnitsRead || is.WriteCommands <= was.WriteCommands {
				t.Errorf("smart-log does not count: %+v, before %+v", is, was)
			}
		})
		t.Run("discarded blocks leave the file", func(t *testing.T) { checkDiscard(t, g, file, backing) })
		t.Run("blocks of deleted files leave the file", func(t *testing.T) { checkTrim(t, g, file, backing) })
		t.Run("rare commands do what they say", func(t *testing.T) {
			checkCommands(t, g, file)
			checkCommands(t, g, memory)
			checkHealth(t, g, file)
		})
		t.Run("files outlive a mount", func(t *testing.T) {
			for _, d := range []disk{file, memory} {
				writeFiles(t, g, d)
				checkFiles(t, g, d)
			}
		})
		t.Run("files outlive a controller reset", func(t *testing.T) {
			run(t, g, file.script("nvme reset $ctrl"))
			checkFiles(t, g, file)
		})
		t.Run("files outlive a removal and a rescan", func(t *testing.T) {
			run(t, g, "echo 1 > /sys/bus/pci/devices/0000:00:04.0/remove")
			if left := run(t, g, "ls /sys/block"); strings.Contains(left, "nvme") {
				t.Errorf("the removed disk is still there: %s", left)
			}
			run(t, g, "echo 1 > /sys/bus/pci/rescan")
			checkFiles(t, g, file)
		})
		t.Run("files outlive a reboot", func(t *testing.T) {
			reboot(t, g)
			checkFiles(t, g, file)
			checkFiles(t, g, memory)
		})
		t.Run("an idle guest costs less than 1 % of a core", func(t *testing.T) { checkIdle(t, s, 10*time.Second) })
		powerOff(t, g)
		s.checkReleased(t, before)
	})

	t.Run("a second guest finds the files and is killed in the middle of I/O", func(t *testing.T) {
		g := boot(t, Config{Sockets: s.sockets})
		checkFiles(t, g, file)
		checkFiles(t, g, memory)
		startEndlessIO(t, g, file)
		startEndlessIO(t, g, memory)
		during := s.holdings(t)
		if during[holdings.GuestMemory] == 0 {
			t.Errorf("no mapping of guest memory among what the server holds: %v", during)
		}
		g.Kill()
		s.checkReleased(t, before)
	})

	t.Run("the next guest works", func(t *testing.T) {
		g := boot(t, Config{Sockets: s.sockets})
		for _, d := range []disk{file, memory} {
			writeFiles(t, g, d)
			checkFiles(t, g, d)
		}
		checkHealth(t, g, file)
		powerOff(t, g)
		s.checkReleased(t, before)
	})
}

// reboot reboots the guest.
func reboot(t *testing.T, g *Guest) {
	t.Helper()
	ctx, cancel := timeout(t, bootTimeout)
	defer cancel()
	if err := g.Reboot(ctx); err != nil {
		t.Fatalf("reboot: %v", err)
	}
}
