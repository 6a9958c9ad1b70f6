package client_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/client/clienttest"
	"vfiouser/codec"
)

// listen has scripts answer those who connect to a path, one after the other.
func listen(t *testing.T, path string, scripts ...func(s *clienttest.Server)) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, len(scripts))); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // whoever still accepts comes back
		<-done
		unix.Close(fd)
	})
	go func() {
		defer close(done)
		for _, script := range scripts {
			conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				t.Error(err)
				return
			}
			s := clienttest.On(t, conn)
			script(s)
			s.Close()
		}
	}()
}

// accept answers everything that a client with one mapping and two kinds of eventfds sends, but for what refuse says.
func accept(refuse codec.Command, after int) func(s *clienttest.Server) {
	return func(s *clienttest.Server) {
		s.Handshake()
		for {
			m, ok := s.Next()
			switch {
			case !ok:
				return
			case m.Command == refuse && after == 0:
				s.Refuse(m, unix.ENOSPC)
			default:
				if m.Command == refuse {
					after--
				}
				s.Reply(m, map[codec.Command][]byte{codec.CmdDMAUnmap: m.Payload}[m.Command])
			}
		}
	}
}

// TestReattachFails has servers come back that are others, or that refuse what the old one had accepted. The device can be
// reattached afterwards all the same.
func TestReattachFails(t *testing.T) {
	noLeaks(t)
	ctx, path := bounded(t), socketPath(t)
	first := func(s *clienttest.Server) {
		s.Handshake()
		for range 4 {
			m, _ := s.Next()
			s.Reply(m, nil)
		}
	}
	other := func(s *clienttest.Server) {
		s.Info.NumRegions++
		s.Handshake()
		s.UntilEOF()
	}
	hangUp := func(*clienttest.Server) {}
	refuseVersion := func(s *clienttest.Server) { s.Refuse(s.Want(codec.CmdVersion), unix.EBUSY); s.UntilEOF() }
	garbage := func(s *clienttest.Server) { s.Send(make([]byte, 64)); s.UntilEOF() }
	listen(t, path, first, other, accept(codec.CmdDMAMap, 0), accept(codec.CmdSetIRQs, 0), accept(codec.CmdSetIRQs, 1),
		accept(codec.CmdSetIRQs, 2), refuseVersion, garbage, hangUp, hangUp, accept(0, 0))
	dev, err := client.Attach(ctx, path, client.WithReattach())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { dev.Close() }()
	mem, err := client.NewMemory(4096)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	event, err := client.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer event.Close()
	if err := errors.Join(dev.MapDMA(ctx, mem.At(0x1000)), dev.EnableIRQ(ctx, client.IRQMSIX, 0, event.FD(), event.FD()),
		dev.SetEventfds(ctx, client.IRQINTx, 0, codec.IRQSetActionUnmask, event.FD()), dev.MaskIRQ(ctx, client.IRQMSIX, 1, 1)); err != nil {
		t.Fatal(err)
	}
	<-dev.Done()
	for _, want := range []error{client.ErrChanged, unix.ENOSPC, unix.ENOSPC, unix.ENOSPC, unix.ENOSPC, unix.EBUSY, client.ErrProtocol} {
		if _, err := dev.Reattach(ctx); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		if m := dev.Mappings(); len(m) != 1 {
			t.Fatalf("%d mappings are left", len(m))
		}
	}
	next, err := dev.Reattach(ctx) // two servers hang up before
	if err != nil {
		t.Fatal(err)
	}
	dev = next
	if m := dev.Mappings(); len(m) != 1 || m[0].IOVA != 0x1000 {
		t.Errorf("%+v", m)
	}
}
