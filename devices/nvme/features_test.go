package nvme

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// feature tests have a page for data structures.
type featureTester struct {
	*guest
	page uint64
}

func newFeatureTester(t *testing.T, r rig) featureTester {
	g, page := adminGuest(t, r)
	return featureTester{g, page}
}

func (g featureTester) setStatus(id uint8, nsid, cdw11 uint32, save bool, data ...byte) spec.Status {
	clear(g.bytes(g.page, pageSize))
	copy(g.bytes(g.page, pageSize), data)
	e := spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: nsid, CDW10: uint32(id), CDW11: cdw11, PRP1: g.page}
	if save {
		e.CDW10 |= spec.SetFeaturesSave
	}
	return g.do(e).Status
}

func (g featureTester) set(id uint8, nsid, cdw11 uint32, data ...byte) {
	g.t.Helper()
	if st := g.setStatus(id, nsid, cdw11, false, data...); !st.OK() {
		g.t.Fatalf("set feature %#x to %#x: %v", id, cdw11, st)
	}
}

func (g featureTester) get(id uint8, sel uint32, nsid, cdw11 uint32) uint32 {
	g.t.Helper()
	fill(g.bytes(g.page, pageSize), 0xee)
	return g.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: nsid, CDW10: uint32(id) | sel<<8, CDW11: cdw11, PRP1: g.page}).DW0
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

const (
	capsSaved      = spec.FeatureSaveable | spec.FeatureChangeable
	capsChangeable = spec.FeatureChangeable
)

func TestFeatureValues(t *testing.T) {
	file, _ := fileBackend(t, 1<<20)
	g := newFeatureTester(t, rig{backends: []block.Backend{file}, queues: 4})
	for _, c := range []struct {
		name      string
		id        uint8
		nsid      uint32
		set, want uint32
		def, caps uint32
		get       uint32 // CDW11 of Get Features
		persists  bool
	}{
		{"arbitration", spec.FeatArbitration, 0, 0x010203fc, 0x01020304, 7, capsSaved, 0, false},
		{"power management", spec.FeatPowerManagement, 0, 0x22, 0x22, 0, capsSaved, 0, false},
		{"temperature, over", spec.FeatTemperature, 0, 400, 400, warningTemp, capsSaved, 0, false},
		{"temperature, under", spec.FeatTemperature, 0, 250 | 1<<20, 250, 0, capsSaved, 1 << 20, false},
		{"temperature of a sensor, over", spec.FeatTemperature, 0, 399 | 2<<16, 399, 0xffff, capsSaved, 2 << 16, false},
		{"temperature of a sensor, under", spec.FeatTemperature, 0, 3 | 1<<16 | 1<<20, 3, 0, capsSaved, 1<<16 | 1<<20, false},
		{"error recovery", spec.FeatErrorRecovery, 1, 7, 7, 0, capsSaved | spec.FeatureNamespace, 0, false},
		{"write cache", spec.FeatVolatileWriteCache, 0, 0, 0, 1, capsSaved, 0, false},
		{"interrupt coalescing", spec.FeatInterruptCoalescing, 0, 0x91234, 0x1234, 0, capsSaved, 0, false},
		{"interrupt vector", spec.FeatInterruptVector, 0, 1<<16 | 3, 1<<16 | 3, 3, capsSaved, 3, false},
		{"write atomicity", spec.FeatWriteAtomicity, 0, 3, 1, 0, capsSaved, 0, false},
		{"asynchronous events", spec.FeatAsyncEvents, 0, 1<<31 | 0x1f, 0x1f, 0, capsSaved, 0, false},
		{"keep alive", spec.FeatKeepAlive, 0, 3_600_001, 3_600_100, 0, capsChangeable, 0, false},
		{"host controlled thermal management", spec.FeatHostThermal, 0, 320<<16 | 330, 320<<16 | 330, 0, capsChangeable, 0, true},
		{"non-operational power states", spec.FeatNonOperationalPower, 0, 3, 1, 0, capsSaved, 0, false},
		{"software progress marker", spec.FeatProgressMarker, 0, 0x1ff, 0xff, 0, capsChangeable, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(what string, sel, want uint32) {
				t.Helper()
				if v := g.get(c.id, sel, c.nsid, c.get); v != want {
					t.Errorf("%s: %#x, want %#x", what, v, want)
				}
			}
			check("at first", spec.SelectCurrent, c.def)
			g.set(c.id, c.nsid, c.set)
			check("set", spec.SelectCurrent, c.want)
			check("default", spec.SelectDefault, c.def)
			check("saved", spec.SelectSaved, c.def)
			check("capabilities", spec.SelectCapabilities, c.caps)
			g.reset()
			want := c.def
			if c.persists {
				want = c.want
			}
			check("after a reset", spec.SelectCurrent, want)
			if c.caps&spec.FeatureSaveable == 0 {
				if st := g.setStatus(c.id, c.nsid, c.set, true); st != spec.FeatureNotSaveable|spec.StatusDNR {
					t.Errorf("save: %v", st)
				}
				return
			}
			if st := g.setStatus(c.id, c.nsid, c.set, true); !st.OK() {
				t.Fatal(st)
			}
			check("saved", spec.SelectSaved, c.want)
			check("default", spec.SelectDefault, c.def)
			g.reset()
			check("after a reset", spec.SelectCurrent, c.want)
			// Leave no trace.
			if st := g.setStatus(c.id, c.nsid, c.def|c.set&^c.want&0xffff0000|c.get, true); !st.OK() {
				t.Fatal(st)
			}
			g.reset()
		})
	}
}

