package client

import (
	"context"
	"fmt"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// The indexes of a PCI device's interrupts.
const (
	IRQINTx = codec.IRQINTx
	IRQMSI  = codec.IRQMSI
	IRQMSIX = codec.IRQMSIX
	IRQErr  = codec.IRQErr
	IRQReq  = codec.IRQReq
)

// IRQInfo asks what an interrupt index offers.
func (d *Device) IRQInfo(ctx context.Context, index codec.IRQIndex) (codec.IRQInfo, error) {
	var info codec.IRQInfo
	if uint32(index) >= d.info.NumIRQs {
		return info, invalid("interrupt index %d of %d", uint32(index), d.info.NumIRQs)
	}
	k, err := d.conn.begin(ctx, codec.CmdGetIRQInfo)
	if err != nil {
		return info, err
	}
	ask := codec.IRQInfo{ArgSz: codec.IRQInfoSize, Index: index}
	k.expect(codec.IRQInfoSize, nil)
	if err := d.conn.request(ctx, k, ask.Append(k.payload())); err != nil {
		return info, err
	}
	err = info.Decode(k.reply())
	d.conn.release(k)
	if err == nil && info.Index != index {
		err = fmt.Errorf("reply for %s", info.Index)
	}
	if err != nil {
		return codec.IRQInfo{}, d.breakOff(codec.CmdGetIRQInfo, err, "%s", index)
	}
	return info, nil
}

// SetIRQs sends one SET_IRQS as it is. ArgSz is filled in; fds go with codec.IRQSetDataEventfd and stay the caller's.
// The methods below cover what is usual.
func (d *Device) SetIRQs(ctx context.Context, set codec.SetIRQs, fds ...int) error {
	if n := d.messageFDs(); len(fds) > n {
		return invalid("%d descriptors in a message, the server takes %d", len(fds), n)
	}
	set.ArgSz = codec.SetIRQsSize + uint32(len(set.Data))
	data := set.Data
	set.Data = nil
	if d.keep == nil {
		return d.setIRQs(ctx, &set, data, fds)
	}
	own, err := duplicate(fds)
	if err != nil {
		return err
	}
	if err := d.setIRQs(ctx, &set, data, fds); err != nil {
		reactor.CloseFDs(own)
		return err
	}
	set.Data = data
	d.keep.note(&set, own)
	return nil
}

func (d *Device) setIRQs(ctx context.Context, set *codec.SetIRQs, data []byte, fds []int) error {
	k, err := d.conn.begin(ctx, codec.CmdSetIRQs)
	if err != nil {
		return err
	}
	if err := d.conn.start(ctx, k, set.Append(k.payload()), data, fds); err != nil {
		return err
	}
	if err := d.conn.wait(ctx, k); err != nil {
		return err
	}
	d.conn.release(k)
	return nil
}

// SetEventfds has the device signal eventfds: fds[i] for action (codec.IRQSetActionTrigger, Mask, Unmask) on vector start+i.
// They are sent in as many messages as the server needs; an error leaves the earlier ones in force.
func (d *Device) SetEventfds(ctx context.Context, index codec.IRQIndex, start int, action codec.IRQSetFlags, fds ...int) error {
	limit := d.messageFDs()
	if limit == 0 && len(fds) > 0 {
		return invalid("the server takes no descriptors")
	}
	for len(fds) > 0 {
		n := min(len(fds), limit)
		set := codec.SetIRQs{Flags: codec.IRQSetDataEventfd | action, Index: index, Start: uint32(start), Count: uint32(n)}
		if err := d.SetIRQs(ctx, set, fds[:n]...); err != nil {
			return err
		}
		fds, start = fds[n:], start+n
	}
	return nil
}

// EnableIRQ has the device signal fds[i] when it raises vector start+i of an index.
func (d *Device) EnableIRQ(ctx context.Context, index codec.IRQIndex, start int, fds ...int) error {
	return d.SetEventfds(ctx, index, start, codec.IRQSetActionTrigger, fds...)
}

// UnassignIRQ takes the eventfds of count vectors away.
func (d *Device) UnassignIRQ(ctx context.Context, index codec.IRQIndex, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataEventfd|codec.IRQSetActionTrigger, index, start, count)
}

// DisableIRQ disables all vectors of an index.
func (d *Device) DisableIRQ(ctx context.Context, index codec.IRQIndex) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionTrigger, index, 0, 0)
}

// MaskIRQ masks count vectors.
func (d *Device) MaskIRQ(ctx context.Context, index codec.IRQIndex, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionMask, index, start, count)
}

// UnmaskIRQ unmasks count vectors; those that are pending fire.
func (d *Device) UnmaskIRQ(ctx context.Context, index codec.IRQIndex, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionUnmask, index, start, count)
}

// TriggerIRQ has the device raise count vectors: a loopback test.
func (d *Device) TriggerIRQ(ctx context.Context, index codec.IRQIndex, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionTrigger, index, start, count)
}

func (d *Device) actIRQ(ctx context.Context, flags codec.IRQSetFlags, index codec.IRQIndex, start, count int) error {
	return d.SetIRQs(ctx, codec.SetIRQs{Flags: flags, Index: index, Start: uint32(start), Count: uint32(count)})
}
