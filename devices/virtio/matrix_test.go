package virtio_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	virtiodriver "vfiouser/drivers/virtio"
	"vfiouser/test/holdings"
)

// TestFeaturesWithTheDriver has the project's own driver use rings of every layout, with
// each way to notify, in memory of either kind.
func TestFeaturesWithTheDriver(t *testing.T) {
	holdings.CheckLeaks(t)
	features := []uint64{
		spec.FeatureRingPacked, spec.FeatureIndirectDesc, spec.FeatureEventIdx, spec.FeatureInOrder,
		spec.FeatureNotificationData, spec.FeatureNotifConfigData,
	}
	for _, doorbells := range []virtio.Doorbells{virtio.Auto, virtio.Trap, virtio.Mmap} {
		for _, byMessage := range []bool{false, true} {
			l := newLab(t, virtio.Config{Doorbells: doorbells})
			g := l.attachBare(t)
			mapping := g.mem.At(guestBase)
			if byMessage {
				mapping = mapping.ByMessage()
			}
			if err := g.dev.MapDMA(g.ctx, mapping); err != nil {
				t.Fatal(err)
			}
			step := 1
			if doorbells != virtio.Auto || byMessage {
				step = 7 // of all features some time
			}
			for set := 0; set < 1<<len(features); set += step {
				want := spec.FeatureVersion1
				for i, f := range features {
					if set>>i&1 != 0 {
						want |= f
					}
				}
				name := fmt.Sprintf("%v, by message %v, %s", doorbells, byMessage, spec.FeatureNames(want))
				if err := g.useDriver(want); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			g.leave()
		}
	}
}

// useDriver exchanges messages on two queues, one served by a goroutine and one by a worker.
func (g *guest) useDriver(features uint64) (err error) {
	d, err := virtiodriver.Open(g.ctx, g.dev, g.mem, virtiodriver.Options{})
	if err != nil {
		return err
	}
	defer func() {
		if e := d.Close(); err == nil {
			err = e
		}
	}()
	if err := d.Negotiate(g.ctx, features); err != nil {
		return err
	}
	var queues []*virtiodriver.Queue
	for i := range 2 {
		q, err := d.NewQueue(g.ctx, i, virtiodriver.QueueConfig{Size: 8, Segments: 4, Interrupts: true})
		if err != nil {
			return err
		}
		queues = append(queues, q)
	}
	if err := d.Ready(g.ctx); err != nil {
		return err
	}
	buffer, err := g.mem.Alloc(8192, 0)
	if err != nil {
		return err
	}
	defer g.mem.Free(buffer)
	for _, q := range queues {
		for round := range 5 {
			if err := g.round(d, q, buffer, round); err != nil {
				return fmt.Errorf("queue %d, round %d: %w", q.Index(), round, err)
			}
		}
	}
	return nil
}

// round has a few chains of four segments in flight at once.
func (g *guest) round(d *virtiodriver.Device, q *virtiodriver.Queue, buffer client.Chunk, round int) error {
	const chains, slot = 2, 4096
	for i := range chains {
		message := fmt.Appendf(nil, "message %d of round %d", i, round)
		copy(buffer.Bytes[i*slot:], message)
		at := d.Addr(buffer) + uint64(i*slot)
		n := uint32(len(message))
		err := q.Add(uint32(i), []virtiodriver.Segment{{Addr: at, Len: 3}, {Addr: at + 3, Len: n - 3}},
			[]virtiodriver.Segment{{Addr: at + 1024, Len: 5}, {Addr: at + 2048, Len: 100}})
		if err != nil {
			return err
		}
	}
	if err := q.Kick(); err != nil {
		return err
	}
	var done [chains]virtiodriver.Used
	for got := 0; got < chains; {
		n, err := q.Reap(done[got:])
		if err != nil {
			return err
		}
		if got += n; n == 0 {
			if err := q.Wait(g.ctx); err != nil {
				return err
			}
		}
	}
	for _, u := range done {
		want := echoed(fmt.Appendf(nil, "message %d of round %d", u.Token, round))
		b := buffer.Bytes[u.Token*slot:][:slot]
		got := slices.Concat(b[1024:1029], b[2048:][:max(u.Len, 5)-5])
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
	}
	return nil
}
