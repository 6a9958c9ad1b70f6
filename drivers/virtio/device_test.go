package virtio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"vfiouser/client"
	device "vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/test/holdings"
)

func TestDevice(t *testing.T) {
	for _, mode := range []struct {
		doorbells device.Doorbells
		notify    NotifyMode
		want      NotifyMode
	}{
		{device.Trap, Auto, Trap}, {device.Auto, Trap, Trap}, {device.Mmap, Auto, Mapped}, {device.Mmap, Mapped, Mapped}, {device.Mmap, Trap, Trap},
	} {
		for _, features := range []uint64{0, spec.FeatureIndirectDesc | spec.FeatureEventIdx | spec.FeatureInOrder, spec.FeatureNotificationData} {
			t.Run(fmt.Sprintf("%v, %v, %#x", mode.doorbells, mode.notify, features), func(t *testing.T) {
				holdings.CheckLeaks(t)
				m := newMachine(t, device.Config{Doorbells: mode.doorbells, Features: device.Features})
				d := m.open(t, Options{Notify: mode.notify, Type: testType})
				if d.Type() != testType || d.Offered()&spec.FeatureVersion1 == 0 || d.Notify() != mode.want {
					t.Error(d.Type(), d.Offered(), d.Notify())
				}
				q := ready(t, d, features|spec.FeatureVersion1, QueueConfig{Size: 16, Segments: 2, Interrupts: true})
				if d.Features() != features|spec.FeatureVersion1 || q.Size() != 16 || !q.Interrupts() || q.Index() != 0 {
					t.Error(d.Features(), q.Size())
				}
				roundTrip(t, d, q, 100)
				if q.Notifications() == 0 {
					t.Error("nobody was notified")
				}
				if err := errors.Join(d.Close(), d.Close()); err != nil {
					t.Error(err)
				}
				if err := d.Err(); !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
				m.checkFreed(t)
			})
		}
	}
}

func TestOpenAgain(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{Features: device.Features})
	for range 3 {
		d := m.open(t, Options{})
		roundTrip(t, d, ready(t, d, spec.FeatureVersion1, QueueConfig{Segments: 2, Interrupts: true}), 10)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		m.checkFreed(t)
	}
	// A device that somebody left running is reset.
	first := m.open(t, Options{})
	ready(t, first, spec.FeatureVersion1, QueueConfig{})
	second := m.open(t, Options{})
	roundTrip(t, second, ready(t, second, spec.FeatureVersion1, QueueConfig{Segments: 2, Interrupts: true}), 10)
}

func TestQueueReset(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{Features: device.Features})
	d := m.open(t, Options{})
	q := ready(t, d, spec.FeatureVersion1|spec.FeatureRingReset, QueueConfig{Size: 16, Segments: 2, Interrupts: true})
	for range 5 {
		roundTrip(t, d, q, 20)
		if err := q.AddReadable(9, d.base, 8); err != nil { // not kicked: lost
			t.Fatal(err)
		}
		if err := q.Reset(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if q.InFlight() != 0 || q.Room() != q.Size() {
			t.Error(q.InFlight(), q.Room())
		}
	}
	roundTrip(t, d, q, 20)
	d.Close()
	d = m.open(t, Options{})
	q = ready(t, d, spec.FeatureVersion1, QueueConfig{})
	if err := q.Reset(testContext(t)); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

func TestConfiguration(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{Features: device.Features})
	changed := make(chan struct{}, 1)
	d := m.open(t, Options{ConfigChanged: func(*Device) { changed <- struct{}{} }})
	ready(t, d, spec.FeatureVersion1, QueueConfig{})
	want := []byte{1, 2, 3, 4, 5}
	if err := d.WriteConfig(testContext(t), 3, want); err != nil {
		t.Error(err)
	}
	got := make([]byte, testConfig)
	if err := d.ReadConfig(testContext(t), 0, got); err != nil || !bytes.Equal(got[3:8], want) {
		t.Error(got, err)
	}
	m.echo.WriteConfig(0, []byte{99})
	m.function.ConfigChanged()
	<-changed
	if err := d.ReadConfig(testContext(t), 0, got); err != nil || got[0] != 99 {
		t.Error(got, err)
	}
	if d.ConfigSize() != testConfig {
		t.Error(d.ConfigSize())
	}
	for _, err := range []error{d.ReadConfig(testContext(t), 1, got), d.ReadConfig(testContext(t), -1, nil), d.WriteConfig(testContext(t), testConfig, want)} {
		if !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
	}
}

