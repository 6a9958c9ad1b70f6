package guest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// disk is a namespace of one of the guest's devices.
type disk struct {
	device int   // index in Config.Sockets
	nsid   int   // 1, 2, ...
	size   int64 // bytes
}

// script puts what the disk is called in the guest before a script: disk=/dev/nvme0n1,
// ctrl=/dev/nvme0, sysfs=the disk's folder. Linux finds controllers and namespaces in
// parallel, so their names say nothing; and it may not have found them yet.
func (d disk) script(script string) string {
	return fmt.Sprintf(`
for i in $(seq 100); do
  for sysfs in /sys/bus/pci/devices/0000:00:%02x.0/nvme/nvme*/nvme*n*; do
    disk=/dev/${sysfs##*/} ctrl=${sysfs%%/*} ctrl=/dev/${ctrl##*/}
    [ -b "$disk" ] && [ "$(cat "$sysfs/nsid")" = %d ] && break 2
    disk=
  done
  sleep 0.1
done
[ "$disk" ] || { echo "namespace %[2]d of device %d does not appear"; exit 1; }
%s`, firstSlot+d.device, d.nsid, d.device, script)
}

// name is the disk's name in the guest at this moment.
func (d disk) name(t *testing.T, g *Guest) string {
	t.Helper()
	return strings.TrimSpace(run(t, g, d.script("echo $disk")))
}

// identity is what `nvme id-ctrl -o json` prints, as far as the tests look at it.
type identity struct {
	Serial   string `json:"sn"`
	Model    string `json:"mn"`
	Firmware string `json:"fr"`
	Version  uint32 `json:"ver"`
	MDTS     int    `json:"mdts"`
	OACS     int    `json:"oacs"`
	ONCS     int    `json:"oncs"`
	SQES     int    `json:"sqes"`
	CQES     int    `json:"cqes"`
	NN       int    `json:"nn"`
	SubNQN   string `json:"subnqn"`
}

const (
	oacsDoorbellBuffer = 1 << 8
	oncsDSM            = 1 << 2
	oncsWriteZeroes    = 1 << 3
)

func identify(t *testing.T, g *Guest, d disk) identity {
	t.Helper()
	var id identity
	runJSON(t, g, d.script("nvme id-ctrl $ctrl -o json"), &id)
	return id
}

// checkController holds what the controller says of itself to the base specification.
func checkController(t *testing.T, g *Guest, d disk, namespaces int) {
	t.Helper()
	id := identify(t, g, d)
	for name, text := range map[string]string{"serial number": id.Serial, "model": id.Model, "firmware": id.Firmware} {
		if strings.TrimSpace(text) == "" {
			t.Errorf("id-ctrl: no %s", name)
		}
	}
	if id.Version < 0x10200 {
		t.Errorf("id-ctrl: version %#x, want 1.2 or later", id.Version)
	}
	if id.SQES != 0x66 || id.CQES != 0x44 {
		t.Errorf("id-ctrl: sqes %#x, cqes %#x: entries of 64 and 16 bytes are 0x66 and 0x44", id.SQES, id.CQES)
	}
	if id.NN < namespaces {
		t.Errorf("id-ctrl: nn %d, want at least %d", id.NN, namespaces)
	}
	if want := oncsDSM | oncsWriteZeroes; id.ONCS&want != want {
		t.Errorf("id-ctrl: oncs %#x lacks Dataset Management or Write Zeroes", id.ONCS)
	}
	if !strings.HasPrefix(id.SubNQN, "nqn.") {
		t.Errorf("id-ctrl: subnqn %q", id.SubNQN)
	}
}

// checkNamespace holds the size that the controller reports to what was asked for.
func checkNamespace(t *testing.T, g *Guest, d disk) {
	t.Helper()
	var id struct {
		NSZE, NCAP, NUSE int64
		FLBAS            int
		LBAFs            []struct{ DS int }
	}
	runJSON(t, g, d.script("nvme id-ns $disk -o json"), &id)
	if format := id.FLBAS & 0xf; format >= len(id.LBAFs) {
		t.Fatalf("id-ns: format %d of %d", format, len(id.LBAFs))
	} else if size := id.NSZE << id.LBAFs[format].DS; size != d.size {
		t.Errorf("id-ns: %d bytes, want %d", size, d.size)
	}
	if id.NCAP != id.NSZE || id.NUSE > id.NCAP {
		t.Errorf("id-ns: nsze %d, ncap %d, nuse %d", id.NSZE, id.NCAP, id.NUSE)
	}
	if got := strings.TrimSpace(run(t, g, d.script("cat $sysfs/size"))); got != strconv.FormatInt(d.size/512, 10) {
		t.Errorf("the kernel sees %s sectors, want %d", got, d.size/512)
	}
}

// checkListed looks for the namespaces in the table that users look at.
func checkListed(t *testing.T, g *Guest, disks ...disk) {
	t.Helper()
	var list struct {
		Devices []struct {
			DevicePath   string
			PhysicalSize int64
			SectorSize   int
		}
	}
	runJSON(t, g, "nvme list -o json", &list)
	sizes := map[string]int64{}
	for _, entry := range list.Devices {
		sizes[entry.DevicePath] = entry.PhysicalSize
	}
	for _, d := range disks {
		if name := d.name(t, g); sizes[name] != d.size {
			t.Errorf("nvme list: %s has %d bytes, want %d", name, sizes[name], d.size)
		}
	}
	if len(list.Devices) != len(disks) {
		t.Errorf("nvme list: %d devices, want %d", len(list.Devices), len(disks))
	}
}

// health is what `nvme smart-log -o json` prints, as far as the tests look at it.
type health struct {
	CriticalWarning  int   `json:"critical_warning"`
	Temperature      int   `json:"temperature"` // kelvin
	Spare            int   `json:"avail_spare"`
	SpareThreshold   int   `json:"spare_thresh"`
	PercentUsed      int   `json:"percent_used"`
	DataUnitsWritten int64 `json:"data_units_written"` // thousands of 512 bytes
	DataUnitsRead    int64 `json:"data_units_read"`
	WriteCommands    int64 `json:"host_write_commands"`
	MediaErrors      int64 `json:"media_errors"`
	ErrorLogEntries  int64 `json:"num_err_log_entries"`
}

// checkHealth wants a healthy disk, and returns its SMART log.
func checkHealth(t *testing.T, g *Guest, d disk) health {
	t.Helper()
	var h health
	runJSON(t, g, d.script("nvme smart-log $ctrl -o json"), &h)
	if h.CriticalWarning != 0 || h.MediaErrors != 0 || h.PercentUsed > 100 || h.Spare < h.SpareThreshold {
		t.Errorf("smart-log: the disk is ill: %+v", h)
	}
	if h.Temperature < 273 || h.Temperature > 343 {
		t.Errorf("smart-log: %d K is no temperature for a disk", h.Temperature)
	}
	return h
}

// checkQueues wants one I/O queue, with an interrupt vector, for each processor.
func checkQueues(t *testing.T, g *Guest, d disk, cpus int) {
	t.Helper()
	got := strings.Fields(run(t, g, d.script("ls $sysfs/mq | wc -l; grep -c ${ctrl#/dev/}q /proc/interrupts")))
	want := []string{strconv.Itoa(cpus), strconv.Itoa(cpus + 1)} // (one vector is the admin queue's)
	if !slices.Equal(got, want) {
		t.Errorf("hardware queues and interrupt vectors: %v, want %v for %d processors", got, want, cpus)
	}
}
