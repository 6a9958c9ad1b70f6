package client_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/engine"
)

// journey is a source in use and a destination that waits.
type journey struct {
	t        *testing.T
	ctx      context.Context
	from, to *traveller
	src, dst *client.Device
	memory   *client.Memory
	in       *client.Interrupts
	event    *client.Eventfd // of vector 3
	stopFrom func()
	stopTo   func()
}

func newJourney(t *testing.T, from, to engine.Device, opts ...client.Option) *journey {
	noLeaks(t)
	j := &journey{t: t, ctx: bounded(t)}
	pathFrom, pathTo := socketPath(t), socketPath(t)
	j.stopFrom, j.stopTo = serveDevice(t, pathFrom, from), serveDevice(t, pathTo, to)
	t.Cleanup(j.stopFrom)
	t.Cleanup(j.stopTo)
	var err error
	if j.src, err = client.Attach(j.ctx, pathFrom, opts...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.src.Close() })
	if j.dst, err = client.Attach(j.ctx, pathTo, client.WithReattach()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.dst.Close() })
	if j.memory, err = client.NewMemory(1 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.memory.Close() })
	if err := j.src.MapDMA(j.ctx, j.memory.At(0x10000)); err != nil {
		t.Fatal(err)
	}
	if j.in, err = j.src.Interrupts(j.ctx, client.IRQMSIX, 0, 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.in.Close(context.Background()) })
	if j.event, err = client.NewEventfd(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.event.Close() })
	if err := j.src.EnableIRQ(j.ctx, client.IRQMSIX, 3, j.event.FD()); err != nil {
		t.Fatal(err)
	}
	j.write(j.src, 0x100, 0xcafe)
	j.write(j.src, cardTouch, 5)
	return j
}

func travel(t *testing.T, opts ...client.Option) *journey {
	from, to := newTraveller(), newTraveller()
	if opts == nil {
		opts = []client.Option{client.WithReattach()}
	}
	j := newJourney(t, from, to, opts...)
	j.from, j.to = from, to
	return j
}

func (j *journey) write(d *client.Device, off uint64, v uint32) {
	j.t.Helper()
	if err := d.WriteRegion(j.ctx, client.RegionBAR0, off, binary.LittleEndian.AppendUint32(nil, v)); err != nil {
		j.t.Fatal(err)
	}
}

