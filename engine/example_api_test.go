package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// card is a device for the examples: what it is stands in its description, and it hands
// out the session of its client.
type card struct {
	engine.BaseDevice
	desc    engine.Description
	session chan *engine.Session
}

func newCard(desc engine.Description) *card {
	return &card{desc: desc, session: make(chan *engine.Session, 1)}
}

func (c *card) Describe() (engine.Description, error) {
	cfg := pci.Config{Vendor: 0x1b36, Device: 0x0010, Class: 0xff0000, InterruptPin: 1}
	cfg.BARs[0] = pci.BAR{Size: c.desc.Regions[engine.RegionBAR0].Size, Type: pci.Mem32}
	var err error
	c.desc.Config, err = pci.NewSpace(cfg)
	return c.desc, err
}

func (c *card) NewDevice(s *engine.Session) error { c.session <- s; return nil }

// serve starts a device and attaches a client to it.
func serve(d engine.Device, opts ...client.Option) (dev *client.Device, ep *engine.Endpoint, stop func()) {
	dir, err := os.MkdirTemp("", "card")
	check(err)
	e, err := engine.New(engine.Config{})
	check(err)
	ep, err = e.Register(filepath.Join(dir, "card.sock"), d)
	check(err)
	check(ep.Start())
	dev, err = client.Attach(context.Background(), ep.Path(), opts...)
	check(err)
	return dev, ep, func() {
		check(dev.Close())
		check(e.Close())
		check(os.RemoveAll(dir))
	}
}

// A device is registered on a socket path, which identifies it, and started: from then on
// a client may attach. Any number of devices share the engine's one control goroutine.
func ExampleEngine_Register() {
	dir, err := os.MkdirTemp("", "card")
	check(err)
	defer os.RemoveAll(dir)
	e, err := engine.New(engine.Config{})
	check(err)
	defer e.Close()

	path := filepath.Join(dir, "card.sock")
	ep, err := e.Register(path, newCard(engine.Description{}))
	check(err)
	check(ep.Start())
	fmt.Println("registered:", filepath.Base(ep.Path()))
	_, err = e.Register(path, newCard(engine.Description{}))
	fmt.Println("again:", err != nil)
	// Output:
	// registered: card.sock
	// again: true
}

// A path leads to its endpoint as long as that is registered. Close undoes Register and
// Start: the client is dropped, and the socket file is removed.
func ExampleEngine_Endpoint() {
	_, ep, stop := serve(newCard(engine.Description{}))
	defer stop()
	e, path := ep.Engine(), ep.Path()

	fmt.Println("found:", e.Endpoint(path) == ep)
	check(ep.Close())
	fmt.Println("found after Close:", e.Endpoint(path) != nil)
	_, err := os.Stat(path)
	fmt.Println("socket file is gone:", os.IsNotExist(err))
	// Output:
	// found: true
	// found after Close: false
	// socket file is gone: true
}

// An inherited descriptor serves one client that is connected already, or listens.
func ExampleEngine_RegisterFD() {
	e, err := engine.New(engine.Config{})
	check(err)
	defer e.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	ep, err := e.RegisterFD(pair[0], newCard(engine.Description{}))
	check(err)
	check(ep.Start())

	dev, err := client.AttachFD(context.Background(), pair[1])
	check(err)
	defer dev.Close()
	fmt.Println("regions:", dev.Info().NumRegions)
	// Output: regions: 9
}

// narrator says what is asked of it.
type narrator struct{ card }

func (n *narrator) NewDevice(s *engine.Session) error {
	fmt.Println("a client has attached to", filepath.Base(s.Endpoint().Path()))
	return nil
}

func (n *narrator) UpdateStatus(s *engine.Session, what engine.Update) {
	switch what {
	case engine.UpdateMemory:
		fmt.Println("memory has changed, regions:", len(s.Memory().Regions()))
	case engine.UpdateInterrupts:
		fmt.Println("interrupts have changed, vector 0 assigned:", s.IRQ().Vector(irq.MSIX, 0).Assigned())
	}
}

func (n *narrator) LockDataPath(_ *engine.Session, hold bool, done func()) {
	fmt.Println("hold the data path:", hold)
	done() // when nothing is in flight any more
}

func (n *narrator) ResetDevice(*engine.Session)   { fmt.Println("reset") }
func (n *narrator) DestroyDevice(*engine.Session) { fmt.Println("the client is gone") }

// The engine tells a device what its client does.
func ExampleDevice() {
	var n narrator
	n.desc.IRQs[irq.MSIX] = 4
	dev, _, stop := serve(&n)
	ctx := context.Background()

	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	check(dev.MapDMA(ctx, mem.At(0x10_0000)))
	event, err := client.NewEventfd()
	check(err)
	defer event.Close()
	check(dev.EnableIRQ(ctx, client.IRQMSIX, 0, event.FD()))
	check(dev.Reset(ctx))
	check(dev.UnmapDMA(ctx, 0x10_0000, 1<<20))
	stop()
	// Output:
	// a client has attached to card.sock
	// memory has changed, regions: 1
	// interrupts have changed, vector 0 assigned: true
	// hold the data path: true
	// reset
	// hold the data path: false
	// memory has changed, regions: 0
	// hold the data path: true
	// the client is gone
}

