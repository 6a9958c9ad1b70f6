package engine

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/irq"
)

func TestInspect(t *testing.T) {
	b := newBed(t, Config{WriteMultiple: true})
	if _, ok := b.ep.Inspect(); ok {
		t.Error("there is no client yet")
	}
	begin := time.Now()
	conn := b.dial()
	eventually(t, "client connected", func() bool { _, ok := b.ep.Inspect(); return ok })
	in, _ := b.ep.Inspect()
	if in.Negotiated || in.PID != os.Getpid() || in.UID != os.Getuid() || in.GID != os.Getgid() {
		t.Errorf("before VERSION: %+v", in)
	}
	if in.Connected.Before(begin) || in.Connected.After(time.Now()) {
		t.Errorf("connected at %v", in.Connected)
	}
	req := version(7, `{"max_msg_fds":8,"write_multiple":true}`)
	bytes := uint64(codec.HeaderSize + len(req))
	conn.ok(codec.CmdVersion, req)
	conn.ok(codec.CmdDMAMap, dmaMap(1, 0, 0x200000, 0x1000))
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0x1000, 0x100000, 0x1000), memfd(t, 0x2000))
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	conn.ok(codec.CmdSetIRQs, u32(20, 0x24, uint32(irq.MSIX), 1, 1), event)
	conn.ok(codec.CmdSetIRQs, u32(20, 0x09, uint32(irq.MSIX), 1, 2))
	if err := b.device.session().IRQ().Vector(irq.MSIX, 2).Trigger(); err != nil {
		t.Fatal(err)
	}
	bytes += 2*48 + 2*36

	in, ok := b.ep.Inspect()
	if !ok || !in.Negotiated || in.Minor != 1 || in.Client.MaxMsgFDs != 8 || in.Client.MaxDataXferSize != 1<<20 || !in.WriteMultiple || in.TwinSocket {
		t.Errorf("negotiated: %+v", in)
	}
	if len(in.Memory) != 2 || in.Memory[0].IOVA != 0x100000 || !in.Memory[0].Mapped || in.Memory[0].Local != nil || in.Memory[0].Offset != 0x1000 ||
		in.Memory[1].IOVA != 0x200000 || in.Memory[1].Mapped {
		t.Errorf("memory: %+v", in.Memory)
	}
	if got, want := in.Interrupts[irq.MSIX], (InterruptState{Vectors: irqMSIX, Enabled: true, Assigned: 1, Masked: 2, Pending: 1}); got != want {
		t.Errorf("MSI-X: %+v, want %+v", got, want)
	}
	if got, want := in.Interrupts[irq.INTx], (InterruptState{Vectors: irqINTx}); got != want {
		t.Errorf("INTx: %+v, want %+v", got, want)
	}
	if in.Traffic.ReceivedMessages != 5 || in.Traffic.ReceivedBytes != bytes || in.Traffic.SentBytes < 5*codec.HeaderSize || in.Traffic.UnsentBytes != 0 {
		t.Errorf("traffic: %+v, want 5 messages of %d bytes", in.Traffic, bytes)
	}

	// Memory by message, and a command that is not finished.
	b.device.session().StartReadDMA(0x200000, make([]byte, 8), func(error) {})
	h, ask := conn.dmaRequest(codec.CmdDMARead)
	release := make(chan func(), 1)
	b.device.onHold(func(done func()) { release <- done })
	conn.write(slices.Concat(conn.frame(codec.CmdReset, 0, nil), conn.frame(codec.CmdGetInfo, 0, u32(16, 0, 0, 0))))
	done := <-release
	eventually(t, "command waits", func() bool { in, ok = b.ep.Inspect(); return in.Traffic.CommandsWaiting == 1 })
	if in.Traffic.DMAMessages != 1 || in.Traffic.DMAOutstanding != 1 || in.Traffic.DMAWaiting != 0 {
		t.Errorf("traffic: %+v", in.Traffic)
	}
	b.device.onHold(nil)
	done()
	conn.read()
	conn.read()
	conn.answerDMA(h, ask, make([]byte, 8))
	eventually(t, "DMA answered", func() bool { in, ok = b.ep.Inspect(); return in.Traffic.DMAOutstanding == 0 })
	if in.Traffic.DMAMessages != 1 || in.Traffic.CommandsWaiting != 0 {
		t.Errorf("traffic: %+v", in.Traffic)
	}
	conn.close()
	eventually(t, "no client", func() bool { _, ok := b.ep.Inspect(); return !ok })
}

func TestInspectCountsTheTwinSocketToo(t *testing.T) {
	b := newBed(t, Config{})
	_, twin := b.attachTwin()
	before, _ := b.ep.Inspect()
	done := read8(b.device.session())
	h, ask := twin.dmaRequest(codec.CmdDMARead)
	twin.answerDMA(h, ask, make([]byte, 8))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	after, _ := b.ep.Inspect()
	if !after.TwinSocket || after.Traffic.ReceivedMessages != before.Traffic.ReceivedMessages+1 ||
		after.Traffic.ReceivedBytes != before.Traffic.ReceivedBytes+40 || after.Traffic.SentBytes != before.Traffic.SentBytes+32 {
		t.Errorf("before %+v, after %+v", before.Traffic, after.Traffic)
	}
}

// The barest device is a configuration space.
func TestDeviceWithoutAnything(t *testing.T) {
	b, _ := newPlainBed(t, Config{}, Description{NoReset: true})
	conn := b.attach()
	if got, want := conn.ok(codec.CmdGetInfo, u32(16, 0, 0, 0)), u32(16, 2, 9, 5); !slices.Equal(got, want) {
		t.Errorf("GET_INFO %x, want %x", got, want)
	}
	for i := range uint32(NumRegions) {
		flags, size := uint32(0), uint64(0)
		if i == RegionConfig {
			flags, size = 3, 256
		}
		got := conn.ok(codec.CmdGetRegionInfo, append(u32(32, 0, i, 0), u64(0, 0)...))
		if want := append(u32(32, flags, i, 0), u64(size, 0)...); !slices.Equal(got, want) {
			t.Errorf("region %d: %x, want %x", i, got, want)
		}
		if i != RegionConfig {
			conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(uint64(i), 0, 1))
			conn.fails(unix.EINVAL, codec.CmdRegionWrite, regionWrite(uint64(i), 0, 1))
			conn.fails(unix.EINVAL, codec.CmdGetRegionIOFDs, ioFDs(16, i))
		}
	}
	for i := range uint32(irq.NumIndexes) {
		if got := conn.ok(codec.CmdGetIRQInfo, u32(16, 0, i, 0)); !slices.Equal(got[8:], u32(i, 0)) {
			t.Errorf("interrupt type %d: %x", i, got)
		}
		conn.fails(unix.EINVAL, codec.CmdSetIRQs, u32(20, 0x21, i, 0, 0))
	}
	conn.fails(unix.ENOTSUP, codec.CmdReset, nil)
	conn.ok(codec.CmdRegionRead, regionRead(7, 0, 256))
}
