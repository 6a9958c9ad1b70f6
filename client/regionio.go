package client

import (
	"context"
	"encoding/binary"

	"vfiouser/codec"
)

// ReadRegion reads len(p) bytes at off of a region, by message. What exceeds the size of a message is split into several,
// in ascending order. For registers use the fixed-size forms.
//
// Errors: what the server answered (*codec.Error), ErrShortTransfer, ctx's, or why the session has ended. After any of
// them p holds undefined data.
func (d *Device) ReadRegion(ctx context.Context, region int, off uint64, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), d.chunk)
		if err := d.readChunk(ctx, region, off, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

func (d *Device) readChunk(ctx context.Context, region int, off uint64, p []byte) error {
	k, err := d.conn.begin(ctx, codec.CmdRegionRead)
	if err != nil {
		return err
	}
	ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(len(p))}
	k.expect(codec.RegionAccessSize, p)
	if err := d.conn.request(ctx, k, ask.AppendHead(k.payload())); err != nil {
		return err
	}
	err = d.checkAccess(k, &ask, k.n)
	d.conn.release(k)
	return err
}

// checkAccess compares a reply to a region access with its request; n is how much data came.
func (d *Device) checkAccess(k *call, ask *codec.RegionAccess, n int) error {
	var got codec.RegionAccess
	_ = got.DecodeWriteReply(k.reply()) // it has the size
	switch {
	case got.Offset != ask.Offset || got.Region != ask.Region || got.Count > ask.Count:
		return d.breakOff(k.command, nil, "reply to another access: region %d, offset %#x, %d bytes", got.Region, got.Offset, got.Count)
	case k.command == codec.CmdRegionRead && int(got.Count) != n:
		return d.breakOff(k.command, nil, "reply with %d bytes of data says %d", n, got.Count)
	case got.Count < ask.Count:
		return ErrShortTransfer
	}
	return nil
}

// WriteRegion writes p at off of a region, by message, and waits until the server has done so. See ReadRegion.
func (d *Device) WriteRegion(ctx context.Context, region int, off uint64, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), d.chunk)
		if err := d.writeChunk(ctx, region, off, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

func (d *Device) writeChunk(ctx context.Context, region int, off uint64, p []byte) error {
	k, err := d.conn.begin(ctx, codec.CmdRegionWrite)
	if err != nil {
		return err
	}
	ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(len(p))}
	return d.write(ctx, k, &ask, ask.AppendHead(k.payload()), p)
}

func (d *Device) write(ctx context.Context, k *call, ask *codec.RegionAccess, payload, data []byte) error {
	k.expect(codec.RegionAccessSize, nil)
	if err := d.conn.start(ctx, k, payload, data, nil); err != nil {
		return err
	}
	if err := d.conn.wait(ctx, k); err != nil {
		return err
	}
	err := d.checkAccess(k, ask, 0)
	d.conn.release(k)
	return err
}

// PostRegion writes p at off of a region without waiting and without an answer (No_reply), so the server's errors are lost.
// It costs one system call. Later calls of this goroutine are served after it. It only waits if the server
// does not read.
func (d *Device) PostRegion(ctx context.Context, region int, off uint64, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), d.chunk)
		k, err := d.conn.begin(ctx, codec.CmdRegionWrite)
		if err != nil {
			return err
		}
		ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(n)}
		if err := d.conn.post(ctx, k, ask.AppendHead(k.payload()), p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+uint64(n)
	}
	return nil
}

// ReadRegion8 reads an 8-bit register.
func (d *Device) ReadRegion8(ctx context.Context, region int, off uint64) (uint8, error) {
	v, err := d.readRegister(ctx, region, off, 1)
	return uint8(v), err
}

// ReadRegion16 reads a little-endian 16-bit register.
func (d *Device) ReadRegion16(ctx context.Context, region int, off uint64) (uint16, error) {
	v, err := d.readRegister(ctx, region, off, 2)
	return uint16(v), err
}

// ReadRegion32 reads a little-endian 32-bit register.
func (d *Device) ReadRegion32(ctx context.Context, region int, off uint64) (uint32, error) {
	v, err := d.readRegister(ctx, region, off, 4)
	return uint32(v), err
}

// ReadRegion64 reads a little-endian 64-bit register in one access.
func (d *Device) ReadRegion64(ctx context.Context, region int, off uint64) (uint64, error) {
	return d.readRegister(ctx, region, off, 8)
}

// readRegister lets the data follow the fixed part into the slot, so nothing is allocated.
func (d *Device) readRegister(ctx context.Context, region int, off uint64, size int) (uint64, error) {
	k, err := d.conn.begin(ctx, codec.CmdRegionRead)
	if err != nil {
		return 0, err
	}
	value := k.head[codec.RegionAccessSize : codec.RegionAccessSize+size]
	clear(k.head[codec.RegionAccessSize:][:8])
	ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(size)}
	k.expect(codec.RegionAccessSize, value)
	if err := d.conn.request(ctx, k, ask.AppendHead(k.payload())); err != nil {
		return 0, err
	}
	err = d.checkAccess(k, &ask, k.n)
	v := binary.LittleEndian.Uint64(k.head[codec.RegionAccessSize:])
	d.conn.release(k)
	return v, err
}

// WriteRegion8 writes an 8-bit register and waits for the answer.
func (d *Device) WriteRegion8(ctx context.Context, region int, off uint64, v uint8) error {
	return d.writeRegister(ctx, region, off, uint64(v), 1)
}

// WriteRegion16 writes a little-endian 16-bit register and waits for the answer.
func (d *Device) WriteRegion16(ctx context.Context, region int, off uint64, v uint16) error {
	return d.writeRegister(ctx, region, off, uint64(v), 2)
}

// WriteRegion32 writes a little-endian 32-bit register and waits for the answer.
func (d *Device) WriteRegion32(ctx context.Context, region int, off uint64, v uint32) error {
	return d.writeRegister(ctx, region, off, uint64(v), 4)
}

// WriteRegion64 writes a little-endian 64-bit register in one access and waits for the answer.
func (d *Device) WriteRegion64(ctx context.Context, region int, off uint64, v uint64) error {
	return d.writeRegister(ctx, region, off, v, 8)
}

func (d *Device) writeRegister(ctx context.Context, region int, off, v uint64, size int) error {
	k, err := d.conn.begin(ctx, codec.CmdRegionWrite)
	if err != nil {
		return err
	}
	ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(size)}
	return d.write(ctx, k, &ask, appendRegister(ask.AppendHead(k.payload()), v, size), nil)
}

// PostRegion32 writes a little-endian 32-bit register without waiting: a doorbell. See PostRegion.
func (d *Device) PostRegion32(ctx context.Context, region int, off uint64, v uint32) error {
	return d.postRegister(ctx, region, off, uint64(v), 4)
}

// PostRegion64 writes a little-endian 64-bit register in one access without waiting. See PostRegion.
func (d *Device) PostRegion64(ctx context.Context, region int, off uint64, v uint64) error {
	return d.postRegister(ctx, region, off, v, 8)
}

func (d *Device) postRegister(ctx context.Context, region int, off, v uint64, size int) error {
	k, err := d.conn.begin(ctx, codec.CmdRegionWrite)
	if err != nil {
		return err
	}
	ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: uint32(size)}
	return d.conn.post(ctx, k, appendRegister(ask.AppendHead(k.payload()), v, size), nil)
}

// appendRegister appends the low size bytes of v.
func appendRegister(b []byte, v uint64, size int) []byte {
	return binary.LittleEndian.AppendUint64(b, v)[:len(b)+size]
}
