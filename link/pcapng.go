package link

import (
	"encoding/binary"
	"strconv"
	"time"

	"vfiouser/link/vnet"
)

// The blocks of a pcapng file (draft-ietf-opsawg-pcapng), little-endian. Each function
// appends one.

// Types of blocks.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockCounters  = 5
	blockFrame     = 6
)

// Options, by block.
const (
	optEnd         = 0
	optComment     = 1
	sectionProgram = 4
	interfaceName  = 2
	interfaceTicks = 9 // resolution of time stamps
	frameFlags     = 2
	countersTaken  = 4
	countersLost   = 5
)

// direction is what a frame's flags say of it.
type direction uint32

const (
	inbound  direction = 1
	outbound direction = 2
)

// frameOverhead is the most that a frame's block has beside its data, bytes.
const frameOverhead = 28 + 3 + 8 + 4 + maxComment + 4 + 4

// open appends a block's type and room for its length.
func openBlock(b []byte, kind uint32) (block []byte, start int) {
	return binary.LittleEndian.AppendUint64(b, uint64(kind)), len(b)
}

// closeBlock fills in the length at both ends.
func closeBlock(b []byte, start int) []byte {
	n := uint32(len(b) - start + 4)
	binary.LittleEndian.PutUint32(b[start+4:], n)
	return binary.LittleEndian.AppendUint32(b, n)
}

// pad appends zeros up to a multiple of 4 bytes after n bytes.
func pad(b []byte, n int) []byte {
	return append(b, "\x00\x00\x00"[:-n&3]...)
}

func appendOption[T string | []byte](b []byte, code uint16, value T) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...), len(value))
}

func endOptions(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, optEnd) }

func appendSection(b []byte) []byte {
	b, start := openBlock(b, blockSection)
	b = binary.LittleEndian.AppendUint32(b, 0x1a2b3c4d)
	b = binary.LittleEndian.AppendUint32(b, 1)       // version 1.0
	b = binary.LittleEndian.AppendUint64(b, 1<<64-1) // length is not known
	b = appendOption(b, sectionProgram, "vfiouser")
	return closeBlock(endOptions(b), start)
}

// maxInterface is the most bytes of an interface's block: its name may have a number behind it.
const maxInterface = 16 + 4 + maxName + 24 + 8 + 4 + 4

// appendInterface describes an Ethernet interface whose time stamps count nanoseconds.
func appendInterface(b []byte, name string, snap int) []byte {
	b, start := openBlock(b, blockInterface)
	b = binary.LittleEndian.AppendUint32(b, 1) // LINKTYPE_ETHERNET
	b = binary.LittleEndian.AppendUint32(b, uint32(snap))
	b = appendOption(b, interfaceName, name)
	b = appendOption(b, interfaceTicks, "\x09")
	return closeBlock(endOptions(b), start)
}

func appendTime(b []byte, t time.Time) []byte {
	n := uint64(t.UnixNano())
	b = binary.LittleEndian.AppendUint32(b, uint32(n>>32))
	return binary.LittleEndian.AppendUint32(b, uint32(n))
}

// appendFrame appends at most snap bytes of a frame.
func appendFrame(b []byte, iface int, t time.Time, d direction, f *vnet.Frame, snap int) []byte {
	n := min(f.Len, snap)
	b, start := openBlock(b, blockFrame)
	b = binary.LittleEndian.AppendUint32(b, uint32(iface))
	b = appendTime(b, t)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Len))
	at := len(b)
	b = b[:at+n]
	f.CopyTo(b[at:], 0)
	b = pad(b, n)
	b = binary.LittleEndian.AppendUint16(b, frameFlags)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = binary.LittleEndian.AppendUint32(b, uint32(d))
	b = appendUndone(b, &f.Header)
	return closeBlock(endOptions(b), start)
}

// maxComment is the most bytes of a comment, with what is around it.
const maxComment = 4 + 48

// appendUndone comments on a frame whose sender has left something undone.
func appendUndone(b []byte, h *vnet.Header) []byte {
	if h.Flags&vnet.FlagNeedsChecksum == 0 && h.GSOType == vnet.GSONone {
		return b
	}
	b = binary.LittleEndian.AppendUint16(b, optComment)
	b = binary.LittleEndian.AppendUint16(b, 0)
	at := len(b)
	b = append(b, "checksum not filled in"...)
	if h.GSOType != vnet.GSONone {
		b = append(b, ", segments of "...)
		b = strconv.AppendUint(b, uint64(h.GSOSize), 10)
	}
	n := len(b) - at
	binary.LittleEndian.PutUint16(b[at-2:], uint16(n))
	return pad(b, n)
}

// appendCounters says how many frames of an interface came by and how many are missing.
func appendCounters(b []byte, iface int, t time.Time, taken, lost uint64) []byte {
	b, start := openBlock(b, blockCounters)
	b = binary.LittleEndian.AppendUint32(b, uint32(iface))
	b = appendTime(b, t)
	b = appendOption(b, countersTaken, binary.LittleEndian.AppendUint64(nil, taken))
	b = appendOption(b, countersLost, binary.LittleEndian.AppendUint64(nil, lost))
	return closeBlock(endOptions(b), start)
}
