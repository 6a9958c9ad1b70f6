package nvmeconformance

import (
	"fmt"

	"vfiouser/devices/nvme/spec"
)

// Feature identifiers that package spec may not name.
const (
	featureAPST               = 0x0c
	featureHostMemoryBuffer   = 0x0d
	featureKeepAlive          = 0x0f
	featureThermalManagement  = 0x10
	featureNonOperational     = 0x11
	featureHostBehavior       = 0x16
	featureSanitizeConfig     = 0x17
	featureHostIdentifier     = 0x81
	featureReservationMask    = 0x82
	featureReservationPersist = 0x83
	featureWriteProtection    = 0x84
)

// feature is a feature as far as all features are alike.
type feature struct {
	section, name string
	id            uint8
	has           func(t *T) bool // nil: mandatory
	namespace     bool
	data          int       // bytes of its data structure
	values        []uint32  // that can be set and read back; nil: other checks do that
	mask          uint32    // bits that have a meaning
	select11      uint32    // of CDW11 of Get Features
	refused       []refusal // values that are refused
}

type refusal struct {
	what  string
	value uint32
}

func features() []feature {
	return []feature{
		{section: "Base 2.0, 5.27.1.1", name: "Arbitration", id: spec.FeatArbitration, values: []uint32{0, 3, 7, 0x01020304, 0xffffff07}, mask: 0xffffff07},
		{section: "Base 2.0, 5.27.1.2", name: "Power Management", id: spec.FeatPowerManagement, values: []uint32{0}, mask: 0xff,
			refused: []refusal{{"power state 31, which is beyond NPSS", 31}}},
		{section: "Base 2.0, 5.27.1.3", name: "Temperature Threshold", id: spec.FeatTemperature, values: []uint32{0x157, 0x100 + 0x60, 0xffff}, mask: 0x3fffff,
			refused: []refusal{{"a sensor that does not exist", 8<<16 | 0x150}, {"the reserved sensor 9", 9<<16 | 0x150}, {"the reserved kind 2", 2<<20 | 0x150}, {"the reserved kind 3", 3<<20 | 0x150}}},
		{section: "NVM 1.0, 4.1.3.2", name: "Error Recovery", id: spec.FeatErrorRecovery, namespace: true, values: []uint32{0, 1, 0xffff}, mask: 0x1ffff},
		{section: "Base 2.0, 5.27.1.4", name: "Volatile Write Cache", id: spec.FeatVolatileWriteCache, values: []uint32{0, 1}, mask: 1,
			has: func(t *T) bool { return t.identity[525]&1 != 0 }},
		{section: "Base 2.0, 5.27.1.5", name: "Number of Queues", id: spec.FeatNumberOfQueues,
			refused: []refusal{{"65,536 submission queues", 0xffff}, {"65,536 completion queues", 0xffff0000}}},
		{section: "Base 2.0, 5.27.1.6", name: "Interrupt Coalescing", id: spec.FeatInterruptCoalescing, values: []uint32{0, 0x0a03, 0xffff}, mask: 0xffff},
		{section: "Base 2.0, 5.27.1.7", name: "Interrupt Vector Configuration", id: spec.FeatInterruptVector, mask: 0x1ffff,
			refused: []refusal{{"a vector that does not exist", 0xffff}}},
		{section: "NVM 1.0, 4.1.3.3", name: "Write Atomicity Normal", id: spec.FeatWriteAtomicity, values: []uint32{0, 1, 0}, mask: 1},
		{section: "Base 2.0, 5.27.1.8", name: "Asynchronous Event Configuration", id: spec.FeatAsyncEvents, values: []uint32{0, 1, 0x1d, 0}, mask: 0xffffffff},
		{section: "Base 2.0, 5.27.1.9", name: "Autonomous Power State Transition", id: featureAPST, data: 256, has: func(t *T) bool { return t.identity[265]&1 != 0 }},
		{section: "Base 2.0, 5.27.1.10", name: "Host Memory Buffer", id: featureHostMemoryBuffer, data: 4096, has: func(t *T) bool { return t.u32(t.identity, 272) != 0 }},
		{section: "Base 2.0, 5.27.1.11", name: "Timestamp", id: spec.FeatTimestamp, data: 8, has: func(t *T) bool { return t.oncs(6) }},
		{section: "Base 2.0, 5.27.1.12", name: "Keep Alive Timer", id: featureKeepAlive, has: func(t *T) bool { return t.u16(t.identity, 320) != 0 }},
		{section: "Base 2.0, 5.27.1.13", name: "Host Controlled Thermal Management", id: featureThermalManagement, has: func(t *T) bool { return t.u16(t.identity, 322)&1 != 0 }},
		{section: "Base 2.0, 5.27.1.14", name: "Non-Operational Power State Config", id: featureNonOperational, has: func(t *T) bool { return t.ctratt(1) }},
		{section: "Base 2.0, 5.27.1.18", name: "Host Behavior Support", id: featureHostBehavior, data: 512, has: func(t *T) bool { return t.version() >= spec.Version2_0 }},
		{section: "Base 2.0, 5.27.1.19", name: "Sanitize Config", id: featureSanitizeConfig, has: func(t *T) bool { return t.u32(t.identity, 328)&7 != 0 }},
		{section: "Base 2.0, 5.27.1.25", name: "Host Identifier", id: featureHostIdentifier, data: 16, has: func(t *T) bool { return t.oncs(5) }},
		{section: "Base 2.0, 5.27.1.26", name: "Reservation Notification Mask", id: featureReservationMask, namespace: true, has: func(t *T) bool { return t.oncs(5) }, values: []uint32{0, 2, 0xe}, mask: 0xe},
		{section: "Base 2.0, 5.27.1.27", name: "Reservation Persistence", id: featureReservationPersist, namespace: true,
			has: func(t *T) bool { return t.oncs(5) && len(t.namespaces) > 0 && t.namespaces[0].data[31]&1 != 0 }},
		{section: "Base 2.0, 5.27.1.28", name: "Namespace Write Protection Config", id: featureWriteProtection, namespace: true, has: func(t *T) bool { return t.identity[531]&1 != 0 }},
	}
}

