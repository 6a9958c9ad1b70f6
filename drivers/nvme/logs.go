package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// LogPage is GetLogPage with what some pages want to be told besides: specific is LSP, which goes with the first of the
// commands only, and identifier is LSI.
func (c *Controller) LogPage(ctx context.Context, page, specific uint8, identifier uint16, off uint64, p []byte) error {
	if len(p) == 0 || len(p)%4 != 0 || off%4 != 0 {
		return fmt.Errorf("%w: %d bytes at %d of a log page, must be multiples of 4", ErrInvalid, len(p), off)
	}
	for ; len(p) > 0; specific = 0 {
		n := min(len(p), pageSize)
		dwords := uint32(n/4 - 1)
		cmd := spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, NSID: spec.BroadcastNSID,
			CDW10: uint32(page) | uint32(specific)<<8 | dwords<<16, CDW11: dwords>>16 | uint32(identifier)<<16,
			CDW12: uint32(off), CDW13: uint32(off >> 32)}
		if _, err := c.Admin(ctx, &cmd, p[:n]); err != nil {
			return fmt.Errorf("nvme: get log page %#x: %w", page, err)
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

// SupportedPages reads which log pages there are.
func (c *Controller) SupportedPages(ctx context.Context) (l spec.SupportedPages, err error) {
	b := make([]byte, spec.SupportedPagesSize)
	if err := c.LogPage(ctx, spec.LogSupportedPages, 0, 0, 0, b); err != nil {
		return l, err
	}
	l.Get(b)
	return l, nil
}

// Telemetry has the controller collect telemetry and reads it.
func (c *Controller) Telemetry(ctx context.Context) (l spec.Telemetry, err error) {
	const create = 1
	b := make([]byte, spec.TelemetryBlockSize)
	if err := c.LogPage(ctx, spec.LogHostTelemetry, create, 0, 0, b); err != nil {
		return l, err
	}
	l.Get(b)
	b = append(b, make([]byte, int(l.Areas[2])*spec.TelemetryBlockSize)...)
	if err := c.LogPage(ctx, spec.LogHostTelemetry, 0, 0, 0, b); err != nil {
		return l, err
	}
	l.Get(b)
	return l, nil
}

// PersistentEvents reads the persistent event log. The error is spec.CommandSequenceError if somebody else is reading it.
func (c *Controller) PersistentEvents(ctx context.Context) (l spec.PersistentEventLog, err error) {
	const establish, release = 1, 2
	b := make([]byte, spec.PersistentEventsHeader)
	if err := c.LogPage(ctx, spec.LogPersistentEvents, establish, 0, 0, b); err != nil {
		return l, err
	}
	defer func() {
		if e := c.LogPage(ctx, spec.LogPersistentEvents, release, 0, 0, make([]byte, 4)); err == nil {
			err = e
		}
	}()
	size := spec.PersistentEventLogSize(b)
	if err := checkEvents(size, c.identity.PELS); err != nil {
		return l, err
	}
	b = make([]byte, (size+3)/4*4)
	if err := c.LogPage(ctx, spec.LogPersistentEvents, 0, 0, 0, b); err != nil {
		return l, err
	}
	l.Get(b[:size])
	return l, nil
}

// maxEvents is the longest persistent event log that is read, in bytes: both its size and the
// limit are what the device says, which could be more than there is memory.
const maxEvents = 64 << 20

// checkEvents refuses sizes that a persistent event log cannot have, or shall not have here.
func checkEvents(size uint64, pels uint32) error {
	if size < spec.PersistentEventsHeader || size > min(uint64(pels)<<16, maxEvents) {
		return fmt.Errorf("%w: persistent event log of %d bytes", ErrUnsupported, size)
	}
	return nil
}
