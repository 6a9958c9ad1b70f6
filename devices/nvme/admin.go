package nvme

import (
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

// admin is the admin queue pair. The control goroutine serves it with copies, so it
// does not matter how its memory is reached.
type admin struct {
	open     bool
	shutdown bool // CC.SHN was followed
	sq       *subQueue
	cq       *compQueue
	unposted []adminResult // what found no room, or no memory, in order
}

type adminResult struct {
	cid uint16
	st  spec.Status
	dw0 uint32
}

// adminCommand carries out a command; dw0 is the command specific result.
type adminCommand func(h *host, e *spec.SubmissionEntry) (st spec.Status, dw0 uint32)

// notYet is no status of NVMe: the command completes later.
const notYet spec.Status = 0xfffe

// adminCommands is what the controller can do, by opcode. (A variable would refer to
// itself, as one of the commands lists them.)
func adminCommands() [256]adminCommand {
	return [256]adminCommand{
		spec.AdminDeleteSQ:            (*host).deleteSQ,
		spec.AdminCreateSQ:            (*host).createSQ,
		spec.AdminGetLogPage:          (*host).getLogPage,
		spec.AdminDeleteCQ:            (*host).deleteCQ,
		spec.AdminCreateCQ:            (*host).createCQ,
		spec.AdminIdentify:            (*host).identify,
		spec.AdminAbort:               (*host).abort,
		spec.AdminSetFeatures:         (*host).setFeatures,
		spec.AdminGetFeatures:         (*host).getFeatures,
		spec.AdminAsyncEvent:          (*host).asyncEvent,
		spec.AdminFirmwareCommit:      (*host).commitFirmware,
		spec.AdminFirmwareDownload:    (*host).downloadFirmware,
		spec.AdminSelfTest:            (*host).deviceSelfTest,
		spec.AdminDirectiveSend:       (*host).directiveSend,
		spec.AdminDirectiveReceive:    (*host).directiveReceive,
		spec.AdminSecuritySend:        (*host).securitySend,
		spec.AdminSecurityReceive:     (*host).securityReceive,
		spec.AdminKeepAlive:           (*host).keepAliveCommand,
		spec.AdminDoorbellBuffer:      (*host).doorbellBufferConfig,
		spec.AdminNamespaceManagement: (*host).namespaceManagement,
		spec.AdminNamespaceAttachment: (*host).namespaceAttachment,
		spec.AdminFormatNVM:           (*host).formatNVM,
		spec.AdminSanitize:            (*host).sanitizeCommand,
	}
}

// adminPossible says whether registers describe admin queues (Base 1.4, 3.1.5 to 3.1.10).
// Those that a host writes are aligned, those of a state may not be.
func adminPossible(a adminConfig) bool {
	return a.cc.MPS() == 0 && a.cc.CSS() == spec.CSSNVM && a.cc.AMS() <= spec.AMSWeighted &&
		a.aqa.ASQS() > 0 && a.aqa.ACQS() > 0 && a.asq%pageSize == 0 && a.acq%pageSize == 0
}

// openAdmin makes the admin queues that the registers describe, false if there are none.
func (h *host) openAdmin(a adminConfig) bool {
	if !adminPossible(a) {
		return false
	}
	h.c.doorbells.zero()
	cq := newCompQueue(h, 0, uint32(a.aqa.ACQS())+1, a.acq)
	h.interrupts.bind(cq, 0, true)
	sq := newSubQueue(h, 0, uint32(a.aqa.ASQS())+1, a.asq, cq)
	h.admin = admin{open: true, sq: sq, cq: cq}
	h.cqs[0].Store(cq)
	h.sqs[0].Store(sq)
	return true
}

// serveAdmin does one step and says whether there may be more to do. Without, it is
// called again after a doorbell, an event or a change of memory.
func (h *host) serveAdmin() bool {
	a := &h.admin
	if !a.open || h.held {
		return false
	}
	h.deliverEvents()
	h.collectBackground()
	progress := h.postAdmin()
	tail := a.sq.look(h.c.doorbells.page)
	if len(a.unposted) > 0 || tail == a.sq.head || h.background.running >= maxBackground {
		return progress
	}
	if tail >= a.sq.size { // only a mapped doorbell can say that
		if tail != a.sq.badTail {
			a.sq.badTail = tail
			h.raise(eventInvalidTail, 0)
		}
		return progress
	}
	var b [spec.SubmissionEntrySize]byte
	if h.readDMA(a.sq.base+uint64(a.sq.head)*spec.SubmissionEntrySize, b[:]) != nil {
		return false
	}
	a.sq.head = a.sq.next(a.sq.head)
	var e spec.SubmissionEntry
	e.Get(b[:])
	if st, dw0 := h.executeAdmin(&e); st != notYet {
		h.completeAdmin(e.CID, st, dw0)
	}
	return true
}

func (h *host) executeAdmin(e *spec.SubmissionEntry) (st spec.Status, dw0 uint32) {
	command := h.c.commands[e.Opcode]
	switch {
	case command == nil:
		st = spec.InvalidOpcode | spec.StatusDNR
	case e.Flags&notOfferedAdmin != 0:
		st = spec.InvalidField | spec.StatusDNR
	case h.c.barsAdmin(e):
		st = conflict
	default:
		if st = h.c.subsystem.refusesAdmin(e.Opcode); st.OK() {
			st, dw0 = command(h, e)
		}
	}
	h.trace.add(e, st)
	if st != notYet && !st.OK() {
		st = h.logFailure(0, e, st)
	}
	return st, dw0
}

func (h *host) completeAdmin(cid uint16, st spec.Status, dw0 uint32) {
	h.admin.unposted = append(h.admin.unposted, adminResult{cid, st, dw0})
	h.postAdmin()
}

// postAdmin posts what there is room for.
func (h *host) postAdmin() (progress bool) {
	a := &h.admin
	q := a.cq
	q.consume(q.look(h.c.doorbells.page))
	for len(a.unposted) > 0 && q.room(1) > 0 {
		r := a.unposted[0]
		var b [spec.CompletionEntrySize]byte
		binary.LittleEndian.PutUint64(b[0:], uint64(r.dw0))
		binary.LittleEndian.PutUint64(b[8:], q.word(a.sq, r.cid, r.st))
		if h.publish(h.reader, &q.ring, q.tail, b[:]) != nil {
			break
		}
		q.advance()
		a.unposted = a.unposted[1:]
		progress = true
	}
	if q.posted {
		h.interrupts.signal(q)
	}
	if h.interrupts.pinBased() {
		h.interrupts.follow(q, true)
	}
	return progress
}