func TestRefusals(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{Features: device.Features, QueueSize: 32})
	ctx := testContext(t)
	if _, err := Open(ctx, m.dev, m.mem, Options{Type: 1}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := Open(ctx, m.dev, m.mem, Options{Notify: Mapped}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if _, err := Open(ctx, m.dev, m.mem, Options{Timeout: -1}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	m.checkFreed(t)
	d := m.open(t, Options{})
	if _, err := d.NewQueue(ctx, 0, QueueConfig{}); !errors.Is(err, ErrInvalid) {
		t.Error("a queue before features:", err)
	}
	if err := d.Negotiate(ctx, spec.FeatureVersion1|ownFeature); !errors.Is(err, ErrUnsupported) {
		t.Error("a feature that is not offered:", err)
	}
	if err := d.Negotiate(ctx, 0); !errors.Is(err, ErrInvalid) {
		t.Error("no VERSION_1:", err)
	}
	q := ready(t, d, spec.FeatureVersion1, QueueConfig{})
	if q.Size() != 32 {
		t.Error(q.Size())
	}
	if err := q.Wait(ctx); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	if err := d.Negotiate(ctx, spec.FeatureVersion1); !errors.Is(err, ErrInvalid) {
		t.Error("features again:", err)
	}
	for index, want := range map[int]error{0: ErrInvalid, -1: ErrInvalid, testQueues: ErrUnsupported, 70000: ErrInvalid} {
		if _, err := d.NewQueue(ctx, index, QueueConfig{}); !errors.Is(err, want) {
			t.Errorf("queue %d: %v", index, err)
		}
	}
	for _, cfg := range []QueueConfig{{Size: 64}, {Size: -1}, {Size: 12}, {Segments: -1}} {
		if _, err := d.NewQueue(ctx, 1, cfg); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	d.Close()
	m.checkFreed(t)
	m.echo.refuse.Store(true)
	d = m.open(t, Options{})
	if err := d.Negotiate(ctx, spec.FeatureVersion1); !errors.Is(err, ErrUnsupported) {
		t.Error("a set that the device does not want:", err)
	}
}

func TestNeedsReset(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{Features: device.Features})
	d := m.open(t, Options{ConfigChanged: func(*Device) {}})
	q := ready(t, d, spec.FeatureVersion1, QueueConfig{Interrupts: true})
	var wg sync.WaitGroup
	wg.Go(func() { m.function.NeedsReset(errors.New("test")) })
	if err := q.Wait(testContext(t)); !errors.Is(err, ErrNeedsReset) {
		t.Error(err)
	}
	wg.Wait()
	if err := d.Err(); !errors.Is(err, ErrNeedsReset) {
		t.Error(err)
	}
	d.Close()
	m.checkFreed(t)
	d = m.open(t, Options{})
	roundTrip(t, d, ready(t, d, spec.FeatureVersion1, QueueConfig{Segments: 2, Interrupts: true}), 10)
}

func TestSessionLoss(t *testing.T) {
	for name, use := range map[string]func(q *Queue, lose func()) error{
		"while polling": func(q *Queue, lose func()) error {
			lose()
			for done := make([]Used, 1); ; {
				if _, err := q.Reap(done); err != nil {
					return err
				}
			}
		},
		"while waiting": func(q *Queue, lose func()) error {
			lose()
			return q.Wait(context.Background())
		},
		"while notifying": func(q *Queue, lose func()) error {
			lose()
			for {
				_ = q.AddReadable(0, q.d.base, 8)
				if err := q.Kick(); err != nil {
					return err
				}
				if _, err := q.Reap(make([]Used, 4)); err != nil {
					return err
				}
			}
		},
	} {
		for _, mode := range []device.Doorbells{device.Trap, device.Mmap} {
			t.Run(fmt.Sprintf("%s, %v", name, mode), func(t *testing.T) {
				holdings.CheckLeaks(t)
				m := newMachine(t, device.Config{Doorbells: mode, Features: device.Features})
				d := m.open(t, Options{ConfigChanged: func(*Device) {}})
				q := ready(t, d, spec.FeatureVersion1, QueueConfig{Interrupts: true})
				var wg sync.WaitGroup
				err := use(q, func() { wg.Go(func() { m.endpoint.Close() }) })
				wg.Wait()
				if !errors.Is(err, client.ErrDisconnected) || !errors.Is(d.Err(), client.ErrDisconnected) {
					t.Error(err, d.Err())
				}
				if _, err := d.NewQueue(context.Background(), 1, QueueConfig{}); !errors.Is(err, client.ErrDisconnected) {
					t.Error(err)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				m.checkFreed(t)
			})
		}
	}
}
