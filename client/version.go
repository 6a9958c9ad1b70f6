package client

import (
	"context"

	"vfiouser/codec"
)

const (
	versionMajor = 0
	versionMinor = 1
	maxDMAMaps   = 65535
	pageSize     = 4096
	// maxTransfer is the largest max_data_xfer_size that can be asked for, in bytes.
	maxTransfer = 64 << 20
	// leastTransfer is the least max_data_xfer_size of a server that we talk to, in bytes: a register.
	leastTransfer = 8
	// maxControlReply is the payload of the largest reply but for data transfers, in bytes: VERSION's
	// JSON, or the capabilities of a region.
	maxControlReply = 64 << 10
	maxVersionReply = 8 << 10
)

// negotiate exchanges VERSION.
func (d *Device) negotiate(ctx context.Context, twin bool) error {
	k, err := d.conn.begin(ctx, codec.CmdVersion)
	if err != nil {
		return err
	}
	ask := codec.VersionMsg{Major: versionMajor, Minor: versionMinor, Caps: codec.Capabilities{
		MaxMsgFDs:       maxFDs,
		MaxDataXferSize: uint64(d.maxTransfer),
		MaxDMAMaps:      maxDMAMaps,
		PgSizes:         pageSize,
		WriteMultiple:   true,
		Migration:       &codec.MigrationCaps{PgSize: pageSize, MaxBitmapSize: uint64(d.maxTransfer)},
	}}
	if twin {
		ask.Caps.TwinSocket = &codec.TwinSocket{Supported: true}
	}
	answer := make([]byte, maxVersionReply)
	k.expect(0, answer)
	if err := d.conn.start(ctx, k, nil, ask.Append(nil), nil); err != nil {
		return err
	}
	if err := d.conn.wait(ctx, k); err != nil {
		return err
	}
	var got codec.VersionMsg
	defer d.conn.release(k)
	if err := got.Decode(answer[:k.n]); err != nil {
		return d.breakOff(codec.CmdVersion, err, "bad version reply")
	}
	if got.Major != versionMajor || got.Minor > versionMinor {
		return d.breakOff(codec.CmdVersion, nil, "server wants version %d.%d, we proposed %d.%d",
			got.Major, got.Minor, versionMajor, versionMinor)
	}
	got.Caps.Defaults()
	if got.Caps.MaxDataXferSize < leastTransfer {
		return d.breakOff(codec.CmdVersion, nil, "max_data_xfer_size is %d, no register fits", got.Caps.MaxDataXferSize)
	}
	d.peer, d.minor = got.Caps, got.Minor
	d.chunk = int(min(got.Caps.MaxDataXferSize, uint64(d.maxTransfer)))
	return d.openTwin(got.Caps.TwinSocket, twin, k.fds)
}

// messageFDs is how many descriptors the server takes in one message.
func (d *Device) messageFDs() int { return int(min(d.peer.MaxMsgFDs, maxFDs)) }
