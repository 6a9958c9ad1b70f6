package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/virtio"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
	"vfiouser/pci"
	"vfiouser/test/lspci"
)

// cardOnShow is a network card that counts what it is asked to do.
type cardOnShow struct {
	virtio.BaseDevice
	touched atomic.Int32
}

func (c *cardOnShow) StartQueue(int, *virtio.Queue) { c.touched.Add(1) }
func (c *cardOnShow) StopQueue(int)                 { c.touched.Add(1) }
func (c *cardOnShow) Notify(int)                    { c.touched.Add(1) }
func (c *cardOnShow) WriteConfig(int, []byte)       { c.touched.Add(1) }

func (c *cardOnShow) ReadConfig(off int, p []byte) {
	var b [netspec.ConfigSize]byte
	config := netspec.Config{
		MAC: [6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}, Status: netspec.StatusLinkUp, Pairs: 4, MTU: 9000,
		Speed: 25_000, Duplex: netspec.DuplexFull, KeySize: 40, TableSize: 128, HashTypes: netspec.HashIPv4 | netspec.HashTCPEx | 1<<20,
	}
	config.Put(b[:])
	copy(p, b[off:])
}

func showCard(t *testing.T, features uint64) (*cardOnShow, *virtio.Function) {
	t.Helper()
	c := &cardOnShow{}
	f, err := virtio.New(virtio.Config{
		Type: netspec.DeviceType, Class: 0x020000, Queues: 9, QueueSize: 1024, ConfigSize: netspec.ConfigSize, Features: features,
	}, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if n := c.touched.Load(); n != 0 {
			t.Errorf("the device was touched %d times", n)
		}
	})
	return c, f
}

const shownFeatures = netspec.FeatureMAC | netspec.FeatureStatus | netspec.FeatureMQ | netspec.FeatureCtrlVQ | netspec.FeatureMTU |
	netspec.FeatureSpeedDuplex | netspec.FeatureRSS | 1<<58 | spec.FeatureRingPacked | spec.FeatureEventIdx

func TestInspectVirtioText(t *testing.T) {
	_, f := showCard(t, shownFeatures)
	var out bytes.Buffer
	if err := exhibition(t, f, "/run/net0.sock").print(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "inspect-virtio.txt", out.String())
}

func TestInspectVirtioJSON(t *testing.T) {
	_, f := showCard(t, shownFeatures)
	text, err := json.MarshalIndent(exhibition(t, f, "/run/net0.sock").Virtio, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "inspect-virtio.json", string(text)+"\n")
}

func TestLspciDecodesTheCard(t *testing.T) {
	_, f := showCard(t, shownFeatures)
	dump, err := inspected(t, "--lspci", exhibited(t, f))
	if err != nil {
		t.Fatal(err)
	}
	lspci.Compare(t, "testdata/virtio.decoded", lspci.Decode(t, []byte(dump)))
}

// Fields of the configuration mean something only if their features are offered.
func TestInspectShowsOnlyFieldsThatAreOffered(t *testing.T) {
	_, f := showCard(t, spec.FeatureVersion1)
	r := exhibition(t, f, "/run/net0.sock")
	text, err := json.Marshal(r.Virtio.Network)
	if err != nil || string(text) != "{}" {
		t.Errorf("%v, %s", err, text)
	}
	if want := []string{"version_1"}; !slices.Equal(r.Virtio.FeatureNames, want) {
		t.Errorf("features %q", r.Virtio.FeatureNames)
	}
}