// reset is a controller reset.
func (g *guest) reset() {
	g.t.Helper()
	g.disable()
	g.enable()
}

func TestFeatureRefusals(t *testing.T) {
	g := newFeatureTester(t, rig{}) // memory has no volatile cache
	overlap := make([]byte, 2*spec.LBARangeSize)
	(&spec.LBARange{LBA: 0, Blocks: 10}).Put(overlap[spec.LBARangeSize:])
	(&spec.LBARange{LBA: 9, Blocks: 10}).Put(overlap)
	beyond := make([]byte, spec.LBARangeSize)
	(&spec.LBARange{LBA: 1, Blocks: 64 << 11}).Put(beyond)
	idle := func(to uint64) []byte { return binary.LittleEndian.AppendUint64(nil, to<<3|100<<8) }
	for _, c := range []struct {
		name         string
		op           uint8
		nsid         uint32
		cdw10, cdw11 uint32
		data         []byte
		want         spec.Status
	}{
		{"unknown feature", spec.AdminGetFeatures, 0, 0x7f, 0, nil, spec.InvalidField},
		{"reserved feature", spec.AdminSetFeatures, 0, 0, 0, nil, spec.InvalidField},
		{"save an unknown feature", spec.AdminSetFeatures, 0, 0x7f | spec.SetFeaturesSave, 0, nil, spec.InvalidField},
		{"write cache that is not there", spec.AdminGetFeatures, 0, spec.FeatVolatileWriteCache, 0, nil, spec.InvalidField},
		{"its capabilities", spec.AdminGetFeatures, 0, spec.FeatVolatileWriteCache | spec.SelectCapabilities<<8, 0, nil, spec.InvalidField},
		{"power state beyond NPSS", spec.AdminSetFeatures, 0, spec.FeatPowerManagement, 5, nil, spec.InvalidField},
		{"unknown sensor", spec.AdminSetFeatures, 0, spec.FeatTemperature, 3 << 16, nil, spec.InvalidField},
		{"all sensors at once", spec.AdminGetFeatures, 0, spec.FeatTemperature, 15 << 16, nil, spec.InvalidField},
		{"unknown threshold", spec.AdminSetFeatures, 0, spec.FeatTemperature, 2 << 20, nil, spec.InvalidField},
		{"unknown threshold of all sensors", spec.AdminSetFeatures, 0, spec.FeatTemperature, 15<<16 | 2<<20, nil, spec.InvalidField},
		{"vector out of range", spec.AdminGetFeatures, 0, spec.FeatInterruptVector, 9999, nil, spec.InvalidField},
		{"set a vector out of range", spec.AdminSetFeatures, 0, spec.FeatInterruptVector, 9999, nil, spec.InvalidField},
		{"errors for deallocated blocks", spec.AdminSetFeatures, 1, spec.FeatErrorRecovery, 1 << 16, nil, spec.InvalidField},
		{"error recovery of no namespace", spec.AdminSetFeatures, 5000, spec.FeatErrorRecovery, 0, nil, spec.InvalidNamespaceOrFormat},
		{"error recovery without a namespace", spec.AdminGetFeatures, 0, spec.FeatErrorRecovery, 0, nil, spec.InvalidNamespaceOrFormat},
		{"error recovery of all namespaces", spec.AdminGetFeatures, spec.BroadcastNSID, spec.FeatErrorRecovery, 0, nil, spec.InvalidNamespaceOrFormat},
		{"a namespace where none belongs", spec.AdminSetFeatures, 1, spec.FeatArbitration, 0, nil, spec.FeatureNotNamespace},
		{"an invalid namespace where none belongs", spec.AdminSetFeatures, 5000, spec.FeatArbitration, 0, nil, spec.InvalidNamespaceOrFormat},
		{"select reserved", spec.AdminGetFeatures, 0, spec.FeatArbitration | 5<<8, 0, nil, spec.InvalidField},
		{"transition to an operational state", spec.AdminSetFeatures, 0, spec.FeatAutonomousPower, 1, idle(1), spec.InvalidField},
		{"transition beyond NPSS", spec.AdminSetFeatures, 0, spec.FeatAutonomousPower, 1, idle(9), spec.InvalidField},
		{"thermal limit below MNTMT", spec.AdminSetFeatures, 0, spec.FeatHostThermal, (minThermal - 1) << 16, nil, spec.InvalidField},
		{"thermal limit above MXTMT", spec.AdminSetFeatures, 0, spec.FeatHostThermal, maxThermal + 1, nil, spec.InvalidField},
		{"thermal limits the wrong way round", spec.AdminSetFeatures, 0, spec.FeatHostThermal, 330<<16 | 330, nil, spec.InvalidField},
		{"a flag of 2", spec.AdminSetFeatures, 0, spec.FeatHostBehavior, 0, []byte{2}, spec.InvalidField},
		{"a copy format that is not there", spec.AdminSetFeatures, 0, spec.FeatHostBehavior, 0, []byte{0, 0, 0, 0, 0, 0x80}, spec.InvalidField},
		{"keep alive of weeks", spec.AdminSetFeatures, 0, spec.FeatKeepAlive, 1 << 31, nil, spec.KeepAliveInvalid},
		{"LBA ranges that overlap", spec.AdminSetFeatures, 1, spec.FeatLBARange, 1, overlap, spec.OverlappingRange},
		{"LBA range beyond the end", spec.AdminSetFeatures, 1, spec.FeatLBARange, 0, beyond, spec.LBAOutOfRange},
		{"host identifier saved", spec.AdminSetFeatures, 0, spec.FeatHostIdentifier | spec.SetFeaturesSave, 0, nil, spec.FeatureNotSaveable},
	} {
		t.Run(c.name, func(t *testing.T) {
			clear(g.bytes(g.page, pageSize))
			copy(g.bytes(g.page, pageSize), c.data)
			st := g.do(spec.SubmissionEntry{Opcode: c.op, NSID: c.nsid, CDW10: c.cdw10, CDW11: c.cdw11, PRP1: g.page}).Status
			if st != c.want|spec.StatusDNR {
				t.Errorf("%v, want %v", st, c.want)
			}
		})
	}
}

