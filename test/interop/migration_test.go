package interop

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"vfiouser/client"
	"vfiouser/codec"
)

// setState changes a device's state of migration and finds it changed.
func setState(t *testing.T, dev *client.Device, state codec.MigState) {
	t.Helper()
	if err := dev.SetMigrationState(short(t), state); err != nil {
		t.Fatalf("%s: %v", state, err)
	}
	got, err := dev.MigrationState(short(t))
	check(t, err)
	if got != state {
		t.Fatalf("the device is in state %s, want %s", got, state)
	}
}

// readState reads a device's stream to its end, so many bytes at a time.
func readState(t *testing.T, dev *client.Device, step int) []byte {
	t.Helper()
	var state []byte
	part := make([]byte, step)
	for {
		n, err := dev.ReadMigrationData(short(t), part)
		state = append(state, part[:n]...)
		switch {
		case errors.Is(err, io.EOF):
			return state
		case err != nil:
			t.Fatal(err)
		}
	}
}

// TestServerMigration moves the sample's device from one process to another: what its BAR
// holds, and an alarm that goes off at the destination.
func TestServerMigration(t *testing.T) {
	const barSize, alarmSize = 0x3000, 8
	_, from := serveSample(t, "server")
	flags, err := from.MigrationFlags(short(t))
	check(t, err)
	if want := codec.MigrationStopCopy | codec.MigrationPreCopy; flags != want {
		t.Errorf("migration flags %#x, want %#x", flags, want)
	}
	bar := make([]byte, barSize)
	for i := range bar {
		bar[i] = byte(i*31) ^ byte(i>>8)
	}
	check(t, from.WriteRegion(short(t), memoryBAR, 0, bar))
	arm(t, from)

	setState(t, from, codec.MigPreCopy)
	if early := readState(t, from, 1024); !bytes.Equal(early, bar) {
		t.Errorf("the state before the device stops has %d bytes, want the BAR's %d", len(early), barSize)
	}
	setState(t, from, codec.MigStopCopy)
	state := readState(t, from, 1024)
	if len(state) != barSize+alarmSize {
		t.Fatalf("the state has %d bytes, want %d", len(state), barSize+alarmSize)
	}
	setState(t, from, codec.MigStop)

	_, to := serveSample(t, "server")
	mem, err := client.NewMemory(2 * dmaSize)
	check(t, err)
	t.Cleanup(func() { mem.Close() })
	all := mem.At(0)
	check(t, to.MapDMA(short(t), all.Slice(0, dmaSize).ByMessage(), all.Slice(dmaSize, dmaSize)))
	interrupt := newEventfd(t) // (libvfio-user takes no SET_IRQS while the device is stopped)
	check(t, to.EnableIRQ(short(t), codec.IRQINTx, 0, interrupt.FD()))
	setState(t, to, codec.MigResuming)
	n, err := to.WriteMigrationData(short(t), state)
	check(t, err)
	if n != len(state) {
		t.Errorf("the destination has taken %d bytes of %d", n, len(state))
	}
	setState(t, to, codec.MigStop)
	got := make([]byte, barSize)
	check(t, to.ReadRegion(short(t), memoryBAR, 0, got))
	if !bytes.Equal(got, bar) {
		t.Error("the BAR differs at the destination")
	}
	setState(t, to, codec.MigRunning)
	if n, err := interrupt.Wait(short(t)); err != nil || n != 1 {
		t.Errorf("%d interrupts at the destination, %v", n, err)
	}
}

// TestGPIOMigration reads the state of the card's pins and gives it to another process. (The
// sample takes reads of exactly the state's size only. It says of every write that it has
// taken nothing, which libvfio-user makes an error.)
func TestGPIOMigration(t *testing.T) {
	const pins, pinSize = 16, 4
	_, from := serveSample(t, "gpio-pci-idio-16")
	check(t, from.WriteRegion(short(t), gpioBAR, outputsLow, []byte{0x0f}))
	check(t, from.WriteRegion(short(t), gpioBAR, outputsHigh, []byte{0x80}))
	setState(t, from, codec.MigStopCopy)
	state := readState(t, from, pins*pinSize)
	want := make([]byte, pins*pinSize)
	for _, pin := range []int{0, 1, 2, 3, 15} {
		want[pin*pinSize] = 1
	}
	if !slices.Equal(state, want) {
		t.Errorf("state %x, want %x", state, want)
	}
	setState(t, from, codec.MigStop)
	setState(t, from, codec.MigRunning)
	var inputs [1]byte
	check(t, from.ReadRegion(short(t), gpioBAR, inputsLow, inputs[:]))
	if inputs[0] != 0xf0 {
		t.Errorf("inputs %#x after the way back to RUNNING, want 0xf0", inputs[0])
	}
}

// TestServerDirtyMemory has the sample write memory while it logs what it writes: the page
// that it wrote directly must be reported. (What it writes by message the client knows.)
func TestServerDirtyMemory(t *testing.T) {
	p, dev := serveSample(t, "server", "-v")
	mem, err := client.NewMemory(4 * dmaSize)
	check(t, err)
	t.Cleanup(func() { mem.Close() })
	all := mem.At(0)
	check(t, dev.MapDMA(short(t), all.Slice(0, dmaSize).ByMessage(), all.Slice(dmaSize, dmaSize), all.Slice(2*dmaSize, 2*dmaSize)))
	interrupt := newEventfd(t)
	check(t, dev.EnableIRQ(short(t), codec.IRQINTx, 0, interrupt.FD()))
	_, err = dev.StartDMALogging(short(t), dmaSize)
	check(t, err)
	arm(t, dev)
	_, err = interrupt.Wait(short(t))
	check(t, err)
	p.waitFor(t, "MESSAGE success")
	for iova, want := range map[uint64]int{dmaSize: 1, 2 * dmaSize: 0} {
		size := uint64(dmaSize)
		if iova == 2*dmaSize {
			size = 2 * dmaSize
		}
		dirty, err := dev.DirtyBitmap(short(t), iova, size, dmaSize)
		check(t, err)
		if n := dirty.Count(); n != want {
			t.Errorf("%d dirty pages at %#x, want %d", n, iova, want)
		}
	}
	check(t, dev.StopDMALogging(short(t)))
}

// TestServerTwinSocket has the sample send its DMA messages on a socket of their own, so that
// the client may send commands at the same time, as it does here.
func TestServerTwinSocket(t *testing.T) {
	p, dev := serveSampleWith(t, "server", []client.Option{client.WithTwinSocket()}, "-v")
	if !dev.TwinSocket() {
		t.Fatal("no twin socket was agreed on")
	}
	mem, err := client.NewMemory(2 * dmaSize)
	check(t, err)
	t.Cleanup(func() { mem.Close() })
	all := mem.At(0)
	check(t, dev.MapDMA(short(t), all.Slice(0, dmaSize).ByMessage(), all.Slice(dmaSize, dmaSize)))
	interrupt := newEventfd(t)
	check(t, dev.EnableIRQ(short(t), codec.IRQINTx, 0, interrupt.FD()))
	arm(t, dev)
	// (not earlier: the sample notices an alarm only while it waits for a command)
	_, err = interrupt.Wait(short(t))
	check(t, err)
	for !strings.Contains(p.output.String(), "MESSAGE success") {
		_, err := dev.ReadRegion64(short(t), clockBAR, 0)
		check(t, err)
	}
	for i, got := range [][]byte{mem.Bytes()[:dmaSize], mem.Bytes()[dmaSize:]} {
		if got[0] != 'A' || got[dmaSize-1] != 'D' {
			t.Errorf("DMA region %d has not been written", i)
		}
	}
}