// virtioSpace is the configuration space of a virtio device with these capabilities.
func virtioSpace(t *testing.T, list ...spec.Capability) []byte {
	t.Helper()
	s, err := pci.NewSpace(pci.Config{Vendor: spec.PCIVendor, Device: spec.PCIDeviceBase + 1, Class: 0x020000, Revision: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if _, err := s.AddVendor(c.Data()[1:]); err != nil {
			t.Fatal(err)
		}
	}
	space := make([]byte, pci.SpaceSize)
	if err := s.Read(0, space); err != nil {
		t.Fatal(err)
	}
	return space
}

// registers has a server answer accesses to BAR 0 out of memory, all of which a client may
// write. The lock is held meanwhile.
func (s script) registers(mu *sync.Mutex, memory []byte) script {
	readConfig := s[codec.CmdRegionRead]
	find := func(a *codec.RegionAccess) []byte {
		if a.Region != codec.RegionBAR0 || a.Offset > uint64(len(memory)) || uint64(len(memory))-a.Offset < uint64(a.Count) {
			return nil
		}
		return memory[a.Offset:][:a.Count]
	}
	s[codec.CmdRegionRead] = func(payload []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		var a codec.RegionAccess
		if err := a.DecodeReadRequest(payload); err != nil {
			return nil, err
		}
		if at := find(&a); at != nil {
			return append(a.AppendHead(nil), at...), nil
		}
		return readConfig(payload)
	}
	s[codec.CmdRegionWrite] = func(payload []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		var a codec.RegionAccess
		if err := a.DecodeWriteRequest(payload); err != nil {
			return nil, err
		}
		at := find(&a)
		if at == nil {
			return nil, unix.EIO
		}
		copy(at, a.Data)
		return a.AppendHead(nil), nil
	}
	return s
}

func TestInspectOfAVirtioStranger(t *testing.T) {
	common := spec.Capability{Type: spec.CapCommon, Size: spec.CommonSize}
	config := spec.Capability{Type: spec.CapDevice, Offset: 256, Size: 6}
	put := func(off int, v ...byte) func([]byte) { return func(m []byte) { copy(m[off:], v) } }
	for _, tt := range []struct {
		name   string
		list   []spec.Capability
		memory int
		set    func(m []byte)
		says   []string
		not    string
	}{
		{"no capabilities", nil, 4096, nil, []string{"virtio\n  type  1, network card\n"}, "status"},
		{"structures nowhere", []spec.Capability{
			{Type: spec.CapCommon, BAR: 200, Size: spec.CommonSize}, {Type: spec.CapCommon, BAR: 5, Size: spec.CommonSize},
			{Type: spec.CapCommon, Size: 4}, {Type: 77, Offset: 1<<32 - 1, Size: 1<<32 - 1},
		}, 4096, nil, []string{"BAR 200 at 0x0, 64B", "BAR 5 at", "type 77", "BAR 0 at 0xffffffff, 4GiB"}, "status"},
		{"reads are refused", []spec.Capability{common}, 8, nil, []string{"refused", "input/output error"}, "queues  "},
		{"a driver is there", []spec.Capability{common}, 4096, put(spec.DeviceStatus, 0x0f, 0, 1, 0),
			[]string{"acknowledge, driver, driver_ok, features_ok (0x0f)", "not asked for: the device has a driver"}, "entries"},
		{"broken and failed", []spec.Capability{common}, 4096, put(spec.DeviceStatus, 0xd0),
			[]string{"bit4, device_needs_reset, failed (0xd0)"}, "entries"},
		{"65,535 queues", []spec.Capability{common}, 4096, put(spec.NumQueues, 0xff, 0xff), []string{"queues    65535, up to 0 entries"}, ""},
		{"all features", []spec.Capability{common}, 4096, put(spec.DeviceFeature, 0xff, 0xff, 0xff, 0xff),
			[]string{"0xffffffffffffffff", "csum guest_csum ctrl_guest_offloads mtu bit4 mac", "speed_duplex"}, ""},
		{"a short configuration", []spec.Capability{common, config}, 4096, func(m []byte) {
			binary.LittleEndian.PutUint32(m[spec.DeviceFeature:], uint32(netspec.FeatureMAC|netspec.FeatureMTU))
			copy(m[256:], "\x02\x00\x00\x00\x00\x01junk")
		}, []string{"address  02:00:00:00:00:01"}, "MTU"},
		{"a configuration that is not there", []spec.Capability{common, config}, 128, nil, []string{"refused", "input/output error"}, "address"},
		{"a first structure that is of no use", []spec.Capability{{Type: spec.CapCommon, BAR: 5, Size: spec.CommonSize}, common}, 4096, nil,
			[]string{"reset (0x00)"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			memory := make([]byte, tt.memory)
			if tt.set != nil {
				tt.set(memory)
			}
			socket := stranger(virtioSpace(t, tt.list...), 9, 0).registers(&mu, memory).listen(t)
			text, err := inspected(t, socket)
			if err != nil {
				t.Fatal(err)
			}
			_, shown, _ := strings.Cut(text, "\nvirtio\n")
			shown, _, _ = strings.Cut("virtio\n"+shown, "\nConfiguration space")
			for _, want := range tt.says {
				if !strings.Contains(shown, want) {
					t.Errorf("no %q in\n%s", want, shown)
				}
			}
			if tt.not != "" && strings.Contains(shown, tt.not) {
				t.Errorf("%q in\n%s", tt.not, shown)
			}
			var r inspection
			text, err = inspected(t, "--json", socket)
			if err != nil || json.Unmarshal([]byte(text), &r) != nil || len(r.Virtio.QueueSizes) > maxListed {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}

// The selectors are as they were.
func TestInspectPutsSelectorsBack(t *testing.T) {
	var mu sync.Mutex
	memory := make([]byte, 4096)
	memory[spec.DeviceFeatureSelect], memory[spec.QueueSelect], memory[spec.NumQueues] = 7, 5, 3
	before := bytes.Clone(memory)
	socket := stranger(virtioSpace(t, spec.Capability{Type: spec.CapCommon, Size: spec.CommonSize}), 9, 0).registers(&mu, memory).listen(t)
	if _, err := inspected(t, socket); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !bytes.Equal(memory, before) {
		t.Errorf("registers changed from % x to % x", before[:64], memory[:64])
	}
}
