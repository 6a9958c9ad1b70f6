package virtio_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/virtqueue"
	virtiodriver "vfiouser/drivers/virtio"
	"vfiouser/engine"
)

// Entropy is a complete virtio device: an entropy source (VIRTIO 1.3, 5.4). Linux finds it
// as /dev/hwrng.
type Entropy struct {
	virtio.BaseDevice
	requests *virtio.Server
}

// StartQueue has the only queue served, one request after the other.
func (e *Entropy) StartQueue(_ int, q *virtio.Queue) {
	e.requests = virtio.Serve(q, func(_ context.Context, c *virtqueue.Chain) uint32 {
		for _, buffer := range c.Writable {
			_, _ = rand.Read(buffer) // never fails
		}
		return c.WritableLen
	})
}

// StopQueue ends that.
func (e *Entropy) StopQueue(int) { e.requests.Stop() }

// NewEntropy makes the function: register it with an engine.
func NewEntropy() (*virtio.Function, error) {
	return virtio.New(virtio.Config{Type: 4, Class: 0x100000, Queues: 1, Features: virtio.Features}, &Entropy{})
}

func Example() {
	dir, err := os.MkdirTemp("", "entropy")
	check(err)
	defer os.RemoveAll(dir)

	eng, err := engine.New(engine.Config{})
	check(err)
	defer eng.Close()
	entropy, err := NewEntropy()
	check(err)
	defer entropy.Close()
	ep, err := eng.Register(filepath.Join(dir, "entropy.sock"), entropy)
	check(err)
	check(ep.Start()) // a virtual machine may come
	defer ep.Close()

	bits := request(ep.Path()) // or a program
	fmt.Println(len(bits), "bytes, all zero:", string(bits) == string(make([]byte, len(bits))))
	// Output: 64 bytes, all zero: false
}

// request has the device fill a buffer.
func request(path string) []byte {
	ctx := context.Background()
	dev, err := client.Attach(ctx, path)
	check(err)
	defer dev.Close()
	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	d, err := virtiodriver.Open(ctx, dev, mem, virtiodriver.Options{Type: 4})
	check(err)
	defer d.Close()
	check(d.Negotiate(ctx, d.Offered()))
	q, err := d.NewQueue(ctx, 0, virtiodriver.QueueConfig{Interrupts: true})
	check(err)
	check(d.Ready(ctx))

	buffer, err := mem.Alloc(64, 0)
	check(err)
	check(q.AddWritable(0, d.Addr(buffer), 64))
	check(q.Kick())
	check(q.Wait(ctx))
	var done [1]virtiodriver.Used
	n, err := q.Reap(done[:])
	check(err)
	return slices.Clone(buffer.Bytes[:done[:n][0].Len])
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
