package nvme

import (
	"vfiouser/devices/nvme/spec"
)

// prepareReservation checks what the reservation commands have in common.
func (c *Controller) prepareReservation(cmd *command) (plan, spec.Status) {
	cmd.ns = c.namespace(cmd.entry.NSID)
	if cmd.ns == nil {
		return 0, c.absent(cmd.entry.NSID)
	}
	return planSlow, spec.Success
}

// prepareReport checks Reservation Report, whose data has as many dwords as the host asks
// for.
func (c *Controller) prepareReport(cmd *command) (plan, spec.Status) {
	if (uint64(cmd.entry.CDW10)+1)*4 > uint64(c.cfg.MaxTransfer) {
		return 0, badField
	}
	return c.prepareReservation(cmd)
}

// prepareKeyed checks Reservation Acquire and Release, which know no key that is ignored.
func (c *Controller) prepareKeyed(cmd *command) (plan, spec.Status) {
	if cmd.entry.CDW10&spec.ReservationIgnoreKey != 0 {
		return 0, badField
	}
	return c.prepareReservation(cmd)
}

// keys fetches the data of a reservation command.
func (c *courier) keys(cmd *command, size int) (keys spec.ReservationKeys, st spec.Status) {
	var b [spec.ReservationKeysSize]byte
	st = c.fromHost(&cmd.entry, b[:size])
	keys.Get(b[:])
	return keys, st
}

// registerKey is Reservation Register (Base 2.0, 7.3).
func (c *courier) registerKey(cmd *command) spec.Status {
	cdw10 := cmd.entry.CDW10
	persist := cdw10 >> spec.RegisterPersistShift & 3
	if persist != spec.PersistUnchanged && persist != spec.PersistOff && persist != spec.PersistOn {
		return badField
	}
	keys, st := c.keys(cmd, spec.ReservationKeysSize)
	if !st.OK() {
		return st
	}
	s := c.h.c.subsystem
	return s.reserve(c.h.c, cmd.ns.allocation, func(r *reservation, by reserver) ([]notice, spec.Status) {
		// Where nothing can persist CPTPL has no meaning; Linux always sets it.
		if persist != spec.PersistUnchanged && s.keepsReservations() {
			r.persistent = persist == spec.PersistOn
		}
		return r.register(by, uint8(cdw10&7), cdw10&spec.ReservationIgnoreKey != 0, keys)
	})
}

// acquire is Reservation Acquire (7.1).
func (c *courier) acquire(cmd *command) spec.Status {
	action := uint8(cmd.entry.CDW10 & 7)
	kind := spec.ReservationType(cmd.entry.CDW10 >> spec.ReservationTypeShift)
	keys, st := c.keys(cmd, spec.ReservationKeysSize)
	if !st.OK() {
		return st
	}
	s, a := c.h.c.subsystem, cmd.ns.allocation
	change := func(r *reservation, by reserver) ([]notice, spec.Status) { return r.acquire(by, action, kind, keys) }
	if action != spec.AcquireAbort {
		st = s.reserve(c.h.c, a, change)
		s.passGroups() // whoever may not write now does not either
		return st
	}
	// What the preempted hosts have under way ends first, and what they have waiting is
	// aborted when its turn comes.
	s.exclude(a, func(*namespace) {
		if st = s.reserve(c.h.c, a, change); st.OK() {
			a.era.Add(1)
		}
	})
	return st
}

// releaseKey is Reservation Release (7.2).
func (c *courier) releaseKey(cmd *command) spec.Status {
	action := uint8(cmd.entry.CDW10 & 7)
	kind := spec.ReservationType(cmd.entry.CDW10 >> spec.ReservationTypeShift)
	keys, st := c.keys(cmd, spec.ReservationKeySize)
	if !st.OK() {
		return st
	}
	return c.h.c.subsystem.reserve(c.h.c, cmd.ns.allocation, func(r *reservation, by reserver) ([]notice, spec.Status) {
		return r.release(by, action, kind, keys.Current)
	})
}

// report is Reservation Report (7.4).
func (c *courier) report(cmd *command) spec.Status {
	extended := cmd.entry.CDW11&spec.ReportExtended != 0
	status, st := c.h.c.subsystem.reservationStatus(c.h.c, cmd.ns.allocation, extended)
	if !st.OK() {
		return st
	}
	n := (int(cmd.entry.CDW10) + 1) * 4
	b := make([]byte, max(n, status.Size(extended)))
	status.Put(b, extended)
	return c.toHost(&cmd.entry, b[:n])
}

// reservationStatus lists the controllers whose hosts are registrants, and registrants that
// no controller belongs to now. The form of the report must be that of the host identifier,
// if there is one: only then could it be told in full.
func (s *Subsystem) reservationStatus(c *Controller, a *allocation, extended bool) (*spec.ReservationStatus, spec.Status) {
	r := &s.reservations
	r.mu.Lock()
	defer r.mu.Unlock()
	if mine := &r.associations[c.index]; mine.host != (spec.HostID{}) && mine.extended != extended {
		return nil, spec.HostIDInconsistent // Linux asks again in the other form, unless DNR is set
	}
	have := &a.reservation
	status := &spec.ReservationStatus{Generation: have.generation, Type: have.kind, Persistent: have.persistent}
	for _, g := range have.registrants {
		entry := spec.RegisteredController{Holder: have.holds(g.reserver), Host: g.host, Key: g.key}
		present := false
		for i := range r.associations {
			if x := r.associations[i].c; x != nil && r.reserver(x) == g.reserver {
				present = true
				entry.Controller = x.id()
				status.Controllers = append(status.Controllers, entry)
			}
		}
		if !present {
			entry.Controller = spec.NoController
			status.Controllers = append(status.Controllers, entry)
		}
	}
	return status, spec.Success
}

func isReservation(opcode uint8) bool {
	switch opcode {
	case spec.NVMReservationRegister, spec.NVMReservationAcquire, spec.NVMReservationRelease, spec.NVMReservationReport:
		return true
	}
	return false
}

// reservationField is where a reservation command has what is refused as an invalid field,
// if it is not a key.
func reservationField(e *spec.SubmissionEntry) location {
	action, kind := e.CDW10&7, spec.ReservationType(e.CDW10>>spec.ReservationTypeShift)
	switch e.Opcode {
	case spec.NVMReservationRegister:
		if e.CDW10>>spec.RegisterPersistShift == 1 {
			return at(43, 6)
		}
		if action > spec.ReplaceKey {
			return inCDW10
		}
		return noLocation
	case spec.NVMReservationAcquire, spec.NVMReservationRelease:
		most := uint32(spec.ReleaseClear)
		if e.Opcode == spec.NVMReservationAcquire {
			most = spec.AcquireAbort
		}
		switch {
		case e.CDW10&spec.ReservationIgnoreKey != 0:
			return at(40, 3)
		case action > most:
			return inCDW10
		case e.Opcode == spec.NVMReservationRelease || !kind.Valid():
			return inCDW10 + 1
		}
		return noLocation
	}
	return inCDW10
}
