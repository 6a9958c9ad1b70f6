package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// Guest memory, by page: what only the host writes, then what only the device writes, then
// a page of data for each command. The doorbell buffers are the last of the first and the
// first of the second part.
const (
	page     = 4096
	base     = 0x100000 // IOVA of page 0
	asq      = 0
	sq       = 1
	doorbell = 2
	hostEnd  = 3
	event    = 3
	acq      = 4
	cq       = 5
	data     = 8
	depth    = 64
	slots    = 16
	ramSize  = (data + 2*slots) * page

	blocks  = 256 // of 4 KiB that the host uses
	stride  = 4
	timeout = 20 * time.Second
)

// host is the driver, with one I/O queue that is full of reads and writes all the time.
type host struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex // a step
	dev    *client.Device
	ram    []byte
	shadow bool
	moving bool // the device may not take doorbells
	rng    *rand.Rand
	io     ring
	admin  ring
	free   []int
	busy   [blocks]bool
	want   [blocks]uint64 // what was written last
	open   [slots]*request
	done   int
}

// request is a command in flight.
type request struct {
	write bool
	block int
	value uint64
}

// ring is a queue pair.
type ring struct {
	id         uint16
	sq, cq     int // pages
	tail, head uint32
	phase      uint64
}

func newHost(t *testing.T, dev *client.Device, ram []byte, shadow bool) *host {
	ctx, cancel := context.WithTimeout(context.Background(), 3*timeout)
	t.Cleanup(cancel)
	h := &host{t: t, ctx: ctx, dev: dev, ram: ram, shadow: shadow, rng: rand.New(rand.NewPCG(1, 2)),
		admin: ring{id: 0, sq: asq, cq: acq, phase: 1}, io: ring{id: 1, sq: sq, cq: cq, phase: 1}}
	for i := range slots {
		h.free = append(h.free, i)
	}
	config := []byte{6, 4} // memory, bus master, no INTx
	h.must(dev.WriteRegion(ctx, client.RegionConfig, 4, config))
	h.must(errors.Join(
		dev.WriteRegion32(ctx, 0, spec.RegAQA, uint32(spec.NewAQA(depth-1, depth-1))),
		dev.WriteRegion64(ctx, 0, spec.RegASQ, base+asq*page),
		dev.WriteRegion64(ctx, 0, spec.RegACQ, base+acq*page),
		dev.WriteRegion32(ctx, 0, spec.RegCC, uint32(spec.NewCC(true, 0, 6, 4)))))
	h.until("the controller to be ready", func() bool {
		v, err := dev.ReadRegion32(ctx, 0, spec.RegCSTS)
		h.must(err)
		return spec.CSTS(v).RDY()
	})
	if shadow {
		h.command(spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: base + doorbell*page, PRP2: base + event*page})
	}
	h.command(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: base + cq*page, CDW10: 1 | (depth-1)<<16, CDW11: 1})
	h.command(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: base + sq*page, CDW10: 1 | (depth-1)<<16, CDW11: 1 | 1<<16})
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	for !ok() {
		if h.ctx.Err() != nil {
			h.t.Fatalf("no end of waiting for %s", what)
		}
		runtime.Gosched()
	}
}

// command runs an admin command.
func (h *host) command(e spec.SubmissionEntry) {
	h.t.Helper()
	h.put(&h.admin, e)
	h.until("an admin command", func() bool {
		c, ok := h.take(&h.admin)
		if ok && !c.Status.OK() {
			h.t.Fatalf("admin command %#x: %v", e.Opcode, c.Status)
		}
		return ok
	})
}

func (h *host) put(r *ring, e spec.SubmissionEntry) {
	e.Put(h.ram[r.sq*page+int(r.tail)*64:])
	r.tail = (r.tail + 1) % depth
	h.ring(r, spec.SQTailDoorbell(r.id, stride), r.tail)
}

