package nvme

import (
	"maps"
	"time"

	"vfiouser/devices/nvme/spec"
)

// feature is what the controller knows of a feature (Base 2.0, 5.27.1). Its value is a
// number, of CDW11, and data, if it has a data structure.
type feature struct {
	caps  uint32 // spec.FeatureSaveable, …
	scope uint32 // spec.ScopeController, …
	// persistent: a reset and a power cycle do not change the value, although it cannot be saved.
	persistent bool
	mask       uint32 // bits of CDW11 that are the number; the other ones are ignored
	number     uint32 // by default
	size       int    // of the data structure in bytes

	// offered says whether this controller has the feature; nil: all have.
	offered func(h *host) bool
	// part tells apart the values of a feature that has several, other than one for each
	// namespace. all lists the ones that a Set Features means.
	part func(h *host, e *spec.SubmissionEntry) (uint32, spec.Status)
	all  func(h *host, e *spec.SubmissionEntry) ([]uint32, spec.Status)
	// parts lists all that there are, if there are several.
	parts func(h *host) []uint32
	// length is how much of the data structure a command transfers; nil: all of it.
	length func(e *spec.SubmissionEntry) int
	// fallback is the value by default, where number and zeroes are not.
	fallback func(h *host, part uint32) featureValue
	// check refuses values that are not possible. It is asked of hostile states too.
	check func(h *host, part uint32, v featureValue) spec.Status
	// apply does what has to be done before the value is taken, and may fail; it may
	// change the value.
	apply func(h *host, part uint32, v *featureValue) spec.Status
	// changed follows a change of the current value, by whatever.
	changed func(h *host)
	// current is the value of a Get Features where it is not what was set.
	current func(h *host, part uint32, v featureValue) featureValue
	// later carries out a Set Features of a value that is not kept here.
	later func(h *host, e *spec.SubmissionEntry, v featureValue) (spec.Status, uint32)
}

const (
	saveable   = spec.FeatureSaveable | spec.FeatureChangeable
	changeable = spec.FeatureChangeable
)

// featureTable refers to functions that look into it, so it is made by one.
func featureTable() *[256]feature {
	return &[256]feature{
		spec.FeatArbitration:         {caps: saveable, scope: spec.ScopeController, mask: 0xffffff07, number: noBurstLimit, changed: (*host).arbitrate},
		spec.FeatPowerManagement:     {caps: saveable, scope: spec.ScopeController, mask: 0xff, check: checkPower, changed: (*host).powerChanged, current: currentPower},
		spec.FeatLBARange:            lbaRangeFeature,
		spec.FeatTemperature:         temperatureFeature,
		spec.FeatErrorRecovery:       {caps: saveable | spec.FeatureNamespace, scope: spec.ScopeNamespace, mask: 0x1ffff, check: checkRecovery},
		spec.FeatVolatileWriteCache:  {caps: saveable, scope: spec.ScopeController, mask: 1, number: 1, offered: offersWriteCache, apply: applyWriteCache, changed: (*host).writeCacheChanged},
		spec.FeatNumberOfQueues:      {caps: changeable, scope: spec.ScopeController, mask: 0xffffffff, fallback: allQueues, check: checkQueues, apply: grantQueues},
		spec.FeatInterruptCoalescing: {caps: saveable, scope: spec.ScopeController, mask: 0xffff, changed: (*host).coalesce},
		spec.FeatInterruptVector:     vectorFeature,
		spec.FeatWriteAtomicity:      {caps: saveable, scope: spec.ScopeController, mask: 1},
		spec.FeatAsyncEvents:         {caps: saveable, scope: spec.ScopeController, mask: offeredEvents, changed: (*host).checkTemperature},
		spec.FeatAutonomousPower:     {caps: saveable, scope: spec.ScopeController, mask: 1, size: spec.AutonomousPowerSize, check: checkAutonomousPower, changed: (*host).powerChanged},
		spec.FeatTimestamp:           {caps: changeable, scope: spec.ScopeController, size: spec.TimestampSize, apply: applyTimestamp, current: currentTimestamp},
		spec.FeatKeepAlive:           {caps: changeable, scope: spec.ScopeController, mask: 0xffffffff, check: checkKeepAlive, apply: applyKeepAlive, changed: (*host).restartKeepAlive},
		spec.FeatHostThermal:         {caps: changeable, scope: spec.ScopeController, persistent: true, mask: 0xffffffff, check: checkHostThermal, changed: (*host).throttle},
		spec.FeatNonOperationalPower: {caps: saveable, scope: spec.ScopeController, mask: 1},
		spec.FeatHostBehavior:        {caps: changeable, scope: spec.ScopeController, size: spec.HostBehaviorSize, check: checkHostBehavior, changed: (*host).hostBehaviorChanged},
		spec.FeatWriteProtect:        writeProtectFeature,
		spec.FeatSanitize:            {caps: changeable, scope: spec.ScopeSubsystem, persistent: true, mask: 1},
		spec.FeatEnduranceEvents:     enduranceFeature,
		spec.FeatProgressMarker:      {caps: changeable, scope: spec.ScopeController, persistent: true, mask: 0xff},
		spec.FeatHostIdentifier:      hostIdentifierFeature,
		spec.FeatReservationMask:     {caps: changeable | spec.FeatureNamespace, scope: spec.ScopeNamespace, mask: spec.NoticeMask, changed: (*host).noticeMaskChanged},
		spec.FeatReservationPersist:  {caps: changeable | spec.FeatureNamespace, scope: spec.ScopeNamespace, mask: 1, offered: (*host).keepsReservations, apply: applyPersistence, current: currentPersistence},
	}
}

