package engine

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/irq"
	"vfiouser/pci"
)

// described is a device that is nothing but its description.
type described struct {
	BaseDevice
	desc Description
}

func (d *described) Describe() (Description, error) { return d.desc, nil }

// vector is one of the client's.
func (b *bed) vector(i irq.Index, n int) (v *irq.Vector) {
	b.t.Helper()
	b.do(func() { v = b.ep.session.irqs.Vector(i, n) })
	return v
}

func space(t testing.TB, c pci.Config) *pci.Space {
	t.Helper()
	s, err := pci.NewSpace(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func table(t testing.TB, vectors int) *pci.MSIXTable {
	t.Helper()
	m, err := pci.NewMSIXTable(vectors)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// peek and poke access a region; peek returns the data alone.
func (c *raw) peek(region, off, n uint64) []byte {
	c.t.Helper()
	return c.ok(codec.CmdRegionRead, regionRead(region, off, n))[16:]
}

func (c *raw) poke(region, off uint64, data ...byte) {
	c.t.Helper()
	c.ok(codec.CmdRegionWrite, regionWrite(region, off, data...))
}

// listen assigns an eventfd to a vector.
func (c *raw) listen(i irq.Index, vector uint32) int {
	c.t.Helper()
	fd := eventfd(c.t)
	c.ok(codec.CmdSetIRQs, setIRQs(evfd|trigger, uint32(i), vector, 1), fd)
	return fd
}

const (
	configRegion = RegionConfig
	pciStatus    = 6
	intxDisable  = 4 // in the upper byte of the command register
)

// A line that is up while Interrupt Disable is set does not signal, is seen in the status
// register, and signals when the bit is cleared.
func TestInterruptDisableGatesThePin(t *testing.T) {
	desc := Description{Config: space(t, pci.Config{InterruptPin: 1})}
	desc.IRQs[irq.INTx] = 1
	b, _ := newPlainBed(t, Config{}, desc)
	conn := b.attach()
	fd := conn.listen(irq.INTx, 0)
	pin := b.vector(irq.INTx, 0)
	status := func() bool { return conn.peek(configRegion, pciStatus, 2)[0]&8 != 0 }

	if status() {
		t.Error("an interrupt is shown before there is one")
	}
	conn.poke(configRegion, pciCommand+1, intxDisable)
	_ = pin.SetLevel(true)
	if fired(fd) {
		t.Error("a disabled pin signals")
	}
	if !status() {
		t.Error("the status register does not show the line")
	}
	conn.ok(codec.CmdSetIRQs, setIRQs(none|unmask, 0, 0, 1))
	if fired(fd) {
		t.Error("a disabled pin signals on unmask")
	}
	conn.poke(configRegion, pciCommand, 0, 0)
	if !fired(fd) {
		t.Error("the line is up and the pin enabled, and nothing is signalled")
	}
	_ = pin.SetLevel(false)
	if status() {
		t.Error("the status register shows a line that is down")
	}
	conn.poke(configRegion, pciCommand+1, intxDisable)
	conn.ok(codec.CmdSetIRQs, setIRQs(none|unmask, 0, 0, 1))
	_ = pin.SetLevel(true)
	_ = pin.SetLevel(false)
	conn.poke(configRegion, pciCommand+1, 0)
	if fired(fd) {
		t.Error("a line that fell while it was disabled signals")
	}
}

func TestResetEnablesThePin(t *testing.T) {
	desc := Description{Config: space(t, pci.Config{InterruptPin: 1})}
	desc.IRQs[irq.INTx] = 1
	b, _ := newPlainBed(t, Config{}, desc)
	conn := b.attach()
	fd := conn.listen(irq.INTx, 0)
	conn.poke(configRegion, pciCommand+1, intxDisable)
	_ = b.vector(irq.INTx, 0).SetLevel(true)
	conn.ok(codec.CmdReset, nil)
	if fired(fd) {
		t.Error("the reset raised an interrupt")
	}
	_ = b.vector(irq.INTx, 0).SetLevel(true)
	if !fired(fd) {
		t.Error("the pin is still disabled")
	}
}

// A client that used messages has disabled the pin. The next one may be a driver of another
// kind, which does not look.
func TestNextClientFindsNothingEnabled(t *testing.T) {
	desc := Description{Config: space(t, pci.Config{InterruptPin: 1, BARs: [pci.NumBARs]pci.BAR{{Size: 4096}}})}
	desc.Regions[RegionBAR0].Size = 4096
	desc.IRQs[irq.INTx] = 1
	var told pci.Changed
	desc.ConfigWritten = func(what pci.Changed) { told |= what }
	b, _ := newPlainBed(t, Config{}, desc)
	conn := b.attach()
	conn.poke(configRegion, 0x10, 0, 0, 0xbf, 0xfe)
	conn.poke(configRegion, pciCommand, 6, intxDisable)
	conn.close()
	b.settled()
	b.do(func() { told = 0 })
	conn = b.attach()
	if got := conn.peek(configRegion, pciCommand, 2); got[0] != 0 || got[1] != 0 {
		t.Errorf("command register % x", got)
	}
	b.do(func() {
		if told != pci.ChangedCommand {
			t.Errorf("the device was told of %#x", told)
		}
	})
	if got := conn.peek(configRegion, 0x10, 4); got[3] != 0xfe {
		t.Errorf("BAR 0 % x is not where it was put", got)
	}
	fd := conn.listen(irq.INTx, 0)
	_ = b.vector(irq.INTx, 0).SetLevel(true)
	if !fired(fd) {
		t.Error("the pin is still disabled")
	}
}

// msixFunction has two BARs: in the first the table stands between the device's own bytes,
// in the second, which the engine makes, the pending bits.
func msixFunction(t *testing.T) (b *bed, control uint64, own []byte) {
	config := space(t, pci.Config{BARs: [pci.NumBARs]pci.BAR{{Size: 4096}, {}, {Size: 256}}})
	off, err := config.AddMSIX(pci.MSIX{Vectors: 3, TableOffset: 0x20, PBABAR: 2, PBAOffset: 0x40})
	if err != nil {
		t.Fatal(err)
	}
	own = make([]byte, 4096)
	desc := Description{Config: config, MSIX: table(t, 3)}
	desc.Regions[RegionBAR0] = Region{
		Size:  4096,
		Read:  func(off uint64, p []byte) error { copy(p, own[off:]); return nil },
		Write: func(off uint64, p []byte) error { copy(own[off:], p); return nil },
	}
	b, _ = newPlainBed(t, Config{}, desc)
	return b, uint64(off + 2), own
}

func TestMSIXTableMasksVectors(t *testing.T) {
	b, _, _ := msixFunction(t)
	conn := b.attach()
	fd, other := conn.listen(irq.MSIX, 1), conn.listen(irq.MSIX, 2)
	maskBit := func(v uint64, on byte) { conn.poke(0, 0x20+16*v+12, on, 0, 0, 0) }
	pending := func() byte { return conn.peek(2, 0x40, 8)[0] }

	_ = b.vector(irq.MSIX, 1).Trigger()
	if !fired(fd) {
		t.Error("a table that nobody has written masks a vector")
	}
	maskBit(1, 0)
	maskBit(1, 1)
	_ = b.vector(irq.MSIX, 1).Trigger()
	_ = b.vector(irq.MSIX, 2).Trigger()
	if fired(fd) || !fired(other) {
		t.Error("the mask is not that of vector 1")
	}
	if got := pending(); got != 2 {
		t.Errorf("pending bits %#x, want that of vector 1", got)
	}
	conn.poke(2, 0x40, 0xff) // they cannot be written
	if got := pending(); got != 2 {
		t.Errorf("pending bits %#x after a write", got)
	}
	maskBit(1, 0)
	if !fired(fd) || pending() != 0 {
		t.Error("a vector that was unmasked did not fire")
	}
}

func TestFunctionMaskMasksAllVectors(t *testing.T) {
	b, control, _ := msixFunction(t)
	conn := b.attach()
	fd := conn.listen(irq.MSIX, 0)
	conn.poke(configRegion, control, 0, 0xc0)
	for v := range 3 {
		_ = b.vector(irq.MSIX, v).Trigger()
	}
	if fired(fd) {
		t.Error("signalled although the function is masked")
	}
	if got := conn.peek(2, 0x40, 1)[0]; got != 7 {
		t.Errorf("pending bits %#x", got)
	}
	conn.poke(0, 0x20+12, 0)
	conn.poke(0, 0x20+12, 1)
	conn.poke(configRegion, control, 0, 0x80)
	if fired(fd) {
		t.Error("signalled although the vector is masked")
	}
	conn.poke(0, 0x20+12, 0)
	if !fired(fd) {
		t.Error("not signalled when nothing masks it any more")
	}
}

func TestMSIXTableIsResetWithTheFunctionAndForEachClient(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reset func(b *bed, conn *raw) *raw
	}{
		{"reset", func(_ *bed, conn *raw) *raw { conn.ok(codec.CmdReset, nil); return conn }},
		{"next client", func(b *bed, conn *raw) *raw { conn.close(); b.settled(); return b.attach() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _, _ := msixFunction(t)
			conn := b.attach()
			conn.poke(0, 0x20+16, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0)
			conn.poke(0, 0x20+16+12, 1)
			conn = tt.reset(b, conn)
			if got := conn.peek(0, 0x20+16, 16); !bytes.Equal(got, append(make([]byte, 12), 1, 0, 0, 0)) {
				t.Errorf("entry % x", got)
			}
			fd := conn.listen(irq.MSIX, 1)
			_ = b.vector(irq.MSIX, 1).Trigger()
			if !fired(fd) {
				t.Error("the vector is still masked")
			}
		})
	}
}

// One access may lie in the device's bytes, the table, and the device's bytes again.
func TestAccessesAcrossTheMSIXTable(t *testing.T) {
	b, _, own := msixFunction(t)
	conn := b.attach()
	conn.poke(0, 0x1e, bytes.Repeat([]byte{0xff}, 0x34)...)
	entry := append(append([]byte{0xfc}, bytes.Repeat([]byte{0xff}, 11)...), 1, 0, 0, 0)
	want := slices.Concat([]byte{0xff, 0xff}, entry, entry, entry, []byte{0xff, 0xff})
	if got := conn.peek(0, 0x1e, 0x34); !bytes.Equal(got, want) {
		t.Errorf("got  % x\nwant % x", got, want)
	}
	var seen []byte
	b.do(func() { seen = slices.Clone(own) })
	if own := seen; own[0x1d] != 0 || own[0x1f] != 0xff || own[0x20] != 0 || own[0x4f] != 0 || own[0x50] != 0xff || own[0x52] != 0 {
		t.Error("the device saw another part than its own")
	}
	if got := conn.peek(2, 0, 256); !bytes.Equal(got, make([]byte, 256)) {
		t.Errorf("a region that the engine made reads % x", got)
	}
	conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(2, 255, 2))
	conn.fails(unix.EINVAL, codec.CmdRegionWrite, regionWrite(0, 4095, 1, 2))
}

func TestMSIMaskBitsMaskMessages(t *testing.T) {
	for _, narrow := range []bool{false, true} {
		t.Run(fmt.Sprintf("address of 32 bits %v", narrow), func(t *testing.T) {
			config := space(t, pci.Config{})
			off, err := config.AddMSI(pci.MSI{Vectors: 4, Maskable: true, Address32: narrow})
			if err != nil {
				t.Fatal(err)
			}
			maskAt := uint64(off + 16)
			if narrow {
				maskAt -= 4
			}
			desc := Description{Config: config}
			desc.IRQs[irq.MSI] = 4
			b, _ := newPlainBed(t, Config{}, desc)
			conn := b.attach()
			fd, other := conn.listen(irq.MSI, 2), conn.listen(irq.MSI, 0)
			conn.poke(configRegion, maskAt, 4)
			_ = b.vector(irq.MSI, 2).Trigger()
			_ = b.vector(irq.MSI, 0).Trigger()
			if fired(fd) || !fired(other) {
				t.Error("the mask is not that of message 2")
			}
			if got := conn.peek(configRegion, maskAt+4, 4); !bytes.Equal(got, []byte{4, 0, 0, 0}) {
				t.Errorf("pending bits % x", got)
			}
			conn.poke(configRegion, maskAt, 0)
			if !fired(fd) {
				t.Error("not signalled when it is unmasked")
			}
			if got := conn.peek(configRegion, maskAt+4, 1)[0]; got != 0 {
				t.Errorf("pending bits %#x after all", got)
			}
		})
	}
}

func TestExpansionROM(t *testing.T) {
	image := []byte{0x55, 0xaa, 4, 1, 2, 3}
	b, _ := newPlainBed(t, Config{}, Description{Config: space(t, pci.Config{ROMSize: 4096}), ROM: image})
	conn := b.attach()
	info := conn.ok(codec.CmdGetRegionInfo, append(u32(32, 0, RegionROM, 0), u64(0, 0)...))
	if want := append(u32(32, uint32(codec.RegionFlagRead), RegionROM, 0), u64(4096, 0)...); !bytes.Equal(info, want) {
		t.Errorf("region % x, want % x: read-only", info, want)
	}
	// Its size is found as that of a BAR; then it is given an address.
	conn.poke(configRegion, 0x30, 0xfe, 0xff, 0xff, 0xff)
	if got := conn.peek(configRegion, 0x30, 4); !bytes.Equal(got, []byte{0, 0xf0, 0xff, 0xff}) {
		t.Errorf("sizing reads % x", got)
	}
	ones := bytes.Repeat([]byte{0xff}, 8)
	for _, tt := range []struct {
		name         string
		command, rom byte
		want         []byte
	}{
		{"neither is enabled", 0, 0, ones},
		{"memory is enabled", 2, 0, ones},
		{"the ROM is enabled", 0, 1, ones},
		{"both are", 2, 1, append(slices.Clone(image), 0xff, 0xff)},
	} {
		conn.poke(configRegion, pciCommand, tt.command)
		conn.poke(configRegion, 0x30, tt.rom)
		if got := conn.peek(RegionROM, 0, 8); !bytes.Equal(got, tt.want) {
			t.Errorf("%s: % x, want % x", tt.name, got, tt.want)
		}
	}
	if got := conn.peek(RegionROM, 4094, 2); !bytes.Equal(got, ones[:2]) {
		t.Errorf("behind the image: % x", got)
	}
	if got := conn.peek(RegionROM, 4, 1); !bytes.Equal(got, image[4:5]) {
		t.Errorf("in the middle: % x", got)
	}
	conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(RegionROM, 4095, 2))
	conn.fails(unix.EINVAL, codec.CmdRegionWrite, regionWrite(RegionROM, 0, 1))
}

