package conformance

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// field is one number of a payload.
type field struct {
	name  string
	size  int // bytes
	names map[string]uint64
}

// layout is the fixed part of a command's payload, as the specification draws it. Request
// and reply have the same in all commands.
type layout struct {
	command uint16
	fields  []field
	// more are fields that are there only if one of them is named.
	more []field
}

func (l layout) size() (n int) {
	for _, f := range l.fields {
		n += f.size
	}
	return n
}

var (
	protection = map[string]uint64{"READ": 1, "WRITE": 2, "MMAP": 4, "FILE_IO": 8}
	unmapFlags = map[string]uint64{"GET_DIRTY_BITMAP": 1, "ALL": 2}
	deviceInfo = map[string]uint64{"RESET": 1, "PCI": 2}
	regionInfo = map[string]uint64{"READ": 1, "WRITE": 2, "MMAP": 4, "CAPS": 8}
	irqInfo    = map[string]uint64{"EVENTFD": 1, "MASKABLE": 2, "AUTOMASKED": 4, "NORESIZE": 8}
	irqSet     = map[string]uint64{"NONE": 1, "BOOL": 2, "EVENTFD": 4, "MASK": 8, "UNMASK": 16, "TRIGGER": 32}
	feature    = map[string]uint64{
		"GET": 1 << 16, "SET": 1 << 17, "PROBE": 1 << 18,
		"MIGRATION": 1, "MIG_DEVICE_STATE": 2, "DMA_LOGGING_START": 6, "DMA_LOGGING_STOP": 7, "DMA_LOGGING_REPORT": 8,
	}
	headerFlags = map[string]uint64{"COMMAND": 0, "REPLY": flagReply, "NO_REPLY": flagNoReply, "ERROR": flagError}
)

var (
	access    = []field{{name: "offset", size: 8}, {name: "region", size: 4}, {name: "count", size: 4}}
	dmaAccess = []field{{name: "addr", size: 8}, {name: "count", size: 8}}
	migData   = []field{{name: "argsz", size: 4}, {name: "size", size: 4}}
)

func sized(names map[string]uint64, rest ...field) []field {
	return append([]field{{name: "argsz", size: 4}, {name: "flags", size: 4, names: names}}, rest...)
}

// layouts are the commands by name.
var layouts = map[string]layout{
	"VERSION":   {1, []field{{name: "major", size: 2}, {name: "minor", size: 2}}, nil},
	"DMA_MAP":   {2, sized(protection, field{name: "offset", size: 8}, field{name: "addr", size: 8}, field{name: "size", size: 8}), nil},
	"DMA_UNMAP": {3, sized(unmapFlags, field{name: "addr", size: 8}, field{name: "size", size: 8}), []field{{name: "pgsize", size: 8}, {name: "bitmap", size: 8}}},
	"GET_INFO":  {4, sized(deviceInfo, field{name: "num_regions", size: 4}, field{name: "num_irqs", size: 4}), nil},
	"GET_REGION_INFO": {5, sized(regionInfo, field{name: "index", size: 4}, field{name: "cap_offset", size: 4},
		field{name: "size", size: 8}, field{name: "offset", size: 8}), nil},
	"GET_REGION_IO_FDS":  {6, sized(nil, field{name: "index", size: 4}, field{name: "count", size: 4}), nil},
	"GET_IRQ_INFO":       {7, sized(irqInfo, field{name: "index", size: 4}, field{name: "count", size: 4}), nil},
	"SET_IRQS":           {8, sized(irqSet, field{name: "index", size: 4}, field{name: "start", size: 4}, field{name: "count", size: 4}), nil},
	"REGION_READ":        {9, access, nil},
	"REGION_WRITE":       {10, access, nil},
	"DMA_READ":           {11, dmaAccess, nil},
	"DMA_WRITE":          {12, dmaAccess, nil},
	"RESET":              {13, nil, nil},
	"REGION_WRITE_MULTI": {15, []field{{name: "wr_cnt", size: 8}}, nil},
	"DEVICE_FEATURE":     {16, sized(feature), nil},
	"MIG_DATA_READ":      {17, migData, nil},
	"MIG_DATA_WRITE":     {18, migData, nil},
}

// layoutOf finds a command by its name, or by a number that has none.
func layoutOf(command string) (layout, error) {
	if l, ok := layouts[command]; ok {
		return l, nil
	}
	n, err := strconv.ParseUint(command, 0, 16)
	if err != nil {
		return layout{}, fmt.Errorf("%q is neither a command nor a number", command)
	}
	return layout{command: uint16(n)}, nil
}

// nameOf is the name of a command for people.
func nameOf(command uint16) string {
	for name, l := range layouts {
		if l.command == command {
			return name
		}
	}
	return "command " + strconv.Itoa(int(command))
}

func appendNumber(b []byte, size int, v uint64) ([]byte, error) {
	if size < 8 && v>>(8*size) != 0 {
		return b, fmt.Errorf("%#x has more than %d bytes", v, size)
	}
	switch size {
	case 1:
		return append(b, byte(v)), nil
	case 2:
		return binary.NativeEndian.AppendUint16(b, uint16(v)), nil
	case 4:
		return binary.NativeEndian.AppendUint32(b, uint32(v)), nil
	}
	return binary.NativeEndian.AppendUint64(b, v), nil
}

func takeNumber(b []byte, size int) (v uint64, rest []byte, ok bool) {
	if len(b) < size {
		return 0, b, false
	}
	switch size {
	case 1:
		v = uint64(b[0])
	case 2:
		v = uint64(binary.NativeEndian.Uint16(b))
	case 4:
		v = uint64(binary.NativeEndian.Uint32(b))
	default:
		v = binary.NativeEndian.Uint64(b)
	}
	return v, b[size:], true
}