func TestFeaturesOfEveryNamespace(t *testing.T) {
	g := newFeatureTester(t, rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}})
	g.set(spec.FeatErrorRecovery, spec.BroadcastNSID, 5)
	g.set(spec.FeatErrorRecovery, 2, 6)
	if a, b := g.get(spec.FeatErrorRecovery, 0, 1, 0), g.get(spec.FeatErrorRecovery, 0, 2, 0); a != 5 || b != 6 {
		t.Errorf("%d and %d", a, b)
	}
}

func TestAllTemperatureThresholdsAtOnce(t *testing.T) {
	g := newFeatureTester(t, rig{})
	g.set(spec.FeatTemperature, 0, 390|allSensors<<16)
	for sensor := range uint32(3) {
		if v := g.get(spec.FeatTemperature, 0, 0, sensor<<16); v != 390 {
			t.Errorf("sensor %d: %d", sensor, v)
		}
	}
}

func TestFeatureData(t *testing.T) {
	g := newFeatureTester(t, rig{})
	ranges := make([]byte, 2*spec.LBARangeSize)
	(&spec.LBARange{Type: 1, LBA: 0, Blocks: 10}).Put(ranges)
	(&spec.LBARange{Type: 2, LBA: 10, Blocks: 20, GUID: [16]byte{1}}).Put(ranges[spec.LBARangeSize:])
	whole := make([]byte, spec.LBARangeSize)
	(&spec.LBARange{Attributes: spec.LBARangeOverwritable, Blocks: 64 << 11}).Put(whole)
	table := make([]byte, spec.AutonomousPowerSize)
	binary.LittleEndian.PutUint64(table, 3<<3|100<<8)
	for _, c := range []struct {
		name   string
		id     uint8
		nsid   uint32
		cdw11  uint32
		result uint32
		size   int
		data   []byte
		def    []byte
		keeps  bool
	}{
		{"LBA range type", spec.FeatLBARange, 1, 1, 1, 4096, ranges, whole, true},
		{"autonomous power state transitions", spec.FeatAutonomousPower, 0, 1, 1, 256, table, nil, false},
		{"host behavior", spec.FeatHostBehavior, 0, 0, 0, 512, []byte{1}, nil, false},
		{"host identifier of 64 bits", spec.FeatHostIdentifier, 0, 0, 0, 8, []byte("abcdefgh"), nil, false},
		{"host identifier of 128 bits", spec.FeatHostIdentifier, 0, 1, 0, 16, []byte("abcdefghijklmnop"), nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := func(what string, sel, result uint32, data []byte) {
				t.Helper()
				if v := g.get(c.id, sel, c.nsid, c.cdw11); v != result {
					t.Errorf("%s: %#x, want %#x", what, v, result)
				}
				want := append(bytes.Clone(data), make([]byte, c.size-len(data))...)
				if got := g.bytes(g.page, c.size); !bytes.Equal(got, want) {
					t.Errorf("%s: % x", what, got)
				}
				if rest := g.bytes(g.page+uint64(c.size), 4096-c.size); bytes.Count(rest, []byte{0xee}) != len(rest) {
					t.Errorf("%s: more than %d bytes", what, c.size)
				}
			}
			check("at first", spec.SelectCurrent, 0, c.def)
			g.set(c.id, c.nsid, c.cdw11, c.data...)
			check("set", spec.SelectCurrent, c.result, c.data)
			check("default", spec.SelectDefault, 0, c.def)
			g.reset()
			if c.keeps {
				check("after a reset", spec.SelectCurrent, c.result, c.data)
			} else {
				check("after a reset", spec.SelectCurrent, 0, c.def)
			}
		})
	}
}

