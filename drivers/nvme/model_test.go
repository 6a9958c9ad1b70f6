package nvme

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
	"vfiouser/test/holdings"
)

const modelBase = 1 << 32 // where its memory is mapped

// model is a controller that can be told to do wrong. It lives on the reactor, which serves its registers; it reaches the
// driver's memory directly, being in the same process.
type model struct {
	engine.BaseDevice
	mem []byte
	mu  sync.Mutex // the reactor's, and the test's while it changes what follows

	cap     spec.Cap
	barSize uint64
	// enabled returns CSTS after CC.EN was set, disabled after it was cleared.
	enabled, disabled func() spec.CSTS
	// answer may change the completion of an admin command, or suppress it.
	answer func(e *spec.SubmissionEntry, c *spec.CompletionEntry) bool
	csts   atomic.Uint32

	regs     [0x1000]byte
	fetched  uint32
	posted   uint32
	phase    bool
	identity spec.IdentifyController
	list     []uint32
	format   uint8 // exponent of the namespace's block size
}

func newModel() *model {
	return &model{
		cap:      spec.NewCap(255, 1, 0, 0, 0, spec.CapCSSNVM),
		barSize:  16 << 10,
		enabled:  func() spec.CSTS { return spec.CSTSReady },
		disabled: func() spec.CSTS { return 0 },
		answer:   func(*spec.SubmissionEntry, *spec.CompletionEntry) bool { return true },
		identity: spec.IdentifyController{Serial: "model", SQES: 0x66, CQES: 0x44, Namespaces: 1, MDTS: 5},
		list:     []uint32{1},
		format:   9,
	}
}

func (m *model) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x10, Class: 0x010802, BARs: [6]pci.BAR{{Size: m.barSize, Type: pci.Mem64}}})
	desc := engine.Description{Config: config}
	desc.IRQs[irq.MSIX] = 4
	desc.Regions[engine.RegionBAR0] = engine.Region{Size: m.barSize, Read: m.read, Write: m.write}
	return desc, err
}

func (m *model) read(off uint64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off+uint64(len(p)) > uint64(len(m.regs)) {
		return errors.New("read of a doorbell")
	}
	binary.LittleEndian.PutUint64(m.regs[spec.RegCAP:], uint64(m.cap))
	binary.LittleEndian.PutUint32(m.regs[spec.RegCSTS:], m.csts.Load())
	copy(p, m.regs[off:])
	return nil
}

func (m *model) write(off uint64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off >= spec.RegDoorbells {
		if off == spec.RegDoorbells {
			m.fetch(binary.LittleEndian.Uint32(p))
		}
		return nil
	}
	old := spec.CC(binary.LittleEndian.Uint32(m.regs[spec.RegCC:]))
	copy(m.regs[off:], p)
	cc := spec.CC(binary.LittleEndian.Uint32(m.regs[spec.RegCC:]))
	switch {
	case cc.EN() && !old.EN():
		m.fetched, m.posted, m.phase = 0, 0, true
		m.csts.Store(uint32(m.enabled()))
	case !cc.EN() && old.EN():
		m.csts.Store(uint32(m.disabled()))
	case cc.SHN() != old.SHN() && cc.SHN() != 0:
		m.csts.Store(uint32(spec.CSTS(m.csts.Load()).WithSHST(spec.ShutComplete)))
	}
	return nil
}

// fetch executes admin commands up to a tail.
func (m *model) fetch(tail uint32) {
	aqa := spec.AQA(binary.LittleEndian.Uint32(m.regs[spec.RegAQA:]))
	asq := binary.LittleEndian.Uint64(m.regs[spec.RegASQ:]) - modelBase
	for m.fetched != tail {
		var e spec.SubmissionEntry
		e.Get(m.mem[asq+uint64(m.fetched)*spec.SubmissionEntrySize:])
		m.fetched = (m.fetched + 1) % (uint32(aqa.ASQS()) + 1)
		c := spec.CompletionEntry{SQHead: uint16(m.fetched), CID: e.CID}
		m.execute(&e, &c)
		if m.answer(&e, &c) {
			m.post(c)
		}
	}
}

