package nvme

import (
	"errors"
	"testing"
	"time"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

func TestSanitize(t *testing.T) {
	c := newDisk(t, device.Config{}).open(t)
	ctx := testContext(t)
	n := c.Namespace(1)
	p := make([]byte, 4096)
	p[0] = 1
	if _, err := n.WriteAt(p, 8192); err != nil {
		t.Fatal(err)
	}
	if err := c.Sanitize(ctx, spec.SanitizeActionBlockErase, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.ReadAt(p, 8192); !errors.Is(err, spec.SanitizeInProgress) {
		t.Errorf("read meanwhile: %v", err)
	}
	for {
		l, err := c.SanitizeLog(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if l.State() == spec.SanitizeSucceeded {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("it does not end: %+v", l)
		}
	}
	if _, err := n.ReadAt(p, 8192); err != nil || p[0] != 0 {
		t.Errorf("afterwards %d, %v", p[0], err)
	}
}

func TestWriteProtect(t *testing.T) {
	c := newDisk(t, device.Config{}).open(t)
	ctx := testContext(t)
	p := make([]byte, 4096)
	if err := c.WriteProtect(ctx, 1, spec.WriteProtectPowerCycle); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Namespace(1).WriteAt(p, 0); !errors.Is(err, spec.NamespaceWriteProtected) {
		t.Errorf("write: %v", err)
	}
	if err := c.WriteProtect(ctx, 1, spec.WriteProtectNone); !errors.Is(err, spec.FeatureNotChangeable) {
		t.Errorf("undo: %v", err)
	}
}
