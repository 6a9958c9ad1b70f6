package client

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// assigned receives a SET_IRQS that assigns eventfds and returns them.
func (s *server) assigned(index codec.IRQIndex, start, count int) []int {
	m := s.Want(codec.CmdSetIRQs)
	var set codec.SetIRQs
	if err := set.Decode(m.Payload); err != nil || set.Index != index || set.Start != uint32(start) || set.Count != uint32(count) ||
		set.Flags != codec.IRQSetDataEventfd|codec.IRQSetActionTrigger || len(m.FDs) != count && len(m.FDs) != 0 {
		s.t.Errorf("%+v, %d descriptors, %v", set, len(m.FDs), err)
	}
	s.Reply(m, nil)
	return m.FDs
}

func raise(t *testing.T, fd int, n byte) {
	t.Helper()
	if _, err := unix.Write(fd, []byte{n, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Error(err)
	}
}

// interrupts subscribes to three vectors, from 4 on, and returns the eventfds as the server has them.
func interrupts(t *testing.T, script func(s *server)) (*Device, *Interrupts, []int) {
	t.Helper()
	assigned := make(chan []int, 1)
	d := attach(t, func(s *server) {
		assigned <- s.assigned(IRQMSIX, 4, 3)
		if script != nil {
			script(s)
		}
	})
	in, err := d.Interrupts(testContext(t), IRQMSIX, 4, 3)
	if err != nil {
		t.Fatal(err)
	}
	return d, in, <-assigned
}

func TestInterruptsAreWaitedFor(t *testing.T) {
	_, in, fds := interrupts(t, nil)
	for vector, fd := range fds {
		raise(t, fd, 1)
		if got, err := in.Wait(testContext(t)); err != nil || got != (Interrupt{4 + vector, 1}) {
			t.Errorf("vector %d: %+v, %v", vector, got, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := in.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestInterruptsComeFromAChannel(t *testing.T) {
	d, in, fds := interrupts(t, nil)
	sum := map[int]uint64{}
	for range 100 {
		for i, fd := range fds {
			raise(t, fd, byte(i+1))
		}
	}
	for sum[4] < 100 || sum[5] < 200 || sum[6] < 300 {
		i, ok := <-in.C()
		if !ok {
			t.Fatal("the channel was closed")
		}
		sum[i.Vector] += i.Count
	}
	if len(sum) != 3 || sum[4] != 100 || sum[5] != 200 || sum[6] != 300 {
		t.Error(sum)
	}
	d.Close()
	if i, ok := <-in.C(); ok {
		t.Errorf("%+v from a closed device", i)
	}
}

func TestInterruptsThatNobodyTakesAddUp(t *testing.T) {
	d, in, fds := interrupts(t, (*server).ServeAccesses)
	for range 1000 {
		raise(t, fds[1], 1)
		raise(t, fds[2], 2)
	}
	// What the reactor does after this has come after it has read both counters.
	if err := d.conn.reactor.Do(func() {
		in.vectors[1].HandleEvents(1)
		in.vectors[2].HandleEvents(1)
	}); err != nil {
		t.Fatal(err)
	}
	sum := map[int]uint64{}
	for range 2 {
		i, err := in.Wait(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		sum[i.Vector] += i.Count
	}
	if sum[5] != 1000 || sum[6] != 2000 {
		t.Error(sum)
	}
	if _, ok, _ := in.take(); ok {
		t.Error("more than one interrupt for a vector")
	}
}

func TestManyWaitForInterrupts(t *testing.T) {
	const waiters = 20
	_, in, fds := interrupts(t, nil)
	var mu sync.Mutex
	total := uint64(0)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	for range waiters {
		wg.Go(func() {
			for {
				i, err := in.Wait(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				if total += i.Count; total == 3000 {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for range 1000 {
		for _, fd := range fds {
			raise(t, fd, 1)
		}
	}
	wg.Wait()
	if total != 3000 {
		t.Error(total)
	}
}

func TestClosingInterrupts(t *testing.T) {
	t.Run("takes the eventfds away", func(t *testing.T) {
		d, in, _ := interrupts(t, func(s *server) {
			if fds := s.assigned(IRQMSIX, 4, 3); len(fds) != 0 {
				t.Error("not taken away")
			}
			s.ServeAccesses()
		})
		if err := errors.Join(in.Close(testContext(t)), in.Close(testContext(t))); err != nil {
			t.Error(err)
		}
		if _, err := in.Wait(testContext(t)); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, ok := <-in.C(); ok {
			t.Error("interrupt from a closed subscription")
		}
		if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
			t.Error(err)
		}
	})
	t.Run("wakes those who wait", func(t *testing.T) {
		d, in, _ := interrupts(t, nil)
		c := in.C()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, ok := <-c; ok {
				t.Error("an interrupt")
			}
		})
		wg.Go(func() {
			if _, err := in.Wait(testContext(t)); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		d.Close()
		wg.Wait()
	})
	t.Run("happens whatever the server says", func(t *testing.T) {
		_, in, _ := interrupts(t, func(s *server) { s.Refuse(s.Want(codec.CmdSetIRQs), unix.EIO) })
		if err := in.Close(testContext(t)); !errors.Is(err, unix.EIO) {
			t.Error(err)
		}
	})
	t.Run("by the end of the session", func(t *testing.T) {
		d, in, _ := interrupts(t, (*server).Close)
		if _, err := in.Wait(testContext(t)); !errors.Is(err, ErrDisconnected) {
			t.Error(err)
		}
		if err := in.Close(testContext(t)); err != nil {
			t.Error(err)
		}
		if _, err := d.Interrupts(testContext(t), IRQMSIX, 0, 1); !errors.Is(err, ErrDisconnected) {
			t.Error(err)
		}
	})
	t.Run("by a closed device", func(t *testing.T) {
		d := attach(t, func(*server) {})
		d.Close()
		if _, err := d.Interrupts(testContext(t), IRQMSIX, 0, 1); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestInterruptsThatAreRefused(t *testing.T) {
	d := attach(t, func(s *server) { s.Refuse(s.Want(codec.CmdSetIRQs), unix.EINVAL) })
	if _, err := d.Interrupts(testContext(t), IRQMSIX, 0, 5); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	for _, bad := range [][2]int{{-1, 1}, {0, 0}, {0, -1}} {
		if _, err := d.Interrupts(testContext(t), IRQMSIX, bad[0], bad[1]); !errors.Is(err, ErrInvalid) {
			t.Error(bad, err)
		}
	}
	if n := len(d.subscriptions.list()); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// A server can raise a vector more often than a count has room for.
func TestInterruptsBeyondTheirCount(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s := &Interrupts{wake: make(chan struct{}, 1), vectors: make([]irqVector, 1)}
	v := &s.vectors[0]
	*v = irqVector{set: s, fd: fd}
	for _, n := range []uint64{1<<64 - 2, 2, 1} {
		if _, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, n)); err != nil {
			t.Fatal(err)
		}
		v.HandleEvents(reactor.Readable)
	}
	if got, ok, _ := s.take(); !ok || got.Count != 1<<64-1 {
		t.Errorf("%+v, %v", got, ok)
	}
	if got, ok, _ := s.take(); ok {
		t.Errorf("once more: %+v", got)
	}
}
