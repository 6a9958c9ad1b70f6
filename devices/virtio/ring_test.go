package virtio_test

import (
	"bytes"
	"testing"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/devices/virtio/spec"
	"vfiouser/dma"
)

// ring is the driver's side of a split virtqueue with one chain in flight: a readable and
// a writable buffer.
type ring struct {
	g                   *guest
	index, size         int
	desc, avail, used   uint64
	in, out             uint64 // buffers, bufferSize each
	availIndex, usedIdx uint16
}

const bufferSize = 2048

// keepVector leaves the vector of a queue as it is.
const keepVector = 0xfffe

// newRing sets up a queue with a vector and enables it.
func (g *guest) newRing(index, size int, vector uint16) *ring {
	g.t.Helper()
	r := &ring{
		g: g, index: index, size: size,
		desc: g.alloc(int(spec.DescBytes(uint16(size))), 4096), avail: g.alloc(int(spec.AvailBytes(uint16(size))), 4096),
		used: g.alloc(int(spec.UsedBytes(uint16(size))), 4096), in: g.alloc(bufferSize, 4096), out: g.alloc(bufferSize, 4096),
	}
	r.enable(vector)
	return r
}

// enable configures the queue.
func (r *ring) enable(vector uint16) {
	r.g.t.Helper()
	r.configure(vector)
	r.g.set(spec.QueueEnable, 1)
	if r.g.get(spec.QueueEnable) != 1 {
		r.g.t.Fatalf("queue %d is not enabled", r.index)
	}
}

func (r *ring) configure(vector uint16) {
	g := r.g
	g.t.Helper()
	g.set(spec.QueueSelect, uint64(r.index))
	g.set(spec.QueueSize, uint64(r.size))
	g.set(spec.QueueDesc, r.desc)
	g.set(spec.QueueDriver, r.avail)
	g.set(spec.QueueDevice, r.used)
	if vector == keepVector {
		return
	}
	g.set(spec.QueueMSIXVector, uint64(vector))
	if got := g.get(spec.QueueMSIXVector); got != uint64(vector) {
		g.t.Fatalf("vector %#x of queue %d reads %#x", vector, r.index, got)
	}
}

// offer makes a chain available: message to read, and room to write.
func (r *ring) offer(message []byte) {
	g := r.g
	dma.Copy(g.bytes(r.in, bufferSize), message)
	first := spec.Desc{Addr: r.in, Len: uint32(len(message)), Flags: spec.DescNext, Next: 1}
	second := spec.Desc{Addr: r.out, Len: bufferSize, Flags: spec.DescWrite}
	r.put(0, first)
	r.put(1, second)
	r.publish(0)
}

func (r *ring) put(i int, d spec.Desc) {
	var b [spec.DescSize]byte
	d.Put(b[:])
	dma.Copy(r.g.bytes(r.desc+uint64(i)*spec.DescSize, spec.DescSize), b[:])
}

// publish makes the chain that begins with head available.
func (r *ring) publish(head uint16) {
	avail := r.g.bytes(r.avail, int(spec.AvailBytes(uint16(r.size))))
	dma.Store16(avail, spec.AvailRing+spec.AvailEntrySize*int(r.availIndex%uint16(r.size)), head)
	r.availIndex++
	dma.Store16(avail, spec.AvailIndex, r.availIndex)
}

// notify writes the queue's notification address.
func (r *ring) notify() {
	r.g.t.Helper()
	r.g.set(spec.QueueSelect, uint64(r.index))
	r.g.write(spec.CapNotify, r.address(), 2, uint64(r.index))
}

// address is the offset of the queue's notification address in its structure.
func (r *ring) address() int {
	r.g.t.Helper()
	r.g.set(spec.QueueSelect, uint64(r.index))
	return int(r.g.get(spec.QueueNotifyOff)) * int(r.g.caps[spec.CapNotify].Multiplier)
}

// taken says whether something was used that was not taken yet, and how many bytes were
// written.
func (r *ring) taken() (n uint32, ok bool) {
	used := r.g.bytes(r.used, int(spec.UsedBytes(uint16(r.size))))
	if dma.Load16(used, spec.UsedIndex) == r.usedIdx {
		return 0, false
	}
	at := spec.UsedRing + spec.UsedEntrySize*int(r.usedIdx%uint16(r.size))
	r.usedIdx++
	return dma.Load32(used, at+4), true
}

// answer waits for the chain that was offered.
func (r *ring) answer() []byte {
	r.g.t.Helper()
	var n uint32
	until(r.g.t, "an answer", func() (ok bool) {
		n, ok = r.taken()
		return ok
	})
	p := make([]byte, n)
	dma.Copy(p, r.g.bytes(r.out, bufferSize))
	return p
}

// exchange sends a message and checks what comes back.
func (r *ring) exchange(message string) {
	r.g.t.Helper()
	r.offer([]byte(message))
	r.notify()
	if got := r.answer(); !bytes.Equal(got, echoed([]byte(message))) {
		r.g.t.Errorf("queue %d answers %q to %q", r.index, got, message)
	}
}

// resetQueue resets the queue and waits.
func (r *ring) resetQueue() {
	g := r.g
	g.t.Helper()
	g.set(spec.QueueSelect, uint64(r.index))
	g.set(spec.QueueReset, 1)
	until(g.t, "the reset of the queue", func() bool { return g.get(spec.QueueReset) == 0 })
	if g.get(spec.QueueEnable) != 0 {
		g.t.Errorf("queue %d is enabled after its reset", r.index)
	}
	r.availIndex, r.usedIdx = 0, 0
	clear(g.bytes(r.avail, int(spec.AvailBytes(uint16(r.size)))))
	clear(g.bytes(r.used, int(spec.UsedBytes(uint16(r.size)))))
}

// msix has the device signal all of its vectors.
func (g *guest) msix(vectors int) *client.Interrupts {
	g.t.Helper()
	return g.interrupts(client.IRQMSIX, vectors)
}

func (g *guest) interrupts(index codec.IRQIndex, count int) *client.Interrupts {
	g.t.Helper()
	irqs, err := g.dev.Interrupts(g.ctx, index, 0, count)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { irqs.Close(g.ctx) })
	return irqs
}

// expect waits for an interrupt of a vector.
func expect(t testing.TB, g *guest, irqs *client.Interrupts, vector int) {
	t.Helper()
	select {
	case i := <-irqs.C():
		if i.Vector != vector {
			t.Errorf("interrupt %d, want %d", i.Vector, vector)
		}
	case <-g.ctx.Done():
		t.Fatalf("interrupt %d does not come", vector)
	}
}

// none checks that no interrupt has come.
func none(t testing.TB, irqs *client.Interrupts) {
	t.Helper()
	select {
	case i := <-irqs.C():
		t.Errorf("interrupt %+v", i)
	default:
	}
}
