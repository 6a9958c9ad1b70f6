package client

import (
	"context"
	"io"

	"vfiouser/codec"
)

const migDataRoom = 8 // what FeatureMigration and FeatureMigDeviceState hold, bytes

// MigrationFlags asks what the device can do towards a migration. A device that cannot be migrated refuses it.
func (d *Device) MigrationFlags(ctx context.Context) (codec.MigrationFlags, error) {
	var flags codec.MigrationFlags
	data, err := d.GetFeature(ctx, codec.FeatureMigration, nil, migDataRoom)
	if err != nil {
		return 0, err
	}
	if err := flags.Decode(data); err != nil {
		return 0, d.breakOff(codec.CmdDeviceFeature, err, "bad migration flags")
	}
	return flags, nil
}

// MigrationState asks for the device's state of migration.
func (d *Device) MigrationState(ctx context.Context) (codec.MigState, error) {
	data, err := d.GetFeature(ctx, codec.FeatureMigDeviceState, nil, migDataRoom)
	if err != nil {
		return 0, err
	}
	return d.decodeMigState(data)
}

// SetMigrationState changes the device's state of migration; the server finds the way there. When it returns without error
// the device is in the new state, which can take long. After an error MigrationState tells where it is: in
// codec.MigError only Reset helps.
func (d *Device) SetMigrationState(ctx context.Context, state codec.MigState) error {
	data, err := d.SetFeature(ctx, codec.FeatureMigDeviceState, state.Append(nil))
	if err != nil {
		return err
	}
	got, err := d.decodeMigState(data)
	if err == nil && got != state {
		err = d.breakOff(codec.CmdDeviceFeature, nil, "reply with state %s to a request for %s", got, state)
	}
	return err
}

func (d *Device) decodeMigState(data []byte) (codec.MigState, error) {
	var state codec.MigState
	if err := state.Decode(data); err != nil {
		return 0, d.breakOff(codec.CmdDeviceFeature, err, "bad migration state")
	}
	return state, nil
}

// ReadMigrationData reads the next part of the device's state, up to len(p) bytes, while the device is in codec.MigPreCopy or
// codec.MigStopCopy. One message at most. io.EOF, together with the last bytes if there are any, says that
// there is no more for now: the stream goes on after a change from MigPreCopy to MigStopCopy, and its end in MigStopCopy
// is final.
func (d *Device) ReadMigrationData(ctx context.Context, p []byte) (int, error) {
	p = p[:min(len(p), d.chunk)]
	if len(p) == 0 {
		return 0, nil
	}
	k, err := d.conn.begin(ctx, codec.CmdMigDataRead)
	if err != nil {
		return 0, err
	}
	ask := codec.MigData{ArgSz: codec.MigDataSize + uint32(len(p)), Size: uint32(len(p))}
	k.expect(codec.MigDataSize, p)
	if err := d.conn.request(ctx, k, ask.AppendHead(k.payload())); err != nil {
		return 0, err
	}
	// Not DecodeReadReply: libvfio-user always sends as much as was asked for, whatever the size says.
	var got codec.MigData
	err = got.DecodeReadRequest(k.reply())
	n := k.n
	d.conn.release(k)
	switch {
	case err != nil:
		return 0, d.breakOff(codec.CmdMigDataRead, err, "bad reply")
	case uint64(got.Size) > uint64(n):
		return 0, d.breakOff(codec.CmdMigDataRead, nil, "reply with %d bytes of data says %d", n, got.Size)
	case uint64(got.Size) < uint64(len(p)):
		return int(got.Size), io.EOF
	}
	return int(got.Size), nil
}

// WriteMigrationData writes the next part of the state of another device, while this one is in codec.MigResuming. What exceeds
// the size of a message is split. It returns how many bytes the server has taken.
func (d *Device) WriteMigrationData(ctx context.Context, p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(n+d.chunk, len(p))]
		if err := d.writeMigrationPart(ctx, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func (d *Device) writeMigrationPart(ctx context.Context, p []byte) error {
	k, err := d.conn.begin(ctx, codec.CmdMigDataWrite)
	if err != nil {
		return err
	}
	ask := codec.MigData{ArgSz: codec.MigDataSize + uint32(len(p)), Size: uint32(len(p))}
	// The reply has no payload, but a server may send the request's head again, as for other writes.
	k.expect(0, k.head[:codec.MigDataSize])
	if err := d.conn.start(ctx, k, ask.AppendHead(k.payload()), p, nil); err != nil {
		return err
	}
	if err := d.conn.wait(ctx, k); err != nil {
		return err
	}
	d.conn.release(k)
	return nil
}

// MigrationReader is ReadMigrationData as an io.Reader. ctx bounds all of its reads. After io.EOF it stays at the end:
// take another one when the device has changed from codec.MigPreCopy to codec.MigStopCopy.
func (d *Device) MigrationReader(ctx context.Context) io.Reader {
	return &migrationReader{ctx: ctx, device: d}
}

type migrationReader struct {
	ctx    context.Context
	device *Device
	eof    bool
}

func (r *migrationReader) Read(p []byte) (int, error) {
	if r.eof {
		return 0, io.EOF
	}
	n, err := r.device.ReadMigrationData(r.ctx, p)
	r.eof = err == io.EOF
	return n, err
}

// MigrationWriter is WriteMigrationData as an io.Writer. ctx bounds all of its writes.
func (d *Device) MigrationWriter(ctx context.Context) io.Writer {
	return migrationWriter{ctx, d}
}

type migrationWriter struct {
	ctx    context.Context
	device *Device
}

func (w migrationWriter) Write(p []byte) (int, error) {
	return w.device.WriteMigrationData(w.ctx, p)
}
