package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// SelfTest is Device Self-test: code is one of spec.SelfTest*. A test runs on after the command; SelfTestLog says how far
// it is. nsid 0 is the controller alone, spec.BroadcastNSID all namespaces too. The error is spec.SelfTestInProgress if a
// test runs already.
func (c *Controller) SelfTest(ctx context.Context, code uint8, nsid uint32) error {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminSelfTest, NSID: nsid, CDW10: uint32(code & 0xf)}
	if _, err := c.Admin(ctx, &cmd, nil); err != nil {
		return fmt.Errorf("nvme: device self-test: %w", err)
	}
	return nil
}

// SelfTestLog reads the results of self-tests, and whether one runs.
func (c *Controller) SelfTestLog(ctx context.Context) (l spec.SelfTestLog, err error) {
	b := make([]byte, spec.SelfTestSize)
	if err := c.LogPage(ctx, spec.LogSelfTest, 0, 0, 0, b); err != nil {
		return l, err
	}
	l.Get(b)
	return l, nil
}

// SecurityReceive fills p with what a security protocol says.
func (c *Controller) SecurityReceive(ctx context.Context, protocol uint8, specific uint16, p []byte) error {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminSecurityReceive, CDW10: uint32(protocol)<<24 | uint32(specific)<<8, CDW11: uint32(len(p))}
	if _, err := c.Admin(ctx, &cmd, p); err != nil {
		return fmt.Errorf("nvme: security receive: %w", err)
	}
	return nil
}

// Directives reads which directives a namespace supports.
func (c *Controller) Directives(ctx context.Context, nsid uint32) (d spec.DirectiveParameters, err error) {
	const identifyParameters = 1
	b := make([]byte, spec.DirectiveParametersSize)
	cmd := spec.SubmissionEntry{Opcode: spec.AdminDirectiveReceive, NSID: nsid, CDW10: uint32(len(b)/4 - 1), CDW11: identifyParameters}
	if _, err := c.Admin(ctx, &cmd, b); err != nil {
		return d, fmt.Errorf("nvme: directives: %w", err)
	}
	d.Get(b)
	return d, nil
}
