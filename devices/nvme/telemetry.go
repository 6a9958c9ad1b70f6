package nvme

import (
	"bytes"
	"fmt"
	"time"

	"vfiouser/devices/nvme/spec"
)

// tracedCommands is how many admin commands telemetry has.
const tracedCommands = 64

// tracedCommand is an admin command that was carried out, or has begun to be.
type tracedCommand struct {
	at    time.Time
	entry spec.SubmissionEntry
	st    spec.Status
}

// trace is the last admin commands.
type trace struct {
	count int
	last  [tracedCommands]tracedCommand // the n-th is in last[n % tracedCommands]
}

func (t *trace) add(e *spec.SubmissionEntry, st spec.Status) {
	t.last[t.count%tracedCommands] = tracedCommand{time.Now(), *e, st}
	t.count++
}

// telemetry is what a controller has collected about itself (Base 2.0, 8.24).
type telemetry struct {
	Host       *spec.Telemetry `json:",omitempty"` // as the host has asked for it last
	Controller *spec.Telemetry `json:",omitempty"` // as the controller has decided last
	Available  bool            // the host has not read it

	HostGeneration, ControllerGeneration uint8
}

// maxTelemetry bounds the data areas in bytes.
const maxTelemetry = 64 << 10

// possible says whether a controller could have collected this.
func (t *telemetry) possible() bool {
	for _, l := range []*spec.Telemetry{t.Host, t.Controller} {
		if l != nil && (len(l.Data) > maxTelemetry || len(l.Data)%spec.TelemetryBlockSize != 0 || len(l.Reason) > 128 ||
			l.Areas[0] > l.Areas[1] || l.Areas[1] > l.Areas[2] || int(l.Areas[2])*spec.TelemetryBlockSize != len(l.Data)) {
			return false
		}
	}
	return true
}

const createTelemetry = 1 // of LSP

// hostTelemetry is log page 07h, which the host has made.
func (h *host) hostTelemetry(r *logRequest) ([]byte, spec.Status) {
	t := &h.c.telemetry
	if r.specific&createTelemetry != 0 {
		t.HostGeneration++
		t.Host = h.collect("asked for by the host")
		h.c.keepPages()
	}
	return h.telemetryPage(spec.LogHostTelemetry, t.Host), spec.Success
}

// controllerTelemetry is log page 08h, which the controller makes when something goes wrong.
func (h *host) controllerTelemetry() []byte {
	return h.telemetryPage(spec.LogControllerTelemetry, h.c.telemetry.Controller)
}

// telemetryRead takes note that the host has seen log page 08h.
func (h *host) telemetryRead() {
	if h.c.telemetry.Available {
		h.c.telemetry.Available = false
		h.c.keepPages()
	}
}

// telemetryPage is either page; without contents there is its header only.
func (h *host) telemetryPage(id uint8, of *spec.Telemetry) []byte {
	t := &h.c.telemetry
	page := spec.Telemetry{}
	if of != nil {
		page = *of
	}
	page.Page = id
	page.HostGeneration, page.ControllerGeneration = t.HostGeneration, t.ControllerGeneration
	page.Available = t.Available
	b := make([]byte, page.Size())
	page.Put(b)
	return b
}

// reportTelemetry collects for log page 08h, because something has gone wrong, and tells the
// host.
func (h *host) reportTelemetry(reason string) {
	t := &h.c.telemetry
	t.ControllerGeneration++
	t.Controller, t.Available = h.collect(reason), true
	h.c.keepPages()
	h.events.Or(1 << eventTelemetry)
}

// reportTelemetry has the host of a controller do that, if there is one. Any goroutine that holds
// no lock.
func (s *Subsystem) reportTelemetry(c *Controller, reason string) {
	s.live.Lock()
	defer s.live.Unlock()
	for h := range s.live.hosts {
		if h.c == c {
			h.ask(func(r *request) { r.tasks = append(r.tasks, func() { h.reportTelemetry(reason) }) })
		}
	}
}

// collect makes the data areas, which are text: counters, then the last admin commands, newest
// first, then the queues. Each area includes the ones before.
func (h *host) collect(reason string) *spec.Telemetry {
	var b bytes.Buffer
	t := &spec.Telemetry{Reason: reason}
	pad := func() uint16 {
		b.Write(make([]byte, -b.Len()&(spec.TelemetryBlockSize-1)))
		return uint16(b.Len() / spec.TelemetryBlockSize)
	}
	s := h.smartPage()
	serial, model, firmware := h.c.subsystem.names()
	fmt.Fprintf(&b, "model %s\nserial %s\nfirmware %s\nuptime %v\n", model, serial, firmware,
		time.Since(h.c.smart.start).Round(time.Millisecond))
	fmt.Fprintf(&b, "reads %d\nwrites %d\nread bytes %d\nwritten bytes %d\nunsafe shutdowns %d\nmedia errors %d\nerror log entries %d\n",
		s.HostReads, s.HostWrites, h.c.smart.bytesRead.Load(), h.c.smart.bytesWritten.Load(), s.UnsafeShutdowns, s.MediaErrors, s.ErrorEntries)
	fmt.Fprintf(&b, "CC %#x\nevents raised %#x, masked %#x, requests waiting %d\n", uint32(h.c.regs.config()), h.events.Load(), h.aer.masked, len(h.aer.waiting))
	t.Areas[0] = pad()
	for i := h.trace.count; i > 0 && i > h.trace.count-tracedCommands; i-- {
		c := &h.trace.last[(i-1)%tracedCommands]
		fmt.Fprintf(&b, "%s opcode %#02x cid %d nsid %#x cdw10 %#x cdw11 %#x: status %#x\n", c.at.UTC().Format(time.RFC3339Nano),
			c.entry.Opcode, c.entry.CID, c.entry.NSID, c.entry.CDW10, c.entry.CDW11, uint16(c.st))
	}
	t.Areas[1] = pad()
	for i := range h.cqs {
		if q := h.cqs[i].Load(); q != nil {
			fmt.Fprintf(&b, "completion queue %d: %d entries, vector %d\n", q.id, q.size, q.vector)
		}
		if q := h.sqs[i].Load(); q != nil {
			fmt.Fprintf(&b, "submission queue %d: %d entries, completion queue %d\n", q.id, q.size, q.cq.id)
		}
	}
	t.Areas[2] = pad()
	t.Data = b.Bytes()
	return t
}
