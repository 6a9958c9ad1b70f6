package qtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"vfiouser/test/card"
)

// newCard starts a machine with a card that is ready for use.
func newCard(t *testing.T, memory string, cfg card.Config) (*rig, *card.Card) {
	t.Helper()
	c := card.New(cfg)
	r := start(t, "q35", memory, serve(t, c))
	r.program(cfg.MSIX)
	return r, c
}

// TestEnumeration does what firmware does: it reads the header, sizes the BARs and walks
// the capabilities.
func TestEnumeration(t *testing.T) {
	r := start(t, "q35", shared, serve(t, card.New(card.Config{MSIX: true})))
	for _, field := range []struct {
		name      string
		off, size int
		want      uint32
	}{
		{"vendor and device", 0x00, 4, card.DeviceID<<16 | card.Vendor},
		{"vendor", 0x00, 2, card.Vendor},
		{"device", 0x02, 2, card.DeviceID},
		{"class", 0x0b, 1, card.Class >> 16},
		{"header type", 0x0e, 1, 0},
		{"interrupt pin", 0x3d, 1, 1},
		{"expansion ROM", 0x30, 4, 0},
	} {
		if got := r.config(field.off, field.size); got != field.want {
			t.Errorf("%s reads %#x, want %#x", field.name, got, field.want)
		}
	}
	for bar, want := range map[int]uint32{
		card.RegistersBAR:  ^uint32(card.RegistersSize - 1),
		card.PortsBAR:      ^uint32(card.PortsSize-1) | 1,    // I/O
		card.MemoryBAR:     ^uint32(card.MemorySize-1) | 0xc, // 64 bits, prefetchable
		card.MemoryBAR + 1: ^uint32(0),
		card.TableBAR:      ^uint32(card.TableSize - 1),
		5:                  0,
	} {
		mask, err := r.f.SizeBAR(r.ctx, bar)
		r.check(err)
		if mask != want {
			t.Errorf("BAR %d reads %#x after ones were written, want %#x", bar, mask, want)
		}
	}
	for id, there := range map[uint8]bool{0x01: true, 0x11: true, 0x10: false, 0x05: false} {
		at, err := r.f.Capability(r.ctx, id)
		r.check(err)
		if (at != 0) != there {
			t.Errorf("capability %#x at %#x, want one: %t", id, at, there)
		}
	}
	r.program(true)
	if got := r.config(0x10+4*card.MemoryBAR+4, 4); got != memoryAt>>32 {
		t.Errorf("the upper half of the 64-bit BAR reads %#x", got)
	}
}

// TestAccessSizes reads and writes each BAR with accesses of every size, in and out of
// alignment, and compares with memory of its own.
func TestAccessSizes(t *testing.T) {
	r, _ := newCard(t, shared, card.Config{})
	for _, c := range []struct {
		name  string
		space Space
		at    uint64
		size  int
		sizes []int
	}{
		{"memory", Memory, memoryAt, card.MemorySize, []int{1, 2, 4, 8}},
		{"ports", Ports, portsAt, card.PortsSize, []int{1, 2, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			want := make([]byte, c.size)
			for range 300 {
				size := c.sizes[random.IntN(len(c.sizes))]
				off := random.IntN(c.size/size) * size
				if c.space == Memory && random.IntN(4) == 0 {
					off = random.IntN(c.size - size + 1) // out of alignment
				}
				v := random.Uint64() >> (64 - 8*size)
				r.store(c.space, c.at+uint64(off), v, size)
				for i := range size {
					want[off+i] = byte(v >> (8 * i))
				}
			}
			for range 300 {
				size := c.sizes[random.IntN(len(c.sizes))]
				off := random.IntN(c.size/size) * size
				var v uint64
				for i := range size {
					v |= uint64(want[off+i]) << (8 * i)
				}
				if got := r.load(c.space, c.at+uint64(off), size); got != v {
					t.Errorf("%d bytes at %#x: %#x, want %#x", size, off, got, v)
				}
			}
			if c.space != Memory {
				return
			}
			got, err := r.m.Read(r.ctx, c.at, c.size)
			r.check(err)
			if !bytes.Equal(got, want) {
				t.Error("the whole BAR does not read as it was written")
			}
			random = rand.New(rand.NewPCG(3, 4))
			for i := range want {
				want[i] = byte(random.Uint32())
			}
			r.check(r.m.Write(r.ctx, c.at+1, want[1:c.size-3])) // begins and ends out of alignment
			got, err = r.m.Read(r.ctx, c.at+1, c.size-4)
			r.check(err)
			if !bytes.Equal(got, want[1:c.size-3]) {
				t.Error("a large part of the BAR does not read as it was written")
			}
		})
	}
}

// TestPostedWrites writes a register many times. While the device has nothing that can be
// mapped QEMU posts writes: they arrive in order, and an answer would be one to nothing, of
// which QEMU complains.
func TestPostedWrites(t *testing.T) {
	r, c := newCard(t, shared, card.Config{})
	const n = 1000
	var want []card.Write
	for i := range uint64(n) {
		size := []int{1, 2, 4, 8}[i%4]
		v := i * 0x0101_0101_0101_0101 >> (64 - 8*size)
		r.setRegister(card.RegLog, v, size)
		want = append(want, card.Write{Value: v, Size: size})
	}
	if got := r.register(card.RegLog); got != n { // behind all of them
		t.Errorf("%d writes have arrived, want %d", got, n)
	}
	if !slices.Equal(c.Writes(), want) {
		t.Error("the writes have not arrived as they were made")
	}
}

