package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// Sanitize is the Sanitize command with these dwords: how is one of spec.SanitizeAction*, with flags (spec.SanitizeUnrestricted
// and others) and the number of passes. The operation goes on after the command; SanitizeLog says how far it is, and until
// it has ended the namespaces cannot be used. It destroys the data of all of them.
func (c *Controller) Sanitize(ctx context.Context, how, pattern uint32) error {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminSanitize, CDW10: how, CDW11: pattern}
	if _, err := c.Admin(ctx, &cmd, nil); err != nil {
		return fmt.Errorf("nvme: sanitize: %w", err)
	}
	return nil
}

// SanitizeLog reads the state of the sanitize operation.
func (c *Controller) SanitizeLog(ctx context.Context) (l spec.SanitizeLog, err error) {
	b := make([]byte, spec.SanitizeSize)
	if err := c.LogPage(ctx, spec.LogSanitize, 0, 0, 0, b); err != nil {
		return l, err
	}
	l.Get(b)
	return l, nil
}

// WriteProtect changes the write protection of a namespace, to one of spec.WriteProtect*. The error is spec.FeatureNotChangeable
// if it cannot be changed any more.
func (c *Controller) WriteProtect(ctx context.Context, nsid, state uint32) error {
	_, err := c.SetFeature(ctx, spec.FeatWriteProtect, nsid, state, nil)
	return err
}
