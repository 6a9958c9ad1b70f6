package client

import (
	"context"
	"fmt"

	"vfiouser/codec"
)

// Interrupt indexes of a PCI device (VFIO_PCI_*_IRQ_INDEX).
const (
	IRQINTx = iota
	IRQMSI
	IRQMSIX
	IRQErr
	IRQReq
)

// IRQInfo asks what an interrupt index offers.
func (d *Device) IRQInfo(ctx context.Context, index int) (codec.IRQInfo, error) {
	var info codec.IRQInfo
	if index < 0 || uint64(index) >= uint64(d.info.NumIRQs) {
		return info, invalid("interrupt index %d of %d", index, d.info.NumIRQs)
	}
	k, err := d.conn.begin(ctx, codec.CmdGetIRQInfo)
	if err != nil {
		return info, err
	}
	ask := codec.IRQInfo{ArgSz: codec.IRQInfoSize, Index: uint32(index)}
	k.expect(codec.IRQInfoSize, nil)
	if err := d.conn.request(ctx, k, ask.Append(k.payload())); err != nil {
		return info, err
	}
	err = info.Decode(k.reply())
	d.conn.release(k)
	if err == nil && info.Index != uint32(index) {
		err = fmt.Errorf("reply for index %d", info.Index)
	}
	if err != nil {
		return codec.IRQInfo{}, d.breakOff(codec.CmdGetIRQInfo, err, "interrupt index %d", index)
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
func (d *Device) SetEventfds(ctx context.Context, index, start int, action codec.IRQSetFlags, fds ...int) error {
	limit := d.messageFDs()
	if limit == 0 && len(fds) > 0 {
		return invalid("the server takes no descriptors")
	}
	for len(fds) > 0 {
		n := min(len(fds), limit)
		set := codec.SetIRQs{Flags: codec.IRQSetDataEventfd | action, Index: uint32(index), Start: uint32(start), Count: uint32(n)}
		if err := d.SetIRQs(ctx, set, fds[:n]...); err != nil {
			return err
		}
		fds, start = fds[n:], start+n
	}
	return nil
}

// EnableIRQ has the device signal fds[i] when it raises vector start+i of an index.
func (d *Device) EnableIRQ(ctx context.Context, index, start int, fds ...int) error {
	return d.SetEventfds(ctx, index, start, codec.IRQSetActionTrigger, fds...)
}

// UnassignIRQ takes the eventfds of count vectors away.
func (d *Device) UnassignIRQ(ctx context.Context, index, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataEventfd|codec.IRQSetActionTrigger, index, start, count)
}

// DisableIRQ disables all vectors of an index.
func (d *Device) DisableIRQ(ctx context.Context, index int) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionTrigger, index, 0, 0)
}

// MaskIRQ masks count vectors.
func (d *Device) MaskIRQ(ctx context.Context, index, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionMask, index, start, count)
}

// UnmaskIRQ unmasks count vectors; those that are pending fire.
func (d *Device) UnmaskIRQ(ctx context.Context, index, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionUnmask, index, start, count)
}

// TriggerIRQ has the device raise count vectors: a loopback test.
func (d *Device) TriggerIRQ(ctx context.Context, index, start, count int) error {
	return d.actIRQ(ctx, codec.IRQSetDataNone|codec.IRQSetActionTrigger, index, start, count)
}

func (d *Device) actIRQ(ctx context.Context, flags codec.IRQSetFlags, index, start, count int) error {
	return d.SetIRQs(ctx, codec.SetIRQs{Flags: flags, Index: uint32(index), Start: uint32(start), Count: uint32(count)})
}
