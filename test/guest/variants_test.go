package guest

import (
	"fmt"
	"strings"
	"testing"
)

// TestDoorbellModes uses a disk in each doorbell mode, and checks that the guest sees what
// the mode is about.
func TestDoorbellModes(t *testing.T) {
	for _, mode := range []struct {
		name   string
		shadow bool // Linux is offered shadow doorbells, and takes them
		mapped bool // QEMU maps a part of BAR 0
	}{
		{name: "auto", shadow: true},
		{name: "trap"},
		{name: "shadow", shadow: true},
		{name: "mmap", mapped: true},
	} {
		t.Run(mode.name, func(t *testing.T) {
			s := serve(t, served{[]string{"mem:128M"}, []string{"--doorbells", mode.name}})
			g := boot(t, Config{Sockets: s.sockets, CPUs: 2})
			d := disk{nsid: 1, size: 128 << 20}
			if offered := identify(t, g, d).OACS&oacsDoorbellBuffer != 0; offered != mode.shadow {
				t.Errorf("shadow doorbells are offered: %t, want %t", offered, mode.shadow)
			}
			if mapped := strings.Contains(memoryTree(t, g), "BAR 0 mmaps"); mapped != mode.mapped {
				t.Errorf("BAR 0 is mapped: %t, want %t", mapped, mode.mapped)
			}
			checkQueues(t, g, d, 2)
			writeFiles(t, g, d)
			checkFiles(t, g, d)
			checkVerifiedIO(t, g, d, 4, 8)
			powerOff(t, g)
		})
	}
}

// TestMemoryWithoutDescriptor uses a disk from a guest whose memory the server cannot map:
// queues and data go by messages. The guest is killed while some are outstanding.
func TestMemoryWithoutDescriptor(t *testing.T) {
	d := disk{nsid: 1, size: 128 << 20}
	s := serve(t, served{namespaces: []string{"file:" + image(t, d.size)}})
	before := s.holdings(t)
	g := boot(t, Config{Sockets: s.sockets, Memory: MemoryAnonymous})
	checkListed(t, g, d)
	checkCommands(t, g, d)
	writeFiles(t, g, d)
	checkFiles(t, g, d)
	checkVerifiedIO(t, g, d, 4, 4)
	startEndlessIO(t, g, d)
	g.Kill()
	s.checkReleased(t, before)
}

// TestThreeDisksFourProcessors uses three disks of one server process at the same time from
// a guest with four processors.
func TestThreeDisksFourProcessors(t *testing.T) {
	const cpus = 4
	s := serve(t,
		served{namespaces: []string{"mem:64M"}},
		served{namespaces: []string{"mem:128M"}},
		served{namespaces: []string{"file:" + image(t, 256<<20)}})
	before := s.holdings(t)
	g := boot(t, Config{Sockets: s.sockets, CPUs: cpus})

	disks := []disk{
		{device: 0, nsid: 1, size: 64 << 20},
		{device: 1, nsid: 1, size: 128 << 20},
		{device: 2, nsid: 1, size: 256 << 20},
	}
	checkListed(t, g, disks...)
	serials := map[string]bool{}
	var all strings.Builder
	for _, d := range disks {
		checkQueues(t, g, d, cpus)
		serials[identify(t, g, d).Serial] = true
		writeFiles(t, g, d)
		checkFiles(t, g, d)
		fmt.Fprintf(&all, " --name=disk%d --filename=%s", d.device, d.name(t, g))
	}
	if len(serials) != len(disks) {
		t.Errorf("the disks share a serial number: %v", serials)
	}
	run(t, g, `
fio --direct=1 --ioengine=libaio --thread --rw=randrw --bssplit=4k/60:16k/20:128k/20 --iodepth=16 \
  --numjobs=4 --size=4m --offset_increment=4m --verify=crc32c --verify_fatal=1`+all.String())
	powerOff(t, g)
	s.checkReleased(t, before)
}

// memoryTree is QEMU's own account of what the guest's processors see where.
func memoryTree(t *testing.T, g *Guest) string {
	t.Helper()
	ctx, cancel := timeout(t, scriptTimeout)
	defer cancel()
	var tree string
	command := map[string]string{"command-line": "info mtree"}
	if err := g.Monitor(ctx, "human-monitor-command", command, &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}
