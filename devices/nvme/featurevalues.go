package nvme

import (
	"cmp"
	"slices"

	"vfiouser/devices/nvme/spec"
)

// featureKey names a value of a feature: the only one, or the one of a namespace, an
// interrupt vector or a threshold, which is its part.
type featureKey struct {
	ID   uint8
	Part uint32
}

// featureValue is what CDW11 says, and the data structure. It is never changed, so copies
// share Data.
type featureValue struct {
	Number uint32
	Data   []byte
	// of is the namespace that a value is for, which may be gone, and its number another one's.
	of *allocation
}

// featureValues are the values that were set; the other ones are the defaults.
type featureValues map[featureKey]featureValue

// valueOf is a value out of v.
func (h *host) valueOf(v featureValues, key featureKey) featureValue {
	if value, ok := v[key]; ok && h.stands(key, value) {
		return value
	}
	return h.defaultOf(key)
}

// allocationOf is the namespace that a value of this key is for; nil: there is none.
func (h *host) allocationOf(key featureKey) *allocation {
	if h.c.features[key.ID].caps&spec.FeatureNamespace == 0 {
		return nil
	}
	if ns := h.c.namespace(key.Part); ns != nil {
		return ns.allocation
	}
	return nil
}

// stands says whether what a value is for is still there.
func (h *host) stands(key featureKey, v featureValue) bool {
	return h.allocationOf(key) == v.of && h.hasPart(&h.c.features[key.ID], key.Part)
}

// defaultOf is the value that nobody has set.
func (h *host) defaultOf(key featureKey) featureValue {
	f := &h.c.features[key.ID]
	if f.fallback != nil {
		return f.fallback(h, key.Part)
	}
	return featureValue{Number: f.number, Data: make([]byte, f.size)}
}

// valueState is a value as it stands in files and streams.
type valueState struct {
	ID     uint8
	Part   uint32 `json:",omitempty"`
	Number uint32
	Data   []byte `json:",omitempty"`
}

// stateOf lists the values that stand.
func (h *host) stateOf(v featureValues) []valueState {
	list := make([]valueState, 0, len(v))
	for key, value := range v {
		if h.stands(key, value) {
			list = append(list, valueState{key.ID, key.Part, value.Number, value.Data})
		}
	}
	slices.SortFunc(list, func(a, b valueState) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Part, b.Part))
	})
	return list
}

// loadValues is the inverse of stateOf, if Set Features could have set the values.
func (h *host) loadValues(list []valueState) (featureValues, error) {
	v := make(featureValues)
	for _, s := range list {
		key := featureKey{s.ID, s.Part}
		f := &h.c.features[s.ID]
		value := featureValue{Number: s.Number, Data: s.Data, of: h.allocationOf(key)}
		_, twice := v[key]
		switch {
		case !h.offers(s.ID) || twice || !h.hasPart(f, s.Part):
			return nil, stateError("value %d of feature %#x", s.Part, s.ID)
		case s.Number&^f.mask != 0 || len(s.Data) != f.size || f.check != nil && !f.check(h, s.Part, value).OK():
			return nil, stateError("feature %#x is %#x % x", s.ID, s.Number, s.Data)
		}
		v[key] = value
	}
	return v, nil
}

// loadSaved is loadValues for values that resets bring back.
func (h *host) loadSaved(list []valueState) (featureValues, error) {
	for _, s := range list {
		if f := &h.c.features[s.ID]; f.caps&spec.FeatureSaveable == 0 && !f.persistent {
			return nil, stateError("feature %#x is saved", s.ID)
		}
	}
	return h.loadValues(list)
}

// hasPart says whether a feature has a value of this number.
func (h *host) hasPart(f *feature, part uint32) bool {
	switch {
	case f.caps&spec.FeatureNamespace != 0:
		return h.c.namespace(part) != nil
	case f.parts != nil:
		return slices.Contains(f.parts(h), part)
	}
	return part == 0
}
