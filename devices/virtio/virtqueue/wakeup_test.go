package virtqueue

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// Driver and device on two goroutines, which sleep whenever they have nothing to do and are
// woken only by what the ring says: a notification or an interrupt that is lost leaves both
// asleep for good. The model cannot see that, as it takes one step at a time.
func TestNobodySleepsForGood(t *testing.T) {
	chains := 50000
	if testing.Short() {
		chains = 5000
	}
	for _, packed := range []bool{false, true} {
		for _, event := range []bool{false, true} {
			for _, size := range []uint16{1, 8} {
				t.Run(fmt.Sprintf("packed=%v,event=%v,size=%d", packed, event, size), func(t *testing.T) {
					pingPong(t, Config{Packed: packed, EventIdx: event, Size: size}, chains)
				})
			}
		}
	}
}

func pingPong(t *testing.T, cfg Config, chains int) {
	s, q := newSplit(t, cfg)
	kick, irq, done := make(chan struct{}, 1), make(chan struct{}, 1), make(chan error, 1)
	wake := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	stop := make(chan struct{})
	go func() {
		defer close(done)
		list := make([]Chain, 4)
		for used := 0; used < chains; {
			n, err := q.Take(list)
			if err != nil {
				done <- err
				return
			}
			for i := range list[:n] {
				q.Push(&list[i], 0)
			}
			if q.Publish() {
				wake(irq)
			}
			used += n
			if n > 0 {
				q.Disarm()
				continue
			}
			if !q.Arm() && used < chains {
				select {
				case <-kick:
				case <-stop:
					return
				}
			}
		}
	}()
	d := &tightDriver{s: s, cfg: s.cfg}
	timeout := time.NewTimer(60 * time.Second)
	defer timeout.Stop()
	for sent := 0; d.seen < chains; {
		for sent < chains && sent-d.seen < int(cfg.Size) {
			if d.offer(sent) {
				wake(kick)
			}
			sent++
		}
		if d.poll() {
			continue
		}
		if d.want(); d.poll() {
			continue
		}
		select {
		case <-irq:
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			runtime.Gosched() // it is through, and so is what it published
		case <-timeout.C:
			close(stop)
			t.Fatalf("asleep for good: %d offered, %d used", sent, d.seen)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// tightDriver offers chains of one descriptor in order.
type tightDriver struct {
	s    *rawSplit
	cfg  Config
	seen int // chains
}

func (d *tightDriver) wrap(n int) bool { return n/int(d.cfg.Size)%2 == 0 }

// offer makes chain n available and says whether to notify.
func (d *tightDriver) offer(n int) bool {
	size := int(d.cfg.Size)
	device := d.s.g.at(d.cfg.Device, 4)
	if d.cfg.Packed {
		p := rawPacked{d.s.g, d.s.cfg}
		p.put(n%size, spec.PackedDesc{Addr: dataAt, Len: 1}, d.wrap(n))
		at, flags := spec.EventParts(dma.Load32(device, 0))
		return flags == spec.EventEnable || flags == spec.EventDesc && at == spec.Position(uint16(n%size), d.wrap(n))
	}
	d.s.desc(n%size, spec.Desc{Addr: dataAt, Len: 1})
	ring := d.s.g.at(d.cfg.Driver, int(spec.AvailBytes(d.cfg.Size)))
	dma.Store16(ring, spec.AvailRing+2*(n%size), uint16(n%size))
	dma.Store16(ring, spec.AvailIndex, uint16(n+1))
	if d.cfg.EventIdx {
		return d.s.used16(spec.AvailEventOffset(d.cfg.Size)) == uint16(n)
	}
	return d.s.used16(spec.UsedFlags) == 0
}

// poll takes what is used.
func (d *tightDriver) poll() (any bool) {
	if !d.cfg.Packed {
		n := int(d.s.used16(spec.UsedIndex) - uint16(d.seen))
		d.seen += n
		return n > 0
	}
	for {
		b := d.s.g.at(d.cfg.Desc+16*uint64(d.seen%int(d.cfg.Size)), 16)
		flags := uint16(dma.Load64(b, 8) >> 48)
		if flags&(spec.DescAvail|spec.DescUsed) != spec.PackedUsed(d.wrap(d.seen)) {
			return any
		}
		d.seen++
		any = true
	}
}

// want asks for an interrupt when the next chain is used.
func (d *tightDriver) want() {
	if d.cfg.Packed {
		word := spec.EventWord(0, spec.EventEnable)
		if d.cfg.EventIdx {
			word = spec.EventWord(spec.Position(uint16(d.seen%int(d.cfg.Size)), d.wrap(d.seen)), spec.EventDesc)
		}
		dma.Store32(d.s.g.at(d.cfg.Driver, 4), 0, word)
		return
	}
	ring := d.s.g.at(d.cfg.Driver, int(spec.AvailBytes(d.cfg.Size)))
	if d.cfg.EventIdx {
		dma.Store16(ring, spec.UsedEventOffset(d.cfg.Size), uint16(d.seen))
	} else {
		dma.Store16(ring, spec.AvailFlags, 0)
	}
}
