package clienttest_test

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/client/clienttest"
	"vfiouser/codec"
)

// A test of a program says what the device answers, right or wrong, and looks at what the program makes of it.
func TestScript(t *testing.T) {
	fd := clienttest.New(t, func(s *clienttest.Server) {
		s.Info.NumRegions = 1
		s.Handshake()
		s.Access(s.Want(codec.CmdRegionRead))
		s.Refuse(s.Want(codec.CmdRegionRead), unix.EIO)
		m := s.Want(codec.CmdRegionRead)
		m.ID++ // of no request
		s.Access(m)
		s.UntilEOF()
	})
	ctx := context.Background()
	dev, err := client.AttachFD(ctx, fd)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if dev.Info().NumRegions != 1 {
		t.Errorf("%+v", dev.Info())
	}
	if v, err := dev.ReadRegion32(ctx, 0, 0x40); err != nil || v != 0x43424140 {
		t.Errorf("%#x, %v", v, err)
	}
	if _, err := dev.ReadRegion32(ctx, 0, 0x40); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	if _, err := dev.ReadRegion32(ctx, 0, 0x40); !errors.Is(err, client.ErrProtocol) {
		t.Error(err)
	}
}

func TestServerAsks(t *testing.T) {
	asked := make(chan struct{})
	fd := clienttest.New(t, func(s *clienttest.Server) {
		s.Handshake()
		if m := s.Ask(codec.CmdDMARead, 7, (&codec.DMAAccess{Addr: 1, Count: 1}).AppendHead(nil)); unix.Errno(m.Errno) != unix.ENOENT {
			t.Errorf("%+v", m.Header)
		}
		close(asked)
		s.UntilEOF()
	})
	dev, err := client.AttachFD(context.Background(), fd)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	<-asked
}
