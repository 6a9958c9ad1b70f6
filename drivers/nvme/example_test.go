package nvme_test

import (
	"context"
	"fmt"
	"log"

	"vfiouser/client"
	"vfiouser/drivers/nvme"
)

func open(ctx context.Context) *nvme.Controller {
	dev, err := client.Attach(ctx, "/run/vfu/disk0.sock")
	if err != nil {
		log.Fatal(err)
	}
	mem, err := client.NewMemory(64 << 20)
	if err != nil {
		log.Fatal(err)
	}
	ctrl, err := nvme.Open(ctx, dev, mem)
	if err != nil {
		log.Fatal(err)
	}
	return ctrl
}

// A namespace is an io.ReaderAt and an io.WriterAt.
func Example() {
	ctx := context.Background()
	ctrl := open(ctx)
	defer ctrl.Close()
	disk := ctrl.Namespace(1)
	if _, err := disk.WriteAt([]byte("hello"), 12345); err != nil {
		log.Fatal(err)
	}
	if err := disk.Flush(ctx); err != nil {
		log.Fatal(err)
	}
}

// A queue belongs to one goroutine, which keeps many commands under way.
func ExampleQueue() {
	ctx := context.Background()
	ctrl := open(ctx)
	defer ctrl.Close()
	disk := ctrl.Namespace(1)

	q, err := ctrl.NewQueue(ctx, nvme.QueueConfig{Depth: 32})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	blocks := uint32(4096 / disk.BlockSize())
	for tag := range uint16(q.Depth()) {
		if err := q.Read(tag, disk, uint64(tag)*uint64(blocks), blocks); err != nil {
			log.Fatal(err)
		}
	}
	if err := q.Ring(); err != nil { // once for all of them
		log.Fatal(err)
	}
	done := make([]nvme.Completion, q.Depth())
	for left := q.Depth(); left > 0; {
		n, err := q.Poll(done)
		if err != nil {
			log.Fatal(err) // the session is lost, or the device misbehaves
		}
		for _, c := range done[:n] {
			if err := c.Err(); err != nil {
				log.Fatal(err)
			}
			fmt.Println(len(q.Buffer(c.Tag)), "bytes of tag", c.Tag)
		}
		left -= n
	}
}
