package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/engine/reactor"
)

// startCard serves the device that the examples use.
func startCard() (path string, stop func()) {
	dir, err := os.MkdirTemp("", "card")
	check(err)
	path = filepath.Join(dir, "card.sock")
	stopCard := startCardAt(path, new(card))
	return path, func() { stopCard(); os.RemoveAll(dir) }
}

func startCardAt(path string, c *card) (stop func()) {
	area, err := client.NewMemory(cardArea)
	check(err)
	c.area = area
	e, err := engine.New(engine.Config{WriteMultiple: true})
	check(err)
	ep, err := e.Register(path, c)
	check(err)
	check(ep.Start())
	return func() { e.Close(); area.Close() }
}

// attachCard attaches to a device of the examples.
func attachCard(opts ...client.Option) (dev *client.Device, stop func()) {
	path, stopCard := startCard()
	dev, err := client.Attach(context.Background(), path, opts...)
	if err != nil {
		log.Fatal(err)
	}
	return dev, func() { dev.Close(); stopCard() }
}

// check ends an example that fails.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// attach_dev and detach: connect, negotiate, and in the end let go of everything.
func ExampleAttach() {
	path, stop := startCard()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	dev, err := client.Attach(ctx, path, client.WithCallTimeout(time.Second), client.WithTwinSocket())
	if err != nil {
		log.Fatal(err)
	}
	major, minor := dev.Version()
	fmt.Printf("version %d.%d, twin socket: %v\n", major, minor, dev.TwinSocket())
	fmt.Println(dev.Close(), dev.Err())
	// Output:
	// version 0.1, twin socket: true
	// <nil> client: device is closed
}

// get_dev_info: what GET_INFO told when the device was attached.
func ExampleDevice_Info() {
	dev, stop := attachCard()
	defer stop()
	info := dev.Info()
	fmt.Println(info.NumRegions, info.NumIRQs, info.Flags&codec.DeviceFlagPCI != 0, info.Flags&codec.DeviceFlagReset != 0)
	// Output: 9 5 true true
}

// get_reg_info: a region's size, what may be done with it, and what can be mapped.
func ExampleDevice_Region() {
	dev, stop := attachCard()
	defer stop()
	r, err := dev.Region(context.Background(), client.RegionBAR2)
	check(err)
	defer r.Close()
	fmt.Println(r.Size, r.Readable(), r.Writable(), r.Areas)
	// Output: 4096 true true [{0 4096}]
}

// get_irq_info: how many vectors an index has.
func ExampleDevice_IRQInfo() {
	dev, stop := attachCard()
	defer stop()
	info, err := dev.IRQInfo(context.Background(), client.IRQMSIX)
	check(err)
	fmt.Println(info.Index, info.Count, info.Flags&codec.IRQInfoEventfd != 0)
	// Output: MSI-X 4 true
}

// dma_map and dma_unmap: many regions in one call, all or none.
func ExampleDevice_MapDMA() {
	dev, stop := attachCard()
	defer stop()
	ctx := context.Background()
	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	readOnly := mem.At(0x2000_0000).Slice(0, 64<<10)
	readOnly.Prot = client.ProtRead
	check(dev.MapDMA(ctx, mem.At(0x1000_0000), readOnly, mem.At(0x3000_0000).ByMessage()))
	err = dev.MapDMA(ctx, mem.At(0x1008_0000))
	fmt.Println(errors.Is(err, client.ErrOverlap))
	check(dev.UnmapDMA(ctx, 0x2000_0000, 64<<10))
	for _, m := range dev.Mappings() {
		fmt.Printf("%#x: %d KiB\n", m.IOVA, m.Size>>10)
	}
	check(dev.UnmapAllDMA(ctx))
	// Output:
	// true
	// 0x10000000: 1024 KiB
	// 0x30000000: 1024 KiB
}

// set_irqs: the device signals an eventfd, on which a goroutine waits.
func ExampleDevice_EnableIRQ() {
	dev, stop := attachCard()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	event, err := client.NewEventfd()
	check(err)
	defer event.Close()
	check(dev.EnableIRQ(ctx, client.IRQMSIX, 3, event.FD()))
	check(dev.TriggerIRQ(ctx, client.IRQMSIX, 3, 1)) // a loopback test
	n, err := event.Wait(ctx)
	fmt.Println(n, err)
	check(dev.DisableIRQ(ctx, client.IRQMSIX))
	// Output: 1 <nil>
}

// set_irqs: the interrupts of many vectors come on one channel.
func ExampleInterrupts_C() {
	dev, stop := attachCard()
	defer stop()
	ctx := context.Background()
	interrupts, err := dev.Interrupts(ctx, client.IRQMSIX, 0, 4)
	check(err)
	check(dev.TriggerIRQ(ctx, client.IRQMSIX, 2, 1))
	i := <-interrupts.C()
	fmt.Println(i.Vector, i.Count)
	check(interrupts.Close(ctx))
	_, open := <-interrupts.C()
	fmt.Println(open)
	// Output:
	// 2 1
	// false
}

