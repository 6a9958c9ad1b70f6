package virtionet_test

import (
	"context"
	"fmt"
	"log"

	"vfiouser/client"
	virtionet "vfiouser/drivers/virtio-net"
)

// A frame is sent, and one is waited for.
func Example() {
	ctx := context.Background()
	dev, err := client.Attach(ctx, "/run/vfu/net0.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	mem, err := client.NewMemory(16 << 20)
	if err != nil {
		log.Fatal(err)
	}
	defer mem.Close()
	nic, err := virtionet.Open(ctx, dev, mem, virtionet.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer nic.Close()

	q, frame := nic.Queue(0), make([]byte, 1514)
	if err := q.WriteFrame(ctx, frame[:60]); err != nil {
		log.Fatal(err)
	}
	n, err := q.ReadFrame(ctx, frame)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes from %x\n", n, frame[6:12])
}

// Frames live in memory that the card reads and writes itself. This program sends back whatever arrives, a batch at a time.
func ExampleQueue() {
	var q *virtionet.Queue // NIC.Queue(0)
	frames := make([]*virtionet.Buffer, 32)
	for {
		n, err := q.Recv(frames)
		if err != nil {
			log.Fatal(err)
		}
		if n == 0 {
			if err := q.WaitRecv(context.Background()); err != nil {
				log.Fatal(err)
			}
			continue
		}
		sent, err := q.Send(frames[:n])
		if err != nil {
			log.Fatal(err)
		}
		if err := q.Release(frames[sent:n]); err != nil { // for which there was no room
			log.Fatal(err)
		}
	}
}
