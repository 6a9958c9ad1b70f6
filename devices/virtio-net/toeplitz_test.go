package virtionet

import (
	"net/netip"
	"testing"

	"vfiouser/devices/virtio-net/spec"
)

// microsoftKey and the sums below are those with which Microsoft's description of RSS has
// implementations verified.
var microsoftKey = []byte{
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
	0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
}

var microsoftSums = []struct {
	from, to  string
	ip, ports uint32
}{
	{"66.9.149.187:2794", "161.142.100.80:1766", 0x323e8fc2, 0x51ccc178},
	{"199.92.111.2:14230", "65.69.140.83:4739", 0xd718262a, 0xc626b0ea},
	{"24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0a5de, 0x5c2b394a},
	{"38.27.205.30:48228", "209.142.163.6:2217", 0x82989176, 0xafc7327f},
	{"153.39.163.191:44251", "202.188.127.2:1303", 0x5d1809c5, 0x10e828a2},
	{"[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc18cd5, 0x40207d3d},
	{"[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c461c, 0xdde51bbf},
	{"[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", "[fe80::200:f8ff:fe21:67cf]:38024", 0x4b61e985, 0x02d1feef},
}

func TestToeplitzOfMicrosoft(t *testing.T) {
	h := hashing{types: spec.HashAll, table: newToeplitz(microsoftKey)}
	for _, c := range microsoftSums {
		for _, proto := range []uint8{protoTCP, protoUDP, 1} {
			var f flow
			f.parse(headOf(packet{from: c.from, to: c.to, proto: proto}.frame()))
			want := spec.HashReport{Value: c.ports}
			is4 := netip.MustParseAddrPort(c.from).Addr().Is4()
			switch {
			case proto == protoTCP && is4:
				want.Report = spec.ReportTCPv4
			case proto == protoTCP:
				want.Report = spec.ReportTCPv6
			case proto == protoUDP && is4:
				want.Report = spec.ReportUDPv4
			case proto == protoUDP:
				want.Report = spec.ReportUDPv6
			case is4:
				want = spec.HashReport{Value: c.ip, Report: spec.ReportIPv4}
			default:
				want = spec.HashReport{Value: c.ip, Report: spec.ReportIPv6}
			}
			if got := h.sum(&f); got != want {
				t.Errorf("%s to %s, protocol %d: %#x, want %#x", c.from, c.to, proto, got, want)
			}
		}
	}
}

// bitwise is the definition of the Toeplitz hash.
func bitwise(key, input []byte) (sum uint32) {
	bit := func(b []byte, i int) uint32 {
		if i/8 >= len(b) {
			return 0
		}
		return uint32(b[i/8]>>(7-i%8)) & 1
	}
	for i := range 8 * len(input) {
		if bit(input, i) == 1 {
			for k := range 32 {
				sum ^= bit(key, i+k) << (31 - k)
			}
		}
	}
	return sum
}

func TestToeplitzIsItsDefinition(t *testing.T) {
	input := make([]byte, 36)
	for i := range input {
		input[i] = byte(i*37 + 11)
	}
	for _, size := range []int{0, 1, 7, 16, 39, 40} {
		table := newToeplitz(microsoftKey[:size])
		for n := range len(input) + 1 {
			if got, want := table.sum(input[:n]), bitwise(microsoftKey[:size], input[:n]); got != want {
				t.Errorf("key of %d bytes, input of %d: %#x, want %#x", size, n, got, want)
			}
		}
	}
}

func BenchmarkToeplitz(b *testing.B) {
	table := newToeplitz(microsoftKey)
	input := microsoftKey[:12]
	for b.Loop() {
		table.sum(input)
	}
}

func BenchmarkFlow(b *testing.B) {
	data := packet{from: "10.0.0.1:1", to: "10.0.0.2:2", proto: protoUDP, payload: 100}.frame()
	frame := cut(data)
	var h head
	var f flow
	for b.Loop() {
		h.read(&frame)
		f.parse(&h)
	}
}
