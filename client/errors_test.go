package client

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

func TestErrorsSayWhatHappened(t *testing.T) {
	for _, test := range []struct {
		err  error
		text string
		is   []error
	}{
		{broken(codec.CmdReset, nil, "reply of %d bytes", 3), "client: server broke the protocol: RESET: reply of 3 bytes", []error{ErrProtocol}},
		{broken(0, codec.ErrShort, "bad header"), "client: server broke the protocol: bad header: message too short", []error{ErrProtocol, codec.ErrShort}},
		{invalid("region %d", 9), "client: invalid argument: region 9", []error{ErrInvalid}},
		{&SendError{unix.EBADF}, "client: send: bad file descriptor", []error{unix.EBADF}},
	} {
		if test.err.Error() != test.text {
			t.Errorf("%q, want %q", test.err, test.text)
		}
		for _, is := range test.is {
			if !errors.Is(test.err, is) {
				t.Errorf("%v is not %v", test.err, is)
			}
		}
	}
}

func TestEventfdIsSignalledFromThisSide(t *testing.T) {
	holdings.CheckLeaks(t)
	e, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	e.Signal()
	e.Signal()
	if n, err := e.Wait(testContext(t)); n != 2 || err != nil {
		t.Error(n, err)
	}
	e.Close()
	e.Signal()
	if _, err := e.Wait(testContext(t)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestNoDescriptorsLeft has a server send descriptors to a process that can open no more: the session ends, with a reason.
func TestNoDescriptorsLeft(t *testing.T) {
	var fds []int
	file := memfd(t, 8192)
	goOn := make(chan struct{})
	d := attach(t, func(s *server) {
		m := s.Want(codec.CmdGetRegionInfo)
		<-goOn
		s.Reply(m, (&codec.RegionInfo{Size: 8192, Flags: mmapFlags}).AppendReply(nil, 1024), file)
	})
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 100
	done := make(chan error, 1)
	go func() { _, err := d.Region(testContext(t), 0); done <- err }()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			break
		}
		fds = append(fds, fd)
	}
	close(goOn)
	if err := <-done; !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}
