package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// SaveFeature is SetFeature for a value that resets and power cycles keep. The error is spec.FeatureNotSaveable if the
// feature has no such value.
func (c *Controller) SaveFeature(ctx context.Context, feature uint8, nsid, value uint32, data []byte) (uint32, error) {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: nsid, CDW10: uint32(feature) | spec.SetFeaturesSave, CDW11: value}
	v, err := c.Admin(ctx, &cmd, data)
	if err != nil {
		return 0, fmt.Errorf("nvme: save feature %#x: %w", feature, err)
	}
	return v, nil
}

// FeatureOf is GetFeature for features of which CDW11 names one of several values: an interrupt vector, a temperature
// threshold, or the size of the host identifier.
func (c *Controller) FeatureOf(ctx context.Context, feature, sel uint8, nsid, which uint32, data []byte) (uint32, error) {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: nsid, CDW10: uint32(feature) | uint32(sel)<<8, CDW11: which}
	v, err := c.Admin(ctx, &cmd, data)
	if err != nil {
		return 0, fmt.Errorf("nvme: get feature %#x: %w", feature, err)
	}
	return v, nil
}

// KeepAlive tells the controller that the host is there, which starts its timer anew (feature spec.FeatKeepAlive).
func (c *Controller) KeepAlive(ctx context.Context) error {
	if _, err := c.Admin(ctx, &spec.SubmissionEntry{Opcode: spec.AdminKeepAlive}, nil); err != nil {
		return fmt.Errorf("nvme: keep alive: %w", err)
	}
	return nil
}