const (
	badField = spec.InvalidField | spec.StatusDNR
)

// features are the values that a client has given the features, and what follows of them.
type features struct {
	values    featureValues
	reset     time.Time // when the controller was reset last
	power     power
	keepAlive keepAlive
}

// resetFeatures brings the saved values back, or the defaults where there are none
// (Base 2.0, 4.4).
func (h *host) resetFeatures() {
	h.features.keepAlive.stop()
	h.features = features{values: maps.Clone(h.c.saved), reset: time.Now(), keepAlive: h.features.keepAlive}
	h.c.clock.Store(&clock{origin: time.Now()})
	h.featuresChanged()
}

// featuresChanged makes effective whatever the values are.
func (h *host) featuresChanged() {
	for i := range h.c.features {
		if f := &h.c.features[i]; f.changed != nil {
			f.changed(h)
		}
	}
}

// number is the current number of a feature that has one value.
func (h *host) number(id uint8) uint32 { return h.value(id, 0).Number }

// value is a current value.
func (h *host) value(id uint8, part uint32) featureValue {
	return h.valueOf(h.features.values, featureKey{id, part})
}

// getFeatures is Get Features (Base 2.0, 5.15).
func (h *host) getFeatures(e *spec.SubmissionEntry) (spec.Status, uint32) {
	id := uint8(e.CDW10)
	f := &h.c.features[id]
	selected := e.CDW10 >> 8 & 7
	switch {
	case !h.offers(id), selected > spec.SelectCapabilities:
		return badField, 0
	case selected == spec.SelectCapabilities:
		return spec.Success, f.caps
	}
	key := featureKey{ID: id}
	switch {
	case (id == spec.FeatReservationMask || id == spec.FeatReservationPersist) && e.NSID == spec.BroadcastNSID:
		return badField, 0 // other features have another status (Base 2.0, 5.27.1.26)
	case f.caps&spec.FeatureNamespace != 0:
		ns := h.c.namespace(e.NSID)
		if ns == nil {
			return h.c.absent(e.NSID), 0
		}
		key.Part = ns.id
	case f.part != nil:
		var st spec.Status
		if key.Part, st = f.part(h, e); !st.OK() {
			return st, 0
		}
	}
	var v featureValue
	switch {
	case selected == spec.SelectCurrent:
		v = h.valueOf(h.features.values, key)
		if f.current != nil {
			v = f.current(h, key.Part, v)
		}
	case selected == spec.SelectSaved && f.caps&spec.FeatureSaveable != 0:
		v = h.valueOf(h.c.saved, key)
	default:
		v = h.defaultOf(key)
	}
	if f.size == 0 {
		return spec.Success, v.Number
	}
	return h.data.toHost(e, v.Data[:f.transferred(e)]), v.Number & f.mask
}

