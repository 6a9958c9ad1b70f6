package nvmeconformance

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
)

const (
	pageSize = 4096
	bar0     = 0

	memorySize = 32 << 20
	memoryAt   = 1 << 32
	// nowhere is an address that is not mapped.
	nowhere = memoryAt + memorySize + 1<<20

	adminEntries = 32
	ioEntries    = 64
)

// rig is the controller under test, seen by a host that may do anything.
type rig struct {
	ctx  context.Context
	opts *Options
	dev  *client.Device
	mem  *client.Memory
	bell *client.MappedRegion // mode Mapped

	cap   spec.Cap
	used  uint64 // bytes of mem handed out
	keep  uint64 // of them, those that stay across checks
	admin *queue
	io    *queue
	dirty bool // the controller is not as up leaves it

	shadow, event []byte // mode Shadow, once configured

	identity   []byte // Identify Controller
	namespaces []namespace
	ns         *namespace // the one that checks of I/O commands use; nil: none can be written
	effects    []byte     // the commands supported and effects log, nil without
}

// namespace is an active namespace.
type namespace struct {
	id        uint32
	data      []byte // Identify Namespace
	blocks    uint64
	blockSize int
	metadata  int
	protected bool
}

func newRig(ctx context.Context, dev *client.Device, o *Options) (*rig, error) {
	mem, err := client.NewMemory(memorySize)
	if err != nil {
		return nil, err
	}
	r := &rig{ctx: ctx, opts: o, dev: dev, mem: mem, dirty: true}
	if err := r.begin(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) begin() error {
	if err := r.dev.MapDMA(r.ctx, r.mem.At(memoryAt)); err != nil {
		return err
	}
	// Memory accesses and bus mastering, no pin.
	if err := r.dev.WriteRegion(r.ctx, client.RegionConfig, 4, []byte{6, 4}); err != nil {
		return err
	}
	if r.opts.Doorbells == Mapped {
		if err := r.mapDoorbells(); err != nil {
			return err
		}
	}
	t := &T{rig: r}
	t.protect(func() { r.survey(t) })
	if len(t.failures) > 0 {
		return fmt.Errorf("the controller cannot be brought up: %s", t.failures[0])
	}
	return nil
}

func (r *rig) mapDoorbells() error {
	region, err := r.dev.Region(r.ctx, bar0)
	if err != nil {
		return err
	}
	defer region.Close()
	for i, a := range region.Areas {
		if a.Offset <= spec.RegDoorbells && a.Offset+a.Size > spec.RegDoorbells {
			r.bell, err = region.Mmap(i)
			return err
		}
	}
	return fmt.Errorf("the doorbells cannot be mapped")
}

func (r *rig) close() {
	if r.dev.Err() == nil {
		t := &T{rig: r}
		t.protect(func() { r.down(t) })
		_ = r.dev.UnmapDMA(r.ctx, memoryAt, memorySize)
	}
	if r.bell != nil {
		_ = r.bell.Close()
	}
	_ = r.mem.Close()
}

// survey finds out what there is.
func (r *rig) survey(t *T) {
	r.cap = spec.Cap(t.read64(spec.RegCAP))
	r.up(t)
	r.identity = t.identify(1, 0)
	if r.opts.Doorbells == Shadow {
		t.need(t.u16(r.identity, 256)&(1<<8) != 0, "Doorbell Buffer Config")
	}
	list := t.identify(2, 0)
	for i := 0; i < len(list); i += 4 {
		id := binary.LittleEndian.Uint32(list[i:])
		if id == 0 {
			break
		}
		r.namespaces = append(r.namespaces, t.namespace(id))
	}
	for i := range r.namespaces {
		if ns := &r.namespaces[i]; r.ns == nil && !ns.protected && ns.metadata == 0 && ns.blocks >= 4096 {
			r.ns = ns
		}
	}
	if r.identity[261]&2 != 0 {
		r.effects = t.log(5, spec.BroadcastNSID, 0, 4096)
	}
	r.dirty = true
}

// namespace asks what a namespace is.
func (t *T) namespace(id uint32) namespace {
	d := t.identify(0, id)
	format := d[128+4*int(d[26]&0xf|d[26]>>1&0x30):]
	return namespace{
		id: id, data: d, blocks: binary.LittleEndian.Uint64(d), blockSize: 1 << format[2],
		metadata: int(binary.LittleEndian.Uint16(format)), protected: d[99]&1 != 0,
	}
}

// up makes the controller one that was just enabled, with one I/O queue pair.
func (r *rig) up(t *T) {
	if !r.dirty {
		r.release()
		return
	}
	r.down(t)
	r.used = 0
	r.admin = t.newQueue(0, adminEntries, adminEntries)
	t.enable(r.admin)
	t.setUpShadow()
	r.io = t.newIOQueue(1, ioEntries)
	r.dirty = false
	r.mark()
}

func (t *T) setUpShadow() {
	t.shadow, t.event = nil, nil
	if t.opts.Doorbells != Shadow {
		return
	}
	var at, eventAt uint64
	shadow, at := t.alloc(pageSize)
	event, eventAt := t.alloc(pageSize)
	t.must("Doorbell Buffer Config", t.do(t.admin, &spec.SubmissionEntry{Opcode: spec.AdminDoorbellBuffer, PRP1: at, PRP2: eventAt}))
	t.shadow, t.event = shadow, event
}

// down disables the controller, whatever state it is in.
func (r *rig) down(t *T) {
	r.dirty = true
	if t.read32(spec.RegCC)&1 != 0 {
		t.write32(spec.RegCC, 0)
	} else if t.csts().SHST() != spec.ShutNormal {
		t.functionReset() // only a reset undoes a shutdown, and it was disabled before
	}
	t.await("CSTS to be 0 after CC.EN was cleared", func() bool { return t.read32(spec.RegCSTS)&0xf == 0 })
	r.admin, r.io, r.shadow, r.event = nil, nil, nil, nil
	r.used, r.keep = 0, 0
}

// await waits for what has to come.
func (t *T) await(what string, done func() bool) {
	deadline := time.Now().Add(t.opts.Patience)
	for round := 0; !done(); round++ {
		switch {
		case t.dev.Err() != nil:
			t.fatalf("waiting for %s: %v", what, t.dev.Err())
		case time.Now().After(deadline):
			t.fatalf("waited %v in vain for %s", t.opts.Patience, what)
		case round < 64:
			runtime.Gosched()
		default:
			time.Sleep(20 * time.Microsecond)
		}
	}
}
