package client

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/test/holdings"
)

func TestAttachNegotiates(t *testing.T) {
	for _, test := range []struct {
		name  string
		reply []byte // VERSION's payload
		minor uint16
		caps  codec.Capabilities
		chunk int
	}{
		{"all capabilities", (&codec.VersionMsg{Minor: 1, Caps: codec.Capabilities{
			MaxMsgFDs: 3, MaxDataXferSize: 5000, MaxDMAMaps: 7, PgSizes: 8192}}).Append(nil),
			1, codec.Capabilities{MaxMsgFDs: 3, MaxDataXferSize: 5000, MaxDMAMaps: 7, PgSizes: 8192}, 5000},
		{"no capabilities mean the defaults", []byte{0, 0, 0, 0},
			0, codec.Capabilities{MaxMsgFDs: 1, MaxDataXferSize: 1 << 20, MaxDMAMaps: 65535, PgSizes: 4096}, 1 << 20},
		{"a server that takes more than we send", (&codec.VersionMsg{Caps: codec.Capabilities{MaxDataXferSize: 1 << 40}}).Append(nil),
			0, codec.Capabilities{MaxMsgFDs: 1, MaxDataXferSize: 1 << 40, MaxDMAMaps: 65535, PgSizes: 4096}, 1 << 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			fd := newServer(t, func(s *server) {
				m := s.Want(codec.CmdVersion)
				var ask codec.VersionMsg
				if err := ask.Decode(m.Payload); err != nil || ask.Major != 0 || ask.Minor != 1 || ask.Caps.MaxMsgFDs != maxFDs || ask.Caps.MaxDataXferSize != 1<<20 {
					t.Errorf("client proposes %+v (%v)", ask, err)
				}
				s.Reply(m, test.reply)
				s.Reply(s.Want(codec.CmdGetInfo), (&codec.DeviceInfo{ArgSz: 16, Flags: 3, NumRegions: 9, NumIRQs: 5}).Append(nil))
				s.UntilEOF()
			})
			d, err := AttachFD(testContext(t), fd)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			caps := d.Capabilities()
			caps.Present = 0
			if _, minor := d.Version(); minor != test.minor || caps != test.caps || d.chunk != test.chunk {
				t.Errorf("version 0.%d, %+v, chunk %d", minor, caps, d.chunk)
			}
			if info := d.Info(); info.NumRegions != 9 || info.NumIRQs != 5 || info.Flags != 3 {
				t.Errorf("info %+v", info)
			}
		})
	}
}

func TestAttachFailsOn(t *testing.T) {
	version := func(payload []byte) func(*server) {
		return func(s *server) { s.Reply(s.Want(codec.CmdVersion), payload); s.UntilEOF() }
	}
	for _, test := range []struct {
		name   string
		script func(*server)
		want   error
	}{
		{"another major version", version((&codec.VersionMsg{Major: 1}).Append(nil)), ErrProtocol},
		{"a higher minor version", version((&codec.VersionMsg{Minor: 2}).Append(nil)), ErrProtocol},
		{"JSON that is none", version([]byte("\x00\x00\x01\x00{\x00")), codec.ErrJSON},
		{"JSON without NUL", version([]byte("\x00\x00\x01\x00{}")), codec.ErrJSON},
		{"a version reply of two bytes", version([]byte{0, 0}), codec.ErrShort},
		{"a version reply that is too long", version(make([]byte, maxVersionReply+1)), ErrProtocol},
		{"max_data_xfer_size 0", version([]byte("\x00\x00\x01\x00{\"capabilities\":{\"max_data_xfer_size\":0}}\x00")), ErrProtocol},
		{"an error reply", func(s *server) { s.Refuse(s.Want(codec.CmdVersion), unix.EPERM); s.UntilEOF() }, unix.EPERM},
		{"end of file at once", func(s *server) {}, ErrDisconnected},
		{"end of file after the request", func(s *server) { s.Want(codec.CmdVersion) }, ErrDisconnected},
		{"end of file in a header", func(s *server) { s.Want(codec.CmdVersion); s.Send(make([]byte, 7)) }, ErrDisconnected},
		{"garbage", func(s *server) { s.Send([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); s.UntilEOF() }, ErrProtocol},
		{"no information", func(s *server) { s.Version(); s.Want(codec.CmdGetInfo) }, ErrDisconnected},
		{"information cut short", func(s *server) { s.Version(); s.Reply(s.Want(codec.CmdGetInfo), make([]byte, 12)); s.UntilEOF() }, ErrProtocol},
		{"information with argsz 0", func(s *server) { s.Version(); s.Reply(s.Want(codec.CmdGetInfo), make([]byte, 16)); s.UntilEOF() }, codec.ErrSize},
	} {
		t.Run(test.name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			_, err := AttachFD(testContext(t), newServer(t, test.script))
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

func TestAttachGivesUpASilentServer(t *testing.T) {
	holdings.CheckLeaks(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err := AttachFD(ctx, newServer(t, (*server).UntilEOF))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestAttachToPath(t *testing.T) {
	holdings.CheckLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Attach(testContext(t), path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no socket there: %v", err)
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}), unix.Listen(listener, 0)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Error(err)
			return
		}
		s := serverOn(t, fd)
		s.Handshake()
		s.UntilEOF()
		s.Close()
	}()
	d, err := Attach(testContext(t), path)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	<-done

	// With nobody who accepts, the backlog fills up, and then connecting waits.
	var fds []int
	defer func() { reactor.CloseFDs(fds) }()
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if unix.Connect(fd, &unix.SockaddrUnix{Name: path}) != nil {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := Attach(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("full backlog: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, n := range []int{-1, 0, 4095, 64<<20 + 1} {
		if _, err := AttachFD(testContext(t), newServer(t, func(*server) {}), WithMaxTransfer(n)); !errors.Is(err, ErrInvalid) {
			t.Errorf("max transfer %d: %v", n, err)
		}
	}
}

func TestDevicesShareAReactor(t *testing.T) {
	holdings.CheckLeaks(t)
	r, err := reactor.New(reactor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var devices [3]*Device
	for i := range devices {
		fd := newServer(t, func(s *server) { s.Handshake(); s.ServeAccesses() })
		if devices[i], err = AttachFD(testContext(t), fd, WithReactor(r)); err != nil {
			t.Fatal(err)
		}
	}
	devices[1].Close()
	for i, d := range devices {
		_, err := d.ReadRegion32(testContext(t), 0, 0)
		if want := i == 1; errors.Is(err, ErrClosed) != want || err != nil != want {
			t.Errorf("device %d: %v", i, err)
		}
	}
	devices[0].Close()
	devices[2].Close()
}

func TestReset(t *testing.T) {
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdReset), nil)
		s.Refuse(s.Want(codec.CmdReset), unix.EBUSY)
	})
	if err := d.Reset(testContext(t)); err != nil {
		t.Error(err)
	}
	err := d.Reset(testContext(t))
	var refused *codec.Error
	if !errors.Is(err, unix.EBUSY) || !errors.Is(err, codec.ErrRemote) || !errors.As(err, &refused) || refused.Command != codec.CmdReset {
		t.Error(err)
	}
	d.info.Flags = codec.DeviceFlagPCI
	if err := d.Reset(testContext(t)); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