// setFeatures is Set Features (Base 2.0, 5.27).
func (h *host) setFeatures(e *spec.SubmissionEntry) (spec.Status, uint32) {
	id := uint8(e.CDW10)
	f := &h.c.features[id]
	save := e.CDW10&spec.SetFeaturesSave != 0
	switch {
	case !h.offers(id):
		return badField, 0
	case save && f.caps&spec.FeatureSaveable == 0:
		return spec.FeatureNotSaveable | spec.StatusDNR, 0
	}
	parts, st := h.partsToSet(f, e)
	if !st.OK() {
		return st, 0
	}
	if f.caps&spec.FeatureChangeable == 0 {
		return spec.FeatureNotChangeable | spec.StatusDNR, 0
	}
	v := featureValue{Number: e.CDW11 & f.mask}
	if f.size > 0 {
		v.Data = make([]byte, f.size)
		if st := h.data.fromHost(e, v.Data[:f.transferred(e)]); !st.OK() {
			return st, 0
		}
	}
	if f.later != nil {
		return f.later(h, e, v)
	}
	for _, part := range parts {
		if f.check != nil {
			if st := f.check(h, part, v); !st.OK() {
				return st, 0
			}
		}
	}
	for _, part := range parts {
		if f.apply != nil {
			if st := f.apply(h, part, &v); !st.OK() {
				return st, 0
			}
		}
		v.of = h.allocationOf(featureKey{id, part})
		h.features.values[featureKey{id, part}] = v
		if save || f.persistent {
			h.c.saved[featureKey{id, part}] = v
		}
	}
	if save || f.persistent {
		h.keepFeatures()
	}
	if f.changed != nil {
		f.changed(h)
	}
	if id == spec.FeatNumberOfQueues {
		return spec.Success, v.Number // what was granted
	}
	return spec.Success, 0
}

// partsToSet finds which values of a feature a Set Features means.
func (h *host) partsToSet(f *feature, e *spec.SubmissionEntry) ([]uint32, spec.Status) {
	ns := h.c.namespace(e.NSID)
	perNamespace := f.caps&spec.FeatureNamespace != 0
	switch {
	case perNamespace && e.NSID == spec.BroadcastNSID:
		return h.c.activeIDs(), spec.Success
	case perNamespace && ns == nil:
		return nil, h.c.absent(e.NSID)
	case perNamespace:
		return []uint32{ns.id}, spec.Success
	case e.NSID != 0 && e.NSID != spec.BroadcastNSID && !h.c.validNSID(e.NSID):
		return nil, spec.InvalidNamespaceOrFormat | spec.StatusDNR
	case e.NSID != 0 && e.NSID != spec.BroadcastNSID:
		return nil, spec.FeatureNotNamespace | spec.StatusDNR
	case f.all != nil:
		return f.all(h, e)
	case f.part != nil:
		part, st := f.part(h, e)
		return []uint32{part}, st
	}
	return []uint32{0}, spec.Success
}

// offers says whether the controller has a feature.
func (h *host) offers(id uint8) bool {
	f := &h.c.features[id]
	return f.caps != 0 && (f.offered == nil || f.offered(h))
}

// transferred is how many bytes of the data structure a command transfers.
func (f *feature) transferred(e *spec.SubmissionEntry) int {
	if f.length == nil {
		return f.size
	}
	return f.length(e)
}

// validNSID says whether a namespace of this number could be there (NN).
func (c *Controller) validNSID(id uint32) bool { return id-1 < MaxNamespaces }

// absent is the status of a command for one namespace, which is not there (Base 2.0, 3.2.1).
func (c *Controller) absent(id uint32) spec.Status {
	if c.validNSID(id) && c.namespace(id) == nil {
		return badField
	}
	return spec.InvalidNamespaceOrFormat | spec.StatusDNR
}

// activeIDs lists the namespaces that are there.
func (c *Controller) activeIDs() (ids []uint32) {
	for _, ns := range c.active() {
		ids = append(ids, ns.id)
	}
	return ids
}
