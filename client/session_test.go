package client

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/test/holdings"
)

// ended waits for the end of the session and checks its cause.
func ended(t *testing.T, d *Device, want error) {
	t.Helper()
	select {
	case <-d.Done():
	case <-time.After(testTimeout):
		t.Fatal("the session goes on")
	}
	if !errors.Is(d.Err(), want) {
		t.Errorf("session ended with %v, want %v", d.Err(), want)
	}
	if _, err := d.ReadRegion32(context.Background(), 0, 0); !errors.Is(err, want) {
		t.Errorf("a later call fails with %v, want %v", err, want)
	}
}

// replyTo builds the reply to a REGION_READ of 4 bytes.
func replyTo(m wire, change func(h *codec.Header, a *codec.RegionAccess)) []byte {
	h := codec.Header{ID: m.ID, Command: m.Command, Flags: codec.FlagReply, Size: 36}
	var a codec.RegionAccess
	_ = a.DecodeReadRequest(m.Payload)
	a.Data = []byte{1, 2, 3, 4}
	change(&h, &a)
	return a.Append(h.Append(nil))
}

func TestHostileReplyEndsTheSession(t *testing.T) {
	for name, change := range map[string]func(h *codec.Header, a *codec.RegionAccess){
		"id of no request":     func(h *codec.Header, a *codec.RegionAccess) { h.ID++ },
		"id of an old request": func(h *codec.Header, a *codec.RegionAccess) { h.ID -= maxCalls },
		"another command":      func(h *codec.Header, a *codec.RegionAccess) { h.Command = codec.CmdRegionWrite },
		"unknown command":      func(h *codec.Header, a *codec.RegionAccess) { h.Command = 999 },
		"size below a header":  func(h *codec.Header, a *codec.RegionAccess) { h.Size = 15 },
		"size of 4 GiB":        func(h *codec.Header, a *codec.RegionAccess) { h.Size = 1<<32 - 1 },
		"size too small":       func(h *codec.Header, a *codec.RegionAccess) { h.Size = 31; a.Data = nil },
		"more data than asked": func(h *codec.Header, a *codec.RegionAccess) { h.Size = 40; a.Count = 8; a.Data = make([]byte, 8) },
		"message of a third kind": func(h *codec.Header, a *codec.RegionAccess) {
			h.Flags = 2
		},
		"another offset":           func(h *codec.Header, a *codec.RegionAccess) { a.Offset++ },
		"another region":           func(h *codec.Header, a *codec.RegionAccess) { a.Region++ },
		"count that lies":          func(h *codec.Header, a *codec.RegionAccess) { a.Count = 3 },
		"count larger than asked":  func(h *codec.Header, a *codec.RegionAccess) { a.Count = 5 },
		"data missing, count full": func(h *codec.Header, a *codec.RegionAccess) { h.Size = 32; a.Data = nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				s.Send(replyTo(s.Want(codec.CmdRegionRead), change))
			})
			_, err := d.ReadRegion32(testContext(t), 0, 0x14)
			var details *ProtocolError
			if !errors.Is(err, ErrProtocol) || !errors.As(err, &details) {
				t.Errorf("error %v", err)
			}
			ended(t, d, ErrProtocol)
		})
	}
}

func TestHostileMessageWhileIdleEndsTheSession(t *testing.T) {
	for name, message := range map[string][]byte{
		"reply without request": codec.Header{ID: 1, Command: codec.CmdReset, Flags: codec.FlagReply, Size: 16}.Append(nil),
		"error without request": codec.Header{ID: 1, Command: codec.CmdReset, Flags: codec.FlagReply | codec.FlagError, Size: 16}.Append(nil),
		"zeroes":                make([]byte, 64),
		"ones":                  bytes.Repeat([]byte{0xff}, 64),
	} {
		t.Run(name, func(t *testing.T) {
			d := attach(t, func(s *server) { s.Send(message) })
			ended(t, d, ErrProtocol)
		})
	}
}

