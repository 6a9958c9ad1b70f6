package client

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// GetFeature reads a feature of the device (DEVICE_FEATURE with GET). ask is what the request carries, nil for most
// features; room is how many bytes the answer may have.
//
// The methods below cover the features that the protocol has. Errors are those of ReadRegion: a server that lacks the
// feature or GET for it answers EINVAL or ENOTTY.
func (d *Device) GetFeature(ctx context.Context, feature codec.FeatureFlags, ask []byte, room int) ([]byte, error) {
	if room < 0 || room > d.maxTransfer {
		return nil, invalid("feature %d: room for %d bytes, at most %d fit into a message", feature.Number(), room, d.maxTransfer)
	}
	return d.feature(ctx, feature.Number()|codec.FeatureGet, ask, make([]byte, room))
}

// SetFeature writes a feature of the device (DEVICE_FEATURE with SET) and returns what the server answered, which is data
// again unless the feature says otherwise.
func (d *Device) SetFeature(ctx context.Context, feature codec.FeatureFlags, data []byte) ([]byte, error) {
	return d.feature(ctx, feature.Number()|codec.FeatureSet, data, make([]byte, len(data)))
}

// ProbeFeature asks whether the device has a feature, with all of ops, which are codec.FeatureGet and codec.FeatureSet or'ed
// together or 0. An error means that there was no answer.
func (d *Device) ProbeFeature(ctx context.Context, feature, ops codec.FeatureFlags) (bool, error) {
	if ops&^(codec.FeatureGet|codec.FeatureSet) != 0 {
		return false, invalid("%#x is neither GET nor SET", uint32(ops))
	}
	_, err := d.feature(ctx, feature.Number()|ops|codec.FeatureProbe, nil, nil)
	if errors.Is(err, codec.ErrRemote) {
		for _, errno := range []unix.Errno{unix.EINVAL, unix.ENOTTY, unix.ENOTSUP} {
			if errors.Is(err, errno) {
				return false, nil
			}
		}
	}
	return err == nil, err
}

// feature sends data and returns the part of room that the answer's data fill.
func (d *Device) feature(ctx context.Context, flags codec.FeatureFlags, data, room []byte) ([]byte, error) {
	if len(data) > d.chunk {
		return nil, invalid("feature %d: %d bytes of data, at most %d fit into a message", flags.Number(), len(data), d.chunk)
	}
	k, err := d.conn.begin(ctx, codec.CmdDeviceFeature)
	if err != nil {
		return nil, err
	}
	// Room in argsz is for the larger of request and reply: the reply to SET is the request again.
	ask := codec.Feature{ArgSz: codec.FeatureSize + uint32(max(len(data), len(room))), Flags: flags}
	k.expect(codec.FeatureSize, room)
	if err := d.conn.start(ctx, k, ask.AppendHead(k.payload()), data, nil); err != nil {
		return nil, err
	}
	if err := d.conn.wait(ctx, k); err != nil {
		return nil, err
	}
	var got codec.Feature
	err = got.Decode(k.reply())
	n := k.n
	d.conn.release(k)
	if err == nil && got.Flags != flags {
		return nil, d.breakOff(codec.CmdDeviceFeature, nil, "reply with flags %#x to a request with %#x", uint32(got.Flags), uint32(flags))
	}
	if err != nil {
		return nil, d.breakOff(codec.CmdDeviceFeature, err, "bad reply")
	}
	return room[:n], nil
}
