package hostile

import (
	"testing"

	virtionet "vfiouser/devices/virtio-net"
	ring "vfiouser/devices/virtio/spec"
	"vfiouser/link/vnet"
)

// tcpFrame is a TCP segment over IPv4, or IPv6, of a size in bytes.
func tcpFrame(version byte, proto byte, size int) []byte {
	f := foreign(size)
	ip := f[14:]
	if version == 4 {
		copy(f[12:], []byte{0x08, 0x00})
		copy(ip, []byte{0x45, 0, byte((size - 14) >> 8), byte(size - 14), 0, 1, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
		ip[20+12] = 5 << 4
	} else {
		copy(f[12:], []byte{0x86, 0xdd})
		copy(ip, []byte{0x60, 0, 0, 0, byte((size - 54) >> 8), byte(size - 54), proto, 64, 0xfd, 1})
		ip[24] = 0xfd
		ip[40+12] = 5 << 4
	}
	return f
}

// Headers that lie about what follows them, on frames that would otherwise be good. They are
// finished for each of the neighbours, none of whom takes them as they are.
func TestVirtioNetHeaders(t *testing.T) {
	l := newNetLab(t, virtionet.Config{})
	frames := []struct {
		name string
		data []byte
		tcp  int // where its transport begins
	}{
		{"TCP over IPv4", tcpFrame(4, 6, 3000), 34},
		{"TCP over IPv6", tcpFrame(6, 6, 3000), 54},
		{"UDP over IPv4", tcpFrame(4, 17, 3000), 34},
		{"a frame without IP", foreign(3000), 34},
		{"a frame of headers only", tcpFrame(4, 6, 54), 34},
		{"a frame with headers that are cut short", tcpFrame(4, 6, 54)[:40], 34},
	}
	kinds := []uint8{vnet.GSONone, vnet.GSOTCP4, vnet.GSOTCP6, vnet.GSOUDPL4, 3, vnet.GSOTCP4 | vnet.GSOECN, 0x7f, 0xff}
	numbers := func(tcp int) []uint16 {
		return []uint16{0, 1, 13, 14, uint16(tcp), uint16(tcp + 1), 2998, 2999, 3000, 0x7fff, 0xfffe, 0xffff}
	}
	for _, layout := range layouts {
		for _, f := range frames {
			l.attack(t, layout.name+", "+f.name, func(a *attack) {
				defer l.neighbours.underFlood()()
				g := a.netStarted(layout.features|netFeatures, 256)
				r := a.random()
				q := g.rings[txQueue]
				pending := 0
				send := func(h vnet.Header, data []byte) {
					b := make([]byte, g.header())
					h.Put(b, uint16(r.Uint32()))
					at := g.data + uint64(pending)*8192
					q.put(g.frameAt(at, b, data))
					if pending++; pending == 100 {
						q.kick()
						q.until(pending)
						pending = 0
					}
				}
				for _, kind := range kinds {
					for _, size := range []uint16{0, 1, 7, 48, 1460, 0xffff} {
						for range 8 {
							n := numbers(f.tcp)
							send(vnet.Header{
								Flags: uint8(r.UintN(4)), GSOType: kind, GSOSize: size, HeaderLen: n[r.IntN(len(n))],
								ChecksumStart: n[r.IntN(len(n))], ChecksumOffset: n[r.IntN(len(n))],
							}, f.data)
						}
						// The place of the checksum is right, and other things are not.
						for range 8 {
							data := append([]byte(nil), f.data...)
							data[12+r.IntN(min(len(data)-12, 60))] ^= byte(r.Uint32())
							send(vnet.Header{Flags: 1, GSOType: kind, GSOSize: size, ChecksumStart: uint16(f.tcp), ChecksumOffset: 16 - 10*uint16(kind&1)}, data)
						}
					}
				}
				q.kick()
				q.until(pending)
				g.works()
			})
		}
	}
}

// Frames of all sizes, also of such as no frame has. Each size is tried in some number of
// buffers.
func TestVirtioNetSizes(t *testing.T) {
	l := newNetLab(t, virtionet.Config{})
	for _, layout := range layouts {
		l.attack(t, layout.name+", 0 to 70,000 bytes", func(a *attack) {
			defer l.neighbours.underFlood()()
			g := a.netStarted(layout.features|netFeatures, 256)
			q := g.rings[txQueue]
			const longest = 70_000
			g.frame(foreign(longest))
			head := uint32(g.header())
			step := uint32(1)
			pending := 0
			for n := uint32(0); n <= longest; n += step {
				// All up to 200 and around the limits; of the others some, or it takes too long.
				if step = 1; n > 200 && (n < 1400 || n > 1600) && (n < vnet.MaxFrame-50 || n > vnet.MaxFrame+50) {
					step = 97
				}
				whole := head + n
				switch at := ramBase + g.data; n % 3 {
				case 0:
					q.put(buf{at, whole, 0})
				case 1:
					q.put(buf{at, head, 0}, buf{at + uint64(head), n, 0})
				default:
					// In a table, with buffers of no length in between, and the header in two.
					q.put(q.table(g.data+dataSize/2+uint64(pending)*pageSize, buf{at, 5, 0}, buf{at, 0, 0}, buf{at + 5, whole - 5 - n/2, 0},
						buf{nowhere, 0, 0}, buf{at + uint64(whole-n/2), n / 2, 0}))
				}
				if pending++; pending == 64 {
					q.kick()
					q.until(pending)
					pending = 0
				}
			}
			q.kick()
			q.until(pending)
			g.works()
		})
		l.attack(t, layout.name+", into buffers of all sizes", func(a *attack) {
			g := a.netStarted(layout.features|netFeatures, 256)
			q := g.rings[rxQueue]
			for size := g.header(); size < 1500; size += 1 + size/4 {
				// As many as a frame of the neighbours may take, or not enough.
				for i := range uint64(200) {
					q.put(buf{ramBase + g.data + i*4096, uint32(size), ring.DescWrite})
				}
				q.kick()
				l.healthy.goesOn(a.T, l.healthy.mark())
				q.restart()
			}
			g.works()
		})
	}
}