// post posts a completion to the admin queue.
func (m *model) post(c spec.CompletionEntry) {
	aqa := spec.AQA(binary.LittleEndian.Uint32(m.regs[spec.RegAQA:]))
	acq := binary.LittleEndian.Uint64(m.regs[spec.RegACQ:]) - modelBase
	c.Phase = m.phase
	entry := &cqEntries(m.mem[acq:])[m.posted]
	lo, hi := c.Words()
	entry.lo = lo
	entry.hi.Store(hi)
	if m.posted++; m.posted > uint32(aqa.ACQS()) {
		m.posted, m.phase = 0, !m.phase
	}
}

func (m *model) execute(e *spec.SubmissionEntry, c *spec.CompletionEntry) {
	switch e.Opcode {
	case spec.AdminIdentify:
		data := m.mem[e.PRP1-modelBase:][:spec.IdentifySize]
		switch e.CDW10 {
		case spec.CNSController:
			m.identity.Put(data)
		case spec.CNSActiveNamespaces:
			spec.PutNamespaceList(data, m.list)
		case spec.CNSNamespace:
			n := spec.IdentifyNamespace{Size: 1000, Capacity: 1000}
			n.Formats[0].DataExponent = m.format
			n.Put(data)
		}
	case spec.AdminSetFeatures:
		c.DW0 = 1 | 1<<16
	case spec.AdminCreateCQ, spec.AdminCreateSQ, spec.AdminDeleteCQ, spec.AdminDeleteSQ:
	default:
		c.Status = spec.InvalidOpcode
	}
}

// attachModel returns a client attached to the model.
func attachModel(t *testing.T, m *model) (*client.Device, *client.Memory) {
	t.Helper()
	holdings.CheckLeaks(t)
	mem, err := client.NewMemory(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	m.mem = mem.Bytes()
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	ep, err := eng.Register(filepath.Join(t.TempDir(), "model"), m)
	if err == nil {
		err = ep.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	dev, err := client.Attach(testContext(t), ep.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close(); mem.Close() })
	return dev, mem
}

func TestOpenFailsOnAControllerThat(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(m *model)
		want  error
	}{
		{"has pages larger than 4 KiB only", func(m *model) { m.cap = spec.NewCap(255, 1, 0, 1, 1, spec.CapCSSNVM) }, ErrUnsupported},
		{"lacks the NVM command set", func(m *model) { m.cap = spec.NewCap(255, 1, 0, 0, 0, 0) }, ErrUnsupported},
		{"has queues of one entry", func(m *model) { m.cap = spec.NewCap(0, 1, 0, 0, 0, spec.CapCSSNVM) }, ErrUnsupported},
		{"has no doorbells", func(m *model) { m.barSize = 4096 }, ErrUnsupported},
		{"fails when enabled", func(m *model) { m.enabled = func() spec.CSTS { return spec.CSTSFatal } }, ErrFatal},
		{"vanishes when enabled", func(m *model) { m.enabled = func() spec.CSTS { return 0xffffffff } }, ErrFatal},
		{"never becomes ready", func(m *model) {
			m.cap = spec.NewCap(255, 0, 0, 0, 0, spec.CapCSSNVM)
			m.enabled = func() spec.CSTS { return 0 }
		}, ErrTimeout},
		{"needs larger queue entries", func(m *model) { m.identity.SQES = 0x77 }, ErrUnsupported},
		{"refuses a command", func(m *model) {
			m.answer = func(e *spec.SubmissionEntry, c *spec.CompletionEntry) bool {
				c.Status = spec.InternalError
				return true
			}
		}, spec.InternalError},
		{"does not answer", func(m *model) {
			m.answer = func(*spec.SubmissionEntry, *spec.CompletionEntry) bool { return false }
		}, ErrTimeout},
		{"fails at the first command", func(m *model) {
			m.answer = func(*spec.SubmissionEntry, *spec.CompletionEntry) bool {
				m.csts.Store(uint32(spec.CSTSFatal | spec.CSTSReady))
				return false
			}
		}, ErrFatal},
		{"answers another command", func(m *model) {
			m.answer = func(e *spec.SubmissionEntry, c *spec.CompletionEntry) bool { c.CID++; return true }
		}, ErrDevice},
		{"answers on another queue", func(m *model) {
			m.answer = func(e *spec.SubmissionEntry, c *spec.CompletionEntry) bool { c.SQID = 1; return true }
		}, ErrDevice},
		{"lists a namespace twice", func(m *model) { m.list = []uint32{1, 2, 2} }, ErrDevice},
		{"has blocks of 256 bytes", func(m *model) { m.format = 8 }, ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newModel()
			test.spoil(m)
			dev, mem := attachModel(t, m)
			if _, err := Open(testContext(t), dev, mem, WithTimeout(50*time.Millisecond)); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if dev.Err() != nil {
				t.Error("the session has ended:", dev.Err())
			}
			if _, mapped := dev.MappingOf(mem); mapped {
				t.Error("the memory is still mapped")
			}
		})
	}
}

