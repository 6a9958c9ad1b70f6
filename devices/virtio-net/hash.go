package virtionet

import "vfiouser/devices/virtio-net/spec"

// hashing is how hashes are calculated (5.1.6.4.3). It is immutable.
type hashing struct {
	types uint32 // enabled
	table *toeplitz
}

// kinds of hash with ports, without, and in case of extension headers.
type kinds struct{ tcp, udp, ip uint32 }

var (
	kindsIPv4   = kinds{spec.HashTCPv4, spec.HashUDPv4, spec.HashIPv4}
	kindsIPv6   = kinds{spec.HashTCPv6, spec.HashUDPv6, spec.HashIPv6}
	kindsMobile = kinds{spec.HashTCPEx, spec.HashUDPEx, spec.HashIPEx}
)

// pick chooses the kind of hash of a flow; 0 if none is enabled.
func (k *kinds) pick(f *flow, enabled uint32) (kind uint32, ports bool) {
	switch {
	case f.proto == protoTCP && enabled&k.tcp != 0:
		return k.tcp, true
	case f.proto == protoUDP && enabled&k.udp != 0:
		return k.udp, true
	default:
		return enabled & k.ip, false
	}
}

// sum hashes a flow. The report is ReportNone if no hash is enabled for it.
func (h *hashing) sum(f *flow) spec.HashReport {
	input := &f.input
	var kind uint32
	var ports bool
	switch f.addr {
	case 4:
		kind, ports = kindsIPv4.pick(f, h.types)
	case ipv6AddressSize:
		if f.ext {
			kind, ports = kindsMobile.pick(f, h.types)
		}
		if kind != 0 {
			input = &f.mobile
		} else {
			kind, ports = kindsIPv6.pick(f, h.types)
		}
	}
	if kind == 0 {
		return spec.HashReport{}
	}
	return spec.HashReport{Value: h.table.sum(input[:f.size(ports)]), Report: spec.Report(kind)}
}