func (f *feature) nsid(t *T) uint32 {
	if f.namespace {
		return t.namespaces[0].id
	}
	return 0
}

// get is Get Features with room for the feature's data.
func (f *feature) get(t *T, sel uint8) completion {
	c, _ := f.getData(t, sel)
	return c
}

func (f *feature) getData(t *T, sel uint8) (completion, []byte) {
	cmd := getFeature(f.id, sel, f.nsid(t))
	cmd.CDW11 = f.select11
	data := t.with(cmd, 4096)
	if f.id == featureHostIdentifier {
		cmd.CDW11 = 1 // EXHID
	}
	return t.do(t.admin, cmd), data
}

// capabilities of the feature, in dword 0 of Get Features with select 3.
func (f *feature) capabilities(t *T) uint32 {
	return t.must("Get Features, select 3", f.get(t, 3)).DW0
}

// featureChecks are those that all features have in common.
func featureChecks() (checks []Check) {
	const selects = "Base 2.0, 5.15"
	for _, f := range features() {
		present := func(t *T) bool { return f.has == nil || f.has(t) }
		add := func(section, rule string, run func(t *T)) {
			checks = append(checks, Check{section, f.name + rule, func(t *T) {
				t.need(present(t), f.name)
				t.need(!f.namespace || len(t.namespaces) > 0, "namespace")
				run(t)
			}, false})
		}
		selected := func(rule string, run func(t *T)) {
			add(selects, rule, func(t *T) {
				t.need(t.oncs(4), "select field (ONCS bit 4)")
				run(t)
			})
		}
		checks = append(checks, Check{f.section, f.name + " can be read if it is announced, else Invalid Field in Command", func(t *T) {
			t.need(!f.namespace || len(t.namespaces) > 0, "namespace")
			if present(t) {
				t.must("Get Features", f.get(t, 0))
			} else if f.id != featureHostBehavior && f.id != featureHostIdentifier { // which may be there unannounced
				t.status("Get Features", f.get(t, 0), never(spec.InvalidField))
			}
		}, false})
		selected(", select 1: the default can be read", func(t *T) { t.must("Get Features", f.get(t, 1)) })
		selected(", select 2: the saved value can be read", func(t *T) { t.must("Get Features", f.get(t, 2)) })
		selected(", select 3: no reserved bit", func(t *T) { equal(t, "bits 31:3", f.capabilities(t)>>3, 0) })
		selected(", select 3: whether it belongs to a namespace", func(t *T) { equal(t, "bit 1", f.capabilities(t)>>1&1 == 1, f.namespace) })
		selected(", select 4 to 7 are reserved: Invalid Field in Command", func(t *T) {
			for sel := uint8(4); sel < 8; sel++ {
				t.status(fmt.Sprintf("select %d", sel), f.get(t, sel), never(spec.InvalidField))
			}
		})
		if f.values != nil && f.data == 0 {
			valueChecks(&f, add)
		}
		add("Base 2.0, 5.27", " cannot be saved if it is not saveable: Feature Identifier Not Saveable", func(t *T) {
			t.need(f.capabilities(t)&1 == 0, "feature that is not saveable")
			cmd := setFeature(f.id, f.nsid(t), 0)
			cmd.CDW10 |= 1 << 31
			t.with(cmd, 4096)
			t.expect("Set Features", cmd, never(spec.FeatureNotSaveable))
		})
		if !f.namespace {
			add("Base 2.0, 5.27", " belongs to no namespace: Feature Not Namespace Specific", func(t *T) {
				t.need(len(t.namespaces) > 0, "namespace")
				cmd := setFeature(f.id, t.namespaces[0].id, 0)
				t.with(cmd, 4096)
				t.expect("Set Features", cmd, never(spec.FeatureNotNamespace))
			})
		} else {
			for _, n := range []struct {
				what string
				id   func(*T) uint32
			}{{"NSID 0", func(*T) uint32 { return 0 }}, {"an NSID above NN", (*T).inactive}} {
				add("Base 2.0, 5.15", " of "+n.what+": Invalid Namespace or Format", func(t *T) {
					t.expect("Get Features", getFeature(f.id, 0, n.id(t)), never(spec.InvalidNamespaceOrFormat))
				})
				add("Base 2.0, 5.27", " set for "+n.what+": Invalid Namespace or Format", func(t *T) {
					t.expect("Set Features", setFeature(f.id, n.id(t), 0), never(spec.InvalidNamespaceOrFormat))
				})
			}
			want := spec.InvalidNamespaceOrFormat
			if f.id == featureReservationMask || f.id == featureReservationPersist {
				want = spec.InvalidField
			}
			add("Base 2.0, 5.15", " of NSID FFFFFFFFh: "+describe(want), func(t *T) {
				t.expect("Get Features", getFeature(f.id, 0, spec.BroadcastNSID), never(want))
			})
		}
		for _, r := range f.refused {
			add(f.section, " set to "+r.what+": Invalid Field in Command", func(t *T) {
				t.expect("Set Features", setFeature(f.id, f.nsid(t), r.value), never(spec.InvalidField))
			})
		}
	}
	for _, id := range []uint8{0x00, 0x03, 0x1f, 0x70, 0xb0, 0xc0, 0xff} {
		if id == 0x03 {
			continue // LBA Range Type is optional and nowhere announced
		}
		for _, op := range []struct {
			name string
			cmd  *spec.SubmissionEntry
		}{{"Get Features", getFeature(id, 0, 0)}, {"Set Features", setFeature(id, 0, 0)}} {
			checks = append(checks, Check{selects, fmt.Sprintf("%s of the unknown feature %02Xh: Invalid Field in Command", op.name, id), func(t *T) {
				cmd := *op.cmd
				t.with(&cmd, 4096)
				t.expect("it", &cmd, never(spec.InvalidField))
			}, false})
		}
	}
	return checks
}

