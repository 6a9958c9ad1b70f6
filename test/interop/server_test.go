package interop

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"vfiouser/client"
)

const (
	clockBAR  = 0 // a time_t: written, it arms an alarm; read, it tells the seconds since then
	memoryBAR = 1 // 0x3000 bytes of which the first and the last page can be mapped

	dmaSize  = 4096
	dmaChunk = 1024 // what the sample writes at a time: 1,024 times 'A', then 'B', ...
)

// arm sets the sample's alarm to a time one to two seconds from now. (Sooner, it might see
// that time as now, and never raise it.)
func arm(t *testing.T, dev *client.Device) {
	t.Helper()
	check(t, dev.WriteRegion64(short(t), clockBAR, 0, uint64(time.Now().Unix())+2))
}

// TestServerMemoryBAR reads and writes the BAR by message and through its mappings.
func TestServerMemoryBAR(t *testing.T) {
	_, dev := serveSample(t, "server")
	bar, err := dev.Region(short(t), memoryBAR)
	check(t, err)
	defer bar.Close()
	if len(bar.Areas) != 2 {
		t.Fatalf("areas %v", bar.Areas)
	}
	pattern := make([]byte, bar.Size)
	for i := range pattern {
		pattern[i] = byte(i>>8) ^ byte(i)
	}
	check(t, dev.WriteRegion(short(t), memoryBAR, 0, pattern))
	got := make([]byte, bar.Size)
	check(t, dev.ReadRegion(short(t), memoryBAR, 0, got))
	if !bytes.Equal(got, pattern) {
		t.Error("the BAR does not read as it was written")
	}
	for i, area := range bar.Areas {
		m, err := bar.Mmap(i)
		check(t, err)
		defer m.Close()
		want := binary.LittleEndian.Uint32(pattern[area.Offset+16:])
		if got := m.Load32(area.Offset + 16); got != want {
			t.Errorf("area %d reads %#x through its mapping, want %#x", i, got, want)
		}
		m.Store32(area.Offset+16, 0xa5a5_0000+uint32(i))
	}
	// (reads by message: the sample ignores their offset, so all of it is read)
	check(t, dev.ReadRegion(short(t), memoryBAR, 0, got))
	for i, area := range bar.Areas {
		if v := binary.LittleEndian.Uint32(got[area.Offset+16:]); v != 0xa5a5_0000+uint32(i) {
			t.Errorf("area %d reads %#x by message after a store through its mapping", i, v)
		}
	}
}

// TestServerDMA arms the sample's alarm. When it goes off the sample raises
// its interrupt, writes and reads the second DMA region directly, and the first by message.
func TestServerDMA(t *testing.T) {
	p, dev := serveSample(t, "server", "-v")
	mem, err := client.NewMemory(4 * dmaSize)
	check(t, err)
	t.Cleanup(func() { mem.Close() })
	all := mem.At(0)
	first, second := all.Slice(0, dmaSize), all.Slice(dmaSize, dmaSize)
	check(t, dev.MapDMA(short(t), first.ByMessage(), second))
	interrupt := newEventfd(t)
	check(t, dev.EnableIRQ(short(t), client.IRQINTx, 0, interrupt.FD()))

	begin := time.Now()
	arm(t, dev)
	if n, err := interrupt.Wait(short(t)); err != nil || n != 1 {
		t.Fatalf("%d interrupts, %v", n, err)
	}
	// (without a twin socket libvfio-user takes whatever arrives now for the reply to its own command)
	p.waitFor(t, "MESSAGE success")
	if !strings.Contains(p.output.String(), "DIRECT success") {
		t.Error("the server has not succeeded to access memory directly")
	}
	since, err := dev.ReadRegion64(short(t), clockBAR, 0)
	check(t, err)
	if int64(since) < -1 || int64(since) > int64(time.Since(begin)/time.Second)+1 {
		t.Errorf("%d s since the alarm", int64(since))
	}
	var want []byte
	for i := range dmaSize / dmaChunk {
		want = append(want, bytes.Repeat([]byte{'A' + byte(i)}, dmaChunk)...)
	}
	for i, got := range [][]byte{first.Local, second.Local} {
		if !bytes.Equal(got, want) {
			t.Errorf("DMA region %d holds %q..., want %q...", i, got[:4], want[:4])
		}
	}
	if rest := mem.Bytes()[2*dmaSize:]; slices.Max(rest) != 0 {
		t.Error("the server wrote beyond its DMA regions")
	}
	check(t, dev.UnmapDMA(short(t), first.IOVA, first.Size))
	check(t, dev.UnmapAllDMA(short(t)))
	check(t, dev.Reset(short(t)))
}

// TestServerManyMappings maps and unmaps as many regions as the sample has room for.
func TestServerManyMappings(t *testing.T) {
	const regions = 64
	_, dev := serveSample(t, "server")
	mem, err := client.NewMemory(regions * dmaSize)
	check(t, err)
	t.Cleanup(func() { mem.Close() })
	all := mem.At(1 << 32)
	var maps []client.Mapping
	for i := range uint64(regions) {
		m := all.Slice(i*dmaSize, dmaSize)
		if i%3 == 1 {
			m = m.ByMessage()
		}
		maps = append(maps, m)
	}
	for range 3 {
		check(t, dev.MapDMA(short(t), maps...))
		for _, m := range maps[:regions/2] {
			check(t, dev.UnmapDMA(short(t), m.IOVA, m.Size))
		}
		check(t, dev.UnmapAllDMA(short(t)))
	}
}
