package virtionet

import (
	"fmt"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

// BenchmarkLoop sends frames of one size as fast as the card takes them, and receives them
// again: one goroutine drives, one worker serves.
func BenchmarkLoop(b *testing.B) {
	for _, layout := range []struct {
		name     string
		features uint64
	}{{"split", 0}, {"packed", ring.FeatureRingPacked}, {"split,hash", spec.FeatureCtrlVQ | spec.FeatureHashReport},
		{"split,filter", spec.FeatureCtrlVQ | spec.FeatureCtrlRx}} {
		for _, size := range []int{64, 512, 1518} {
			b.Run(fmt.Sprintf("%s/%d", layout.name, size), func(b *testing.B) {
				benchmarkLoop(b, layout.features|spec.FeatureMrgRxBuf|ring.FeatureEventIdx, size)
			})
		}
	}
}

// BenchmarkSegments is the same for frames of 64 KiB that nobody cuts, into receive buffers
// of the given size. BenchmarkCopy is what the memory gives.
func BenchmarkSegments(b *testing.B) {
	const features = spec.FeatureMrgRxBuf | ring.FeatureEventIdx | ring.FeatureIndirectDesc |
		spec.FeatureCSUM | spec.FeatureGuestCSUM | spec.FeatureHostTSO4 | spec.FeatureGuestTSO4
	for _, buffer := range []int{2048, 68 << 10} {
		b.Run(fmt.Sprint(buffer), func(b *testing.B) {
			benchmark(b, features, segmentHeader(1448), segments(64<<10-54), 64, 68<<10, buffer)
		})
	}
}

func BenchmarkCopy(b *testing.B) {
	from, to := make([]byte, 64*68<<10), make([]byte, 64*68<<10)
	b.SetBytes(64 << 10)
	for i := 0; b.Loop(); i++ {
		at := i % 64 * 68 << 10
		copy(to[at:at+64<<10], from[at:])
	}
}

func benchmarkLoop(b *testing.B, features uint64, size int) {
	benchmark(b, features, vnet.Header{}, frameOf(1, size), 1024, 2048, 2048)
}

// benchmark sends data from slots of slot bytes.
func benchmark(b *testing.B, features uint64, h vnet.Header, data []byte, slots, slot, buffer int) {
	r := newRig(b, Config{Link: link.Loop(), Doorbells: virtio.Mmap})
	o := options{features: features, size: 1024, buffer: buffer}
	if buffer > slot/2 && slots < 1024 {
		o.buffers = slots
	}
	g := r.attach(o)
	p := g.pairs[0]
	if g.features&spec.FeatureHashReport != 0 {
		g.ok(spec.ClassMQ, spec.MQHashConfig, (&spec.HashConfig{HashTypes: spec.HashAll, Key: microsoftKey}).Append(nil))
	}
	if g.features&spec.FeatureCtrlRx != 0 {
		g.ok(spec.ClassRx, spec.RxPromisc, []byte{0})
		dst := [6]byte(data)
		g.ok(spec.ClassMAC, spec.MACTableSet, (&spec.MACTable{Unicast: [][6]byte{dst}}).Append(nil))
	}
	tx, err := g.mem.Alloc(uint64(slots*slot), 4096)
	must(b, err)
	frame := make([]byte, g.header, g.header+len(data))
	h.Put(frame[:12], 0)
	frame = append(frame, data...)
	for i := range slots {
		copy(tx.Bytes[i*slot:], frame)
	}
	free := make([]uint32, slots, 1024)
	for i := range free {
		free[i] = uint32(i)
	}
	done := make([]driver.Used, 64)
	received := uint64(0)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	b.ResetTimer()
	for received < uint64(b.N) {
		n, err := p.rx.Reap(done)
		if err != nil {
			b.Fatal(err)
		}
		for _, u := range done[:n] {
			// A frame ends where a buffer does not.
			if int(u.Len) < buffer {
				received++
			}
			if err := p.rx.AddWritable(u.Token, p.rxAddr(u.Token), uint32(buffer)); err != nil {
				b.Fatal(err)
			}
		}
		if n > 0 {
			if err := p.rx.Kick(); err != nil {
				b.Fatal(err)
			}
		}
		k, err := p.tx.Reap(done)
		if err != nil {
			b.Fatal(err)
		}
		for _, u := range done[:k] {
			free = append(free, u.Token)
		}
		m := min(len(free), 64)
		for range m {
			t := free[len(free)-1]
			free = free[:len(free)-1]
			if err := p.tx.AddReadable(t, g.d.Addr(tx)+uint64(t)*uint64(slot), uint32(len(frame))); err != nil {
				b.Fatal(err)
			}
		}
		if m > 0 {
			if err := p.tx.Kick(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mpps")
}
