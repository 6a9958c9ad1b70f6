package client

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// A server that takes its time to be told what is remembered holds up nobody who uses the session it comes from.
func TestRestoreHoldsUpNobody(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	d := attach(t, func(s *server) {
		m := s.Want(codec.CmdSetIRQs)
		close(asked)
		<-release
		s.Reply(m, nil)
		m = s.Want(codec.CmdSetIRQs)
		if len(m.FDs) != 1 {
			t.Errorf("%d descriptors", len(m.FDs))
		}
		s.Reply(m, nil)
	})
	kept := &keeper{fds: map[keptIRQ]int{}, masked: map[keptIRQ]bool{}}
	defer kept.close()
	for _, vector := range []uint32{0, 2} { // in a message each
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		kept.fds[keptIRQ{IRQMSIX, codec.IRQSetActionTrigger, vector}] = fd
	}
	ctx := testContext(t)
	restored := make(chan error, 1)
	go func() { restored <- kept.restore(ctx, d) }()
	<-asked
	noted := make(chan struct{})
	go func() {
		defer close(noted)
		kept.note(&codec.SetIRQs{Index: IRQMSIX}, nil) // DisableIRQ
	}()
	select {
	case <-noted:
	case <-ctx.Done():
		t.Error("what the server has accepted cannot be noted")
	}
	close(release)
	if err := <-restored; err != nil {
		t.Error(err)
	}
	<-noted
	if len(kept.fds) != 0 {
		t.Errorf("%d eventfds are remembered", len(kept.fds))
	}
}
