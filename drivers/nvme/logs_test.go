package nvme

import (
	"errors"
	"strings"
	"testing"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

func TestLogs(t *testing.T) {
	c := newDisk(t, device.Config{}).open(t)
	ctx := testContext(t)
	pages, err := c.SupportedPages(ctx)
	if err != nil || pages[spec.LogSmart] != spec.LogSupported || pages[0x30] != 0 {
		t.Errorf("pages %v, %v", pages, err)
	}
	telemetry, err := c.Telemetry(ctx)
	if err != nil || telemetry.HostGeneration != 1 || !strings.Contains(string(telemetry.Data), "opcode 0x06") {
		t.Errorf("telemetry %+v, %v", telemetry, err)
	}
	for range 2 { // the first one has released its context
		events, err := c.PersistentEvents(ctx)
		if err != nil || len(events.Events) < 2 || events.Model != c.Identify().Model {
			t.Errorf("events %+v, %v", events, err)
		}
	}
	if err := c.LogPage(ctx, 0x30, 0, 0, 0, make([]byte, 4)); !errors.Is(err, spec.InvalidLogPage) {
		t.Errorf("unknown page: %v", err)
	}
	if err := c.LogPage(ctx, spec.LogSmart, 0, 0, 0, make([]byte, 3)); !errors.Is(err, ErrInvalid) {
		t.Errorf("three bytes: %v", err)
	}
}

// A device may say that its log has more bytes than there is memory.
func TestSizeOfEventsIsBounded(t *testing.T) {
	for _, c := range []struct {
		size uint64
		pels uint32
		ok   bool
	}{
		{spec.PersistentEventsHeader, 1, true}, {64 << 10, 1, true}, {maxEvents, 1 << 31, true},
		{0, 1, false}, {spec.PersistentEventsHeader - 1, 1, false}, {64<<10 + 1, 1, false}, {512, 0, false},
		{maxEvents + 1, 1 << 31, false}, {1 << 47, 1<<32 - 1, false}, {1<<64 - 1, 1<<32 - 1, false},
	} {
		if err := checkEvents(c.size, c.pels); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%d bytes of %d: %v", c.size, c.pels, err)
		}
	}
}

func TestFirmware(t *testing.T) {
	c := newDisk(t, device.Config{}).open(t)
	ctx := testContext(t)
	image, err := device.FirmwareImage("9.9", make([]byte, 10000))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DownloadFirmware(ctx, image); err != nil {
		t.Fatal(err)
	}
	if err := c.CommitFirmware(ctx, 2, spec.CommitActivateNow); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Firmware(ctx); err != nil || l.ActiveSlot != 2 || l.Revisions[1] != "9.9" {
		t.Errorf("%+v, %v", l, err)
	}
	if err := c.CommitFirmware(ctx, 3, spec.CommitActivate); !errors.Is(err, spec.InvalidFirmwareImage) {
		t.Errorf("empty slot: %v", err)
	}
	if err := c.DownloadFirmware(ctx, image[:3]); !errors.Is(err, ErrInvalid) {
		t.Errorf("three bytes: %v", err)
	}
}
