package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/engine"
	"vfiouser/irq"
)

func TestReattachSurvivesRestarts(t *testing.T) {
	noLeaks(t)
	ctx, path := bounded(t), socketPath(t)
	device := new(card)
	stop := serve(t, path, device, engine.Config{})
	defer func() { stop() }()
	dev, err := client.Attach(ctx, path, client.WithReattach())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { dev.Close() }()

	// Memory whose descriptor is closed as soon as it is mapped, and memory by message.
	shared, err := client.NewMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	private, err := client.NewMemory(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	readOnly := shared.At(0x2000_0000)
	readOnly.Prot = client.ProtRead
	if err := dev.MapDMA(ctx, shared.At(0x1000_0000), readOnly, private.At(0x3000_0000).ByMessage()); err != nil {
		t.Fatal(err)
	}
	bytes := shared.Bytes()
	shared.Close()

	in, err := dev.Interrupts(ctx, client.IRQMSIX, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	event, err := client.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer event.Close()
	if err := errors.Join(dev.EnableIRQ(ctx, client.IRQMSIX, 3, event.FD()), dev.MaskIRQ(ctx, client.IRQMSIX, 1, 1)); err != nil {
		t.Fatal(err)
	}

	check := func(round byte) {
		t.Helper()
		s := device.session.Load()
		want := []dma.Region{{IOVA: 0x1000_0000, Size: 1 << 20, Prot: 3}, {IOVA: 0x2000_0000, Size: 1 << 20, Prot: 1}, {IOVA: 0x3000_0000, Size: 64 << 10, Prot: 3}}
		got := s.Memory().Regions()
		if len(got) != len(want) {
			t.Fatalf("round %d: %d regions", round, len(got))
		}
		for i, r := range got {
			if r.IOVA != want[i].IOVA || r.Size != want[i].Size || r.Prot != want[i].Prot || (r.Local == nil) != (i == 2) {
				t.Errorf("round %d: region %d is %#x, %#x bytes, protection %d", round, i, r.IOVA, r.Size, r.Prot)
			}
		}
		if err := device.poke(0x1000_0000, round); err != nil || bytes[0] != round {
			t.Errorf("round %d: memory: %v", round, err)
		}
		if err := s.WriteDMA(ctx, 0x3000_0000, []byte{round}); err != nil || private.Bytes()[0] != round {
			t.Errorf("round %d: memory by message: %v", round, err)
		}
		if err := dev.WriteRegion32(ctx, client.RegionBAR0, cardRaise, 0); err != nil {
			t.Error(err)
		}
		if i, err := in.Wait(ctx); err != nil || i != (client.Interrupt{Vector: 0, Count: 1}) {
			t.Errorf("round %d: %+v, %v", round, i, err)
		}
		if err := dev.WriteRegion32(ctx, client.RegionBAR0, cardRaise, 3); err != nil {
			t.Error(err)
		}
		if n, err := event.Wait(ctx); n != 1 || err != nil {
			t.Errorf("round %d: eventfd: %d, %v", round, n, err)
		}
		if err := dev.WriteRegion32(ctx, client.RegionBAR0, cardRaise, 1); err != nil {
			t.Error(err)
		}
		if v := s.IRQ().Vector(irq.MSIX, 1); !v.Pending() {
			t.Errorf("round %d: vector 1 is not masked", round)
		}
	}
	check(0)
	for round := byte(1); round <= 5; round++ {
		// Calls are in flight while the server dies; each ends, and none with anything else.
		var wg sync.WaitGroup
		old := dev
		for range 8 {
			wg.Go(func() {
				for {
					if _, err := old.ReadRegion32(ctx, client.RegionBAR0, 0); err != nil {
						if !errors.Is(err, client.ErrDisconnected) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		stop()
		wg.Wait()
		if _, err := in.Wait(ctx); !errors.Is(err, client.ErrDisconnected) {
			t.Error(err)
		}
		// The new server comes after the first attempt.
		hopeless, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := dev.Reattach(hopeless); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		started := make(chan struct{})
		go func() {
			defer close(started)
			device = new(card)
			stop = serve(t, path, device, engine.Config{})
		}()
		next, err := dev.Reattach(ctx)
		<-started
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dev.Reattach(ctx); !errors.Is(err, client.ErrClosed) {
			t.Error("reattached twice:", err)
		}
		dev = next
		check(round)
	}
	if err := in.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestReattachGivesUp(t *testing.T) {
	noLeaks(t)
	ctx, path := bounded(t), socketPath(t)
	stop := serve(t, path, new(card), engine.Config{})
	dev, err := client.Attach(ctx, path, client.WithReattach())
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	stop()
	<-dev.Done()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := dev.Reattach(short); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
	defer serve(t, path, new(card), engine.Config{})()
	next, err := dev.Reattach(ctx)
	if err != nil {
		t.Fatal("once more:", err)
	}
	next.Close()
}

func TestReattachEndsASessionThatLasts(t *testing.T) {
	noLeaks(t)
	ctx, path := bounded(t), socketPath(t)
	defer serve(t, path, new(card), engine.Config{})()
	dev, err := client.Attach(ctx, path, client.WithReattach())
	if err != nil {
		t.Fatal(err)
	}
	next, err := dev.Reattach(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if !errors.Is(dev.Err(), client.ErrDisconnected) {
		t.Error(dev.Err())
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	if _, err := next.ReadRegion32(ctx, client.RegionConfig, 0); err != nil {
		t.Error(err)
	}
}

func TestReattachIsRefused(t *testing.T) {
	noLeaks(t)
	ctx, path := bounded(t), socketPath(t)
	defer serve(t, path, new(card), engine.Config{})()
	dev, err := client.Attach(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dev.Reattach(ctx); !errors.Is(err, client.ErrInvalid) {
		t.Error("without WithReattach:", err)
	}
	if dev.Err() != nil {
		t.Error("the session has ended:", dev.Err())
	}
	dev.Close()
	if _, err := dev.Reattach(ctx); !errors.Is(err, client.ErrClosed) {
		t.Error("closed:", err)
	}
}

func TestMasksOfKeptInterrupts(t *testing.T) {
	noLeaks(t)
	ctx, path := bounded(t), socketPath(t)
	device := new(card)
	stop := serve(t, path, device, engine.Config{})
	dev, err := client.Attach(ctx, path, client.WithReattach())
	if err != nil {
		t.Fatal(err)
	}
	event, err := client.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer event.Close()
	fd := event.FD()
	if err := errors.Join(
		dev.EnableIRQ(ctx, client.IRQMSIX, 0, fd, fd, fd, fd),
		dev.SetIRQs(ctx, codec.SetIRQs{Flags: codec.IRQSetDataBool | codec.IRQSetActionMask, Index: client.IRQMSIX, Count: 4, Data: []byte{1, 1, 0, 1}}),
		dev.UnmaskIRQ(ctx, client.IRQMSIX, 1, 1),
		dev.UnassignIRQ(ctx, client.IRQMSIX, 3, 1),
	); err != nil {
		t.Fatal(err)
	}
	restart := func() {
		stop()
		device = new(card)
		stop = serve(t, path, device, engine.Config{})
		next, err := dev.Reattach(ctx)
		if err != nil {
			t.Fatal(err)
		}
		dev = next
	}
	restart()
	set := device.session.Load().IRQ()
	for i, want := range []bool{true, true, true, false} {
		if v := set.Vector(irq.MSIX, i); v.Assigned() != want {
			t.Errorf("vector %d has an eventfd: %v", i, !want)
		}
	}
	for i, masked := range []bool{true, false, false, true} {
		v := set.Vector(irq.MSIX, i)
		_ = v.Trigger()
		if i < 3 && v.Pending() != masked {
			t.Errorf("vector %d is masked: %v", i, !masked)
		}
	}
	if err := dev.DisableIRQ(ctx, client.IRQMSIX); err != nil {
		t.Fatal(err)
	}
	restart()
	for i := range cardVectors {
		if device.session.Load().IRQ().Vector(irq.MSIX, i).Assigned() {
			t.Errorf("vector %d has an eventfd", i)
		}
	}
	dev.Close()
	stop()
}

// TestReattachUnderFire has subscriptions made and closed, memory mapped and unmapped, and devices closed, while servers die
// and come back. Nothing is promised to those calls but that each ends.
func TestReattachUnderFire(t *testing.T) {
	noLeaks(t)
	ctx, path := bounded(t), socketPath(t)
	stop := serve(t, path, new(card), engine.Config{})
	dev, err := client.Attach(ctx, path, client.WithReattach(), client.WithTwinSocket())
	if err != nil {
		t.Fatal(err)
	}
	mem, err := client.NewMemory(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for range 20 {
		old := dev
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				for old.Err() == nil {
					in, err := old.Interrupts(ctx, client.IRQMSIX, i, 1)
					if err != nil {
						continue
					}
					_ = old.TriggerIRQ(ctx, client.IRQMSIX, i, 1)
					if _, err := in.Wait(ctx); errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					_ = in.Close(ctx)
				}
			})
			wg.Go(func() {
				at := mem.At(uint64(i+1) << 20)
				for old.Err() == nil {
					_ = old.MapDMA(ctx, at)
					_ = old.UnmapDMA(ctx, at.IOVA, at.Size)
				}
			})
		}
		// (once the first calls have been answered)
		if _, err := old.ReadRegion32(ctx, client.RegionBAR0, 0); err != nil {
			t.Fatal(err)
		}
		stop()
		stop = serve(t, path, new(card), engine.Config{})
		if dev, err = old.Reattach(ctx); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := dev.UnmapAllDMA(ctx); err != nil {
			t.Error(err)
		}
	}
	dev.Close()
	stop()
}
