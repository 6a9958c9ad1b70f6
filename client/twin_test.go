package client

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

func socketPair(t *testing.T) (mine, theirs int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pair[0], pair[1]
}

func index(n uint64) *uint64 { return &n }

// attachTwin attaches to a server that takes the offer of a twin socket; script gets both of its ends.
func attachTwin(t *testing.T, script func(s, twin *server)) *Device {
	t.Helper()
	holdings.CheckLeaks(t)
	attached := make(chan struct{})
	fd := newServer(t, func(s *server) {
		mine, theirs := socketPair(t)
		twin := serverOn(t, mine)
		defer twin.Close()
		m := s.Want(codec.CmdVersion)
		var ask codec.VersionMsg
		if err := ask.Decode(m.Payload); err != nil || ask.Caps.TwinSocket == nil || !ask.Caps.TwinSocket.Supported || ask.Caps.TwinSocket.FDIndex != nil {
			t.Errorf("%+v, %v", ask, err)
		}
		caps := fakeCaps
		caps.TwinSocket = &codec.TwinSocket{Supported: true, FDIndex: index(1)}
		s.Reply(m, (&codec.VersionMsg{Minor: 1, Caps: caps}).Append(nil), memfd(t, 0), theirs)
		unix.Close(theirs)
		s.Reply(s.Want(codec.CmdGetInfo), (&codec.DeviceInfo{ArgSz: 16, Flags: 3, NumRegions: 9, NumIRQs: 5}).Append(nil))
		<-attached
		script(s, twin)
		if !s.Closed() {
			s.UntilEOF()
		}
	})
	d, err := AttachFD(testContext(t), fd, WithTwinSocket())
	close(attached)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestTwinSocketServesTheServersCommands(t *testing.T) {
	mem := newMemory(t, 4096)
	mem.Bytes()[5] = 42
	done := make(chan struct{})
	d := attachTwin(t, func(s, twin *server) {
		s.Reply(s.Want(codec.CmdDMAMap), nil)
		held := s.Want(codec.CmdRegionRead) // the client waits for this one
		m := twin.Ask(codec.CmdDMARead, 3, (&codec.DMAAccess{Addr: 0x10005, Count: 1}).AppendHead(nil))
		if m.IsError() || m.Payload[16] != 42 {
			t.Errorf("%+v %x", m.Header, m.Payload)
		}
		m = twin.Ask(codec.CmdDMAWrite, 4, (&codec.DMAAccess{Addr: 0x10006, Count: 1, Data: []byte{43}}).Append(nil))
		if m.IsError() || mem.Bytes()[6] != 43 {
			t.Errorf("%+v", m.Header)
		}
		if m := twin.Ask(codec.CmdRegionRead, 5, make([]byte, 16)); unix.Errno(m.Errno) != unix.ENOTSUP {
			t.Errorf("a command for servers: %+v", m.Header)
		}
		// A server may use the first socket all the same.
		if m := s.Ask(codec.CmdDMARead, 6, (&codec.DMAAccess{Addr: 0x10006, Count: 1}).AppendHead(nil)); m.IsError() || m.Payload[16] != 43 {
			t.Errorf("%+v", m.Header)
		}
		s.Access(held)
		close(done)
	})
	if !d.TwinSocket() {
		t.Error("no twin socket")
	}
	if err := d.MapDMA(testContext(t), mem.At(0x10000).ByMessage()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
		t.Error(err)
	}
	<-done
}

func TestTwinSocketEndsWithTheSession(t *testing.T) {
	t.Run("the server closes the twin", func(t *testing.T) {
		d := attachTwin(t, func(s, twin *server) { twin.Close() })
		ended(t, d, ErrDisconnected)
	})
	t.Run("the server closes the first socket", func(t *testing.T) {
		d := attachTwin(t, func(s, twin *server) { s.Close(); twin.UntilEOF() })
		ended(t, d, ErrDisconnected)
	})
	t.Run("a reply on the twin", func(t *testing.T) {
		d := attachTwin(t, func(s, twin *server) {
			twin.Send(codec.Header{Command: codec.CmdReset, Flags: codec.FlagReply, Size: 16}.Append(nil))
		})
		ended(t, d, ErrProtocol)
	})
	t.Run("garbage on the twin", func(t *testing.T) {
		d := attachTwin(t, func(s, twin *server) { twin.Send(make([]byte, 100)) })
		ended(t, d, ErrProtocol)
	})
	t.Run("answers on the twin that nobody reads", func(t *testing.T) {
		mem := newMemory(t, 1<<20)
		d := attachTwin(t, func(s, twin *server) {
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			ask := codec.Header{Command: codec.CmdDMARead, Size: 32}
			b := (&codec.DMAAccess{Addr: 0, Count: 1 << 20}).AppendHead(ask.Append(nil))
			for range 50 {
				twin.Send(b)
			}
		})
		if err := d.MapDMA(testContext(t), mem.At(0)); err != nil && !errors.Is(err, ErrUnread) {
			t.Fatal(err)
		}
		ended(t, d, ErrUnread)
	})
}

func TestTwinSocketInVersion(t *testing.T) {
	twin := func(supported bool, fdIndex *uint64) *codec.TwinSocket {
		return &codec.TwinSocket{Supported: supported, FDIndex: fdIndex}
	}
	for _, test := range []struct {
		name   string
		offer  bool
		answer *codec.TwinSocket
		fds    func(t *testing.T) []int
		want   error
	}{
		{"server without it", true, nil, nil, nil},
		{"server that declines", true, twin(false, nil), nil, nil},
		{"server that declines, with an index", true, twin(false, index(7)), nil, nil},
		{"not offered, but taken", false, twin(true, index(0)), func(t *testing.T) []int { return []int{streamSocket(t)} }, ErrProtocol},
		{"not offered, and declined", false, twin(false, nil), nil, nil},
		{"no index", true, twin(true, nil), func(t *testing.T) []int { return []int{streamSocket(t)} }, ErrProtocol},
		{"no descriptor", true, twin(true, index(0)), nil, ErrProtocol},
		{"index behind the descriptors", true, twin(true, index(1)), func(t *testing.T) []int { return []int{streamSocket(t)} }, ErrProtocol},
		{"index of 2^64-1", true, twin(true, index(1<<64-1)), func(t *testing.T) []int { return []int{streamSocket(t)} }, ErrProtocol},
		{"descriptor that is memory", true, twin(true, index(0)), func(t *testing.T) []int { return []int{memfd(t, 4096)} }, ErrProtocol},
		{"descriptor that is an eventfd", true, twin(true, index(0)), func(t *testing.T) []int { return []int{eventfd(t)} }, ErrProtocol},
		{"socket that is not connected", true, twin(true, index(0)), func(t *testing.T) []int {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return []int{fd}
		}, ErrProtocol},
	} {
		t.Run(test.name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			fd := newServer(t, func(s *server) {
				caps := fakeCaps
				caps.TwinSocket = test.answer
				var fds []int
				if test.fds != nil {
					fds = test.fds(t)
				}
				s.Reply(s.Want(codec.CmdVersion), (&codec.VersionMsg{Caps: caps}).Append(nil), fds...)
				if m, ok := s.Next(); ok {
					s.Reply(m, (&codec.DeviceInfo{ArgSz: 16, Flags: 3}).Append(nil))
					s.UntilEOF()
				}
			})
			var opts []Option
			if test.offer {
				opts = append(opts, WithTwinSocket())
			}
			d, err := AttachFD(testContext(t), fd, opts...)
			if err == nil {
				defer d.Close()
				if d.TwinSocket() {
					t.Error("there is a twin socket")
				}
			}
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}
