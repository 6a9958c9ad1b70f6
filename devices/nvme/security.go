package nvme

import (
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

// Security protocol 00h, information (SPC-4, 7.7.1), is the only one: it says that there is no
// other.
const (
	securityInformation = 0x00

	securityProtocols   = 0 // SP specific values
	securityCertificate = 1
	securityCompliance  = 2
)

// securityReceive is Security Receive (Base 2.0, 5.24).
func (h *host) securityReceive(e *spec.SubmissionEntry) (spec.Status, uint32) {
	protocol, specific, n := e.CDW10>>24, e.CDW10>>8&0xffff, e.CDW11
	if protocol != securityInformation || uint64(n) > uint64(h.c.cfg.MaxTransfer) {
		return badField, 0
	}
	var answer []byte
	switch specific {
	case securityProtocols:
		answer = make([]byte, 9) // the length of a list, and the list
		binary.BigEndian.PutUint16(answer[6:], 1)
		answer[8] = securityInformation
	case securityCertificate, securityCompliance:
		answer = make([]byte, 4) // a length of 0
	default:
		return badField, 0
	}
	if n == 0 {
		return spec.Success, 0
	}
	out := make([]byte, n)
	copy(out, answer)
	return h.data.toHost(e, out), 0
}

// securitySend is Security Send (Base 2.0, 5.25): nothing can be sent to the information
// protocol, and there is no other.
func (h *host) securitySend(*spec.SubmissionEntry) (spec.Status, uint32) { return badField, 0 }