func TestDisconnectIsNoticed(t *testing.T) {
	t.Run("while idle", func(t *testing.T) {
		d := attach(t, (*server).Close)
		ended(t, d, ErrDisconnected)
	})
	t.Run("while calls wait", func(t *testing.T) {
		const calls = 5
		d := attach(t, func(s *server) {
			for range calls {
				s.Want(codec.CmdRegionRead)
			}
			s.Close()
		})
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				if _, err := d.ReadRegion32(testContext(t), 0, 0); !errors.Is(err, ErrDisconnected) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		ended(t, d, ErrDisconnected)
	})
	t.Run("soon after a call", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.Access(s.Want(codec.CmdRegionRead))
			s.Close()
		})
		if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
			t.Error(err)
		}
		ended(t, d, ErrDisconnected)
	})
	t.Run("in the middle of a reply", func(t *testing.T) {
		d := attach(t, func(s *server) {
			b := replyTo(s.Want(codec.CmdRegionRead), func(*codec.Header, *codec.RegionAccess) {})
			s.Send(b[:20])
			s.Close()
		})
		if _, err := d.ReadRegion32(testContext(t), 0, 0); !errors.Is(err, ErrDisconnected) {
			t.Error(err)
		}
	})
}

func TestCloseEndsCallsThatWait(t *testing.T) {
	const calls = 4
	all := make(chan struct{})
	d := attach(t, func(s *server) {
		for range calls {
			s.Want(codec.CmdRegionRead)
		}
		close(all)
	})
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			if _, err := d.ReadRegion32(context.Background(), 0, 0); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
	}
	<-all
	for range 2 {
		wg.Go(func() { d.Close() })
	}
	wg.Wait()
	ended(t, d, ErrClosed)
	d.Close()
}

func TestRepliesInAnyOrderReachTheirCalls(t *testing.T) {
	const calls = 50
	d := attach(t, func(s *server) {
		var got []wire
		for range calls {
			got = append(got, s.Want(codec.CmdRegionRead))
		}
		slices.Reverse(got)
		for _, m := range got {
			s.Access(m)
		}
		s.ServeAccesses()
	})
	var wg sync.WaitGroup
	for i := range uint64(calls) {
		wg.Go(func() {
			for range 20 {
				p := make([]byte, 3)
				if err := d.ReadRegion(testContext(t), 1, i, p); err != nil || !bytes.Equal(p, []byte{byte(i), byte(i + 1), byte(i + 2)}) {
					t.Errorf("offset %d: %v, %v", i, p, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestMoreCallsThanSlots(t *testing.T) {
	d := attach(t, func(s *server) {
		var got []wire
		for range maxCalls {
			got = append(got, s.Want(codec.CmdRegionRead))
		}
		for _, m := range got {
			s.Access(m)
		}
		s.ServeAccesses()
	})
	var wg sync.WaitGroup
	for range maxCalls + 20 {
		wg.Go(func() {
			if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestCancelledCallLeavesTheSessionUsable(t *testing.T) {
	for name, eager := range map[string]bool{"caller reads": false, "reactor reads": true} {
		t.Run(name, func(t *testing.T) {
			cancelled := make(chan struct{})
			ctx, cancel := context.WithCancel(context.Background())
			d := attach(t, func(s *server) {
				late := s.Want(codec.CmdRegionRead)
				cancel()
				<-cancelled
				s.Access(late)
				s.ServeAccesses()
			})
			d.conn.setEager(eager)
			p := []byte{9, 9, 9, 9}
			if err := d.ReadRegion(ctx, 0, 0, p); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			close(cancelled)
			for range 3 {
				if v, err := d.ReadRegion32(testContext(t), 0, 0); err != nil || v != 0x03020100 {
					t.Error(v, err)
				}
			}
			if !bytes.Equal(p, []byte{9, 9, 9, 9}) {
				t.Error("the late reply was written to the buffer of the call given up:", p)
			}
			if err := d.ReadRegion(ctx, 0, 0, p); !errors.Is(err, context.Canceled) {
				t.Error("a call with a context that has ended:", err)
			}
		})
	}
}

func TestOneCallsCancellationHandsTheSocketOn(t *testing.T) {
	first, second := make(chan struct{}), make(chan struct{})
	d := attach(t, func(s *server) {
		a := s.Want(codec.CmdRegionRead)
		close(first)
		b := s.Want(codec.CmdRegionRead)
		<-second
		s.Access(b)
		s.Access(a)
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.ReadRegion(ctx, 0, 0, make([]byte, 1)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(second)
	})
	wg.Go(func() {
		<-first
		wg.Go(cancel)
		if err := d.ReadRegion(testContext(t), 0, 0, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
}

func TestSpinningCallsWorkToo(t *testing.T) {
	d := attach(t, (*server).ServeAccesses, WithSpin(20*time.Microsecond))
	for range 100 {
		if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSharedReactorThatIsClosedFirst(t *testing.T) {
	holdings.CheckLeaks(t)
	r, err := reactor.New(reactor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := AttachFD(testContext(t), newServer(t, func(s *server) { s.Handshake(); s.UntilEOF() }), WithReactor(r))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	d.Close()
}
