package fuzz

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/client"
	nvmedevice "vfiouser/devices/nvme"
	"vfiouser/devices/nvme/spec"
	nvmedriver "vfiouser/drivers/nvme"
	"vfiouser/engine"
	"vfiouser/fuzz/nvmemodel"
)

const (
	nvmeDataIOVA = 1 << 40 // where the data of I/O commands is, apart from the queues
	nvmeSlot     = nvmemodel.MaxTransfer + 4096
	nvmePatience = time.Minute
)

// faultyBackend fails when it is told to.
type faultyBackend struct {
	block.Resizer
	failing [3]atomic.Bool // by nvmemodel.Failure
}

func (b *faultyBackend) Submit(r *block.Request) (bool, error) {
	what := nvmemodel.FailErase
	switch r.Op {
	case block.Read:
		what = nvmemodel.FailRead
	case block.Write:
		what = nvmemodel.FailWrite
	}
	if r.Op != block.Flush && b.failing[what].Load() {
		return true, &block.Error{Op: r.Op, Offset: r.Offset, Length: r.Length, Err: syscall.EIO}
	}
	return b.Resizer.Submit(r)
}

// nvmeDrive is a subsystem behind an engine, and hosts that use it over sockets with the driver of
// this project.
type nvmeDrive struct {
	t      testing.TB
	engine *engine.Engine
	dir    string
	mode   nvmedevice.DoorbellMode
	files  bool // what is behind the first namespaces
	served int  // endpoints
	s      *nvmedevice.Subsystem
	hosts  []*nvmeHost
}

type nvmeHost struct {
	d          *nvmeDrive
	controller *nvmedevice.Controller
	endpoint   *engine.Endpoint
	dev        *client.Device
	driver     *nvmedriver.Controller
	mem, data  *client.Memory
	queues     [nvmemodel.Queues]*nvmeQueue
}

// nvmeQueue is a queue with the commands that are under way.
type nvmeQueue struct {
	*nvmedriver.Queue
	id     int
	flying map[uint16]*nvmemodel.Command
	base   uint64 // of its part of the data memory
}

func (d *nvmeDrive) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func newNVMeDrive(t testing.TB, mode nvmedevice.DoorbellMode, files bool, cfg nvmemodel.Config) *nvmeDrive {
	e, err := engine.New(engine.Config{Workers: 2})
	d := &nvmeDrive{t: t, engine: e, dir: t.TempDir(), mode: mode, files: files}
	d.must(err)
	d.s = d.subsystem(cfg.Namespaces)
	for range cfg.Hosts {
		h := &nvmeHost{d: d}
		d.hosts = append(d.hosts, h)
		for _, m := range []**client.Memory{&h.mem, &h.data} {
			*m, err = client.NewMemory(8 << 20)
			d.must(err)
		}
		h.serve()
		h.attach()
		h.open()
	}
	return d
}

func (d *nvmeDrive) subsystem(list []nvmemodel.Namespace) *nvmedevice.Subsystem {
	pool, err := block.OpenPool(fmt.Sprintf("mem:%d", nvmemodel.PoolSize))
	d.must(err)
	s, err := nvmedevice.NewSubsystem(nvmedevice.SubsystemConfig{Serial: "model", Pool: pool})
	d.must(err)
	d.s = s
	for _, n := range list {
		if id := d.Add(n); id != n.ID {
			d.t.Fatalf("namespace %d, want %d", id, n.ID)
		}
	}
	return s
}

// serve makes a controller and its endpoint.
func (h *nvmeHost) serve() {
	d := h.d
	var err error
	h.controller, err = nvmedevice.New(nvmedevice.Config{
		Subsystem: d.s, Doorbells: d.mode, Queues: nvmemodel.Queues, MaxTransfer: nvmemodel.MaxTransfer,
	})
	d.must(err)
	d.served++
	h.endpoint, err = d.engine.Register(filepath.Join(d.dir, fmt.Sprint("socket", d.served)), h.controller)
	d.must(err)
	d.must(h.endpoint.Start())
}

func nvmeContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), nvmePatience)
}

func (h *nvmeHost) attach() {
	ctx, cancel := nvmeContext()
	defer cancel()
	var err error
	h.dev, err = client.Attach(ctx, h.endpoint.Path(), client.WithReattach())
	h.d.must(err)
	h.d.must(h.dev.MapDMA(ctx, h.data.At(nvmeDataIOVA)))
}