// TestPostedWritesDoNotWait has the server stand still while QEMU writes: QEMU goes on.
func TestPostedWritesDoNotWait(t *testing.T) {
	r, c := newCard(t, shared, card.Config{})
	release := c.Stall()
	for i := range uint64(100) {
		r.setRegister(card.RegLog, i, 4)
	}
	if n := len(c.Writes()); n != 0 {
		t.Errorf("the server stands still and has taken %d writes", n)
	}
	release()
	if got := r.register(card.RegLog); got != 100 {
		t.Errorf("%d writes have arrived, want 100", got)
	}
}

// TestReset resets the machine and finds the card as it was at power-on, and of use.
func TestReset(t *testing.T) {
	r, c := newCard(t, shared, card.Config{MSIX: true})
	for round := range 3 {
		r.setRegister(card.RegLog, 1, 4)
		before := c.Resets()
		r.check(r.m.Monitor(r.ctx, "system_reset", nil, nil))
		r.until("the reset arrives", func() bool { return c.Resets() > before })
		if got := r.config(0x10, 4); got != 0 {
			t.Errorf("round %d: BAR 0 is %#x after a reset", round, got)
		}
		if got := r.config(0x04, 2); got != 0 {
			t.Errorf("round %d: the command register is %#x after a reset", round, got)
		}
		r.program(true)
		if got := r.register(card.RegLog); got != 0 {
			t.Errorf("round %d: the device still knows of %d writes", round, got)
		}
	}
	if n := c.Clients(); n != 1 {
		t.Errorf("%d clients came, want 1", n)
	}
}

// TestDMA has the card copy guest memory, of sizes and alignments of every kind, directly
// and by message.
func TestDMA(t *testing.T) {
	for _, memory := range []string{shared, anonymous} {
		t.Run(memory, func(t *testing.T) {
			r, c := newCard(t, memory, card.Config{})
			for _, k := range []struct{ source, target, length uint64 }{
				{0x10_0000, 0x20_0000, 1},
				{0x10_0001, 0x20_0003, 4096},
				{0x10_0000, 0x20_0000, 64 << 10},
				{0x10_0fff, 0x20_0ffd, 100_001},
				{0x10_0000, 0x30_0000, 1 << 20},
			} {
				name := fmt.Sprintf("%d bytes from %#x to %#x", k.length, k.source, k.target)
				data := make([]byte, k.length)
				random := rand.New(rand.NewPCG(k.length, k.source))
				for i := range data {
					data[i] = byte(random.Uint32())
				}
				guard := bytes.Repeat([]byte{0xee}, 16)
				r.check(r.m.Write(r.ctx, k.source, data))
				r.check(r.m.Write(r.ctx, k.target-16, guard))
				r.check(r.m.Write(r.ctx, k.target+k.length, guard))
				r.copy(k.source, k.target, k.length)
				if status := r.register(card.RegStatus); status != card.StatusDone {
					t.Fatalf("%s: %v", name, c.CopyError())
				}
				got, err := r.m.Read(r.ctx, k.target-16, int(k.length)+32)
				r.check(err)
				if !bytes.Equal(got, slices.Concat(guard, data, guard)) {
					t.Errorf("%s: the copy differs", name)
				}
			}
		})
	}
}

// copy has the card copy guest memory and waits for the end.
func (r *rig) copy(source, target, length uint64) {
	r.Helper()
	r.setRegister(card.RegSource, source, 8)
	r.setRegister(card.RegTarget, target, 8)
	r.setRegister(card.RegLength, length, 4)
	r.setRegister(card.RegGo, 1, 4)
	r.until("the copy ends", func() bool { return r.register(card.RegStatus) != card.StatusBusy })
	r.setRegister(card.RegLine, 0, 4)
}

// TestDMANeedsBusMastering reads by message while QEMU does not let the device: it is told
// so, and nothing else breaks.
func TestDMANeedsBusMastering(t *testing.T) {
	r, c := newCard(t, anonymous, card.Config{})
	r.check(r.f.SetConfig(r.ctx, offCommand, commandIO|commandMemory, 2))
	r.copy(0x10_0000, 0x20_0000, 4096)
	if status := r.register(card.RegStatus); status != card.StatusFailed {
		t.Errorf("a copy without bus mastering has status %d", status)
	}
	t.Logf("QEMU refuses: %v", c.CopyError())
	r.check(r.f.Enable(r.ctx))
	r.copy(0x10_0000, 0x20_0000, 4096)
	if status := r.register(card.RegStatus); status != card.StatusDone {
		t.Errorf("a copy with bus mastering: %v", c.CopyError())
	}
}

// TestAccessesDuringDMA reads and writes registers while messages of the card's to read
// guest memory are outstanding.
func TestAccessesDuringDMA(t *testing.T) {
	r, c := newCard(t, anonymous, card.Config{})
	r.setRegister(card.RegSource, 0x10_0000, 8)
	r.setRegister(card.RegChurn, 1, 4)
	writes := uint64(0)
	r.until("accesses are served while a message is outstanding", func() bool {
		r.setRegister(card.RegLog, writes, 4)
		writes++
		if id := r.register(card.RegID); id != card.ID {
			t.Fatalf("the id reads %#x", id)
		}
		return r.register(card.RegOverlap) >= 100
	})
	r.setRegister(card.RegChurn, 0, 4)
	for i, w := range c.Writes() {
		if w.Value != uint64(i) {
			t.Fatalf("write %d arrived in place of %d", w.Value, i)
		}
	}
	if got := len(c.Writes()); uint64(got) != writes {
		t.Errorf("%d writes have arrived, want %d", got, writes)
	}
}
