package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"vfiouser/client"
)

// use is a complete client: it attaches to a device, shows what it has, shares memory with it, takes an interrupt, accesses
// registers by message and through a mapping, resets the device and detaches.
func use(ctx context.Context, path string) error {
	dev, err := client.Attach(ctx, path)
	if err != nil {
		return err
	}
	defer dev.Close()
	info := dev.Info()
	fmt.Printf("%d regions, %d kinds of interrupts\n", info.NumRegions, info.NumIRQs)
	for i := range int(info.NumRegions) {
		r, err := dev.Region(ctx, i)
		if err != nil {
			return err
		}
		if r.Size > 0 {
			fmt.Printf("region %d: %d bytes, %d areas to map\n", i, r.Size, len(r.Areas))
		}
		r.Close()
	}

	mem, err := client.NewMemory(64 << 10)
	if err != nil {
		return err
	}
	defer mem.Close()
	if err := dev.MapDMA(ctx, mem.At(0x1000_0000)); err != nil {
		return err
	}

	interrupts, err := dev.Interrupts(ctx, client.IRQMSIX, 0, 2)
	if err != nil {
		return err
	}
	defer interrupts.Close(ctx)
	if err := dev.WriteRegion32(ctx, client.RegionBAR0, cardRaise, 1); err != nil { // (a register of this device)
		return err
	}
	i, err := interrupts.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("vector %d was raised %d time\n", i.Vector, i.Count)

	id, err := dev.ReadRegion32(ctx, client.RegionConfig, 0)
	if err != nil {
		return err
	}
	fmt.Printf("vendor %04x, device %04x\n", id&0xffff, id>>16)

	bar, err := dev.Region(ctx, client.RegionBAR2)
	if err != nil {
		return err
	}
	defer bar.Close()
	registers, err := bar.Mmap(0)
	if err != nil {
		return err
	}
	defer registers.Close()
	registers.Store32(0x40, 7) // the server sees it, but is not told of it
	fmt.Println("register:", registers.Load32(0x40))
	return dev.Reset(ctx)
}

// The smallest client that uses everything a device has.
func Example() {
	path, stop := startCard()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := use(ctx, path); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 9 regions, 5 kinds of interrupts
	// region 0: 4096 bytes, 0 areas to map
	// region 2: 4096 bytes, 1 areas to map
	// region 7: 256 bytes, 0 areas to map
	// vector 1 was raised 1 time
	// vendor 1b36, device 0011
	// register: 7
}
