package nvme

import "vfiouser/devices/nvme/spec"

// Directives (Base 2.0, 8.7). There is the identify directive only, which is always enabled.
const (
	directiveIdentify = 0x00

	identifyParameters = 0x01 // of Directive Receive
	identifyEnable     = 0x01 // of Directive Send
)

// directiveNamespace checks which namespace a directive command is for.
func (h *host) directiveNamespace(e *spec.SubmissionEntry) spec.Status {
	if h.c.namespace(e.NSID) == nil && e.NSID != spec.BroadcastNSID {
		return h.c.absent(e.NSID)
	}
	return spec.Success
}

// directiveReceive is Directive Receive (Base 2.0, 5.10).
func (h *host) directiveReceive(e *spec.SubmissionEntry) (spec.Status, uint32) {
	kind, operation := e.CDW11>>8&0xff, e.CDW11&0xff
	n := (uint64(e.CDW10) + 1) * 4
	if st := h.directiveNamespace(e); !st.OK() {
		return st, 0
	}
	if kind != directiveIdentify || operation != identifyParameters || n > uint64(h.c.cfg.MaxTransfer) {
		return badField, 0
	}
	b := page(spec.DirectiveParametersSize, &spec.DirectiveParameters{Supported: 1 << directiveIdentify, Enabled: 1 << directiveIdentify})
	out := make([]byte, n)
	copy(out, b)
	return h.data.toHost(e, out), 0
}

// directiveSend is Directive Send (Base 2.0, 5.11). Nothing can be enabled or disabled.
func (h *host) directiveSend(e *spec.SubmissionEntry) (spec.Status, uint32) {
	if st := h.directiveNamespace(e); !st.OK() {
		return st, 0
	}
	return badField, 0
}
