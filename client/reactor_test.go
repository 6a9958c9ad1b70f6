package client_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"vfiouser/client"
	"vfiouser/engine"
	"vfiouser/engine/reactor"
)

// TestClientsAndServersShareOneReactor has eight devices and eight clients of one process on one loop, all busy at once.
func TestClientsAndServersShareOneReactor(t *testing.T) {
	noLeaks(t)
	const devices, rounds = 8, 200
	ctx := bounded(t)
	loop, err := reactor.New(reactor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close() // last of all
	e, err := engine.New(engine.Config{Reactor: loop, WriteMultiple: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range devices {
		path, device := fmt.Sprintf("%s/card%d.sock", dir, i), new(card)
		ep, err := e.Register(path, device)
		if err == nil {
			err = ep.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			opts := []client.Option{client.WithReactor(loop)}
			if i%2 == 0 {
				opts = append(opts, client.WithTwinSocket())
			}
			dev, err := client.Attach(ctx, path, opts...)
			if err != nil {
				t.Error(err)
				return
			}
			defer dev.Close()
			if dev.TwinSocket() != (i%2 == 0) {
				t.Errorf("device %d: twin socket: %v", i, dev.TwinSocket())
			}
			mem, err := client.NewMemory(4096)
			if err != nil {
				t.Error(err)
				return
			}
			defer mem.Close()
			if err := dev.MapDMA(ctx, mem.At(0x1000).ByMessage()); err != nil {
				t.Error(err)
				return
			}
			in, err := dev.Interrupts(ctx, client.IRQMSIX, 0, cardVectors)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range rounds {
				want := client.Interrupt{Vector: n % cardVectors, Count: 1}
				if err := dev.WriteRegion32(ctx, client.RegionBAR0, cardRaise, uint32(n)); err != nil {
					t.Error(err)
					return
				}
				if got, err := in.Wait(ctx); err != nil || got != want {
					t.Errorf("device %d: %+v, %v", i, got, err)
					return
				}
				if err := device.session.Load().WriteDMA(ctx, 0x1000+uint64(n), []byte{byte(i)}); err != nil || mem.Bytes()[n] != byte(i) {
					t.Errorf("device %d: %v", i, err)
					return
				}
				done, err := dev.WriteMulti(ctx, client.Write{Offset: 0x20, Data: []byte{byte(n)}}, client.Write{Offset: 0x21, Data: []byte{byte(i)}})
				if done != 2 || err != nil {
					t.Error(done, err)
					return
				}
				p := make([]byte, 2)
				if err := dev.ReadRegion(ctx, client.RegionBAR0, 0x20, p); err != nil || p[0] != byte(n) || p[1] != byte(i) {
					t.Errorf("device %d: %x, %v", i, p, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestSharedReactorOutlivesItsDevices ends servers and clients on one loop in every order.
func TestSharedReactorOutlivesItsDevices(t *testing.T) {
	noLeaks(t)
	ctx := bounded(t)
	loop, err := reactor.New(reactor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	for _, clientFirst := range []bool{true, false} {
		path := socketPath(t)
		stop := serve(t, path, new(card), engine.Config{Reactor: loop})
		dev, err := client.Attach(ctx, path, client.WithReactor(loop))
		if err != nil {
			t.Fatal(err)
		}
		in, err := dev.Interrupts(ctx, client.IRQMSIX, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		if clientFirst {
			dev.Close()
			stop()
		} else {
			stop()
			<-dev.Done()
			if !errors.Is(dev.Err(), client.ErrDisconnected) {
				t.Error(dev.Err())
			}
			dev.Close()
		}
		if _, err := in.Wait(ctx); !errors.Is(err, client.ErrClosed) {
			t.Error(err)
		}
	}
}
