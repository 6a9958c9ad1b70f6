package interop

import (
	"testing"

	"vfiouser/client"
)

const (
	gpioBAR     = 2
	outputsLow  = 0x0 // write: pins 0 to 7
	inputsLow   = 0x1 // read
	outputsHigh = 0x4 // write: pins 8 to 15
	inputsHigh  = 0x5 // read
)

// TestGPIO writes outputs of the card and reads its inputs. The sample counts how often a
// pin was written as one; its input reads as one if that is a multiple of three.
func TestGPIO(t *testing.T) {
	_, dev := serveSample(t, "gpio-pci-idio-16")
	for step, c := range []struct {
		register uint64
		value    byte
		posted   bool
		low      byte // inputs afterwards
		high     byte
	}{
		{outputsLow, 0x00, false, 0xff, 0xff},
		{outputsLow, 0x0f, false, 0xf0, 0xff},
		{outputsLow, 0x03, false, 0xf0, 0xff},
		{outputsHigh, 0x81, false, 0xf0, 0x7e},
		{outputsLow, 0x01, true, 0xf1, 0x7e}, // (the third time, posted)
		{outputsHigh, 0x80, true, 0xf1, 0x7e},
		{outputsHigh, 0x80, true, 0xf1, 0xfe},
	} {
		write := dev.WriteRegion
		if c.posted {
			write = dev.PostRegion
		}
		check(t, write(short(t), gpioBAR, c.register, []byte{c.value}))
		var got [2]byte
		check(t, dev.ReadRegion(short(t), gpioBAR, inputsLow, got[:1]))
		check(t, dev.ReadRegion(short(t), gpioBAR, inputsHigh, got[1:]))
		if got != [2]byte{c.low, c.high} {
			t.Errorf("step %d: inputs %#x, want %#x %#x", step, got, c.low, c.high)
		}
	}
}

// TestGPIOInterrupt has the sample raise its interrupt through TRIGGER, which is all that it
// can be made to do with it.
func TestGPIOInterrupt(t *testing.T) {
	_, dev := serveSample(t, "gpio-pci-idio-16")
	interrupt := newEventfd(t)
	check(t, dev.EnableIRQ(short(t), client.IRQINTx, 0, interrupt.FD()))
	check(t, dev.TriggerIRQ(short(t), client.IRQINTx, 0, 1))
	if n, err := interrupt.Wait(short(t)); err != nil || n != 1 {
		t.Errorf("%d interrupts, %v", n, err)
	}
	check(t, dev.DisableIRQ(short(t), client.IRQINTx))
}

// TestReattach detaches and attaches again: libvfio-user then forgets all of the client,
// and keeps the device's state.
func TestReattach(t *testing.T) {
	p, dev := serveSample(t, "gpio-pci-idio-16")
	socket := p.cmd.Args[len(p.cmd.Args)-1]
	check(t, dev.WriteRegion(short(t), gpioBAR, outputsLow, []byte{0xff}))
	for range 10 {
		check(t, dev.Close())
		dev = attach(t, p, socket)
		var inputs [1]byte
		check(t, dev.ReadRegion(short(t), gpioBAR, inputsLow, inputs[:]))
		if inputs[0] != 0 {
			t.Fatalf("inputs %#x, want 0", inputs[0])
		}
	}
}

func newEventfd(t *testing.T) *client.Eventfd {
	t.Helper()
	e, err := client.NewEventfd()
	check(t, err)
	t.Cleanup(func() { e.Close() })
	return e
}
