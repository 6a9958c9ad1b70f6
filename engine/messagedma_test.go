package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"vfiouser/client"
	"vfiouser/engine"
)

// guest is memory that a client gives without a descriptor, page i filled with i.
func guest(t testing.TB, dev *client.Device, pages int) *client.Memory {
	t.Helper()
	mem, err := client.NewMemory(uint64(pages) * 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	for i := range pages {
		for p := mem.Bytes()[i*4096:][:4096]; len(p) > 0; p = p[8:] {
			binary.LittleEndian.PutUint64(p, uint64(i))
		}
	}
	if err := dev.MapDMA(context.Background(), mem.At(0x10_0000).ByMessage()); err != nil {
		t.Fatal(err)
	}
	return mem
}

// A device reads and writes a real client's memory from many goroutines, in both forms,
// while the client accesses registers: everything arrives, on one socket and on two.
func TestMessageDMABesideRegisterAccesses(t *testing.T) {
	const pages, workers, rounds = 64, 8, 200
	for name, opts := range map[string][]client.Option{"one socket": nil, "twin socket": {client.WithTwinSocket()}} {
		t.Run(name, func(t *testing.T) {
			c := newCard(engine.Description{})
			dev, ep, stop := serve(c, opts...)
			defer stop()
			if in, _ := ep.Inspect(); in.TwinSocket != (opts != nil) {
				t.Fatalf("twin socket: %v", in.TwinSocket)
			}
			mem := guest(t, dev, pages)
			s, ctx := <-c.session, context.Background()
			var wait sync.WaitGroup
			for w := range workers {
				wait.Go(func() {
					r := rand.New(rand.NewPCG(uint64(w), 1))
					p := make([]byte, 4096)
					done := make(chan error, 1)
					for range rounds {
						// Each worker rewrites pages of its own with what is there already.
						page := r.IntN(pages/workers)*workers + w
						iova := 0x10_0000 + uint64(page)*4096
						var err error
						switch r.IntN(4) {
						case 0:
							err = s.ReadDMA(ctx, iova, p)
						case 1:
							s.StartReadDMA(iova, p, func(err error) { done <- err })
							err = <-done
						case 2:
							fill(p, page)
							err = s.WriteDMA(ctx, iova, p)
						default:
							fill(p, page)
							s.StartWriteDMA(iova, p, func(err error) { done <- err })
							err = <-done
						}
						if err != nil || binary.LittleEndian.Uint64(p[4088:]) != uint64(page) {
							t.Errorf("page %d: %v, or other data", page, err)
							return
						}
					}
				})
				wait.Go(func() {
					for range rounds {
						if id, err := dev.ReadRegion32(ctx, client.RegionConfig, 0); err != nil || id != 0x0010_1b36 {
							t.Errorf("id %#x, %v", id, err)
							return
						}
					}
				})
			}
			wait.Wait()
			want := make([]byte, 4096)
			for i := range pages {
				if fill(want, i); !bytes.Equal(mem.Bytes()[i*4096:][:4096], want) {
					t.Errorf("page %d has changed", i)
				}
			}
		})
	}
}

func fill(p []byte, page int) {
	for ; len(p) > 0; p = p[8:] {
		binary.LittleEndian.PutUint64(p, uint64(page))
	}
}

// A client may leave while many operations are under way; each ends once.
func TestClientLeavesDuringMessageDMA(t *testing.T) {
	for name, opts := range map[string][]client.Option{"one socket": nil, "twin socket": {client.WithTwinSocket()}} {
		t.Run(name, func(t *testing.T) {
			const n = 2000
			c := newCard(engine.Description{})
			dev, _, stop := serve(c, opts...)
			guest(t, dev, 64)
			s := <-c.session
			done := make(chan error, 2*n)
			for i := range n {
				s.StartReadDMA(0x10_0000+uint64(i%64)*4096, make([]byte, 4096), func(err error) { done <- err })
				if i == n/2 {
					go dev.Close()
				}
			}
			failed := 0
			for range n {
				if err := <-done; err != nil {
					failed++
					if !errors.Is(err, engine.ErrClosed) {
						t.Errorf("ended with %v", err)
					}
				}
			}
			stop()
			if len(done) != 0 {
				t.Errorf("%d operations ended twice", len(done))
			}
			t.Logf("%d of %d were cut off", failed, n)
		})
	}
}
