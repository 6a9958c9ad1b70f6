package virtionet

import (
	"bytes"
	"net/netip"
	"testing"

	"vfiouser/devices/virtio-net/spec"
)

func address(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// The fields of extension headers behind their first two bytes.
var (
	routing2    = append([]byte{routingType2, 1, 0, 0, 0, 0}, address("2001:db8::22")...)
	routing0    = append([]byte{0, 1, 0, 0, 0, 0}, address("2001:db8::22")...)
	homeAddress = append([]byte{1, 2, 0, 0, optionHomeAddr, 16}, address("2001:db8::11")...)
	noFragment  = []byte{0, 0, 0, 0, 0, 9} // the only one of its packet
	fragment    = []byte{0, 9, 0, 0, 0, 9}
)

func TestHashedFields(t *testing.T) {
	const from6, to6 = "[2001:db8::1]:1000", "[2001:db8::2]:2000"
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	addr6 := join(address("2001:db8::1"), address("2001:db8::2"))
	addr4 := join(address("10.0.0.1"), address("10.0.0.2"))
	ports := []byte{1000 >> 8, 1000 & 0xff, 2000 >> 8, 2000 & 0xff}
	v4 := packet{from: "10.0.0.1:1000", to: "10.0.0.2:2000", proto: protoTCP}
	v6 := packet{from: from6, to: to6, proto: protoUDP}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	for _, c := range []struct {
		name   string
		packet packet
		types  uint32
		report uint16
		input  []byte
	}{
		{"TCP over IPv4", v4, spec.HashAll, spec.ReportTCPv4, join(addr4, ports)},
		{"options of IPv4", with(v4, func(p *packet) { p.ip4Options = 5 }), spec.HashAll, spec.ReportTCPv4, join(addr4, ports)},
		{"tagged", with(v4, func(p *packet) { p.vlan = 5 }), spec.HashAll, spec.ReportTCPv4, join(addr4, ports)},
		{"tagged twice", with(v4, func(p *packet) { p.vlan, p.doubleTagged = 5, true }), spec.HashAll, spec.ReportTCPv4, join(addr4, ports)},
		{"TCP is not enabled", v4, spec.HashAll &^ spec.HashTCPv4, spec.ReportIPv4, addr4},
		{"only UDP is enabled", v4, spec.HashUDPv4 | spec.HashIPv6, spec.ReportNone, nil},
		{"nothing is enabled", v4, 0, spec.ReportNone, nil},
		{"first fragment", with(v4, func(p *packet) { p.fragment = 0x2000 }), spec.HashAll, spec.ReportIPv4, addr4},
		{"last fragment", with(v4, func(p *packet) { p.fragment = 100 }), spec.HashAll, spec.ReportIPv4, addr4},
		{"not to be fragmented", with(v4, func(p *packet) { p.fragment = 0x4000 }), spec.HashAll, spec.ReportTCPv4, join(addr4, ports)},
		{"another protocol", with(v4, func(p *packet) { p.proto = 132 }), spec.HashAll, spec.ReportIPv4, addr4},
		{"cut in its ports", with(v4, func(p *packet) { p.truncateTo = etherSize + ipv4Size + 3 }), spec.HashAll, spec.ReportIPv4, addr4},
		{"cut in its addresses", with(v4, func(p *packet) { p.truncateTo = etherSize + ipv4Size - 1 }), spec.HashAll, spec.ReportNone, nil},
		{"cut in its type", with(v4, func(p *packet) { p.truncateTo = 13 }), spec.HashAll, spec.ReportNone, nil},
		{"ARP", packet{kind: 0x806, payload: 46}, spec.HashAll, spec.ReportNone, nil},
		{"UDP over IPv6", v6, spec.HashAll, spec.ReportUDPv6, join(addr6, ports)},
		{"cut in IPv6", with(v6, func(p *packet) { p.truncateTo = etherSize + ipv6Size - 1 }), spec.HashAll, spec.ReportNone, nil},
		{"hop by hop", with(v6, func(p *packet) { p.exts = []ext{{extHopByHop, []byte{5, 2}}} }),
			spec.HashAll, spec.ReportUDPEx, join(addr6, ports)},
		{"extensions are skipped", with(v6, func(p *packet) { p.exts = []ext{{extHopByHop, nil}, {extDestination, homeAddress}} }),
			spec.HashUDPv6, spec.ReportUDPv6, join(addr6, ports)},
		{"home address", with(v6, func(p *packet) { p.exts = []ext{{extDestination, homeAddress}} }),
			spec.HashAll, spec.ReportUDPEx, join(address("2001:db8::11"), addr6[16:], ports)},
		{"routing header", with(v6, func(p *packet) { p.exts = []ext{{extRouting, routing2}} }),
			spec.HashAll, spec.ReportUDPEx, join(addr6[:16], address("2001:db8::22"), ports)},
		{"another routing header", with(v6, func(p *packet) { p.exts = []ext{{extRouting, routing0}} }),
			spec.HashAll, spec.ReportUDPEx, join(addr6, ports)},
		{"both, addresses only", with(v6, func(p *packet) { p.exts = []ext{{extRouting, routing2}, {extDestination, homeAddress}} }),
			spec.HashIPEx, spec.ReportIPv6Ex, join(address("2001:db8::11"), address("2001:db8::22"))},
		{"extension beyond what is looked at", with(v6, func(p *packet) { p.exts = []ext{{extHopByHop, make([]byte, 100)}} }),
			spec.HashAll, spec.ReportIPv6Ex, addr6},
		{"fragment of IPv6", with(v6, func(p *packet) { p.exts = []ext{{extFragment, fragment}} }), spec.HashAll, spec.ReportIPv6Ex, addr6},
		{"only fragment of IPv6", with(v6, func(p *packet) { p.exts = []ext{{extFragment, noFragment}} }),
			spec.HashAll, spec.ReportUDPEx, join(addr6, ports)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hashing{types: c.types, table: newToeplitz(microsoftKey)}
			data := c.packet.frame()
			for at := range len(data) {
				var got head
				f := cut(data, at, 3)
				got.read(&f)
				var fl flow
				fl.parse(&got)
				want := spec.HashReport{Value: bitwise(microsoftKey, c.input), Report: c.report}
				if sum := h.sum(&fl); sum != want {
					t.Fatalf("cut at %d: %+v, want %+v", at, sum, want)
				}
			}
		})
	}
}
