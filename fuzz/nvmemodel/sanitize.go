package nvmemodel

import (
	"slices"

	"vfiouser/devices/nvme/spec"
)

// sanitize erases everything.
func (m *model) sanitize() {
	h := m.anyHost()
	errors := m.sanitizeErrors(h)
	action := uint32(spec.SanitizeActionBlockErase)
	if m.s.Odds(4) {
		action = spec.SanitizeActionOverwrite | uint32(1+m.s.Intn(2))<<4
	}
	if m.beginSanitize(h, action, errors...); len(errors) == 0 {
		m.sanitizeEnds(h, spec.SanitizeSucceeded)
	}
}

// sanitizeErrors are the reasons why a sanitize operation cannot be.
func (m *model) sanitizeErrors(h int) (errors []spec.Status) {
	for _, n := range m.list {
		if n.protect && !slices.Contains(errors, spec.NamespaceWriteProtected) {
			errors = append(errors, spec.NamespaceWriteProtected)
		}
		errors = m.writable(h, n, errors)
	}
	return errors
}

func (m *model) beginSanitize(h int, cdw10 uint32, errors ...spec.Status) {
	m.t.Helper()
	st, _ := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminSanitize, CDW10: cdw10}, nil)
	m.expect(h, "sanitize", st, errors...)
}

// sanitizeEnds waits for the end of an operation, and erases the namespaces if it has succeeded.
func (m *model) sanitizeEnds(h int, want uint16) {
	m.t.Helper()
	for {
		status := m.sanitizeStatus(h)
		if status == want {
			break
		} else if status != spec.SanitizeRuns {
			m.fatalf("host %d: sanitize status %d, want %d", h, status, want)
		}
	}
	for _, n := range m.list {
		if want == spec.SanitizeSucceeded {
			n.erase()
			continue
		}
		for i := range n.cells { // as far as it came
			n.cells[i] = n.cells[i].mayAlso(content{})
		}
	}
}

func (m *model) sanitizeStatus(h int) uint16 {
	m.t.Helper()
	data := make([]byte, spec.SanitizeSize)
	e := spec.SubmissionEntry{Opcode: spec.AdminGetLogPage, NSID: spec.BroadcastNSID, CDW10: spec.LogSanitize | (spec.SanitizeSize/4-1)<<16}
	st, _ := m.d.Admin(h, e, data)
	m.expect(h, "sanitize log", st)
	var l spec.SanitizeLog
	l.Get(data)
	return l.Status & 7
}

// failSanitize has an operation fail. Until another one succeeds, or an unrestricted failure is
// left, nobody gets at a block, whatever restarts or moves.
func (m *model) failSanitize() {
	h := m.anyHost()
	n := m.anyNamespace()
	if n == nil || m.anybodyReserves() || len(m.sanitizeErrors(h)) > 0 || !m.d.Fail(n.id, FailErase, true) {
		return
	}
	id := n.id
	unrestricted := uint32(0)
	if m.s.Bool() {
		unrestricted = spec.SanitizeUnrestricted
	}
	m.beginSanitize(h, spec.SanitizeActionBlockErase|unrestricted)
	m.sanitizeEnds(h, spec.SanitizeHasFailed)
	m.d.Fail(id, FailErase, false)
	for range 1 + m.s.Intn(6) {
		m.afterFailure(m.anyHost())
	}
	h = m.anyHost()
	if m.s.Bool() {
		exit := []spec.Status{spec.SanitizeFailed}
		if unrestricted != 0 {
			exit = nil
		}
		m.beginSanitize(h, spec.SanitizeActionExitFailure, exit...)
		if unrestricted != 0 {
			return
		}
	}
	if unrestricted == 0 {
		m.beginSanitize(h, spec.SanitizeActionBlockErase|spec.SanitizeUnrestricted, spec.SanitizeFailed)
	}
	m.beginSanitize(h, spec.SanitizeActionBlockErase|unrestricted)
	m.sanitizeEnds(h, spec.SanitizeSucceeded)
}

// afterFailure does something that is refused, or that changes nothing of that.
func (m *model) afterFailure(h int) {
	switch m.s.Intn(8) {
	case 0:
		m.restartHost(h)
	case 1:
		m.migrate()
	case 2:
		m.getFeature()
	case 3:
		m.look()
	case 4:
		if n := m.anyNamespace(); n != nil {
			st, _ := m.d.Admin(h, formatCommand(n.id, n.shift), nil)
			m.expect(h, "format", st, spec.SanitizeFailed, spec.ReservationConflict)
		}
	default:
		p := m.anyCommand(h)
		p.errors = append(p.errors, spec.SanitizeFailed)
		p.queue = m.openQueue(h)
		m.d.Start(h, p.queue, []*Command{p.Command})
		m.d.Wait(h)
		m.settle([]*plan{p}, outcome{})
	}
	if status := m.sanitizeStatus(h); status != spec.SanitizeHasFailed {
		m.fatalf("host %d: sanitize status %d after a failure", h, status)
	}
}
