package interop

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
)

// shape is what a sample's device must tell about itself. Whatever is not named here must
// not be there.
type shape struct {
	sample  string
	id      uint32 // vendor, above it device
	regions map[int]region
	irqs    map[codec.IRQIndex]uint32 // vectors by index
}

type region struct {
	size  uint64
	flags codec.RegionFlags
	areas []codec.Area
}

const readWrite = codec.RegionFlagRead | codec.RegionFlagWrite

var shapes = []shape{
	{
		sample: "gpio-pci-idio-16",
		id:     0x0dc8_494f,
		regions: map[int]region{
			2:                   {size: 0x100, flags: readWrite},
			client.RegionConfig: {size: 0x100, flags: readWrite},
		},
		irqs: map[codec.IRQIndex]uint32{client.IRQINTx: 1, client.IRQErr: 1, client.IRQReq: 1},
	},
	{
		sample: "server",
		id:     0xbeef_dead,
		regions: map[int]region{
			0: {size: 8, flags: readWrite},
			1: {size: 0x3000, flags: readWrite | codec.RegionFlagMmap | codec.RegionFlagCaps,
				areas: []codec.Area{{Offset: 0, Size: 0x1000}, {Offset: 0x2000, Size: 0x1000}}},
			client.RegionConfig: {size: 0x100, flags: readWrite},
		},
		irqs: map[codec.IRQIndex]uint32{client.IRQINTx: 1, client.IRQErr: 1, client.IRQReq: 1},
	},
	{
		sample: "null",
		regions: map[int]region{
			client.RegionConfig: {size: 0x100, flags: readWrite},
		},
		irqs: map[codec.IRQIndex]uint32{client.IRQErr: 1, client.IRQReq: 1}, // (libvfio-user's defaults)
	},
}

// TestSamplesDescribeThemselves asks each sample for all that it has.
func TestSamplesDescribeThemselves(t *testing.T) {
	for _, want := range shapes {
		t.Run(want.sample, func(t *testing.T) {
			_, dev := serveSample(t, want.sample)
			checkVersion(t, dev)
			info := dev.Info()
			if info.NumRegions != 9 || info.NumIRQs != 5 {
				t.Errorf("%d regions, %d interrupt indexes, want 9 and 5", info.NumRegions, info.NumIRQs)
			}
			if want := codec.DeviceFlagPCI | codec.DeviceFlagReset; info.Flags != want {
				t.Errorf("flags %#x, want %#x", info.Flags, want)
			}
			for i := range int(info.NumRegions) {
				checkRegion(t, dev, i, want.regions[i])
			}
			for i := range codec.IRQIndex(info.NumIRQs) {
				got, err := dev.IRQInfo(short(t), i)
				check(t, err)
				if got.Count != want.irqs[i] {
					t.Errorf("%s has %d vectors, want %d", i, got.Count, want.irqs[i])
				}
			}
			checkConfig(t, dev, want.id)
		})
	}
}

// checkVersion holds a server to what libvfio-user says of itself in VERSION.
func checkVersion(t *testing.T, dev *client.Device) {
	t.Helper()
	if major, minor := dev.Version(); major != 0 || minor > 1 {
		t.Errorf("version %d.%d", major, minor)
	}
	caps := dev.Capabilities()
	if caps.MaxMsgFDs == 0 || caps.MaxDataXferSize < 4096 {
		t.Errorf("capabilities %+v", caps)
	}
	t.Logf("capabilities %+v", caps)
}

func checkRegion(t *testing.T, dev *client.Device, i int, want region) {
	t.Helper()
	got, err := dev.Region(short(t), i)
	if err != nil {
		t.Errorf("region %d: %v", i, err)
		return
	}
	defer got.Close()
	if got.Size != want.size || got.Size > 0 && got.Flags != want.flags {
		t.Errorf("region %d: %d bytes, flags %#x, want %d and %#x", i, got.Size, got.Flags, want.size, want.flags)
	}
	if fmt.Sprint(got.Areas) != fmt.Sprint(want.areas) {
		t.Errorf("region %d: mappable areas %v, want %v", i, got.Areas, want.areas)
	}
}

// checkConfig reads the configuration space, writes the registers of it that a driver
// writes, and finds what it wrote.
func checkConfig(t *testing.T, dev *client.Device, id uint32) {
	t.Helper()
	const (
		command, cacheLine = 0x04, 0x0c
		memoryEnable       = 1 << 1
	)
	space := make([]byte, 256)
	check(t, dev.ReadRegion(short(t), client.RegionConfig, 0, space))
	got, err := dev.ReadRegion32(short(t), client.RegionConfig, 0)
	check(t, err)
	if got != id {
		t.Errorf("ids %#08x, want %#08x", got, id)
	}
	check(t, dev.WriteRegion(short(t), client.RegionConfig, command, []byte{memoryEnable, 0}))
	check(t, dev.WriteRegion(short(t), client.RegionConfig, cacheLine, []byte{16}))
	check(t, dev.ReadRegion(short(t), client.RegionConfig, 0, space))
	if space[command] != memoryEnable || space[cacheLine] != 16 {
		t.Errorf("command %#x and cache line size %d after writing %#x and 16", space[command], space[cacheLine], memoryEnable)
	}
}

// TestSamplesRefuse asks for what no sample has: each refusal is an error reply with an
// errno, after which the session goes on.
func TestSamplesRefuse(t *testing.T) {
	for _, name := range []string{"gpio-pci-idio-16", "server", "null"} {
		t.Run(name, func(t *testing.T) {
			_, dev := serveSample(t, name)
			for _, c := range []struct {
				what  string
				errno unix.Errno
				do    func() error
			}{
				{"a read of a region that does not exist", unix.EINVAL, func() error {
					_, err := dev.ReadRegion32(short(t), 100, 0)
					return err
				}},
				{"a read of an empty region", unix.EINVAL, func() error {
					_, err := dev.ReadRegion32(short(t), 5, 0)
					return err
				}},
				{"a read behind the configuration space", unix.EINVAL, func() error {
					_, err := dev.ReadRegion32(short(t), client.RegionConfig, 0x100)
					return err
				}},
				{"an interrupt vector that does not exist", unix.EINVAL, func() error {
					return dev.TriggerIRQ(short(t), client.IRQMSIX, 0, 1)
				}},
			} {
				err := c.do()
				if !errors.Is(err, codec.ErrRemote) || !errors.Is(err, c.errno) {
					t.Errorf("%s: %v, want %v from the server", c.what, err, c.errno)
				}
			}
			checkRegion(t, dev, client.RegionConfig, region{size: 0x100, flags: readWrite})
		})
	}
}