func TestTimestamp(t *testing.T) {
	g := newFeatureTester(t, rig{})
	read := func() (ms uint64, attributes byte) {
		g.get(spec.FeatTimestamp, 0, 0, 0)
		b := g.bytes(g.page, 8)
		if b[7] != 0 {
			t.Errorf("reserved byte %#x", b[7])
		}
		return binary.LittleEndian.Uint64(b) & maxTimestamp, b[6]
	}
	if ms, attr := read(); ms > 60_000 || attr != 0 {
		t.Errorf("at first %d, attributes %#x", ms, attr)
	}
	const ms = 0x123456789a
	g.set(spec.FeatTimestamp, 0, 0, binary.LittleEndian.AppendUint64(nil, ms|1<<55)...)
	if got, attr := read(); got < ms || got > ms+60_000 || attr != 2 {
		t.Errorf("%#x, attributes %#x", got, attr)
	}
	g.reset()
	if got, attr := read(); got > 60_000 || attr != 0 {
		t.Errorf("after a reset %d, attributes %#x", got, attr)
	}
}

func TestPowerStateFollowsTheWork(t *testing.T) {
	g, q := started(t, rig{})
	f := featureTester{g, g.alloc(1)}
	data := g.alloc(1)
	state := func() uint32 { return f.get(spec.FeatPowerManagement, 0, 0, 0) }
	f.set(spec.FeatPowerManagement, 0, 1)
	f.set(spec.FeatPowerManagement, 0, 4)
	if s := state(); s != 4 {
		t.Fatalf("state %d, want the one set", s)
	}
	q.status(rw(spec.NVMWrite, 1, 0, 1, data, 0))
	g.until("the last operational state", func() bool { return state() == 1 })
	// Idle for a millisecond, it goes to state 3, and from there on to 4.
	table := make([]byte, spec.AutonomousPowerSize)
	binary.LittleEndian.PutUint64(table[8*1:], 3<<3|1<<8)
	binary.LittleEndian.PutUint64(table[8*3:], 4<<3|1<<8)
	f.set(spec.FeatAutonomousPower, 0, 1, table...)
	g.until("the deepest state", func() bool { return state() == 4 })
	f.set(spec.FeatAutonomousPower, 0, 0)
	f.set(spec.FeatPowerManagement, 0, 2)
	if s := state(); s != 2 {
		t.Errorf("state %d without transitions", s)
	}
}