// The description says what the device has: regions, with an address in the device, a
// size, rights and, if they can be mapped, a file; and how many interrupts of each type.
func ExampleDescription() {
	file, err := unix.MemfdCreate("page", unix.MFD_CLOEXEC)
	check(err)
	defer unix.Close(file)
	check(unix.Ftruncate(file, 4096))

	var desc engine.Description
	desc.Regions[engine.RegionBAR0] = engine.Region{
		Size:  8192,
		Read:  func(off uint64, p []byte) error { p[0] = byte(off); return nil },
		FD:    file,
		Areas: []engine.Area{{Offset: 4096, Size: 4096}},
	}
	desc.IRQs[irq.INTx], desc.IRQs[irq.MSIX] = 1, 16
	dev, _, stop := serve(newCard(desc))
	defer stop()

	ctx := context.Background()
	bar0, err := dev.Region(ctx, engine.RegionBAR0)
	check(err)
	defer bar0.Close()
	fmt.Printf("BAR0: %d bytes, read %v, write %v, mappable %+v\n", bar0.Size, bar0.Readable(), bar0.Writable(), bar0.Areas)
	msix, err := dev.IRQInfo(ctx, client.IRQMSIX)
	check(err)
	fmt.Println("MSI-X vectors:", msix.Count)
	// Output:
	// BAR0: 8192 bytes, read true, write false, mappable [{Offset:4096 Size:4096}]
	// MSI-X vectors: 16
}

// A region of the device's own follows those of PCI, and has a type.
func ExampleRegionType() {
	const vendor = codec.RegionTypePCIVendor | 0x1b36
	dev, _, stop := serve(newCard(engine.Description{Extra: []engine.Region{{
		Type: engine.RegionType{Type: vendor, Subtype: 1},
		Size: 64,
		Read: func(off uint64, p []byte) error { p[0] = 42; return nil },
	}}}))
	defer stop()

	own, err := dev.Region(context.Background(), engine.NumRegions)
	check(err)
	defer own.Close()
	fmt.Printf("regions %d, the last of type %#x, subtype %d\n", dev.Info().NumRegions, own.Type.Type, own.Type.Subtype)
	// Output: regions 10, the last of type 0x80001b36, subtype 1
}

// The table has each region's address, size and rights, and the memory itself if the
// client shared it.
func ExampleSession_Memory() {
	c := newCard(engine.Description{})
	dev, _, stop := serve(c)
	defer stop()
	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	check(dev.MapDMA(context.Background(), mem.At(0x10_0000).Slice(0, 0x8_0000), mem.At(0x20_0000).ByMessage()))

	for _, r := range (<-c.session).Memory().Regions() {
		fmt.Printf("%#x, %#x bytes, local memory of %#x bytes\n", r.IOVA, r.Size, len(r.Local))
	}
	// Output:
	// 0x100000, 0x80000 bytes, local memory of 0x80000 bytes
	// 0x200000, 0x100000 bytes, local memory of 0x0 bytes
}

// Triggering a vector signals the eventfd that the client assigned to it, from any
// goroutine.
func ExampleSession_IRQ() {
	var desc engine.Description
	desc.IRQs[irq.MSIX] = 4
	c := newCard(desc)
	dev, _, stop := serve(c)
	defer stop()
	ctx := context.Background()
	event, err := client.NewEventfd()
	check(err)
	defer event.Close()
	check(dev.EnableIRQ(ctx, client.IRQMSIX, 2, event.FD()))

	set := (<-c.session).IRQ()
	fmt.Println("vectors:", set.Count(irq.MSIX))
	check(set.Vector(irq.MSIX, 2).Trigger())
	n, err := event.Wait(ctx)
	check(err)
	fmt.Println("interrupts:", n)
	// Output:
	// vectors: 4
	// interrupts: 1
}

// A goroutine of the device's may wait for the client's memory, shared or not.
func ExampleSession_ReadDMA() {
	c := newCard(engine.Description{})
	dev, _, stop := serve(c)
	defer stop()
	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	check(dev.MapDMA(context.Background(), mem.At(0x10_0000).ByMessage()))
	copy(mem.Bytes()[64:], "guest memory")

	s := <-c.session
	p := make([]byte, 12)
	check(s.ReadDMA(s.Context(), 0x10_0040, p))
	fmt.Printf("%s\n", p)
	// Output: guest memory
}

// A client may have its kernel signal an eventfd where the driver rings a doorbell.
func ExampleIOEventfd() {
	rung := make(chan string)
	bell := &engine.IOEvent{Handler: func(*engine.Session) { go func() { rung <- "by eventfd" }() }}
	var desc engine.Description
	desc.Regions[engine.RegionBAR0] = engine.Region{
		Size:       4096,
		Write:      func(uint64, []byte) error { go func() { rung <- "by message" }(); return nil },
		IOEventfds: []engine.IOEventfd{{Offset: 0x10, Size: 4, Event: bell}},
	}
	dev, _, stop := serve(newCard(desc))
	defer stop()
	ctx := context.Background()
	bar0, err := dev.Region(ctx, engine.RegionBAR0)
	check(err)
	defer bar0.Close()
	bells, err := bar0.IOFDs(ctx)
	check(err)
	defer bells.Close()

	_, err = unix.Write(bells.Areas[0].FD, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // as KVM does
	check(err)
	fmt.Println(<-rung)
	check(dev.WriteRegion32(ctx, engine.RegionBAR0, 0x10, 1))
	fmt.Println(<-rung)
	// Output:
	// by eventfd
	// by message
}

// A session can be looked at while it runs.
func ExampleEndpoint_Inspect() {
	dev, ep, stop := serve(newCard(engine.Description{}))
	defer stop()
	mem, err := client.NewMemory(1 << 20)
	check(err)
	defer mem.Close()
	check(dev.MapDMA(context.Background(), mem.At(0x10_0000)))

	in, ok := ep.Inspect()
	fmt.Println("attached:", ok, "by this process:", in.PID == os.Getpid())
	fmt.Printf("memory at %#x, mapped %v\n", in.Memory[0].IOVA, in.Memory[0].Mapped)
	// Output:
	// attached: true by this process: true
	// memory at 0x100000, mapped true
}