func TestQueueThatCannotBeCreated(t *testing.T) {
	fail := map[uint8]func(c *spec.CompletionEntry) bool{}
	m := newModel()
	m.answer = func(e *spec.SubmissionEntry, c *spec.CompletionEntry) bool {
		f := fail[e.Opcode]
		return f == nil || f(c)
	}
	dev, mem := attachModel(t, m)
	c, err := Open(testContext(t), dev, mem, WithTimeout(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if c.Doorbells() != Trap || c.Queues() != 2 || c.MaxTransfer() != 128<<10 {
		t.Errorf("%v, %d queues, %d bytes", c.Doorbells(), c.Queues(), c.MaxTransfer())
	}
	set := func(opcode uint8, f func(*spec.CompletionEntry) bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		fail[opcode] = f
	}
	refuse := func(c *spec.CompletionEntry) bool { c.Status = spec.InvalidQueueSize; return true }
	silent := func(*spec.CompletionEntry) bool { return false }
	create := func(cfg QueueConfig, want error) {
		t.Helper()
		q, err := c.NewQueue(testContext(t), cfg)
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		if q != nil {
			q.Close()
		}
	}
	set(spec.AdminCreateCQ, refuse)
	create(QueueConfig{}, spec.InvalidQueueSize)
	set(spec.AdminCreateCQ, nil)
	set(spec.AdminCreateSQ, refuse)
	create(QueueConfig{}, spec.InvalidQueueSize)
	create(QueueConfig{Interrupts: true}, ErrUnsupported) // it has no MSI-X capability
	set(spec.AdminCreateSQ, nil)
	create(QueueConfig{}, nil)
	set(spec.AdminCreateSQ, silent)
	create(QueueConfig{}, ErrTimeout)
	set(spec.AdminCreateSQ, nil)
	create(QueueConfig{}, nil) // the number of the failed one is lost, there is another
	set(spec.AdminDeleteSQ, silent)
	create(QueueConfig{}, nil)
	create(QueueConfig{}, ErrNoQueue)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if whole, err := mem.Alloc(mem.Size(), 0); err != nil {
		t.Error("memory was not given back:", err)
	} else {
		mem.Free(whole)
	}
}

func TestLateAnswersOfCommandsGivenUp(t *testing.T) {
	const hold, release = 0xc0, 0xc4
	var held []spec.CompletionEntry
	m := newModel()
	m.answer = func(e *spec.SubmissionEntry, c *spec.CompletionEntry) bool {
		switch e.Opcode {
		case hold:
			held = append(held, *c)
			return false
		case release:
			for _, c := range held {
				m.post(c)
			}
		}
		return true
	}
	dev, mem := attachModel(t, m)
	c, err := Open(testContext(t), dev, mem)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	for range 3 {
		if _, err := c.Admin(ctx, &spec.SubmissionEntry{Opcode: hold}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	if _, err := c.Admin(testContext(t), &spec.SubmissionEntry{Opcode: release}, nil); !errors.Is(err, spec.InvalidOpcode) {
		t.Error(err)
	}
	if n := len(c.admin.free); n != adminDepth {
		t.Errorf("%d of %d tags are free", n, adminDepth)
	}
	if _, err := c.IdentifyData(testContext(t), spec.CNSController, 0); err != nil {
		t.Error(err)
	}
}
