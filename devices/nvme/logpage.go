package nvme

import (
	"vfiouser/devices/nvme/spec"
)

// logPage is a log page: its content, and the type of asynchronous event that reading
// it makes possible again (-1: none).
type logPage struct {
	content func(h *host) []byte
	event   int
}

var logPages = [256]logPage{
	spec.LogErrors:    {func(h *host) []byte { return h.c.errors.page() }, spec.AsyncError},
	spec.LogSmart:     {func(h *host) []byte { return page(spec.SmartSize, h.smartPage()) }, spec.AsyncHealth},
	spec.LogFirmware:  {func(h *host) []byte { return page(spec.FirmwareSize, h.firmwarePage()) }, -1},
	spec.LogChangedNS: {(*host).changedPage, spec.AsyncNotice},
	spec.LogEffects:   {func(h *host) []byte { return page(spec.EffectsSize, h.effectsPage()) }, -1},
}

func page(size int, s interface{ Put([]byte) }) []byte {
	b := make([]byte, size)
	s.Put(b)
	return b
}

// Bits of CDW10 of Get Log Page.
const retainEvent = 1 << 15

// getLogPage is Get Log Page (Base 1.4, 5.14). What is asked for beyond the end of the
// page reads 0.
func (h *host) getLogPage(e *spec.SubmissionEntry) (spec.Status, uint32) {
	id := uint8(e.CDW10)
	n := (uint64(e.CDW11&0xffff)<<16 | uint64(e.CDW10>>16)) + 1
	n *= 4
	off := uint64(e.CDW13)<<32 | uint64(e.CDW12)
	p := logPages[id]
	switch {
	case p.content == nil:
		return spec.InvalidLogPage | spec.StatusDNR, 0
	case id == spec.LogSmart && e.NSID != 0 && e.NSID != spec.BroadcastNSID: // LPA bit 0
		return spec.InvalidField | spec.StatusDNR, 0
	case n > uint64(h.c.cfg.MaxTransfer), off%4 != 0:
		return spec.InvalidField | spec.StatusDNR, 0
	}
	b := p.content(h)
	if off > uint64(len(b)) {
		return spec.InvalidField | spec.StatusDNR, 0
	}
	out := make([]byte, n)
	copy(out, b[off:])
	if st := h.data.toHost(e, out); !st.OK() {
		return st, 0
	}
	if p.event >= 0 && e.CDW10&retainEvent == 0 {
		h.aer.unmask(p.event)
		if id == spec.LogChangedNS {
			h.changed.clear()
		}
	}
	return spec.Success, 0
}

func (h *host) firmwarePage() *spec.FirmwareLog {
	f := &spec.FirmwareLog{ActiveSlot: 1}
	_, _, f.Revisions[0] = h.c.subsystem.names()
	return f
}

// effectsPage lists the commands supported (Base 1.4, 5.14.1.5).
func (h *host) effectsPage() *spec.EffectsLog {
	l := &spec.EffectsLog{}
	for op, command := range h.c.commands {
		if command != nil {
			l.Admin[op] = spec.EffectSupported
		}
	}
	for op, command := range ioCommands {
		l.IO[op] = command.effects
	}
	return l
}
