package vnet

// Frame is an Ethernet frame on its way, without frame check sequence.
//
// Parts may be guest memory: it is valid only during the call that hands the frame over,
// and may change at any time, so whoever decides by its content reads it once.
type Frame struct {
	Header Header
	Parts  [][]byte // the frame from its destination address on
	Len    int      // bytes in Parts
}

// CopyTo copies the frame's bytes from off on to dst and returns how many there were.
func (f *Frame) CopyTo(dst []byte, off int) int {
	n := 0
	for _, p := range f.Parts {
		if off >= len(p) {
			off -= len(p)
			continue
		}
		n += copy(dst[n:], p[off:])
		if n == len(dst) {
			break
		}
		off = 0
	}
	return n
}

// Offloads is what the receiver of a frame can finish itself: a set of bits.
type Offloads uint8

const (
	// OffloadChecksum: checksums may be missing (Header.NeedsChecksum).
	OffloadChecksum Offloads = 1 << iota
	// OffloadTSO4 and OffloadTSO6: TCP segments of up to 64 KiB over IPv4 and IPv6.
	OffloadTSO4
	OffloadTSO6
	// OffloadECN: such segments may have the congestion window reduced flag set.
	OffloadECN
	// OffloadUSO4 and OffloadUSO6: UDP datagrams that are to be cut into several.
	OffloadUSO4
	OffloadUSO6

	// OffloadNone and OffloadAll are the least and the most that a receiver can do.
	OffloadNone Offloads = 0
	OffloadAll           = OffloadChecksum | OffloadTSO4 | OffloadTSO6 | OffloadECN | OffloadUSO4 | OffloadUSO6
)
