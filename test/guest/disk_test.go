package guest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// disk is a namespace as the guest sees it.
type disk struct {
	controller string // "nvme0"
	namespace  int    // 1, 2, ...
	size       int64  // bytes
}

// path is the block device.
func (d disk) path() string { return fmt.Sprintf("/dev/%sn%d", d.controller, d.namespace) }

// sysfs is the folder of the block device.
func (d disk) sysfs() string { return fmt.Sprintf("/sys/block/%sn%d", d.controller, d.namespace) }

// script puts the block device and the controller into variables before a script.
func (d disk) script(script string) string {
	return fmt.Sprintf("disk=%s ctrl=/dev/%s\n%s", d.path(), d.controller, script)
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

func identify(t *testing.T, g *Guest, controller string) identity {
	t.Helper()
	var id identity
	runJSON(t, g, "nvme id-ctrl /dev/"+controller+" -o json", &id)
	return id
}

// checkController holds what the controller says of itself to the base specification.
func checkController(t *testing.T, g *Guest, controller string, namespaces int) {
	t.Helper()
	id := identify(t, g, controller)
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
	if got := strings.TrimSpace(run(t, g, "cat "+d.sysfs()+"/size")); got != strconv.FormatInt(d.size/512, 10) {
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
		if sizes[d.path()] != d.size {
			t.Errorf("nvme list: %s has %d bytes, want %d", d.path(), sizes[d.path()], d.size)
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
func checkHealth(t *testing.T, g *Guest, controller string) health {
	t.Helper()
	var h health
	runJSON(t, g, "nvme smart-log /dev/"+controller+" -o json", &h)
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
	queues := strings.Fields(run(t, g, "ls "+d.sysfs()+"/mq"))
	if len(queues) != cpus {
		t.Errorf("%s has %d hardware queues, want one for each of %d processors", d.path(), len(queues), cpus)
	}
	vectors := strings.Count(run(t, g, "cat /proc/interrupts"), d.controller+"q")
	if vectors != cpus+1 {
		t.Errorf("%s has %d interrupt vectors, want %d for I/O and one for admin", d.controller, vectors, cpus)
	}
}
