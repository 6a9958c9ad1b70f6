package virtio_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/test/holdings"
)

func TestNotifications(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{})
	g := l.attach(t)
	r := g.drive(1, 2)[0]
	l.function.Settle() // queues that are not there yet are not notified
	at := r.address()
	kicks := func(i int) int32 { return l.echo.kicks[i].Swap(0) }
	kicks(1)
	for _, c := range []struct {
		name   string
		off, n int
		v      uint64
		want   [2]int32 // of queues 1 and 2
	}{
		{"16 bits", at, 2, 1, [2]int32{1, 0}},
		{"32 bits with NOTIFICATION_DATA", at, 4, uint64(spec.Notification(1, 0x8005)), [2]int32{1, 0}},
		{"the address counts, not the value", at, 2, 2, [2]int32{1, 0}},
		{"the other queue", at + 4, 2, 2, [2]int32{0, 1}},
		{"8 bits", at, 1, 1, [2]int32{}},
		{"64 bits", at, 8, 1, [2]int32{}},
		{"beside an address", at + 2, 2, 1, [2]int32{}},
		{"a queue that is not enabled", 0, 2, 0, [2]int32{}},
		{"no queue", 12, 2, 3, [2]int32{}},
		{"the end of the page", 0xffc, 4, 0, [2]int32{}},
	} {
		g.write(spec.CapNotify, c.off, c.n, c.v)
		if got := [2]int32{kicks(1), kicks(2)}; got != c.want {
			t.Errorf("%s: notified %v, want %v", c.name, got, c.want)
		}
	}
	if got := g.read(spec.CapNotify, at, 4); got != 0 {
		t.Errorf("an address reads %#x", got)
	}
	g.reset()
	g.write(spec.CapNotify, at, 2, 1)
	if got := kicks(1); got != 0 {
		t.Errorf("%d notifications after a reset", got)
	}
}

func TestIOEventfds(t *testing.T) {
	for _, c := range []struct {
		doorbells virtio.Doorbells
		queues    int
		want      int // areas
	}{{virtio.Auto, 3, 3}, {virtio.Auto, 40, 40}, {virtio.Trap, 3, 0}} {
		t.Run(c.doorbells.String(), func(t *testing.T) {
			holdings.CheckLeaks(t)
			l := newLab(t, virtio.Config{Doorbells: c.doorbells, Queues: c.queues})
			g := l.attach(t)
			rings := g.drive(0, c.queues-1)
			region, err := g.dev.Region(g.ctx, client.RegionBAR0)
			if err != nil {
				t.Fatal(err)
			}
			defer region.Close()
			fds, err := region.IOFDs(g.ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer fds.Close()
			if len(fds.Areas) != c.want {
				t.Fatalf("%d areas, want %d", len(fds.Areas), c.want)
			}
			if c.want == 0 {
				return
			}
			for _, r := range rings {
				offset := uint64(g.caps[spec.CapNotify].Offset) + uint64(r.address())
				for _, a := range fds.Areas {
					if a.Offset != offset {
						continue
					}
					for range 10 {
						r.offer([]byte("by eventfd"))
						if _, err := unix.Write(a.FD, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
							t.Fatal(err)
						}
						if got := string(r.answer()); got != "dftneve yb" {
							t.Errorf("%q", got)
						}
					}
				}
			}
		})
	}
}

func TestMappedNotifications(t *testing.T) {
	holdings.CheckLeaks(t)
	l := newLab(t, virtio.Config{Doorbells: virtio.Mmap})
	g := l.attach(t)
	region, err := g.dev.Region(g.ctx, client.RegionBAR0)
	if err != nil {
		t.Fatal(err)
	}
	defer region.Close()
	page, err := region.Mmap(0)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	for range 3 {
		for _, r := range g.drive(0, 1) {
			at := uint64(g.caps[spec.CapNotify].Offset) + uint64(r.address())
			for i := range 20 {
				r.offer([]byte("by memory"))
				if i%2 == 0 {
					page.Store16(at, uint16(r.index))
				} else {
					page.Store32(at, spec.Notification(uint16(r.index), 0xffff))
				}
				if got := string(r.answer()); got != "yromem yb" {
					t.Errorf("%q", got)
				}
			}
			r.exchange("by message") // which a client may do all the same
		}
	}
}