// open brings the controller up.
func (h *nvmeHost) open() {
	ctx, cancel := nvmeContext()
	defer cancel()
	h.queues = [nvmemodel.Queues]*nvmeQueue{}
	var err error
	h.driver, err = nvmedriver.Open(ctx, h.dev, h.mem)
	h.d.must(err)
}

func nvmeStatus(t testing.TB, err error) spec.Status {
	t.Helper()
	var st spec.Status
	if err != nil && !errors.As(err, &st) {
		t.Fatal(err)
	}
	return st
}

func (d *nvmeDrive) Admin(host int, e spec.SubmissionEntry, data []byte) (spec.Status, uint32) {
	ctx, cancel := nvmeContext()
	defer cancel()
	v, err := d.hosts[host].driver.Admin(ctx, &e, data)
	return nvmeStatus(d.t, err), v
}

func (d *nvmeDrive) CreateQueue(host, queue int) {
	ctx, cancel := nvmeContext()
	defer cancel()
	h := d.hosts[host]
	q, err := h.driver.NewQueue(ctx, nvmedriver.QueueConfig{Depth: nvmemodel.QueueDepth, Interrupts: queue == 1})
	d.must(err)
	id := 1 // the driver takes the lowest number
	for slices.ContainsFunc(h.queues[:], func(q *nvmeQueue) bool { return q != nil && q.id == id }) {
		id++
	}
	h.queues[queue] = &nvmeQueue{
		Queue: q, id: id, flying: map[uint16]*nvmemodel.Command{}, base: uint64(queue) * nvmemodel.QueueDepth * nvmeSlot,
	}
}

func (d *nvmeDrive) DeleteQueue(host, queue int) {
	h := d.hosts[host]
	h.collect(h.queues[queue])
	d.must(h.queues[queue].Close())
	h.queues[queue] = nil
}

// slot is where the data of a tag is; the page before has its PRP list.
func (q *nvmeQueue) slot(tag uint16) uint64 { return q.base + uint64(tag)*nvmeSlot + 4096 }

func (d *nvmeDrive) Start(host, queue int, list []*nvmemodel.Command) {
	h := d.hosts[host]
	q := h.queues[queue]
	for _, c := range list {
		tag := uint16(0)
		for q.flying[tag] != nil {
			tag++
		}
		at := q.slot(tag)
		copy(h.data.Bytes()[at:], c.Data)
		e := c.Entry
		if len(c.Data) <= 4096 {
			e.PRP1 = nvmeDataIOVA + at
		} else {
			e.Flags |= spec.PSDTSGL << 6
			descriptor := spec.NewSGLDescriptor(spec.SGLDataBlock, nvmeDataIOVA+at, uint32(len(c.Data)))
			e.PRP1, e.PRP2 = descriptor.Address, descriptor.Word
		}
		q.flying[tag] = c
		d.must(q.Submit(tag, &e))
	}
	d.must(q.Ring())
}

// collect takes the completions that there are.
func (h *nvmeHost) collect(q *nvmeQueue) {
	var done [nvmemodel.QueueDepth]nvmedriver.Completion
	n, err := q.Poll(done[:])
	h.d.must(err)
	for _, x := range done[:n] {
		c := q.flying[x.Tag]
		delete(q.flying, x.Tag)
		c.Done, c.Status = true, x.Status
		if c.Entry.Opcode&spec.OpcodeToHost != 0 {
			copy(c.Data, h.data.Bytes()[q.slot(x.Tag):])
		}
	}
}

func (d *nvmeDrive) Wait(host int) {
	h := d.hosts[host]
	ctx, cancel := nvmeContext()
	defer cancel()
	for _, q := range h.queues {
		if q == nil {
			continue
		}
		for h.collect(q); len(q.flying) > 0; h.collect(q) {
			if q.Interrupts() {
				d.must(q.Wait(ctx))
			} else if ctx.Err() != nil {
				d.t.Fatalf("commands have not ended: %v", q.flying)
			}
		}
	}
}

func (d *nvmeDrive) Abort(host int, c *nvmemodel.Command) bool {
	for _, q := range d.hosts[host].queues {
		if q == nil {
			continue
		}
		for tag, x := range q.flying {
			if x == c {
				st, v := d.Admin(host, spec.SubmissionEntry{Opcode: spec.AdminAbort, CDW10: uint32(tag)<<16 | uint32(q.id)}, nil)
				if !st.OK() {
					d.t.Fatalf("abort: %v", st)
				}
				return v&1 == 0
			}
		}
	}
	return false
}

