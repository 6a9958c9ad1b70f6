package nvme

import (
	"context"
	"fmt"
	"sync/atomic"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

// bar0 is the region with the registers and the doorbells.
const bar0 = 0

// doorbell is one doorbell register.
type doorbell struct {
	register *atomic.Uint32 // mapped; nil: by message
	shadow   *atomic.Uint32 // nil: no shadow
	event    *atomic.Uint32 // the device wants the register written when the shadow passes this
	off      uint64         // in BAR0
	value    uint32         // last value
}

// ring writes v. Everything stored before is visible to who sees it.
func (c *Controller) ring(b *doorbell, v uint32) error {
	old := b.value
	b.value = v
	if b.shadow != nil {
		// The store must be visible before the event index is loaded, or both sides could miss each other: Go's
		// atomics are sequentially consistent.
		b.shadow.Store(v)
		if !passed(b.event.Load(), old, v) {
			return nil
		}
	}
	if b.register != nil {
		b.register.Store(v)
		return nil
	}
	err := c.dev.PostRegion32(c.ctx, bar0, b.off, v)
	if err != nil {
		if lost := c.Err(); lost != nil {
			return lost
		}
	}
	return err
}

// passed says whether a doorbell that moves from old to v passes the event index (Base 2.0, 5.8, and Annex B.5): all are
// positions in the same queue, modulo 2^16.
func passed(event, old, v uint32) bool {
	return uint16(v-event-1) < uint16(v-old)
}

// doorbells knows how doorbells are rung.
type doorbells struct {
	mode   DoorbellMode
	stride int
	mapped *client.MappedRegion
	shadow client.Chunk
	event  client.Chunk
}

// mapDoorbells maps the area of BAR0 that holds the doorbells, if there is one.
func (c *Controller) mapDoorbells(region *client.Region) error {
	for i, a := range region.Areas {
		if !region.Writable() || a.Offset > spec.RegDoorbells || a.Offset+a.Size < spec.RegDoorbells+16 {
			continue
		}
		m, err := region.Mmap(i)
		if err != nil {
			return err
		}
		c.bells.mapped, c.bells.mode = m, Mapped
		return nil
	}
	return fmt.Errorf("%w: doorbells cannot be mapped", ErrUnsupported)
}

// shadowDoorbells sends Doorbell Buffer Config (Base 2.0, 5.8).
func (c *Controller) shadowDoorbells(ctx context.Context) error {
	if c.identity.OACS&spec.OACSDoorbellBuffer == 0 {
		return fmt.Errorf("%w: no Doorbell Buffer Config", ErrUnsupported)
	}
	var err error
	if c.bells.shadow, err = c.alloc(pageSize); err != nil {
		return err
	}
	if c.bells.event, err = c.alloc(pageSize); err != nil {
		return err
	}
	cmd := spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: c.iova(c.bells.shadow), PRP2: c.iova(c.bells.event)}
	if _, err := c.Admin(ctx, &cmd, nil); err != nil {
		return fmt.Errorf("nvme: doorbell buffer config: %w", err)
	}
	c.bells.mode = Shadow
	return nil
}

// doorbell returns the doorbell at an offset in BAR0; the admin queue's are never shadowed.
func (c *Controller) doorbell(off uint64, admin bool) doorbell {
	b := doorbell{off: off}
	i := off - spec.RegDoorbells
	switch m := c.bells.mapped; {
	case m != nil && off-m.Offset+4 <= m.Size():
		b.register = m.Uint32(off)
	case c.bells.mode == Shadow && !admin && i+4 <= pageSize:
		b.shadow, b.event = word32(c.bells.shadow.Bytes, i), word32(c.bells.event.Bytes, i)
		b.shadow.Store(0)
		b.event.Store(0)
	}
	return b
}
