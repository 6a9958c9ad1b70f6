package client

import (
	"context"
	"errors"
	"fmt"

	"vfiouser/codec"
)

// Write is a small write to a region: one of a batch.
type Write struct {
	Region int
	Offset uint64 // bytes
	Data   []byte // 1 to 8 bytes
}

// maxMulti is how many writes one REGION_WRITE_MULTI carries: QEMU never sends more.
const maxMulti = 200

// WriteMulti does several small writes in order, many in one message (REGION_WRITE_MULTI), and waits until the server has
// done so. It returns how many writes were done before an error.
//
// The server must have offered write_multiple: see Capabilities. If not, errors.ErrUnsupported, and nothing was written.
func (d *Device) WriteMulti(ctx context.Context, writes ...Write) (done int, err error) {
	if !d.peer.WriteMultiple {
		return 0, fmt.Errorf("client: REGION_WRITE_MULTI: %w", errors.ErrUnsupported)
	}
	for i, w := range writes {
		if len(w.Data) == 0 || len(w.Data) > codec.MaxSingleWrite || w.Region < 0 || uint64(w.Region) > 1<<32-1 {
			return 0, invalid("write %d of a batch: %d bytes to region %d", i, len(w.Data), w.Region)
		}
	}
	limit := max(1, min(maxMulti, (d.chunk-codec.WriteMultiSize)/codec.SingleWriteSize))
	for done < len(writes) {
		n := min(limit, len(writes)-done)
		wrote, err := d.writeBatch(ctx, writes[done:done+n])
		done += wrote
		if err != nil {
			return done, err
		}
		if wrote < n {
			// The reply has no room for an errno: the next write alone tells it.
			w := writes[done]
			if err := d.WriteRegion(ctx, w.Region, w.Offset, w.Data); err != nil {
				return done, err
			}
			done++
		}
	}
	return done, nil
}

// writeBatch sends one message and returns how many writes were done.
func (d *Device) writeBatch(ctx context.Context, writes []Write) (int, error) {
	k, err := d.conn.begin(ctx, codec.CmdRegionWriteMulti)
	if err != nil {
		return 0, err
	}
	data := make([]byte, 0, len(writes)*codec.SingleWriteSize)
	for _, w := range writes {
		data = codec.AppendWrite(data, codec.RegionAccess{
			Offset: w.Offset, Region: uint32(w.Region), Count: uint32(len(w.Data)), Data: w.Data})
	}
	ask := codec.WriteMulti{Count: uint64(len(writes))}
	k.expect(codec.WriteMultiSize, nil)
	if err := d.conn.start(ctx, k, ask.AppendHead(k.payload()), data, nil); err != nil {
		return 0, err
	}
	if err := d.conn.wait(ctx, k); err != nil {
		return 0, err
	}
	var got codec.WriteMulti
	err = got.DecodeReply(k.reply())
	d.conn.release(k)
	if err != nil || got.Count > ask.Count {
		return 0, d.breakOff(codec.CmdRegionWriteMulti, err, "%d writes done of %d", got.Count, ask.Count)
	}
	return int(got.Count), nil
}