func (d *nvmeDrive) Restart(host int, how nvmemodel.Restart) {
	h := d.hosts[host]
	ctx, cancel := nvmeContext()
	defer cancel()
	switch how {
	case nvmemodel.SubsystemReset:
		d.must(h.dev.WriteRegion32(ctx, client.RegionBAR0, spec.RegNSSR, spec.NSSRReset))
		for _, h := range d.hosts {
			_ = h.driver.Close() // of a controller that is not what it was
			h.open()
		}
		return
	case nvmemodel.Reset:
		d.must(h.dev.Reset(ctx))
		_ = h.driver.Close()
	case nvmemodel.Shutdown:
		d.must(h.driver.Close())
	case nvmemodel.Disconnect:
		if d.canMigrate() {
			h.migrate()
			break
		}
		d.must(h.dev.Close())
		d.must(h.driver.Close())
		h.attach()
	}
	h.open()
}

// canMigrate says whether all that the only host has can go with it.
func (d *nvmeDrive) canMigrate() bool {
	if len(d.hosts) > 1 || d.files {
		return false
	}
	for i, n := range d.s.Namespaces() {
		b, err := d.s.Backend(n.ID)
		d.must(err)
		if _, ours := b.(*faultyBackend); !ours || len(n.Controllers) == 0 || n.ID != uint32(i+1) {
			return false
		}
	}
	return true
}

// migrate moves the host to another server, where it begins anew: the driver cannot go on with
// the queues that it had.
func (h *nvmeHost) migrate() {
	d := h.d
	ctx, cancel := nvmeContext()
	defer cancel()
	var list []nvmemodel.Namespace
	for _, n := range d.s.Namespaces() {
		b, err := d.s.Backend(n.ID)
		d.must(err)
		list = append(list, nvmemodel.Namespace{ID: n.ID, Bytes: b.Size(), BlockSize: n.BlockSize})
	}
	endpoint, controller, s, from := h.endpoint, h.controller, d.s, h.dev
	d.subsystem(list)
	h.serve()
	var err error
	h.dev, err = client.Attach(ctx, h.endpoint.Path(), client.WithReattach())
	d.must(err)
	_, err = client.Migrate(ctx, from, h.dev, client.MigrateOptions{})
	d.must(err)
	d.must(h.driver.Close())
	d.must(errors.Join(endpoint.Close(), controller.Close(), s.Close()))
}

func (d *nvmeDrive) Unmap(host int) {
	ctx, cancel := nvmeContext()
	defer cancel()
	h := d.hosts[host]
	d.must(h.dev.UnmapDMA(ctx, nvmeDataIOVA, h.data.Size()))
}

func (d *nvmeDrive) Map(host int) {
	ctx, cancel := nvmeContext()
	defer cancel()
	h := d.hosts[host]
	d.must(h.dev.MapDMA(ctx, h.data.At(nvmeDataIOVA)))
}

// Migrate moves nobody: see Restart.
func (d *nvmeDrive) Migrate([]nvmemodel.Namespace) {}

func (d *nvmeDrive) Fail(nsid uint32, what nvmemodel.Failure, on bool) bool {
	b, err := d.s.Backend(nsid)
	d.must(err)
	f, ok := b.(*faultyBackend)
	if ok {
		f.failing[what].Store(on)
	}
	return ok
}

func (d *nvmeDrive) Add(n nvmemodel.Namespace) uint32 {
	var b block.Backend
	var err error
	if d.files {
		d.served++
		path := filepath.Join(d.dir, fmt.Sprint("disk", d.served))
		d.must(os.WriteFile(path, make([]byte, n.Bytes), 0o600))
		b, err = block.File(path, block.FileOptions{})
	} else {
		b, err = block.Memory(n.Bytes)
	}
	d.must(err)
	id, err := d.s.AddNamespace(nvmedevice.Namespace{Backend: &faultyBackend{Resizer: b.(block.Resizer)}, BlockSize: n.BlockSize})
	d.must(err)
	return id
}

func (d *nvmeDrive) Resize(nsid uint32, bytes int64) { d.must(d.s.ResizeNamespace(nsid, bytes)) }
func (d *nvmeDrive) Remove(nsid uint32)              { d.must(d.s.RemoveNamespace(nsid)) }

func (d *nvmeDrive) close() {
	for _, h := range d.hosts {
		_ = h.driver.Close()
		d.must(errors.Join(h.dev.Close(), h.endpoint.Close(), h.controller.Close(), h.mem.Close(), h.data.Close()))
	}
	d.must(errors.Join(d.s.Close(), d.engine.Close()))
}
