package nvmemodel

import (
	"encoding/binary"

	"vfiouser/devices/nvme/spec"
)

// featureKey is a feature, of a namespace if it has a value for each.
type featureKey struct {
	id uint8
	ns *namespace
}

// feature is what the model knows of one.
type feature struct {
	id         uint8
	mask       uint32 // bits that a host can set
	byDefault  uint32
	saveable   bool
	persistent bool   // it outlives resets without being saved
	perNS      bool   // every namespace has a value
	refused    uint32 // bits that are invalid
}

var features = []feature{
	{id: spec.FeatArbitration, mask: 0xffffff07, byDefault: 7, saveable: true},
	{id: spec.FeatErrorRecovery, mask: 0xffff, saveable: true, perNS: true, refused: 1 << 16},
	{id: spec.FeatInterruptCoalescing, mask: 0xffff, saveable: true},
	{id: spec.FeatWriteAtomicity, mask: 1, saveable: true},
	{id: spec.FeatNonOperationalPower, mask: 1, saveable: true},
	{id: spec.FeatProgressMarker, mask: 0xff, persistent: true},
}

// value is the current or the saved value.
func (f *feature) value(values map[featureKey]uint32, n *namespace) uint32 {
	if v, ok := values[featureKey{f.id, n}]; ok {
		return v
	}
	return f.byDefault
}

// target chooses a namespace for a feature that has a value for each.
func (m *model) target(h int, f *feature) (id uint32, n *namespace, errors []spec.Status) {
	if !f.perNS {
		return 0, nil, nil
	}
	id, n = m.anyID()
	if n == nil || !n.attached[h] {
		return id, nil, []spec.Status{absent(id)}
	}
	return id, n, nil
}

func (m *model) setFeature() {
	h := m.anyHost()
	f := &features[m.s.Intn(len(features))]
	id, n, errors := m.target(h, f)
	v := m.s.Uint32()
	if f.id == spec.FeatInterruptCoalescing {
		v &= 0xff // without a delay: completions are waited for
	}
	if v &= f.mask | f.refused; m.s.Odds(8) {
		v |= f.refused
	} else {
		v &^= f.refused
	}
	if v&f.refused != 0 && len(errors) == 0 {
		errors = append(errors, spec.InvalidField)
	}
	save := m.s.Odds(3)
	e := spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, NSID: id, CDW10: uint32(f.id), CDW11: v}
	if save {
		e.CDW10 |= spec.SetFeaturesSave
		if !f.saveable {
			errors = append(errors, spec.FeatureNotSaveable)
		}
	}
	st, _ := m.d.Admin(h, e, nil)
	m.logf("feature %#x of namespace %d is %#x, saved: %v", f.id, id, v, save)
	m.expect(h, "set a feature", st, errors...)
	if st.OK() {
		key := featureKey{f.id, n}
		m.hosts[h].current[key] = v
		if save || f.persistent {
			m.hosts[h].saved[key] = v
		}
	}
}

func (m *model) getFeature() {
	h := m.anyHost()
	f := &features[m.s.Intn(len(features))]
	id, n, errors := m.target(h, f)
	sel := uint32(m.s.Intn(5))
	if sel > spec.SelectCapabilities {
		errors = append(errors, spec.InvalidField)
	}
	if sel == spec.SelectCapabilities {
		errors = nil // they are those of the feature
	}
	st, v := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: id, CDW10: uint32(f.id) | sel<<8}, nil)
	m.expect(h, "get a feature", st, errors...)
	if !st.OK() {
		return
	}
	var want uint32
	switch sel {
	case spec.SelectCurrent:
		want = f.value(m.hosts[h].current, n)
	case spec.SelectDefault:
		want = f.byDefault
	case spec.SelectSaved:
		if want = f.byDefault; f.saveable {
			want = f.value(m.hosts[h].saved, n)
		}
	case spec.SelectCapabilities:
		want = spec.FeatureChangeable
		if f.saveable {
			want |= spec.FeatureSaveable
		}
		if f.perNS {
			want |= spec.FeatureNamespace
		}
	}
	if v != want {
		m.fatalf("host %d: feature %#x of namespace %d, select %d: %#x, want %#x", h, f.id, id, sel, v, want)
	}
}

// newcomer sees that a namespace which a host gets has not the features of an earlier one that had its
// number.
func (m *model) newcomer(h int, n *namespace) {
	for i := range features {
		f := &features[i]
		if !f.perNS {
			continue
		}
		st, v := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, NSID: n.id, CDW10: uint32(f.id)}, nil)
		m.expect(h, "get a feature", st)
		if want := f.value(m.hosts[h].current, n); v != want {
			m.fatalf("host %d: feature %#x of namespace %d is %#x, want %#x", h, f.id, n.id, v, want)
		}
	}
}

// setHostID makes the controller one of another host, or of none.
func (m *model) setHostID() {
	h := m.anyHost()
	id := byte(m.s.Intn(3))
	data := make([]byte, 8)
	binary.LittleEndian.PutUint64(data, uint64(id))
	st, _ := m.d.Admin(h, spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatHostIdentifier}, data)
	m.logf("host identifier %d", id)
	m.expect(h, "host identifier", st)
	m.becomes(h, id)
}