func (j *journey) read(d *client.Device, off uint64) uint32 {
	j.t.Helper()
	var b [4]byte
	if err := d.ReadRegion(j.ctx, client.RegionBAR0, off, b[:]); err != nil {
		j.t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(b[:])
}

// works checks that a device has all that the source had.
func (j *journey) works(d *client.Device, c *traveller) {
	j.t.Helper()
	if got := j.read(d, 0x100); got != 0xcafe {
		j.t.Errorf("register %#x", got)
	}
	c.mu.Lock()
	if c.bulk[5*piece] != 1 || c.held {
		j.t.Errorf("bulk %d, held %v", c.bulk[5*piece], c.held)
	}
	c.mu.Unlock()
	if err := c.poke(0x10000+7, 99); err != nil {
		j.t.Error(err)
	}
	if j.memory.Bytes()[7] != 99 {
		j.t.Error("the device does not write to the client's memory")
	}
	j.memory.Bytes()[7] = 0
	j.write(d, cardRaise, 1)
	if got, err := j.in.Wait(j.ctx); err != nil || got.Vector != 1 {
		j.t.Errorf("%+v, %v", got, err)
	}
	j.write(d, cardRaise, 3)
	if _, err := j.event.Wait(j.ctx); err != nil {
		j.t.Error(err)
	}
}

func TestMigrate(t *testing.T) {
	for _, c := range []struct {
		name string
		opts client.MigrateOptions
		want client.MigrateStats
	}{
		{"with PRE_COPY", client.MigrateOptions{SmallRound: piece}, client.MigrateStats{Rounds: 2}},
		{"one round", client.MigrateOptions{MaxRounds: 1, SmallRound: 1}, client.MigrateStats{Rounds: 1}},
		{"stopped at once", client.MigrateOptions{NoPreCopy: true}, client.MigrateStats{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := travel(t)
			if err := j.src.MaskIRQ(j.ctx, client.IRQMSIX, 1, 1); err != nil {
				t.Fatal(err)
			}
			j.write(j.src, cardRaise, 1) // pending
			stopped := false
			c.opts.Stopped = func(context.Context) error {
				stopped = true
				if j.from.running() || j.to.running() {
					t.Error("a device runs while memory may be copied")
				}
				return nil
			}
			stats, err := client.Migrate(j.ctx, j.src, j.dst, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if stats.Rounds != c.want.Rounds || !stopped || stats.Downtime <= 0 {
				t.Errorf("%+v", stats)
			}
			if pre := stats.PreCopied >= bulkSize; pre != (stats.Rounds > 0) || !pre && stats.Copied < bulkSize || pre && stats.Copied > 2*piece {
				t.Errorf("%+v", stats)
			}
			if !errors.Is(j.src.Err(), client.ErrClosed) || j.from.running() {
				t.Errorf("source: %v, runs %v", j.src.Err(), j.from.running())
			}
			if err := j.dst.UnmaskIRQ(j.ctx, client.IRQMSIX, 1, 1); err != nil {
				t.Fatal(err)
			}
			if got, err := j.in.Wait(j.ctx); err != nil || got.Vector != 1 {
				t.Errorf("the pending interrupt: %+v, %v", got, err)
			}
			j.works(j.dst, j.to)
			// And on: what the destination was given it remembers itself.
			if maps := j.dst.Mappings(); len(maps) != 1 || maps[0].IOVA != 0x10000 {
				t.Errorf("mappings %+v", maps)
			}
		})
	}
}

// What the device does while its state is copied arrives too.
func TestMigrateWhileTheSourceWorks(t *testing.T) {
	j := travel(t)
	j.from.plan(func(c *traveller) {
		c.onRound = func(round int) {
			if round < 4 {
				c.touch(9)
			}
		}
	})
	stats, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{SmallRound: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Rounds != 5 {
		t.Errorf("%d rounds: four of them have something new", stats.Rounds)
	}
	j.works(j.dst, j.to)
	j.to.mu.Lock()
	defer j.to.mu.Unlock()
	if !bytes.Equal(j.to.bulk, j.from.bulk) || j.to.bulk[9*piece] != 4 {
		t.Error("the states differ")
	}
}

// TestMigrationThatFails: whatever goes wrong, the source works as before, and the destination is as if nothing had been.
func TestMigrationThatFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*journey, *client.MigrateOptions)
		err    error
		toDies bool
	}{
		{"the source's first round", func(j *journey, _ *client.MigrateOptions) {
			j.from.plan(func(c *traveller) { c.fail["round"] = errCard })
		}, unix.ENOTRECOVERABLE, false},
		{"the source's state", func(j *journey, _ *client.MigrateOptions) {
			j.from.plan(func(c *traveller) { c.fail["save"] = errCard })
		}, unix.ENOTRECOVERABLE, false},
		{"the destination's state", func(j *journey, _ *client.MigrateOptions) { j.to.plan(func(c *traveller) { c.fail["load"] = errCard }) }, unix.ENOTRECOVERABLE, false},
		{"the destination's state, at its end", func(j *journey, _ *client.MigrateOptions) {
			j.to.plan(func(c *traveller) { c.fail["loaded"] = errCard })
		}, unix.ENOTRECOVERABLE, false},
		{"the caller", func(_ *journey, o *client.MigrateOptions) {
			o.Stopped = func(context.Context) error { return io.ErrShortBuffer }
		}, io.ErrShortBuffer, false},
		{"the destination hangs up in PRE_COPY", func(j *journey, _ *client.MigrateOptions) {
			j.from.plan(func(c *traveller) { c.onRound = func(int) { j.stopTo() } })
		}, client.ErrDisconnected, true},
		{"the destination hangs up before it runs", func(j *journey, o *client.MigrateOptions) {
			o.Stopped = func(context.Context) error { j.stopTo(); return nil }
		}, client.ErrDisconnected, true},
		{"the context ends in PRE_COPY", func(j *journey, _ *client.MigrateOptions) {
			ctx, cancel := context.WithCancel(j.ctx)
			j.ctx = ctx
			j.from.plan(func(c *traveller) { c.onRound = func(int) { cancel() } })
		}, context.Canceled, false},
		{"the context ends when both are stopped", func(j *journey, o *client.MigrateOptions) {
			ctx, cancel := context.WithCancel(j.ctx)
			j.ctx = ctx
			o.Stopped = func(context.Context) error { cancel(); return nil }
		}, context.Canceled, false},
		{"an address that is taken", func(j *journey, _ *client.MigrateOptions) {
			if err := j.dst.MapDMA(j.ctx, j.memory.At(0x11000)); err != nil {
				j.t.Fatal(err)
			}
		}, client.ErrOverlap, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := travel(t)
			long := j.ctx
			var opts client.MigrateOptions
			c.set(j, &opts)
			_, err := client.Migrate(j.ctx, j.src, j.dst, opts)
			j.ctx = long
			if !errors.Is(err, c.err) || errors.Is(err, client.ErrUndecided) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			j.works(j.src, j.from)
			if state, err := j.src.MigrationState(j.ctx); state != codec.MigRunning || err != nil {
				t.Errorf("source is in %v, %v", state, err)
			}
			if c.toDies {
				return
			}
			state, err := j.dst.MigrationState(j.ctx)
			if state != codec.MigRunning || err != nil || j.read(j.dst, 0x100) != 0 || len(j.dst.Mappings()) != 0 {
				t.Errorf("destination is in %v, %v, register %#x, mappings %v", state, err, j.read(j.dst, 0x100), j.dst.Mappings())
			}
			// The next attempt succeeds.
			for _, d := range []*traveller{j.from, j.to} {
				d.plan(func(c *traveller) { c.fail, c.onRound = nil, nil })
			}
			if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{}); err != nil {
				t.Fatal(err)
			}
			j.works(j.dst, j.to)
		})
	}
}

