package interop

import (
	"encoding/binary"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// clock is what libvfio-user's sample client expects of its server: a register that arms an
// alarm, memory of which a part can be mapped, and a line interrupt when the alarm goes off.
// Then it writes the client's second page, directly.
type clock struct {
	engine.BaseDevice
	memory int // memfd behind BAR 1
	alarm  int64
	resets int
	client *engine.Session
	rung   chan error // receives what came of the DMA
}

const clockMemory = 0x4000 // (the sample's 0x3000 are no size that a BAR can have)

func (c *clock) Describe() (engine.Description, error) {
	cfg := pci.Config{Vendor: 0xdead, Device: 0xbeef, SubVendor: 0xcafe, SubDevice: 0xbabe, InterruptPin: 1}
	cfg.BARs[clockBAR] = pci.BAR{Size: 8, Type: pci.IO}
	cfg.BARs[memoryBAR] = pci.BAR{Size: clockMemory}
	config, err := pci.NewSpace(cfg)
	desc := engine.Description{Config: config}
	desc.IRQs[irq.INTx] = 1
	desc.Regions[clockBAR] = engine.Region{Size: 8, Read: c.since, Write: c.arm}
	desc.Regions[memoryBAR] = engine.Region{
		Size:  clockMemory,
		Read:  func(off uint64, p []byte) error { _, err := unix.Pread(c.memory, p, int64(off)); return err },
		Write: func(off uint64, p []byte) error { _, err := unix.Pwrite(c.memory, p, int64(off)); return err },
		FD:    c.memory,
		Areas: []engine.Area{{Offset: 0, Size: 0x1000}},
	}
	return desc, err
}

func (c *clock) NewDevice(s *engine.Session) error { c.client = s; return nil }

func (c *clock) ResetDevice(*engine.Session) { c.resets++ }

func (c *clock) since(_ uint64, p []byte) error {
	if len(p) != 8 {
		return syscall.EINVAL
	}
	binary.LittleEndian.PutUint64(p, uint64(time.Now().Unix()-c.alarm))
	return nil
}

func (c *clock) arm(_ uint64, p []byte) error {
	if len(p) != 8 {
		return syscall.EINVAL
	}
	c.alarm = int64(binary.LittleEndian.Uint64(p))
	s := c.client
	time.AfterFunc(time.Until(time.Unix(c.alarm, 0)), func() {
		err := s.WriteDMA(s.Context(), dmaSize, []byte("written by the server"))
		_ = s.IRQ().Vector(irq.INTx, 0).Trigger() // fails only when the client has gone
		c.rung <- err
	})
	return nil
}

// TestTheirClient runs the sample client against a device of ours. It asks for all there is,
// checks a refusal, resets, shares memory, configures the interrupt, starts to log dirty
// memory, writes and reads a register, and waits for the interrupt. Then it waits for
// DMA messages, which do not come: our server touches memory itself for which it was
// given a descriptor. So it ends when the server does.
func TestTheirClient(t *testing.T) {
	program := sample(t, "client")
	fd, err := unix.MemfdCreate("clock", unix.MFD_CLOEXEC)
	check(t, err)
	defer unix.Close(fd)
	check(t, unix.Ftruncate(fd, clockMemory))
	c := &clock{memory: fd, rung: make(chan error, 1)}
	e, err := engine.New(engine.Config{})
	check(t, err)
	defer e.Close()
	ep, err := e.Register(filepath.Join(t.TempDir(), "s"), c)
	check(t, err)
	check(t, ep.Start())

	p := launch(t, exec.Command(program, ep.Path()))
	select {
	case err := <-c.rung:
		check(t, err)
	case <-p.ended:
		t.Fatalf("the client has ended: %v: %s", p.err, p.output)
	case <-short(t).Done():
		t.Fatal("the client has set no alarm")
	}
	in, ok := ep.Inspect()
	if !ok {
		t.Fatal("the client has gone")
	}
	const regions = 2 * 16 // twice the descriptors that our server takes in a message
	if n := len(in.Memory); n != regions {
		t.Errorf("the client has mapped %d regions, want %d", n, regions)
	}
	if got := in.Interrupts[irq.INTx]; got.Assigned != 1 {
		t.Errorf("line interrupt %+v", got)
	}
	check(t, ep.Close())
	<-p.ended
	if c.resets != 1 {
		t.Errorf("%d resets, want 1", c.resets)
	}
	for _, step := range []string{
		"devinfo: flags 0x3, num_regions 9, num_irqs 5",
		"region_info[1] offset 0 flags 0xf size 16384 cap_sz 32 #FDs 1",
		"Sparse cap nr_mmap_areas 1",
		"region_info[7] offset 0 flags 0x3 size 256 cap_sz 0 #FDs 0",
		"IRQ INTx: count=1",
		"wrote to BAR0", "read from BAR0: -1",
		"INTx triggered!",
		"failed to receive DMA",
	} {
		if !strings.Contains(p.output.String(), step) {
			t.Errorf("the client has not said %q", step)
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("the client's last words: %s", lastLine(p.output.String()))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