func TestDescriptionsAreChecked(t *testing.T) {
	memory := func(size uint64) Region {
		return Region{Size: size, Read: func(uint64, []byte) error { return nil }}
	}
	withMSIX := func(t *testing.T) *pci.Space {
		s := space(t, pci.Config{BARs: [pci.NumBARs]pci.BAR{{Size: 8192}}})
		if _, err := s.AddMSIX(pci.MSIX{Vectors: 3, PBAOffset: 0x1000}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, tt := range []struct {
		name string
		desc func(t *testing.T) Description
		says string
	}{
		{"no configuration space", func(*testing.T) Description { return Description{} }, "no configuration space"},
		{"BAR without a region", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{BARs: [pci.NumBARs]pci.BAR{{Size: 4096}}})}
		}, "BAR 0 has 0x1000 bytes"},
		{"region without a BAR", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{}), Regions: [NumRegions]Region{3: memory(4096)}}
		}, "BAR 3 has 0x0 bytes"},
		{"region larger than its BAR", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{BARs: [pci.NumBARs]pci.BAR{{Size: 4096}}}), Regions: [NumRegions]Region{memory(8192)}}
		}, "its region has 0x2000"},
		{"region in the upper half of a BAR", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{BARs: [pci.NumBARs]pci.BAR{{Size: 4096, Type: pci.Mem64}}}),
				Regions: [NumRegions]Region{memory(4096), memory(4096)}}
		}, "BAR 1"},
		{"ROM in the configuration space alone", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{ROMSize: 4096})}
		}, "expansion ROM has 0x1000 bytes"},
		{"ROM region of another size", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{ROMSize: 4096}), Regions: [NumRegions]Region{RegionROM: memory(8192)}}
		}, "its region has 0x2000"},
		{"ROM larger than the configuration space says", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{ROMSize: 4096}), ROM: make([]byte, 4097)}
		}, "4097 bytes of expansion ROM"},
		{"ROM that the configuration space does not have", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{}), ROM: make([]byte, 1)}
		}, "1 bytes of expansion ROM, 0"},
		{"ROM given twice", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{ROMSize: 4096}), ROM: make([]byte, 1), Regions: [NumRegions]Region{RegionROM: memory(4096)}}
		}, "given twice"},
		{"MSI-X table without the capability", func(t *testing.T) Description {
			return Description{Config: space(t, pci.Config{}), MSIX: table(t, 3)}
		}, "no MSI-X in the configuration space"},
		{"MSI-X table of another size", func(t *testing.T) Description {
			return Description{Config: withMSIX(t), MSIX: table(t, 4)}
		}, "4 in the table"},
		{"another number of interrupts", func(t *testing.T) Description {
			return Description{Config: withMSIX(t), MSIX: table(t, 3), IRQs: [irq.NumIndexes]int{irq.MSIX: 2}}
		}, "2 interrupts"},
		{"MSI-X table in use", func(t *testing.T) Description {
			m := table(t, 3)
			m.Pending = func(int) bool { return false }
			return Description{Config: withMSIX(t), MSIX: m}
		}, "served by somebody"},
		{"mappable MSI-X table", func(t *testing.T) Description {
			r := memory(8192)
			r.Areas = []Area{{Offset: 0, Size: 4096}}
			return Description{Config: withMSIX(t), MSIX: table(t, 3), Regions: [NumRegions]Region{r}}
		}, "covers the MSI-X structures at 0x0"},
		{"mappable pending bits", func(t *testing.T) Description {
			r := memory(8192)
			r.Areas = []Area{{Offset: 4096, Size: 4096}}
			return Description{Config: withMSIX(t), MSIX: table(t, 3), Regions: [NumRegions]Region{r}}
		}, "covers the MSI-X structures at 0x1000"},
		{"ioeventfd in the MSI-X table", func(t *testing.T) Description {
			r := memory(8192)
			r.IOEventfds = []IOEventfd{{Offset: 0x2f, Event: &IOEvent{}}}
			return Description{Config: withMSIX(t), MSIX: table(t, 3), Regions: [NumRegions]Region{r}}
		}, "ioeventfd at 0x2f"},
		{"MSI-X in a region that is too small", func(t *testing.T) Description {
			return Description{Config: withMSIX(t), MSIX: table(t, 3), Regions: [NumRegions]Region{memory(4096)}}
		}, "its region has 0x1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := New(Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			_, err = e.Register(filepath.Join(t.TempDir(), "s"), &described{desc: tt.desc(t)})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error that says %q", err, tt.says)
			}
		})
	}
}

// A device that panics when it is told of a function level reset costs its client the
// session. The next client has not asked for a reset.
func TestResetIsAskedForByOneClient(t *testing.T) {
	desc := Description{Config: space(t, pci.Config{Express: true})}
	express, err := desc.Config.AddExpress(pci.Express{FLR: true})
	if err != nil {
		t.Fatal(err)
	}
	fail := true
	desc.ConfigWritten = func(what pci.Changed) {
		if what&pci.RequestedReset != 0 && fail {
			panic("reset")
		}
	}
	b, d := newPlainBed(t, Config{}, desc)
	resets := 0
	d.reset = func() { resets++ }
	conn := b.attach()
	conn.write(conn.frame(codec.CmdRegionWrite, 0, regionWrite(configRegion, uint64(express+8), 0, 0x80)))
	conn.ends()
	b.settled()
	conn = b.attach()
	conn.poke(configRegion, pciCommand, 0, 0)
	b.do(func() {
		if resets != 0 {
			t.Error("a client was reset that has not asked for it")
		}
		fail = false
	})
	conn.poke(configRegion, uint64(express+8), 0, 0x80)
	b.do(func() {
		if resets != 1 {
			t.Errorf("%d resets, one was asked for", resets)
		}
	})
}