func TestMigrationWhoseSourceHangsUp(t *testing.T) {
	j := travel(t)
	var once sync.Once
	j.from.plan(func(c *traveller) { c.onRound = func(int) { once.Do(func() { go j.stopFrom() }) } })
	if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{SmallRound: -1, MaxRounds: 1 << 30}); !errors.Is(err, client.ErrDisconnected) {
		t.Errorf("%v", err)
	}
	if state, err := j.dst.MigrationState(j.ctx); state != codec.MigRunning || err != nil || len(j.dst.Mappings()) != 0 {
		t.Errorf("destination is in %v, %v", state, err)
	}
}

// Two devices that both believe to be the one must not be: who does not know leaves the source stopped.
func TestMigrationThatIsUndecided(t *testing.T) {
	j := travel(t)
	j.to.plan(func(c *traveller) {
		c.onGo = func(done func()) {
			go func() {
				j.dst.Close()
				done()
			}()
		}
	})
	if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{}); !errors.Is(err, client.ErrUndecided) || !errors.Is(err, client.ErrClosed) {
		t.Errorf("%v", err)
	}
	if state, err := j.src.MigrationState(j.ctx); state != codec.MigStopCopy || err != nil {
		t.Errorf("source is in %v, %v", state, err)
	}
	if err := j.src.SetMigrationState(j.ctx, codec.MigRunning); err != nil {
		t.Fatal(err)
	}
	j.works(j.src, j.from)
}

func TestMigrationOfTheDeviceOnly(t *testing.T) {
	j := travel(t, client.WithSpin(0)) // not WithReattach
	if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("%v", err)
	}
	if err := j.dst.MapDMA(j.ctx, j.memory.At(0x10000)); err != nil {
		t.Fatal(err)
	}
	if err := j.dst.EnableIRQ(j.ctx, client.IRQMSIX, 3, j.event.FD()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{DeviceOnly: true}); err != nil {
		t.Fatal(err)
	}
	if got := j.read(j.dst, 0x100); got != 0xcafe {
		t.Errorf("register %#x", got)
	}
	j.write(j.dst, cardRaise, 3)
	if _, err := j.event.Wait(j.ctx); err != nil {
		t.Error(err)
	}
}

func TestMigrationIsRefused(t *testing.T) {
	t.Run("to itself", func(t *testing.T) {
		j := travel(t)
		if _, err := client.Migrate(j.ctx, j.src, j.src, client.MigrateOptions{}); !errors.Is(err, client.ErrInvalid) {
			t.Error(err)
		}
		j.works(j.src, j.from)
	})
	t.Run("of a closed device", func(t *testing.T) {
		j := travel(t)
		j.src.Close()
		if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{}); !errors.Is(err, client.ErrClosed) {
			t.Error(err)
		}
	})
	t.Run("of a destination that is not fresh", func(t *testing.T) {
		j := travel(t)
		if err := j.dst.SetMigrationState(j.ctx, codec.MigStop); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{}); !errors.Is(err, client.ErrInvalid) {
			t.Error(err)
		}
		j.works(j.src, j.from)
	})
	t.Run("of devices that cannot be migrated", func(t *testing.T) {
		from := newTraveller()
		j := newJourney(t, from, new(card), client.WithReattach())
		if _, err := client.Migrate(j.ctx, j.src, j.dst, client.MigrateOptions{}); !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
		j.works(j.src, from)
	})
}

// bulky is a card with much state.
type bulky struct {
	card
	state []byte
}

func (c *bulky) SaveState(_ *engine.Session, w io.Writer) error {
	_, err := w.Write(c.state)
	return err
}

func (c *bulky) LoadState(_ *engine.Session, _ uint32, r io.Reader) error {
	if _, err := io.ReadFull(r, c.state); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// BenchmarkMigrate moves a device with 256 MiB of state.
func BenchmarkMigrate(b *testing.B) {
	const size = 256 << 20
	ctx := context.Background()
	from, to := &bulky{state: make([]byte, size)}, &bulky{state: make([]byte, size)}
	pathFrom, pathTo := socketPath(b), socketPath(b)
	defer serveDevice(b, pathFrom, from)()
	defer serveDevice(b, pathTo, to)()
	b.SetBytes(size)
	for b.Loop() {
		src, err := client.Attach(ctx, pathFrom, client.WithReattach())
		if err != nil {
			b.Fatal(err)
		}
		dst, err := client.Attach(ctx, pathTo)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := client.Migrate(ctx, src, dst, client.MigrateOptions{}); err != nil {
			b.Fatal(err)
		}
		dst.Close()
	}
}
