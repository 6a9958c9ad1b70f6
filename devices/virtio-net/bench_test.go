package virtionet

import (
	"fmt"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio"
	"vfiouser/link"
)

// BenchmarkLoop sends frames of one size as fast as the card takes them, and receives them
// again: one goroutine drives, one worker serves.
func BenchmarkLoop(b *testing.B) {
	for _, layout := range []struct {
		name     string
		features uint64
	}{{"split", 0}, {"packed", ring.FeatureRingPacked}} {
		for _, size := range []int{64, 512, 1518} {
			b.Run(fmt.Sprintf("%s/%d", layout.name, size), func(b *testing.B) {
				benchmarkLoop(b, layout.features|spec.FeatureMrgRxBuf|ring.FeatureEventIdx, size)
			})
		}
	}
}

func benchmarkLoop(b *testing.B, features uint64, size int) {
	r := newRig(b, Config{Link: link.Loop(), Doorbells: virtio.Mmap})
	g := r.attach(options{features: features, size: 1024})
	p := g.pairs[0]
	tx, err := g.mem.Alloc(1024*2048, 4096)
	must(b, err)
	frame := append(make([]byte, g.header), frameOf(1, size)...)
	for i := range 1024 {
		copy(tx.Bytes[i*2048:], frame)
	}
	free := make([]uint32, 1024)
	for i := range free {
		free[i] = uint32(i)
	}
	done := make([]driver.Used, 64)
	received := 0
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for received < b.N {
		n, err := p.rx.Reap(done)
		if err != nil {
			b.Fatal(err)
		}
		for _, u := range done[:n] {
			if err := p.rx.AddWritable(u.Token, p.rxAddr(u.Token), 2048); err != nil {
				b.Fatal(err)
			}
		}
		if n > 0 {
			received += n
			must(b, p.rx.Kick())
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
			if err := p.tx.AddReadable(t, g.d.Addr(tx)+uint64(t)*2048, uint32(len(frame))); err != nil {
				b.Fatal(err)
			}
		}
		if m > 0 {
			must(b, p.tx.Kick())
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mpps")
}
