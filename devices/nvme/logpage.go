package nvme

import (
	"vfiouser/devices/nvme/spec"
)

// logPage is a log page.
type logPage struct {
	// content is the page, or the part of it that a request selects.
	content func(h *host, r *logRequest) ([]byte, spec.Status)
	// unit is what offset and length have to be multiples of in bytes, if not 4.
	unit uint64
	// read follows a page that was read with its events cleared.
	read func(h *host)
}

// logRequest is what Get Log Page says beside offset and length.
type logRequest struct {
	specific   uint8  // LSP
	identifier uint16 // LSI
}

// logTable refers to functions that look into it, so it is made by one.
func logTable() *[256]logPage {
	return &[256]logPage{
		spec.LogSupportedPages:      {content: plain((*host).supportedPages)},
		spec.LogErrors:              {content: plain(func(h *host) []byte { return h.c.errors.page() })},
		spec.LogSmart:               {content: plain(func(h *host) []byte { return page(spec.SmartSize, h.smartPage()) })},
		spec.LogFirmware:            {content: plain(func(h *host) []byte { return page(spec.FirmwareSize, h.firmwarePage()) })},
		spec.LogChangedNS:           {content: plain((*host).changedPage), read: func(h *host) { h.changed.forget() }},
		spec.LogEffects:             {content: plain(func(h *host) []byte { return page(spec.EffectsSize, h.effectsPage()) })},
		spec.LogSelfTest:            {content: plain((*host).selfTestPage)},
		spec.LogSanitize:            {content: plain((*host).sanitizePage)},
		spec.LogHostTelemetry:       {content: (*host).hostTelemetry, unit: spec.TelemetryBlockSize},
		spec.LogControllerTelemetry: {content: plain((*host).controllerTelemetry), unit: spec.TelemetryBlockSize, read: (*host).telemetryRead},
		spec.LogEnduranceGroup:      {content: (*host).enduranceLog},
		spec.LogPersistentEvents:    {content: (*host).persistentEvents},
		spec.LogEnduranceEvents:     {content: plain(func(*host) []byte { return make([]byte, spec.EnduranceEventsSize) })},
		spec.LogReservation:         {content: plain((*host).reservationPage), read: (*host).reservationRead},
		spec.LogManagementEffects:   {content: plain(func(*host) []byte { return make([]byte, spec.ManagementEffectsSize) })}, // no NVMe-MI
		spec.LogFeatureEffects:      {content: plain((*host).featureEffects)},
	}
}

// plain is the content of a page that is the same for every request.
func plain(content func(h *host) []byte) func(*host, *logRequest) ([]byte, spec.Status) {
	return func(h *host, _ *logRequest) ([]byte, spec.Status) { return content(h), spec.Success }
}

func page(size int, s interface{ Put([]byte) }) []byte {
	b := make([]byte, size)
	s.Put(b)
	return b
}

// Bits of Get Log Page.
const (
	retainEvent = 1 << 15 // of CDW10
	offsetType  = 1 << 23 // of CDW14: the offset is an index
)

// getLogPage is Get Log Page (Base 2.0, 5.16). What is asked for beyond the end of the
// page reads 0.
func (h *host) getLogPage(e *spec.SubmissionEntry) (spec.Status, uint32) {
	p := &h.c.logs[uint8(e.CDW10)]
	n := (uint64(e.CDW11&0xffff)<<16 | uint64(e.CDW10>>16)) + 1
	n *= 4
	off := uint64(e.CDW13)<<32 | uint64(e.CDW12)
	unit := max(p.unit, 4)
	switch {
	case p.content == nil:
		return spec.InvalidLogPage | spec.StatusDNR, 0
	case e.NSID != 0 && e.NSID != spec.BroadcastNSID: // no page has the scope of a namespace (LPA bit 0)
		return badField, 0
	case e.CDW14&offsetType != 0: // no page has an index
		return badField, 0
	case n > uint64(h.c.cfg.MaxTransfer), n%unit != 0, off%unit != 0:
		return badField, 0
	}
	b, st := p.content(h, &logRequest{uint8(e.CDW10>>8) & 0x7f, uint16(e.CDW11 >> 16)})
	switch {
	case !st.OK():
		return st, 0
	case off > uint64(len(b)):
		return badField, 0
	}
	out := make([]byte, n)
	copy(out, b[off:])
	if st := h.data.toHost(e, out); !st.OK() {
		return st, 0
	}
	if e.CDW10&retainEvent == 0 {
		h.aer.unmask(uint8(e.CDW10))
		if p.read != nil {
			p.read(h)
		}
	}
	return spec.Success, 0
}

// supportedPages is the list of log pages (Base 2.0, 5.16.1.1).
func (h *host) supportedPages() []byte {
	l := &spec.SupportedPages{}
	for i := range h.c.logs {
		if h.c.logs[i].content != nil {
			l[i] = spec.LogSupported
		}
	}
	return page(spec.SupportedPagesSize, l)
}