// region read and write: registers, and memory of any size.
func ExampleDevice_ReadRegion() {
	dev, stop := attachCard()
	defer stop()
	ctx := context.Background()
	check(dev.WriteRegion32(ctx, client.RegionBAR0, 0x100, 0x11223344))
	check(dev.PostRegion32(ctx, client.RegionBAR0, 0x104, 0x55667788)) // a doorbell: no answer
	p := make([]byte, 8)
	check(dev.ReadRegion(ctx, client.RegionBAR0, 0x100, p))
	fmt.Printf("%x\n", p)
	_, err := dev.ReadRegion64(ctx, client.RegionBAR0, 4092) // beyond the end
	fmt.Println(errors.Is(err, codec.ErrRemote), err)
	// Output:
	// 4433221188776655
	// true REGION_READ: peer reported an error: invalid argument
}

// region write: many small ones in one message.
func ExampleDevice_WriteMulti() {
	dev, stop := attachCard()
	defer stop()
	n, err := dev.WriteMulti(context.Background(),
		client.Write{Region: client.RegionBAR0, Offset: 0x20, Data: []byte{1, 2}},
		client.Write{Region: client.RegionBAR0, Offset: 0x80, Data: []byte{3, 4, 5, 6}})
	fmt.Println(n, err)
	// Output: 2 <nil>
}

// region mmap: loads and stores without messages.
func ExampleRegion_Mmap() {
	dev, stop := attachCard()
	defer stop()
	bar, err := dev.Region(context.Background(), client.RegionBAR2)
	check(err)
	defer bar.Close()
	for i, area := range bar.Areas {
		m, err := bar.Mmap(i)
		check(err)
		defer m.Close()
		m.Store64(area.Offset, 1<<40)
		fmt.Println(m.Load64(area.Offset), m.Load16(area.Offset+4))
	}
	// Output: 1099511627776 256
}

// Parts of a region that a hypervisor could have its kernel signal through a descriptor. This device has none.
func ExampleRegion_IOFDs() {
	dev, stop := attachCard()
	defer stop()
	ctx := context.Background()
	bar, err := dev.Region(ctx, client.RegionBAR0)
	check(err)
	defer bar.Close()
	fds, err := bar.IOFDs(ctx)
	check(err)
	defer fds.Close()
	fmt.Println(len(fds.Areas))
	// Output: 0
}

// reset: registers are as after power-on.
func ExampleDevice_Reset() {
	dev, stop := attachCard()
	defer stop()
	ctx := context.Background()
	check(dev.WriteRegion32(ctx, client.RegionBAR0, 0x100, 1))
	check(dev.Reset(ctx))
	v, err := dev.ReadRegion32(ctx, client.RegionBAR0, 0x100)
	fmt.Println(v, err)
	// Output: 0 <nil>
}

// The device logs which memory it writes.
func ExampleDevice_StartDMALogging() {
	dir, err := os.MkdirTemp("", "card")
	check(err)
	defer os.RemoveAll(dir)
	path, device := filepath.Join(dir, "card.sock"), new(card)
	defer startCardAt(path, device)()
	ctx := context.Background()
	dev, err := client.Attach(ctx, path)
	check(err)
	defer dev.Close()
	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	check(dev.MapDMA(ctx, mem.At(0x1000_0000)))
	pageSize, err := dev.StartDMALogging(ctx, 4096, codec.IOVARange{IOVA: 0x1000_0000, Length: 1 << 20})
	check(err)
	check(device.poke(0x1000_3004, 1)) // the device writes
	dirty, err := dev.DirtyBitmap(ctx, 0x1000_0000, 1<<20, pageSize)
	check(err)
	for iova, length := range dirty.Pages() {
		fmt.Printf("%d bytes at %#x were written\n", length, iova)
	}
	check(dev.StopDMALogging(ctx))
	// Output: 4096 bytes at 0x10003000 were written
}

// After a restart of the server everything is as before: memory, interrupts, but not what the device itself has lost.
func ExampleDevice_Reattach() {
	dir, err := os.MkdirTemp("", "card")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "card.sock")
	stop := startCardAt(path, new(card))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dev, err := client.Attach(ctx, path, client.WithReattach())
	check(err)
	interrupts, err := dev.Interrupts(ctx, client.IRQMSIX, 0, 1)
	check(err)

	stop() // the server dies
	<-dev.Done()
	fmt.Println(dev.Err())
	defer startCardAt(path, new(card))()
	dev, err = dev.Reattach(ctx)
	check(err)
	defer dev.Close()
	check(dev.TriggerIRQ(ctx, client.IRQMSIX, 0, 1))
	i, err := interrupts.Wait(ctx)
	fmt.Println(i.Vector, err)
	// Output:
	// client: server disconnected
	// 0 <nil>
}

// Servers and clients of one process on one loop, which is closed last.
func ExampleWithReactor() {
	loop, err := reactor.New(reactor.Config{})
	check(err)
	defer loop.Close()
	e, err := engine.New(engine.Config{Reactor: loop})
	check(err)
	defer e.Close()
	dir, err := os.MkdirTemp("", "cards")
	check(err)
	defer os.RemoveAll(dir)
	ctx := context.Background()
	for i := range 3 {
		path := filepath.Join(dir, fmt.Sprintf("card%d.sock", i))
		ep, err := e.Register(path, new(card))
		check(err)
		check(ep.Start())
		dev, err := client.Attach(ctx, path, client.WithReactor(loop))
		check(err)
		defer dev.Close()
		id, err := dev.ReadRegion32(ctx, client.RegionConfig, 0)
		fmt.Printf("card %d: %#x %v\n", i, id, err)
	}
	// Output:
	// card 0: 0x111b36 <nil>
	// card 1: 0x111b36 <nil>
	// card 2: 0x111b36 <nil>
}