// valueChecks are those of features that are a number.
func valueChecks(f *feature, add func(section, rule string, run func(t *T))) {
	set := func(t *T, v uint32) completion { return t.do(t.admin, setFeature(f.id, f.nsid(t), v)) }
	add(f.section, ": what is set can be read", func(t *T) {
		for _, v := range f.values {
			c := t.must("Set Features", set(t, v))
			equal(t, "dword 0 of Set Features", c.DW0, 0)
			equal(t, "value", t.must("Get Features", f.get(t, 0)).DW0, v)
		}
	})
	add(f.section, ": reserved bits are not kept", func(t *T) {
		t.need(f.mask != 0xffffffff, "reserved bit")
		v := f.values[len(f.values)-1]
		t.must("Set Features", set(t, v|^f.mask))
		equal(t, "reserved bits", t.must("Get Features", f.get(t, 0)).DW0&^f.mask, 0)
	})
	add(f.section, ": to set it does not change the default", func(t *T) {
		before := t.must("Get Features", f.get(t, 1)).DW0
		for _, v := range f.values {
			t.must("Set Features", set(t, v))
		}
		equal(t, "default", t.must("Get Features", f.get(t, 1)).DW0, before)
	})
	add("Base 2.0, 3.7.2", ": a controller reset brings the saved value, or the default, back", func(t *T) {
		want := t.must("Get Features", f.get(t, 2)).DW0
		for _, v := range f.values {
			t.must("Set Features", set(t, v))
		}
		t.dirty = true
		t.up(t)
		equal(t, "value", t.must("Get Features", f.get(t, 0)).DW0, want)
	})
	add("Base 2.0, 5.27", ": a value that is saved is the saved one, and survives a controller reset", func(t *T) {
		t.need(f.capabilities(t)&1 != 0, "feature that can be saved")
		before := t.must("Get Features", f.get(t, 2)).DW0
		save := func(v uint32) {
			cmd := setFeature(f.id, f.nsid(t), v)
			cmd.CDW10 |= 1 << 31
			t.must("Set Features with SV", t.do(t.admin, cmd))
		}
		v := f.values[len(f.values)/2]
		save(v)
		equal(t, "saved value", t.must("Get Features", f.get(t, 2)).DW0, v)
		t.up(t)
		equal(t, "value after the reset", t.must("Get Features", f.get(t, 0)).DW0, v)
		save(before)
	})
	add(f.section, ": a refused value changes nothing", func(t *T) {
		t.need(len(f.refused) > 0, "value that is refused")
		before := t.must("Get Features", f.get(t, 0)).DW0
		for _, r := range f.refused {
			set(t, r.value)
		}
		equal(t, "value", t.must("Get Features", f.get(t, 0)).DW0, before)
	})
	add(f.section, ": it can be changed if it says so, else Feature Not Changeable", func(t *T) {
		c := set(t, f.values[0])
		if f.capabilities(t)&4 != 0 {
			t.status("Set Features", c, spec.Success)
		} else {
			t.status("Set Features", c, never(spec.FeatureNotChangeable))
		}
	})
}
