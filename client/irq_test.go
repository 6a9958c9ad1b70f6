package client

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

func TestIRQInfo(t *testing.T) {
	d := attach(t, func(s *server) {
		m := s.Want(codec.CmdGetIRQInfo)
		var ask codec.IRQInfo
		if err := ask.Decode(m.Payload); err != nil || ask.Index != IRQMSIX {
			t.Errorf("%+v, %v", ask, err)
		}
		s.Reply(m, (&codec.IRQInfo{ArgSz: 16, Flags: codec.IRQInfoEventfd, Index: IRQMSIX, Count: 33}).Append(nil))
		s.Reply(s.Want(codec.CmdGetIRQInfo), (&codec.IRQInfo{ArgSz: 16, Index: IRQMSI}).Append(nil))
	})
	info, err := d.IRQInfo(testContext(t), IRQMSIX)
	if err != nil || info.Count != 33 || info.Flags != codec.IRQInfoEventfd {
		t.Errorf("%+v, %v", info, err)
	}
	for _, i := range []codec.IRQIndex{5, 1<<32 - 1} {
		if _, err := d.IRQInfo(testContext(t), i); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	}
	if _, err := d.IRQInfo(testContext(t), IRQMSIX); !errors.Is(err, ErrProtocol) {
		t.Error("reply for another index:", err)
	}
}

func TestSetIRQs(t *testing.T) {
	const (
		none, boolean, eventfd = codec.IRQSetDataNone, codec.IRQSetDataBool, codec.IRQSetDataEventfd
		mask, unmask, trigger  = codec.IRQSetActionMask, codec.IRQSetActionUnmask, codec.IRQSetActionTrigger
	)
	fd := memfd(t, 0)
	fds := make([]int, 11)
	for i := range fds {
		fds[i] = fd
	}
	type message struct {
		set  codec.SetIRQs
		fds  int
		data string
	}
	for _, test := range []struct {
		name string
		call func(ctx context.Context, d *Device) error
		want []message
	}{
		{"enable", func(ctx context.Context, d *Device) error { return d.EnableIRQ(ctx, IRQMSIX, 3, fd, fd) },
			[]message{{codec.SetIRQs{ArgSz: 20, Flags: eventfd | trigger, Index: 2, Start: 3, Count: 2}, 2, ""}}},
		{"enable more than fit into a message", func(ctx context.Context, d *Device) error { return d.EnableIRQ(ctx, IRQMSIX, 1, fds...) },
			[]message{
				{codec.SetIRQs{ArgSz: 20, Flags: eventfd | trigger, Index: 2, Start: 1, Count: 8}, 8, ""},
				{codec.SetIRQs{ArgSz: 20, Flags: eventfd | trigger, Index: 2, Start: 9, Count: 3}, 3, ""}}},
		{"eventfd for unmask", func(ctx context.Context, d *Device) error { return d.SetEventfds(ctx, IRQINTx, 0, unmask, fd) },
			[]message{{codec.SetIRQs{ArgSz: 20, Flags: eventfd | unmask, Count: 1}, 1, ""}}},
		{"unassign", func(ctx context.Context, d *Device) error { return d.UnassignIRQ(ctx, IRQMSI, 1, 4) },
			[]message{{codec.SetIRQs{ArgSz: 20, Flags: eventfd | trigger, Index: 1, Start: 1, Count: 4}, 0, ""}}},
		{"disable", func(ctx context.Context, d *Device) error { return d.DisableIRQ(ctx, IRQReq) },
			[]message{{codec.SetIRQs{ArgSz: 20, Flags: none | trigger, Index: 4}, 0, ""}}},
		{"mask", func(ctx context.Context, d *Device) error { return d.MaskIRQ(ctx, IRQINTx, 0, 1) },
			[]message{{codec.SetIRQs{ArgSz: 20, Flags: none | mask, Count: 1}, 0, ""}}},
		{"unmask", func(ctx context.Context, d *Device) error { return d.UnmaskIRQ(ctx, IRQMSIX, 2, 3) },
			[]message{{codec.SetIRQs{ArgSz: 20, Flags: none | unmask, Index: 2, Start: 2, Count: 3}, 0, ""}}},
		{"trigger", func(ctx context.Context, d *Device) error { return d.TriggerIRQ(ctx, IRQErr, 0, 1) },
			[]message{{codec.SetIRQs{ArgSz: 20, Flags: none | trigger, Index: 3, Count: 1}, 0, ""}}},
		{"any", func(ctx context.Context, d *Device) error {
			return d.SetIRQs(ctx, codec.SetIRQs{Flags: boolean | mask, Index: 2, Start: 5, Count: 3, Data: []byte{1, 0, 1}})
		}, []message{{codec.SetIRQs{ArgSz: 23, Flags: boolean | mask, Index: 2, Start: 5, Count: 3}, 0, "\x01\x00\x01"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				for _, want := range test.want {
					m := s.Want(codec.CmdSetIRQs)
					var got codec.SetIRQs
					if err := got.Decode(m.Payload); err != nil {
						t.Error(err)
					}
					if string(got.Data) != want.data || len(m.FDs) != want.fds {
						t.Errorf("data %q, %d descriptors", got.Data, len(m.FDs))
					}
					got.Data = nil
					if got.ArgSz != want.set.ArgSz || got.Flags != want.set.Flags || got.Index != want.set.Index || got.Start != want.set.Start || got.Count != want.set.Count {
						t.Errorf("got %+v, want %+v", got, want.set)
					}
					s.Reply(m, nil)
				}
				s.Refuse(s.Want(codec.CmdSetIRQs), unix.EINVAL)
			})
			if err := test.call(testContext(t), d); err != nil {
				t.Error(err)
			}
			if err := test.call(testContext(t), d); !errors.Is(err, unix.EINVAL) {
				t.Error(err)
			}
		})
	}
}

func TestSetIRQsRefusesTooManyDescriptors(t *testing.T) {
	d := attach(t, func(*server) {})
	if err := d.SetIRQs(testContext(t), codec.SetIRQs{}, make([]int, 9)...); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	d.peer.MaxMsgFDs = 0
	if err := d.EnableIRQ(testContext(t), IRQMSIX, 0, 1); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestEventfd(t *testing.T) {
	holdings.CheckLeaks(t)
	e, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	signal := func(n byte) {
		if _, err := unix.Write(e.FD(), []byte{n, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(testContext(t))
	signal(3)
	if n, err := e.Wait(ctx); n != 3 || err != nil {
		t.Error(n, err)
	}
	if n := e.Poll(); n != 0 {
		t.Error(n)
	}
	signal(2)
	if n := e.Poll(); n != 2 {
		t.Error(n)
	}
	go signal(1)
	if n, err := e.Wait(ctx); n != 1 || err != nil {
		t.Error(n, err)
	}
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		if _, err := e.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		go signal(1)
		if n, err := e.Wait(testContext(t)); n != 1 || err != nil {
			t.Error(n, err)
		}
	}
	cancel()
	if _, err := e.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go e.Close()
	if _, err := e.Wait(context.Background()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
