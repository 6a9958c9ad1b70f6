package codec

import (
	"errors"
	"testing"
)

func TestCommandTable(t *testing.T) {
	for _, tt := range []struct {
		c       Command
		id      uint16
		name    string
		dir     Direction
		request int
		reply   int
	}{
		{CmdVersion, 1, "VERSION", ToServer, 4, 4},
		{CmdDMAMap, 2, "DMA_MAP", ToServer, 32, 0},
		{CmdDMAUnmap, 3, "DMA_UNMAP", ToServer, 24, 24},
		{CmdGetInfo, 4, "GET_INFO", ToServer, 16, 16},
		{CmdGetRegionInfo, 5, "GET_REGION_INFO", ToServer, 32, 32},
		{CmdGetRegionIOFDs, 6, "GET_REGION_IO_FDS", ToServer, 16, 16},
		{CmdGetIRQInfo, 7, "GET_IRQ_INFO", ToServer, 16, 16},
		{CmdSetIRQs, 8, "SET_IRQS", ToServer, 20, 0},
		{CmdRegionRead, 9, "REGION_READ", ToServer, 16, 16},
		{CmdRegionWrite, 10, "REGION_WRITE", ToServer, 16, 16},
		{CmdDMARead, 11, "DMA_READ", ToClient, 16, 16},
		{CmdDMAWrite, 12, "DMA_WRITE", ToClient, 16, 12},
		{CmdReset, 13, "RESET", ToServer, 0, 0},
		{CmdRegionWriteMulti, 15, "REGION_WRITE_MULTI", ToServer, 8, 8},
		{CmdDeviceFeature, 16, "DEVICE_FEATURE", ToServer, 8, 8},
		{CmdMigDataRead, 17, "MIG_DATA_READ", ToServer, 8, 8},
		{CmdMigDataWrite, 18, "MIG_DATA_WRITE", ToServer, 8, 0},
	} {
		op, ok := Lookup(tt.c)
		if !ok || uint16(tt.c) != tt.id || tt.c.String() != tt.name || op.Direction != tt.dir ||
			op.RequestSize != tt.request || op.ReplySize != tt.reply {
			t.Errorf("%v (%d): %+v, %v", tt.c, tt.c, op, ok)
		}
	}
}

func TestUnknownCommands(t *testing.T) {
	for c, name := range map[Command]string{
		0: "command 0", 14: "command 14", NumCommands: "command 19", 0xffff: "command 65535",
	} {
		if op, ok := Lookup(c); ok {
			t.Errorf("%d is %+v", c, op)
		}
		if c.String() != name {
			t.Errorf("%d is called %q", c, c)
		}
	}
}

// The sizes in the table are those that decoding asks for.
func TestTableAgreesWithDecoders(t *testing.T) {
	for _, tt := range []struct {
		size   int
		decode func([]byte) error
	}{
		{ops[CmdVersion].RequestSize, new(VersionMsg).Decode},
		{ops[CmdDMAMap].RequestSize, new(DMAMap).Decode},
		{ops[CmdDMAUnmap].RequestSize, new(DMAUnmap).DecodeRequest},
		{ops[CmdDMAUnmap].ReplySize, new(DMAUnmap).DecodeReply},
		{ops[CmdGetInfo].RequestSize, new(DeviceInfo).Decode},
		{ops[CmdGetRegionInfo].RequestSize, new(RegionInfo).DecodeRequest},
		{ops[CmdGetRegionInfo].ReplySize, new(RegionInfo).DecodeReply},
		{ops[CmdGetIRQInfo].RequestSize, new(IRQInfo).Decode},
		{ops[CmdSetIRQs].RequestSize, new(SetIRQs).Decode},
		{ops[CmdRegionRead].RequestSize, new(RegionAccess).DecodeReadRequest},
		{ops[CmdRegionRead].ReplySize, new(RegionAccess).DecodeReadReply},
		{ops[CmdRegionWrite].RequestSize, new(RegionAccess).DecodeWriteRequest},
		{ops[CmdRegionWrite].ReplySize, new(RegionAccess).DecodeWriteReply},
		{ops[CmdDMARead].RequestSize, new(DMAAccess).DecodeReadRequest},
		{ops[CmdDMARead].ReplySize, new(DMAAccess).DecodeReadReply},
		{ops[CmdDMAWrite].RequestSize, new(DMAAccess).DecodeWriteRequest},
		{ops[CmdDMAWrite].ReplySize, new(DMAAccess).DecodeWriteReply},
		{ops[CmdGetRegionIOFDs].RequestSize, new(IOFDs).DecodeRequest},
		{ops[CmdGetRegionIOFDs].ReplySize, new(IOFDs).DecodeReply},
		{ops[CmdRegionWriteMulti].RequestSize, new(WriteMulti).DecodeRequest},
		{ops[CmdRegionWriteMulti].ReplySize, new(WriteMulti).DecodeReply},
		{ops[CmdDeviceFeature].RequestSize, new(Feature).Decode},
		{ops[CmdDeviceFeature].ReplySize, new(Feature).Decode},
		{ops[CmdMigDataRead].RequestSize, new(MigData).DecodeReadRequest},
		{ops[CmdMigDataRead].ReplySize, new(MigData).DecodeReadReply},
		{ops[CmdMigDataWrite].RequestSize, new(MigData).DecodeWriteRequest},
	} {
		if err := tt.decode(make([]byte, tt.size-1)); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v, want too short", tt.size-1, err)
		}
		if err := tt.decode(make([]byte, tt.size)); errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v", tt.size, err)
		}
	}
}
