package nvme

import (
	"context"
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// RegisterKey executes Reservation Register: action is spec.RegisterKey, with the new key in keys.Other, spec.UnregisterKey,
// with the registered one in keys.Current, or spec.ReplaceKey, with both. flags are spec.ReservationIgnoreKey and a value of
// CPTPL, as spec.PersistOn<<spec.RegisterPersistShift. Who registers is the host of SetHostID.
func (n *Namespace) RegisterKey(ctx context.Context, action uint8, keys spec.ReservationKeys, flags uint32) error {
	return n.reserve(ctx, spec.NVMReservationRegister, "reservation register", uint32(action)|flags, keys)
}

// AcquireReservation executes Reservation Acquire: action is spec.AcquireReservation, or spec.AcquirePreempt or AcquireAbort,
// with the key of whom to preempt in keys.Other. keys.Current is the registered key. The error is spec.ReservationConflict
// if another host holds the reservation.
func (n *Namespace) AcquireReservation(ctx context.Context, action uint8, kind spec.ReservationType, keys spec.ReservationKeys) error {
	return n.reserve(ctx, spec.NVMReservationAcquire, "reservation acquire", uint32(action)|uint32(kind)<<spec.ReservationTypeShift, keys)
}

// ReleaseReservation executes Reservation Release: action is spec.ReleaseReservation, for which kind must be that of the
// reservation, or spec.ReleaseClear, which ends all registrations as well.
func (n *Namespace) ReleaseReservation(ctx context.Context, action uint8, kind spec.ReservationType, key uint64) error {
	return n.reserve(ctx, spec.NVMReservationRelease, "reservation release", uint32(action)|uint32(kind)<<spec.ReservationTypeShift,
		spec.ReservationKeys{Current: key})
}

func (n *Namespace) reserve(ctx context.Context, opcode uint8, what string, cdw10 uint32, keys spec.ReservationKeys) error {
	x, err := n.reserver(ctx)
	if err != nil {
		return err
	}
	data := make([]byte, spec.ReservationKeysSize)
	keys.Put(data)
	return n.explain(what, n.do(ctx, x, &spec.SubmissionEntry{Opcode: opcode, CDW10: cdw10}, data))
}

// ReservationReport executes Reservation Report, in the extended form, which a host with an identifier of 128 bits has to
// ask for, or in the other one.
func (n *Namespace) ReservationReport(ctx context.Context, extended bool) (spec.ReservationStatus, error) {
	var status spec.ReservationStatus
	x, err := n.reserver(ctx)
	if err != nil {
		return status, err
	}
	data := make([]byte, pageSize)
	for {
		cmd := spec.SubmissionEntry{Opcode: spec.NVMReservationReport, NSID: n.id, CDW10: uint32(len(data)/4 - 1)}
		if extended {
			cmd.CDW11 = spec.ReportExtended
		}
		if _, err := x.do(ctx, &cmd, nil, data); err != nil {
			return status, n.explain("reservation report", err)
		}
		total := status.Get(data, extended)
		if total == len(status.Controllers) || len(data) == int(x.q.size) {
			return status, nil
		}
		data = make([]byte, x.q.size)
	}
}

func (n *Namespace) reserver(ctx context.Context) (*executor, error) {
	x, err := n.executor(ctx)
	if err == nil && n.c.identity.ONCS&spec.ONCSReservations == 0 {
		err = fmt.Errorf("%w: reservations", ErrUnsupported)
	}
	return x, err
}

// SetHostID says which host the controller belongs to, for reservations: controllers with the same identifier are of one
// host. An identifier that is not extended has 8 bytes. The error is spec.HostIDInconsistent if another controller of the
// subsystem has one of the other size.
func (c *Controller) SetHostID(ctx context.Context, id spec.HostID, extended bool) error {
	data, value := id[:8], uint32(0)
	if extended {
		data, value = id[:], spec.HostIDExtended
	}
	_, err := c.SetFeature(ctx, spec.FeatHostIdentifier, 0, value, data)
	return err
}

// ReservationNotice takes the oldest reservation notification from the controller's log; Count is 0 if there is none.
func (c *Controller) ReservationNotice(ctx context.Context) (spec.ReservationNotice, error) {
	var n spec.ReservationNotice
	b := make([]byte, spec.ReservationLogSize)
	if err := c.GetLogPage(ctx, spec.LogReservation, 0, 0, b); err != nil {
		return n, err
	}
	n.Get(b)
	return n, nil
}
