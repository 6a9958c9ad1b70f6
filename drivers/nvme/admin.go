package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// Admin executes an admin command and returns dword 0 of its completion. data, up to 4,096 bytes, is what the command
// transfers, in the direction that its opcode says; the driver fills in CID and the data pointers (which it
// leaves alone if data is empty). The error is a spec.Status if the controller answered.
func (c *Controller) Admin(ctx context.Context, cmd *spec.SubmissionEntry, data []byte) (uint32, error) {
	if len(data) > pageSize {
		return 0, fmt.Errorf("%w: %d bytes of data in an admin command, at most %d", ErrInvalid, len(data), pageSize)
	}
	var in, out []byte
	if cmd.Opcode&spec.OpcodeToController != 0 {
		in = data
	}
	if cmd.Opcode&spec.OpcodeToHost != 0 {
		out = data
	}
	own := *cmd
	return c.admin.do(ctx, &own, in, out)
}

// IdentifyData executes Identify with a CNS of package spec and returns the data structure of 4,096 bytes.
func (c *Controller) IdentifyData(ctx context.Context, cns uint8, nsid uint32) ([]byte, error) {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminIdentify, NSID: nsid, CDW10: uint32(cns)}
	data := make([]byte, spec.IdentifySize)
	if _, err := c.Admin(ctx, &cmd, data); err != nil {
		return nil, fmt.Errorf("nvme: identify (CNS %#x, namespace %#x): %w", cns, nsid, err)
	}
	return data, nil
}

// GetLogPage reads len(p) bytes, a multiple of 4, at off of a log page. nsid is usually spec.BroadcastNSID.
func (c *Controller) GetLogPage(ctx context.Context, page uint8, nsid uint32, off uint64, p []byte) error {
	if len(p)%4 != 0 || off%4 != 0 {
		return fmt.Errorf("%w: %d bytes at %d of a log page, must be multiples of 4", ErrInvalid, len(p), off)
	}
	for len(p) > 0 {
		n := min(len(p), pageSize)
		dwords := uint32(n/4 - 1)
		cmd := spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, NSID: nsid,
			CDW10: uint32(page) | dwords<<16, CDW11: dwords >> 16, CDW12: uint32(off), CDW13: uint32(off >> 32)}
		if _, err := c.Admin(ctx, &cmd, p[:n]); err != nil {
			return fmt.Errorf("nvme: get log page %#x: %w", page, err)
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

// Smart reads the SMART / health information log of the controller.
func (c *Controller) Smart(ctx context.Context) (spec.Smart, error) {
	var log spec.Smart
	b := make([]byte, spec.SmartSize)
	if err := c.GetLogPage(ctx, spec.LogSmart, spec.BroadcastNSID, 0, b); err != nil {
		return log, err
	}
	log.Get(b)
	return log, nil
}

// GetFeature returns dword 0 of a feature (spec.Feat*); sel is spec.SelectCurrent or another. Features with a data
// structure fill data.
func (c *Controller) GetFeature(ctx context.Context, feature, sel uint8, nsid uint32, data []byte) (uint32, error) {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: nsid, CDW10: uint32(feature) | uint32(sel)<<8}
	v, err := c.Admin(ctx, &cmd, data)
	if err != nil {
		return 0, fmt.Errorf("nvme: get feature %#x: %w", feature, err)
	}
	return v, nil
}

// SetFeature sets a feature to value (CDW11), and to data if it has a data structure, and returns dword 0.
func (c *Controller) SetFeature(ctx context.Context, feature uint8, nsid, value uint32, data []byte) (uint32, error) {
	cmd := spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: nsid, CDW10: uint32(feature), CDW11: value}
	v, err := c.Admin(ctx, &cmd, data)
	if err != nil {
		return 0, fmt.Errorf("nvme: set feature %#x: %w", feature, err)
	}
	return v, nil
}

func (c *Controller) identifyController(ctx context.Context) error {
	data, err := c.IdentifyData(ctx, spec.CNSController, 0)
	if err != nil {
		return err
	}
	c.identity.Get(data)
	// MDTS beyond 2 GiB is as good as none.
	if m := c.identity.MDTS; m > 0 && m < 20 {
		c.maxTransfer = pageSize << m
	}
	sqes, cqes := c.identity.SQES&0xf, c.identity.CQES&0xf
	if sqes > spec.SubmissionEntryExponent || cqes > spec.CompletionEntryExponent {
		return fmt.Errorf("%w: queue entries of at least %d and %d bytes", ErrUnsupported, 1<<sqes, 1<<cqes)
	}
	return nil
}

// numberOfQueues asks for I/O queues, as many as have a doorbell in BAR0.
func (c *Controller) numberOfQueues(ctx context.Context, want int, barSize uint64) error {
	doorbells := (barSize - spec.RegDoorbells) / uint64(2*c.bells.stride)
	ask := uint32(want - 1)
	got, err := c.SetFeature(ctx, spec.FeatNumberOfQueues, 0, ask|ask<<16, nil)
	if err != nil {
		return err
	}
	n := uint64(min(got&0xffff, got>>16)) + 1
	n = min(n, uint64(want), doorbells-1)
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	c.queues = append(c.queues, make([]*Queue, n)...)
	return nil
}
