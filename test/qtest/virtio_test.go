package qtest

import (
	"context"
	"encoding/binary"
	"testing"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
)

// counter is a virtio device with one queue: it answers each chain with the number of bytes
// that it has read, as 4 bytes.
type counter struct {
	virtio.BaseDevice
	server *virtio.Server
}

func (c *counter) ReadConfig(_ int, p []byte) { copy(p, "virtio!") }

func (c *counter) StartQueue(_ int, q *virtio.Queue) {
	c.server = virtio.Serve(q, func(_ context.Context, chain *virtqueue.Chain) uint32 {
		return uint32(copy(chain.Writable[0], binary.LittleEndian.AppendUint32(nil, chain.ReadableLen)))
	})
}

func (c *counter) StopQueue(int) { c.server.Stop() }

// Where the structures of the device lie in BAR0, and what the test puts into memory.
const (
	virtioISR    = 0x1000
	virtioConfig = 0x2000
	virtioNotify = 0x3000

	descAt, availAt, usedAt = 0x40_0000, 0x40_1000, 0x40_2000
	chainSize               = 8 // entries of the queue
)

// TestVirtio brings a virtio device up as a driver does, with QEMU as the client: by its
// BAR, and through the configuration space as firmware does.
func TestVirtio(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   virtio.Doorbells
		memory string
	}{
		{"trapped notifications", virtio.Trap, shared},
		{"mapped notifications", virtio.Mmap, shared},
		{"memory by message", virtio.Auto, anonymous},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := virtio.New(virtio.Config{Type: 42, Queues: 1, QueueSize: chainSize, ConfigSize: 7, Features: virtio.Features, Doorbells: c.mode}, &counter{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			r := start(t, "q35", c.memory, serve(t, f))
			r.check(r.m.Intercept(r.ctx))
			r.check(r.f.SetBAR(r.ctx, 0, registersAt, true))
			r.check(r.f.Enable(r.ctx))
			for _, access := range []virtioAccess{r.bar, r.window} { // the second one after a reset
				r.driveVirtio(access)
			}
		})
	}
}

// virtioAccess reads, or writes, size bytes at off of the structures.
type virtioAccess func(off, v uint64, size int, write bool) uint64

func (r *rig) bar(off, v uint64, size int, write bool) uint64 {
	r.Helper()
	if write {
		r.store(Memory, registersAt+off, v, size)
		return 0
	}
	return r.load(Memory, registersAt+off, size)
}

// window makes the access in the configuration space (4.1.4.9).
func (r *rig) window(off, v uint64, size int, write bool) uint64 {
	r.Helper()
	at := 0
	for next := r.config(offPointer, 1); next != 0; next = r.config(int(next)+1, 1) {
		if r.config(int(next), 1) == 0x09 && r.config(int(next)+spec.CapOffsetType, 1) == uint32(spec.CapPCI) {
			at = int(next)
		}
	}
	r.check(r.f.SetConfig(r.ctx, at+spec.CapOffsetBAR, 0, 1))
	r.check(r.f.SetConfig(r.ctx, at+spec.CapOffsetOffset, uint32(off), 4))
	r.check(r.f.SetConfig(r.ctx, at+spec.CapOffsetSize, uint32(size), 4))
	if write {
		r.check(r.f.SetConfig(r.ctx, at+spec.CapOffsetWindow, uint32(v), size))
		return 0
	}
	return uint64(r.config(at+spec.CapOffsetWindow, size))
}

func (r *rig) driveVirtio(access virtioAccess) {
	r.Helper()
	set := func(off, v uint64, size int) { r.Helper(); access(off, v, size, true) }
	get := func(off uint64, size int) uint64 { r.Helper(); return access(off, 0, size, false) }
	status := func(want spec.Status) {
		r.Helper()
		if got := spec.Status(get(spec.DeviceStatus, 1)); got != want {
			r.Fatalf("status %v, want %v", got, want)
		}
	}
	set(spec.DeviceStatus, 0, 1)
	r.until("the reset", func() bool { return get(spec.DeviceStatus, 1) == 0 })
	const found = spec.StatusAcknowledge | spec.StatusDriver
	set(spec.DeviceStatus, uint64(found), 1)
	set(spec.DeviceFeatureSelect, 1, 4)
	if got := get(spec.DeviceFeature, 4); got != virtio.Features>>32 {
		r.Errorf("features %#x in the upper half", got)
	}
	set(spec.DriverFeatureSelect, 1, 4)
	set(spec.DriverFeature, spec.FeatureVersion1>>32, 4)
	set(spec.DeviceStatus, uint64(found|spec.StatusFeaturesOK), 1)
	status(found | spec.StatusFeaturesOK)
	if got := get(virtioConfig, 4); got != 0x74726976 { // "virt"
		r.Errorf("configuration %#x", got)
	}

	r.check(r.m.Write(r.ctx, descAt, make([]byte, 3*pageSize)))
	for off, at := range map[uint64]uint64{spec.QueueDesc: descAt, spec.QueueDriver: availAt, spec.QueueDevice: usedAt} {
		set(off, at, 4)
		set(off+4, 0, 4)
	}
	set(spec.QueueEnable, 1, 2)
	set(spec.DeviceStatus, uint64(found|spec.StatusFeaturesOK|spec.StatusDriverOK), 1)
	status(found | spec.StatusFeaturesOK | spec.StatusDriverOK)

	// A chain: three bytes to read, four to write.
	var descs [2 * spec.DescSize]byte
	(&spec.Desc{Addr: dataAt, Len: 3, Flags: spec.DescNext, Next: 1}).Put(descs[:])
	(&spec.Desc{Addr: dataAt + pageSize, Len: 4, Flags: spec.DescWrite}).Put(descs[spec.DescSize:])
	r.check(r.m.Write(r.ctx, descAt, descs[:]))
	for i := uint16(1); i <= 2*chainSize; i++ {
		r.check(r.m.Write(r.ctx, dataAt+pageSize, make([]byte, 4)))
		r.check(r.m.Write(r.ctx, availAt+spec.AvailIndex, binary.LittleEndian.AppendUint16(nil, i))) // head 0 in every entry
		set(virtioNotify, 0, 2)
		r.until("the chain is used", func() bool {
			b, err := r.m.Read(r.ctx, usedAt+spec.UsedIndex, 2)
			r.check(err)
			return binary.LittleEndian.Uint16(b) == i
		})
		b, err := r.m.Read(r.ctx, dataAt+pageSize, 4)
		r.check(err)
		if n := binary.LittleEndian.Uint32(b); n != 3 {
			r.Fatalf("chain %d is answered with %d", i, n)
		}
		if _, err := r.m.WaitLine(r.ctx, true); err != nil {
			r.Fatal(err)
		}
		if isr := get(virtioISR, 1); isr != spec.ISRQueue {
			r.Errorf("ISR %#x", isr)
		}
		r.bar(spec.DeviceStatus, 0, 1, false) // QEMU lowers its line when a BAR is accessed
		if _, err := r.m.WaitLine(r.ctx, false); err != nil {
			r.Fatal(err)
		}
	}
}
