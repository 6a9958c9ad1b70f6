package nvme

import (
	"errors"
	"slices"
	"testing"

	device "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	"vfiouser/test/holdings"
)

// newDisks serves a subsystem with two controllers.
func newDisks(t *testing.T) (disks [2]*disk) {
	t.Helper()
	s, err := device.NewSubsystem(device.SubsystemConfig{Namespaces: []device.Namespace{{Backend: memoryBackend(t)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i := range disks {
		disks[i] = newDisk(t, device.Config{Subsystem: s})
	}
	return disks
}

func TestReservations(t *testing.T) {
	holdings.CheckLeaks(t)
	ctx := testContext(t)
	disks := newDisks(t)
	a, b := disks[0].open(t), disks[1].open(t)
	one, two := spec.HostID{1, 15: 7}, spec.HostID{2}
	if err := errors.Join(a.SetHostID(ctx, one, true), b.SetHostID(ctx, two, true)); err != nil {
		t.Fatal(err)
	}
	if err := b.SetHostID(ctx, two, false); !errors.Is(err, spec.HostIDInconsistent) {
		t.Error(err)
	}
	n, m := a.Namespace(1), b.Namespace(1)
	for _, err := range []error{
		n.RegisterKey(ctx, spec.RegisterKey, spec.ReservationKeys{Other: 10}, 0),
		m.RegisterKey(ctx, spec.ReplaceKey, spec.ReservationKeys{Other: 11}, spec.ReservationIgnoreKey),
		n.AcquireReservation(ctx, spec.AcquireReservation, spec.WriteExclusive, spec.ReservationKeys{Current: 10}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []spec.RegisteredController{
		{Controller: 1, Holder: true, Host: one, Key: 10}, {Controller: 2, Host: two, Key: 11},
	}
	r, err := m.ReservationReport(ctx, true)
	if err != nil || r.Type != spec.WriteExclusive || r.Generation != 2 || !slices.Equal(r.Controllers, want) {
		t.Errorf("%v, %+v", err, r)
	}
	if _, err := m.ReservationReport(ctx, false); !errors.Is(err, spec.HostIDInconsistent) {
		t.Error(err)
	}
	data := make([]byte, 4096)
	if _, err := m.WriteAt(data, 0); !errors.Is(err, spec.ReservationConflict) {
		t.Error(err)
	}
	if _, err := m.ReadAt(data, 0); err != nil {
		t.Error(err)
	}
	if err := m.AcquireReservation(ctx, spec.AcquireReservation, spec.WriteExclusive, spec.ReservationKeys{Current: 11}); !errors.Is(err, spec.ReservationConflict) {
		t.Error(err)
	}
	if err := m.AcquireReservation(ctx, spec.AcquireAbort, spec.ExclusiveAccess, spec.ReservationKeys{Current: 11, Other: 10}); err != nil {
		t.Error(err)
	}
	if _, err := n.ReadAt(data, 0); !errors.Is(err, spec.ReservationConflict) {
		t.Error(err)
	}
	if x, err := a.ReservationNotice(ctx); err != nil || x.Type != spec.NoticeRegistrationPreempted || x.NSID != 1 {
		t.Errorf("%v, %+v", err, x)
	}
	if err := m.ReleaseReservation(ctx, spec.ReleaseReservation, spec.ExclusiveAccess, 11); err != nil {
		t.Error(err)
	}
	if _, err := n.WriteAt(data, 0); err != nil {
		t.Error(err)
	}
	a.identity.ONCS = 0
	if err := n.RegisterKey(ctx, spec.RegisterKey, spec.ReservationKeys{Other: 10}, 0); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := a.Namespace(9).ReservationReport(ctx, true); !errors.Is(err, ErrNoNamespace) {
		t.Error(err)
	}
}
