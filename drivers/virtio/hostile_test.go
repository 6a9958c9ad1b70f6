package virtio

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/devices/virtio/spec"
	"vfiouser/engine"
	"vfiouser/pci"
	"vfiouser/test/holdings"
)

const fakeBAR = 0x1000 // bytes

// fake is a function whose registers are what was written to them, but for what a test fixes.
type fake struct {
	engine.BaseDevice
	config       pci.Config
	capabilities []spec.Capability

	mu    sync.Mutex
	bar   [fakeBAR]byte
	fixed map[uint64][]byte // what is read at an offset, whatever was written
	moody bool              // the configuration has a new generation with every look
}

// newFake makes one that is good enough to be opened.
func newFake() *fake {
	return &fake{
		config: pci.Config{Vendor: spec.PCIVendor, Device: spec.PCIDeviceBase + testType, Revision: spec.PCIRevision, Class: 0xff0000},
		capabilities: []spec.Capability{
			{Type: spec.CapCommon, Size: spec.CommonSize},
			{Type: spec.CapNotify, Offset: 0x800, Size: 64, Multiplier: 4},
			{Type: spec.CapDevice, Offset: 0x400, Size: 32},
		},
		fixed: map[uint64][]byte{spec.DeviceFeature: {1, 0, 0, 0}, spec.NumQueues: {2, 0}, spec.QueueSize: {16, 0}},
	}
}

func (f *fake) Describe() (engine.Description, error) {
	f.config.BARs[0] = pci.BAR{Size: fakeBAR, Type: pci.Mem32}
	space, err := pci.NewSpace(f.config)
	if err != nil {
		return engine.Description{}, err
	}
	for _, c := range f.capabilities {
		if _, err := space.AddVendor(c.Data()[1:]); err != nil {
			return engine.Description{}, err
		}
	}
	d := engine.Description{Config: space}
	d.Regions[engine.RegionBAR0] = engine.Region{Size: fakeBAR, Read: f.read, Write: f.write}
	return d, nil
}

func (f *fake) read(off uint64, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(p, f.bar[off:])
	if fixed, ok := f.fixed[off]; ok {
		copy(p, fixed)
	}
	if f.moody && off == spec.ConfigGeneration {
		f.bar[off]++
	}
	return nil
}

func (f *fake) write(off uint64, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.bar[off:], p)
	return nil
}

func (f *fake) attach(t *testing.T) (*client.Device, *client.Memory) {
	t.Helper()
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	ep, err := eng.Register(filepath.Join(t.TempDir(), "fake"), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ep.Close() })
	dev, err := client.Attach(testContext(t), ep.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	mem, err := client.NewMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	return dev, mem
}

func TestFunctionThatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(f *fake)
		want  error
	}{
		"good":                       {func(*fake) {}, nil},
		"another vendor":             {func(f *fake) { f.config.Vendor = 0x8086 }, ErrUnsupported},
		"transitional":               {func(f *fake) { f.config.Device = 0x1000 }, ErrUnsupported},
		"no type":                    {func(f *fake) { f.config.Device = spec.PCIDeviceBase }, ErrUnsupported},
		"no capabilities":            {func(f *fake) { f.capabilities = nil }, ErrUnsupported},
		"no notifications":           {func(f *fake) { f.capabilities = f.capabilities[:1] }, ErrUnsupported},
		"registers in no BAR":        {func(f *fake) { f.capabilities[0].BAR = 6 }, ErrUnsupported},
		"registers cut short":        {func(f *fake) { f.capabilities[0].Size = 16 }, ErrUnsupported},
		"registers beyond the BAR":   {func(f *fake) { f.capabilities[0].Offset = fakeBAR - 8 }, ErrDevice},
		"offset that overflows":      {func(f *fake) { f.capabilities[1].Offset = 1<<32 - 32 }, ErrDevice},
		"registers in a missing BAR": {func(f *fake) { f.capabilities[1].BAR = 3 }, ErrDevice},
		"never reset":                {func(f *fake) { f.fixed[spec.DeviceStatus] = []byte{1} }, ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			f := newFake()
			c.spoil(f)
			dev, mem := f.attach(t)
			d, err := Open(testContext(t), dev, mem, Options{Timeout: 50 * time.Millisecond})
			if !errors.Is(err, c.want) {
				t.Error(err)
			}
			if err == nil {
				d.Close()
			}
		})
	}
}

func TestRegistersThatLie(t *testing.T) {
	const accepted = uint8(spec.StatusAcknowledge | spec.StatusDriver | spec.StatusFeaturesOK)
	for name, c := range map[string]struct {
		spoil     func(f *fake)
		want      error
		negotiate bool // fails there
	}{
		"good":                      {func(*fake) {}, nil, false},
		"features refused":          {func(f *fake) { f.fixed[spec.DeviceStatus] = []byte{accepted &^ uint8(spec.StatusFeaturesOK)} }, ErrUnsupported, true},
		"no queue":                  {func(f *fake) { f.fixed[spec.NumQueues] = []byte{0, 0} }, ErrUnsupported, false},
		"queue without entries":     {func(f *fake) { f.fixed[spec.QueueSize] = []byte{0, 0} }, ErrUnsupported, false},
		"queue beyond all limits":   {func(f *fake) { f.fixed[spec.QueueSize] = []byte{0xff, 0xff} }, ErrUnsupported, false},
		"queue of 24 entries":       {func(f *fake) { f.fixed[spec.QueueSize] = []byte{24, 0} }, ErrInvalid, false},
		"notification out of range": {func(f *fake) { f.fixed[spec.QueueNotifyOff] = []byte{16, 0} }, ErrDevice, false},
		"notification far out":      {func(f *fake) { f.fixed[spec.QueueNotifyOff] = []byte{0xff, 0xff} }, ErrDevice, false},
	} {
		t.Run(name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			f := newFake()
			dev, mem := f.attach(t)
			d, err := Open(testContext(t), dev, mem, Options{Timeout: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			f.mu.Lock()
			c.spoil(f)
			f.mu.Unlock()
			err = d.Negotiate(testContext(t), spec.FeatureVersion1)
			if err == nil && !c.negotiate {
				_, err = d.NewQueue(testContext(t), 0, QueueConfig{})
			}
			if !errors.Is(err, c.want) {
				t.Error(err)
			}
			f.mu.Lock()
			delete(f.fixed, spec.DeviceStatus)
			f.mu.Unlock()
		})
	}
}

// TestConfigurationThatKeepsChanging: no copy is of one generation.
func TestConfigurationThatKeepsChanging(t *testing.T) {
	holdings.CheckLeaks(t)
	f := newFake()
	dev, mem := f.attach(t)
	d, err := Open(testContext(t), dev, mem, Options{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f.mu.Lock()
	binary.LittleEndian.PutUint32(f.bar[0x400:], 0x01020304)
	f.mu.Unlock()
	got := make([]byte, 4)
	if err := d.ReadConfig(testContext(t), 0, got); err != nil || got[0] != 4 {
		t.Error(got, err)
	}
	f.mu.Lock()
	f.moody = true
	f.mu.Unlock()
	if err := d.ReadConfig(testContext(t), 0, got); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
}
