package nvme

import (
	"errors"
	"testing"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

func TestSelfTest(t *testing.T) {
	c := newDisk(t, device.Config{}).open(t)
	ctx := testContext(t)
	if err := c.SelfTest(ctx, spec.SelfTestExtended, spec.BroadcastNSID); err != nil {
		t.Fatal(err)
	}
	if err := c.SelfTest(ctx, spec.SelfTestShort, 1); !errors.Is(err, spec.SelfTestInProgress) {
		t.Errorf("a second one: %v", err)
	}
	if err := c.SelfTest(ctx, spec.SelfTestAbort, 1); err != nil {
		t.Fatal(err)
	}
	if l, err := c.SelfTestLog(ctx); err != nil || l.Operation != 0 || len(l.Results) != 1 || l.Results[0].Result != spec.SelfTestAborted {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestSecurityAndDirectives(t *testing.T) {
	c := newDisk(t, device.Config{}).open(t)
	ctx := testContext(t)
	p := make([]byte, 512)
	if err := c.SecurityReceive(ctx, 0, 0, p); err != nil || p[7] != 1 {
		t.Errorf("% x, %v", p[:16], err)
	}
	if err := c.SecurityReceive(ctx, 0xea, 0, p); !errors.Is(err, spec.InvalidField) {
		t.Errorf("unknown protocol: %v", err)
	}
	if d, err := c.Directives(ctx, 1); err != nil || d.Supported != 1 || d.Enabled != 1 {
		t.Errorf("%+v, %v", d, err)
	}
}
