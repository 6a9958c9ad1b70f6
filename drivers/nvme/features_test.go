package nvme

import (
	"errors"
	"testing"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
)

func TestSavedFeatureIsThereForTheNextHost(t *testing.T) {
	d := newDisk(t, device.Config{})
	ctx := testContext(t)
	c := d.open(t)
	if _, err := c.SaveFeature(ctx, spec.FeatInterruptCoalescing, 0, 0x0203, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SaveFeature(ctx, spec.FeatKeepAlive, 0, 1000, nil); !errors.Is(err, spec.FeatureNotSaveable) {
		t.Errorf("save what is not saveable: %v", err)
	}
	if err := c.KeepAlive(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = d.open(t)
	if v, err := c.GetFeature(ctx, spec.FeatInterruptCoalescing, spec.SelectCurrent, 0, nil); err != nil || v != 0x0203 {
		t.Errorf("%#x, %v", v, err)
	}
	if v, err := c.FeatureOf(ctx, spec.FeatTemperature, spec.SelectCurrent, 0, 1<<16, nil); err != nil || v != 0xffff {
		t.Errorf("threshold of a sensor: %#x, %v", v, err)
	}
}