func TestHostThermalManagementIsCounted(t *testing.T) {
	g := newFeatureTester(t, rig{})
	smart := func() (s spec.Smart) {
		g.must(getLog(spec.LogSmart, spec.SmartSize, 0, g.page))
		s.Get(g.bytes(g.page, spec.SmartSize))
		return s
	}
	g.set(spec.FeatHostThermal, 0, (temperature)<<16|(temperature+1))
	g.set(spec.FeatHostThermal, 0, (temperature-1)<<16|temperature)
	g.set(spec.FeatHostThermal, 0, 0)
	if s := smart(); s.ThermalTransitions != [2]uint32{1, 1} {
		t.Errorf("transitions %v", s.ThermalTransitions)
	}
}

func TestKeepAlive(t *testing.T) {
	g := newFeatureTester(t, rig{})
	g.must(spec.SubmissionEntry{Opcode: spec.AdminKeepAlive})
	g.set(spec.FeatKeepAlive, 0, 100)
	g.until("the keep alive timer to expire", func() bool { return g.csts().CFS() })
	g.reset()
	if g.csts().CFS() {
		t.Fatal("still fatal after a reset")
	}
	e := g.lastError()
	if e.Status != spec.KeepAliveExpired {
		t.Errorf("error log %+v", e)
	}
	if v := g.get(spec.FeatKeepAlive, 0, 0, 0); v != 0 {
		t.Errorf("the timer still runs: %d ms", v)
	}
}

// A drive that moves takes current and saved values along.
func TestFeaturesMove(t *testing.T) {
	g := newFeatureTester(t, rig{queues: 4})
	if st := g.setStatus(spec.FeatArbitration, 0, 0x0a0b0c01, true); !st.OK() {
		t.Fatal(st)
	}
	g.set(spec.FeatArbitration, 0, 0x01020302)
	g.set(spec.FeatErrorRecovery, 1, 77)
	g.set(spec.FeatHostIdentifier, 0, 1, []byte("abcdefghijklmnop")...)
	n := featureTester{g.move(rig{queues: 4}), g.page}
	for _, c := range []struct {
		sel, want uint32
	}{{spec.SelectCurrent, 0x01020302}, {spec.SelectSaved, 0x0a0b0c01}, {spec.SelectDefault, 7}} {
		if v := n.get(spec.FeatArbitration, c.sel, 0, 0); v != c.want {
			t.Errorf("select %d: %#x, want %#x", c.sel, v, c.want)
		}
	}
	if v := n.get(spec.FeatErrorRecovery, 0, 1, 0); v != 77 {
		t.Errorf("error recovery %d", v)
	}
	n.get(spec.FeatHostIdentifier, 0, 0, 1)
	if id := string(n.bytes(n.page, 16)); id != "abcdefghijklmnop" {
		t.Errorf("host identifier %q", id)
	}
}

// What was set for a namespace goes with it.
func TestFeaturesOfARemovedNamespace(t *testing.T) {
	g := newFeatureTester(t, rig{backends: []block.Backend{memory(t, 1<<20), memory(t, 1<<20)}})
	if st := g.setStatus(spec.FeatErrorRecovery, 2, 5, true); !st.OK() {
		t.Fatal(st)
	}
	if err := g.c.subsystem.RemoveNamespace(2); err != nil {
		t.Fatal(err)
	}
	if _, err := g.c.subsystem.AddNamespace(Namespace{Backend: memory(t, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	if v := g.get(spec.FeatErrorRecovery, 0, 2, 0); v != 0 {
		t.Errorf("the next one has %d", v)
	}
	if err := g.c.subsystem.RemoveNamespace(2); err != nil {
		t.Fatal(err)
	}
	g.move(rig{backends: []block.Backend{memory(t, 1<<20)}})
}
