package nvme

import (
	"slices"
	"sync"

	"vfiouser/devices/nvme/spec"
)

// reservations is what the controllers of a subsystem have in common for reservations. Its
// mutex is also that of the reservation of every namespace, and comes after Subsystem.mu.
type reservations struct {
	mu           sync.Mutex
	associations [MaxControllers]association
	kept         map[uint32]reservationState // in the state directory, by namespace
}

// association is the host that a controller belongs to, and what that host wants to know.
type association struct {
	c        *Controller // nil: there is none
	host     spec.HostID
	extended bool             // the identifier has 128 bits
	masks    map[uint32]uint8 // notices that are not wanted, a bit for each type, by namespace
	log      noticeLog
}

// reserver is who the controller's commands are of. The caller holds the mutex.
func (r *reservations) reserver(c *Controller) reserver {
	if a := &r.associations[c.index]; a.host != (spec.HostID{}) {
		return reserver{host: a.host}
	}
	return reserver{controller: c.id()}
}

// disassociate makes a controller one without a host identifier, as a reset does.
func (s *Subsystem) disassociate(c *Controller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.controllers[c.index] == c {
		s.associate(c, association{c: c})
	}
}

// associate gives a controller another association. What it has registered without a host
// identifier ends, as nobody could name that host any more. The caller holds mu.
func (s *Subsystem) associate(c *Controller, next association) {
	r := &s.reservations
	r.mu.Lock()
	defer r.mu.Unlock()
	nobody := reserver{controller: c.id()}
	for _, ns := range s.namespaces {
		if ns != nil && ns.reservation.find(nobody) != nil {
			changed := ns.reservation.clone()
			told := changed.unregister(nobody)
			_ = s.establish(ns.allocation, changed) // nothing of it is kept
			s.notify(ns.allocation, told)
		}
	}
	r.associations[c.index] = next
	for _, ns := range s.namespaces {
		if ns != nil {
			s.bar(ns.allocation)
		}
	}
}

// checkHostID says whether a controller may have a host identifier of this size.
func (s *Subsystem) checkHostID(c *Controller, id spec.HostID, extended bool) spec.Status {
	s.reservations.mu.Lock()
	defer s.reservations.mu.Unlock()
	for _, a := range s.reservations.associations {
		if a.c != c && a.host != (spec.HostID{}) && id != (spec.HostID{}) && a.extended != extended {
			return spec.HostIDInconsistent | spec.StatusDNR
		}
	}
	return spec.Success
}

// setHostID makes a controller one of another host.
func (s *Subsystem) setHostID(c *Controller, id spec.HostID, extended bool) spec.Status {
	s.mu.Lock() // nobody else changes associations
	defer s.mu.Unlock()
	if st := s.checkHostID(c, id, extended); !st.OK() {
		return st
	}
	s.reservations.mu.Lock()
	next := s.reservations.associations[c.index]
	s.reservations.mu.Unlock()
	if next.host != id || next.extended != extended {
		next.host, next.extended = id, extended
		s.associate(c, next)
	}
	return spec.Success
}

// reserve changes the reservation of a namespace on behalf of a controller, or leaves it as
// it was.
func (s *Subsystem) reserve(c *Controller, a *allocation, change func(*reservation, reserver) ([]notice, spec.Status)) spec.Status {
	r := &s.reservations
	r.mu.Lock()
	defer r.mu.Unlock()
	next := a.reservation.clone()
	told, st := change(next, r.reserver(c))
	if !st.OK() {
		return st
	}
	if s.establish(a, next) != nil {
		return spec.InternalError
	}
	s.notify(a, told)
	return spec.Success
}

func (r *reservation) clone() *reservation {
	next := *r
	next.registrants = slices.Clone(r.registrants)
	return &next
}

// establish makes next the reservation of a namespace, once it is kept where it has to
// persist. The caller holds the mutex of the reservations.
func (s *Subsystem) establish(a *allocation, next *reservation) error {
	if err := s.keepReservation(a, next); err != nil {
		return err
	}
	a.reservation = *next
	s.bar(a)
	return nil
}

// barredWrite is how far the controllers that may not write are from those that may not
// read, in allocation.barred.
const barredWrite = 32

// bar publishes who may not read and who may not write. The caller holds the mutex of the
// reservations.
func (s *Subsystem) bar(a *allocation) {
	var barred uint64
	for i, x := range s.reservations.associations {
		if x.c == nil {
			continue
		}
		by := s.reservations.reserver(x.c)
		if !a.reservation.mayRead(by) {
			barred |= 1 << i
		}
		if !a.reservation.mayWrite(by) {
			barred |= 1 << (barredWrite + i)
		}
	}
	s.uncorrectable.mu.Lock()
	defer s.uncorrectable.mu.Unlock()
	a.barred.Store(barred)
	if ns := a.view.Load(); ns != nil {
		ns.cleanTo()
	}
}

// bars says whether a reservation keeps the I/O commands of an opcode, of a controller, from
// the namespace (Base 2.0, figure 434).
func (a *allocation) bars(c *Controller, opcode uint8) bool {
	barred := a.barred.Load()
	if barred == 0 {
		return false
	}
	switch opcode {
	case spec.NVMRead, spec.NVMCompare, spec.NVMVerify:
		return barred>>c.index&1 != 0
	case spec.NVMWrite, spec.NVMWriteZeroes, spec.NVMWriteUncorrectable, spec.NVMDatasetManagement, spec.NVMCopy, spec.NVMFlush:
		return barred>>(barredWrite+c.index)&1 != 0
	}
	return false
}

// What a reservation can keep a command from.
const (
	accessRead = iota + 1
	accessWrite
	accessAll // write to all namespaces of the subsystem, whatever NSID says
)

// adminAccess has the admin commands of the same figure, by opcode.
var adminAccess = [256]uint8{
	0x0d:                      accessWrite, // Namespace Management
	0x15:                      accessWrite, // Namespace Attachment
	0x80:                      accessWrite, // Format NVM
	spec.AdminSecuritySend:    accessWrite,
	spec.AdminSecurityReceive: accessRead,
	spec.AdminSanitize:        accessAll,
}

// barsAdmin is bars for an admin command.
func (c *Controller) barsAdmin(e *spec.SubmissionEntry) bool {
	access := adminAccess[e.Opcode]
	if access == 0 {
		return false
	}
	shift := barredWrite + c.index
	if access == accessRead {
		shift = c.index
	}
	barred := func(ns *namespace) bool { return ns.barred.Load()>>shift&1 != 0 }
	switch {
	case access == accessAll:
		return slices.ContainsFunc(c.subsystem.list(), barred)
	case e.NSID == spec.BroadcastNSID:
		return slices.ContainsFunc(c.active(), barred)
	}
	ns := c.subsystem.allocated(e.NSID)
	return ns != nil && barred(ns)
}
