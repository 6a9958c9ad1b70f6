package codec

import "strconv"

// Command is a command id (specification, "Commands").
type Command uint16

const (
	CmdVersion          Command = 1
	CmdDMAMap           Command = 2
	CmdDMAUnmap         Command = 3
	CmdGetInfo          Command = 4
	CmdGetRegionInfo    Command = 5
	CmdGetRegionIOFDs   Command = 6
	CmdGetIRQInfo       Command = 7
	CmdSetIRQs          Command = 8
	CmdRegionRead       Command = 9
	CmdRegionWrite      Command = 10
	CmdDMARead          Command = 11
	CmdDMAWrite         Command = 12
	CmdReset            Command = 13
	CmdRegionWriteMulti Command = 15
	CmdDeviceFeature    Command = 16
	CmdMigDataRead      Command = 17
	CmdMigDataWrite     Command = 18

	// NumCommands bounds an array that is indexed by command.
	NumCommands = 19
)

// Direction says who sends a command.
type Direction uint8

const (
	ToServer Direction = iota // the client asks
	ToClient                  // the server asks
)

// Op is what the protocol says of one command.
type Op struct {
	Name        string
	Direction   Direction
	RequestSize int  // smallest request payload, bytes
	ReplySize   int  // smallest payload of a reply without error, bytes
	RequestFDs  bool // descriptors may come with the request
	ReplyFDs    bool // descriptors may come with the reply
}

// ops is the one table of commands; an empty name is an id that is not in use.
// SPDK passes a descriptor with DMA_UNMAP, which nobody needs.
var ops = [NumCommands]Op{
	CmdVersion:          {"VERSION", ToServer, VersionSize, VersionSize, false, true},
	CmdDMAMap:           {"DMA_MAP", ToServer, DMAMapSize, 0, true, false},
	CmdDMAUnmap:         {"DMA_UNMAP", ToServer, DMAUnmapSize, DMAUnmapSize, true, false},
	CmdGetInfo:          {"GET_INFO", ToServer, DeviceInfoSize, DeviceInfoSize, false, false},
	CmdGetRegionInfo:    {"GET_REGION_INFO", ToServer, RegionInfoSize, RegionInfoSize, false, true},
	CmdGetRegionIOFDs:   {"GET_REGION_IO_FDS", ToServer, IOFDsSize, IOFDsSize, false, true},
	CmdGetIRQInfo:       {"GET_IRQ_INFO", ToServer, IRQInfoSize, IRQInfoSize, false, false},
	CmdSetIRQs:          {"SET_IRQS", ToServer, SetIRQsSize, 0, true, false},
	CmdRegionRead:       {"REGION_READ", ToServer, RegionAccessSize, RegionAccessSize, false, false},
	CmdRegionWrite:      {"REGION_WRITE", ToServer, RegionAccessSize, RegionAccessSize, false, false},
	CmdDMARead:          {"DMA_READ", ToClient, DMAAccessSize, DMAAccessSize, false, false},
	CmdDMAWrite:         {"DMA_WRITE", ToClient, DMAAccessSize, dmaWriteReplyMin, false, false},
	CmdReset:            {"RESET", ToServer, 0, 0, false, false},
	CmdRegionWriteMulti: {"REGION_WRITE_MULTI", ToServer, WriteMultiSize, WriteMultiSize, false, false},
	CmdDeviceFeature:    {"DEVICE_FEATURE", ToServer, FeatureSize, FeatureSize, false, false},
	CmdMigDataRead:      {"MIG_DATA_READ", ToServer, MigDataSize, MigDataSize, false, false},
	CmdMigDataWrite:     {"MIG_DATA_WRITE", ToServer, MigDataSize, 0, false, false},
}

// Lookup finds a command in the table; false for an id that the protocol does not know.
func Lookup(c Command) (Op, bool) {
	if c >= NumCommands || ops[c].Name == "" {
		return Op{}, false
	}
	return ops[c], true
}

// String is the command's name without its VFIO_USER_ or VFIO_USER_DEVICE_ prefix.
func (c Command) String() string {
	if op, ok := Lookup(c); ok {
		return op.Name
	}
	return "command " + strconv.Itoa(int(c))
}
