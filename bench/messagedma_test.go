package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"vfiouser/client"
	"vfiouser/engine"
	"vfiouser/pci"
)

// talker is a device that hands out its session.
type talker struct {
	engine.BaseDevice
	session chan *engine.Session
}

func (d *talker) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x0010, Class: 0xff0000})
	return engine.Description{Config: config}, err
}

func (d *talker) NewDevice(s *engine.Session) error { d.session <- s; return nil }

// BenchmarkMessageDMA measures 4 KiB of guest memory read with DMA_READ, with one and
// with 32 operations under way, on the client's socket and on a twin socket.
func BenchmarkMessageDMA(b *testing.B) {
	for _, c := range []struct {
		name string
		opts []client.Option
	}{{"shared", nil}, {"twin", []client.Option{client.WithTwinSocket()}}} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/depth=%d", c.name, depth), func(b *testing.B) {
				s := talk(b, c.opts...)
				done := make(chan error, depth)
				bufs := make([][]byte, depth)
				for i := range bufs {
					bufs[i] = make([]byte, 4096)
				}
				begin := func(i int) {
					s.StartReadDMA(0x10_0000+uint64(i)*4096, bufs[i], func(err error) { done <- err })
				}
				b.SetBytes(4096)
				b.ReportAllocs()
				b.ResetTimer()
				for i := range min(depth, b.N) {
					begin(i)
				}
				for n := range b.N {
					if err := <-done; err != nil {
						b.Fatal(err)
					}
					if n+depth < b.N {
						begin(n % depth)
					}
				}
			})
		}
	}
	b.Run("blocking", func(b *testing.B) {
		s := talk(b)
		p := make([]byte, 4096)
		b.SetBytes(4096)
		b.ReportAllocs()
		for b.Loop() {
			if err := s.ReadDMA(s.Context(), 0x10_0000, p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// talk attaches a client whose memory is reached by message.
func talk(b *testing.B, opts ...client.Option) *engine.Session {
	b.Helper()
	e, err := engine.New(engine.Config{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	d := &talker{session: make(chan *engine.Session, 1)}
	ep, err := e.Register(filepath.Join(b.TempDir(), "v"), d)
	if err != nil {
		b.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	dev, err := client.Attach(ctx, ep.Path(), opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { dev.Close() })
	mem, err := client.NewMemory(1 << 20)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { mem.Close() })
	if err := dev.MapDMA(ctx, mem.At(0x10_0000).ByMessage()); err != nil {
		b.Fatal(err)
	}
	return <-d.session
}