// take gives a completion, if there is one.
func (h *host) take(r *ring) (c spec.CompletionEntry, ok bool) {
	b := h.ram[r.cq*page+int(r.head)*16:][:16]
	hi := dma.Load64(b, 8)
	if hi>>48&1 != r.phase {
		return c, false
	}
	c.SetWords(dma.Load64(b, 0), hi)
	if r.head = (r.head + 1) % depth; r.head == 0 {
		r.phase ^= 1
	}
	h.ring(r, spec.CQHeadDoorbell(r.id, stride), r.head)
	return c, true
}

// ring rings always, whatever the event index says: that is the device's to bear.
func (h *host) ring(r *ring, off uint64, v uint32) {
	if h.shadow && r.id != 0 {
		dma.StoreRelease32(h.ram, doorbell*page+int(off-spec.RegDoorbells), v)
	}
	if err := h.dev.WriteRegion32(h.ctx, 0, off, v); err != nil && !h.moving {
		h.t.Errorf("doorbell %#x: %v", off, err)
	}
}

// step does one round of work.
func (h *host) step() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.free) > 0 {
		b := h.rng.IntN(blocks)
		if h.busy[b] {
			break
		}
		h.submit(b, h.rng.IntN(2) == 0)
	}
	for {
		c, ok := h.take(&h.io)
		if !ok {
			return
		}
		h.complete(c)
	}
}

// page of a slot's data: reads and writes have their own, so that it is known who writes.
func (r *request) page(slot int) int {
	if r.write {
		return data + slots + slot
	}
	return data + slot
}

func (h *host) submit(b int, write bool) {
	slot := h.free[len(h.free)-1]
	h.free = h.free[:len(h.free)-1]
	h.busy[b] = true
	r := &request{write: write, block: b, value: h.want[b]}
	e := spec.SubmissionEntry{Opcode: spec.NVMRead, CID: uint16(slot), NSID: 1, PRP1: base + uint64(r.page(slot))*page}
	if write {
		r.value = h.rng.Uint64()
		e.Opcode = spec.NVMWrite
		binary.NativeEndian.PutUint64(h.ram[r.page(slot)*page:], r.value)
	}
	e.SetLBA(uint64(b))
	h.open[slot] = r
	h.put(&h.io, e)
}

func (h *host) complete(c spec.CompletionEntry) {
	slot := int(c.CID)
	if slot >= slots || h.open[slot] == nil || !c.Status.OK() {
		h.t.Fatalf("completion %+v", c)
	}
	r := h.open[slot]
	if r.write {
		h.want[r.block] = r.value
	} else if got := binary.NativeEndian.Uint64(h.ram[r.page(slot)*page:]); got != r.value {
		h.t.Errorf("block %d: %#x, want %#x", r.block, got, r.value)
	}
	h.open[slot], h.busy[r.block] = nil, false
	h.free = append(h.free, slot)
	h.done++
}

// work steps until n commands more are done.
func (h *host) work(n int) {
	h.t.Helper()
	h.mu.Lock()
	n += h.done
	h.mu.Unlock()
	h.until("I/O", func() bool {
		h.step()
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.done >= n
	})
}

// start works until stop is called.
func (h *host) start() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			default:
				h.step()
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// set says whether doorbells may fail.
func (h *host) set(moving bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moving = moving
}

// move goes on with another device, and perhaps other memory; doorbells that the old one
// did not take are rung again.
func (h *host) move(dev *client.Device, ram []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dev, h.ram, h.moving = dev, ram, false
	h.ring(&h.io, spec.SQTailDoorbell(1, stride), h.io.tail)
	h.ring(&h.io, spec.CQHeadDoorbell(1, stride), h.io.head)
}

// differences lists the pages in which two memories differ.
func differences(a, b []byte) (pages []int) {
	for p := range len(a) / page {
		if !bytes.Equal(a[p*page:][:page], b[p*page:][:page]) {
			pages = append(pages, p)
		}
	}
	return pages
}

// moves takes the drive from dev to next while its queue is full.
func (h *host) moves(dev, next *client.Device, ram []byte) {
	stop := h.start()
	h.set(true)
	_, err := client.Migrate(h.ctx, dev, next, client.MigrateOptions{})
	if err == nil {
		h.move(next, ram)
	}
	stop()
	h.must(err)
	h.work(500)
}
