package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"vfiouser/client"
)

// A program attaches to a device, shares memory with it, takes its interrupts, and reads a register.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	dev, err := client.Attach(ctx, "/run/vfu/disk0.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()

	mem, err := client.NewMemory(64 << 20)
	if err != nil {
		log.Fatal(err)
	}
	defer mem.Close()
	if err := dev.MapDMA(ctx, mem.At(0x1000_0000)); err != nil {
		log.Fatal(err)
	}

	interrupt, err := client.NewEventfd()
	if err != nil {
		log.Fatal(err)
	}
	defer interrupt.Close()
	if err := dev.EnableIRQ(ctx, client.IRQMSIX, 0, interrupt.FD()); err != nil {
		log.Fatal(err)
	}

	id, err := dev.ReadRegion32(ctx, client.RegionConfig, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("vendor %04x, device %04x\n", id&0xffff, id>>16)

	if _, err := interrupt.Wait(ctx); err != nil {
		log.Fatal(err)
	}
}

// A region that can be mapped is accessed without messages.
func ExampleRegion_Mmap() {
	ctx := context.Background()
	dev, err := client.Attach(ctx, "/run/vfu/disk0.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	bar0, err := dev.Region(ctx, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer bar0.Close()
	for i, area := range bar0.Areas {
		m, err := bar0.Mmap(i)
		if err != nil {
			log.Fatal(err)
		}
		defer m.Close()
		m.Store32(area.Offset, 1) // the server sees it, but is not told of it
	}
}
