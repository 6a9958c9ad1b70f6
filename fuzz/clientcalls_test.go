package fuzz

import (
	"bytes"
	"context"

	"vfiouser/client"
	"vfiouser/codec"
)

// victimCall is a call of the client library; a is for its arguments.
type victimCall struct {
	name string
	do   func(c *victim, ctx context.Context, a uint16) error
}

// at is a page address, a mapping's perhaps.
func at(a uint16) uint64 { return uint64(a%16) << 12 }

var victimCalls = []victimCall{
	{"read", func(c *victim, ctx context.Context, a uint16) error {
		return c.dev.ReadRegion(ctx, int(a>>13), uint64(a&0xfff), make([]byte, 1+a%100))
	}},
	{"read much", func(c *victim, ctx context.Context, a uint16) error {
		return c.dev.ReadRegion(ctx, 2, 0, make([]byte, 8192))
	}},
	{"write", func(c *victim, ctx context.Context, a uint16) error {
		return c.dev.WriteRegion(ctx, int(a>>13), uint64(a&0xfff), make([]byte, 1+a%100))
	}},
	{"post", func(c *victim, ctx context.Context, a uint16) error {
		return c.dev.PostRegion32(ctx, 0, uint64(a&0xffc), 1)
	}},
	{"write several", func(c *victim, ctx context.Context, a uint16) error {
		w := client.Write{Offset: uint64(a & 0xff8), Data: []byte{1, 2, 3, 4}}
		_, err := c.dev.WriteMulti(ctx, w, w, client.Write{Region: int(a >> 12), Data: []byte{1}}, w)
		return err
	}},
	{"region", func(c *victim, ctx context.Context, a uint16) error {
		r, err := c.dev.Region(ctx, int(a%10))
		if err == nil {
			err = r.Close()
		}
		return err
	}},
	{"mmap", func(c *victim, ctx context.Context, a uint16) error {
		r, err := c.dev.Region(ctx, 2)
		if err != nil {
			return err
		}
		defer r.Close()
		m, err := r.Mmap(int(a % 2))
		if err != nil {
			if len(r.Areas) > int(a%2) && c.liar.honest() {
				return err
			}
			return nil // the server has given anything
		}
		touch(m, a)
		return m.Close()
	}},
	{"ioeventfds", func(c *victim, ctx context.Context, a uint16) error {
		r, err := c.dev.Region(ctx, int(a%3))
		if err != nil {
			return err
		}
		defer r.Close()
		fds, err := r.IOFDs(ctx)
		if err == nil {
			err = fds.Close()
		}
		return err
	}},
	{"irq info", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.IRQInfo(ctx, codec.IRQIndex(a%7))
		return err
	}},
	{"interrupts", func(c *victim, ctx context.Context, a uint16) error {
		in, err := c.dev.Interrupts(ctx, codec.IRQMSIX, int(a%8), 1+int(a>>8)%8)
		if err != nil {
			return err
		}
		return in.Close(ctx)
	}},
	{"eventfd", func(c *victim, ctx context.Context, a uint16) error {
		e, err := client.NewEventfd()
		if err != nil {
			return err
		}
		defer e.Close()
		return c.dev.EnableIRQ(ctx, codec.IRQIndex(a%5), int(a>>8)%8, e.FD())
	}},
	{"mask", func(c *victim, ctx context.Context, a uint16) error { return c.dev.MaskIRQ(ctx, 2, int(a%8), 1) }},
	{"unmask", func(c *victim, ctx context.Context, a uint16) error { return c.dev.UnmaskIRQ(ctx, 0, 0, 1) }},
	{"trigger", func(c *victim, ctx context.Context, a uint16) error { return c.dev.TriggerIRQ(ctx, 2, int(a%8), 1) }},
	{"disable", func(c *victim, ctx context.Context, a uint16) error { return c.dev.DisableIRQ(ctx, 2) }},
	{"map", func(c *victim, ctx context.Context, a uint16) error {
		m := c.mem.At(0).Slice(at(a), 4096)
		if a&0x100 != 0 {
			m = m.ByMessage()
		}
		return c.dev.MapDMA(ctx, m)
	}},
	{"map two", func(c *victim, ctx context.Context, a uint16) error {
		return c.dev.MapDMA(ctx, c.mem.At(0).Slice(at(a), 4096), c.mem.At(0).Slice(at(a>>8), 4096).ByMessage())
	}},
	{"unmap", func(c *victim, ctx context.Context, a uint16) error { return c.dev.UnmapDMA(ctx, at(a), 4096) }},
	{"unmap all", func(c *victim, ctx context.Context, a uint16) error { return c.dev.UnmapAllDMA(ctx) }},
	{"unmap and report", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.UnmapDirtyDMA(ctx, at(a), 4096, 4096)
		return err
	}},
	{"start logging", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.StartDMALogging(ctx, 4096)
		return err
	}},
	{"report", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.DirtyBitmap(ctx, at(a), 4096*uint64(1+a>>8), 4096)
		return err
	}},
	{"stop logging", func(c *victim, ctx context.Context, a uint16) error { return c.dev.StopDMALogging(ctx) }},
	{"reset", func(c *victim, ctx context.Context, a uint16) error { return c.dev.Reset(ctx) }},
	{"probe", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.ProbeFeature(ctx, codec.FeatureFlags(a%9), codec.FeatureGet)
		return err
	}},
	{"migration flags", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.MigrationFlags(ctx)
		return err
	}},
	{"migration state", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.MigrationState(ctx)
		return err
	}},
	{"migrate", func(c *victim, ctx context.Context, a uint16) error {
		return c.dev.SetMigrationState(ctx, codec.MigState(a%8))
	}},
	{"read state", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.ReadMigrationData(ctx, make([]byte, 1+a%9000))
		return err
	}},
	{"write state", func(c *victim, ctx context.Context, a uint16) error {
		_, err := c.dev.WriteMigrationData(ctx, bytes.Repeat([]byte{1}, int(a%500)))
		return err
	}},
	{"have it read memory", func(c *victim, ctx context.Context, a uint16) error { return c.act(ctx, 1, a) }},
	{"have it write memory", func(c *victim, ctx context.Context, a uint16) error { return c.act(ctx, 2, a) }},
	{"have it do much", func(c *victim, ctx context.Context, a uint16) error { return c.act(ctx, 4, a) }},
}

// act has the device access memory.
func (c *victim) act(ctx context.Context, what uint32, a uint16) error {
	if err := c.dev.WriteRegion64(ctx, 0, plentyAddress, at(a)); err != nil {
		return err
	}
	if err := c.dev.WriteRegion32(ctx, 0, plentyLength, uint32(a>>8)); err != nil {
		return err
	}
	return c.dev.WriteRegion32(ctx, 0, plentyGo, what)
}
