package nvme

import (
	"encoding/binary"
	"time"

	"vfiouser/devices/nvme/spec"
)

// features are the values of the features (Base 1.4, 5.21). A controller reset brings
// the defaults back; nothing is saveable.
type features struct {
	value    [256]uint32   // of those that are a number
	vectors  []uint32      // interrupt vector configuration
	recovery []uint32      // error recovery, a value for each namespace
	over     uint16        // temperature threshold, K
	under    uint16        // the same below which it is too cold
	clock    time.Duration // of the host, less ours since the start of the process
	clockSet bool
}

// feature is what the controller knows of a feature. set gets the new value in CDW11.
type feature struct {
	caps uint32
	get  func(h *host, e *spec.SubmissionEntry, def bool) (spec.Status, uint32)
	set  func(h *host, e *spec.SubmissionEntry) (spec.Status, uint32)
}

var featureTable = [256]feature{
	spec.FeatArbitration:         {spec.FeatureChangeable, getNumber, setNumber(0xffffff07)},
	spec.FeatPowerManagement:     {spec.FeatureChangeable, getNumber, setPower},
	spec.FeatTemperature:         {spec.FeatureChangeable, getTemperature, setTemperature},
	spec.FeatErrorRecovery:       {spec.FeatureChangeable | spec.FeatureNamespace, getRecovery, setRecovery},
	spec.FeatVolatileWriteCache:  {spec.FeatureChangeable, getWriteCache, setWriteCache},
	spec.FeatNumberOfQueues:      {spec.FeatureChangeable, getQueues, setQueues},
	spec.FeatInterruptCoalescing: {spec.FeatureChangeable, getNumber, setNumber(0xffff)},
	spec.FeatInterruptVector:     {spec.FeatureChangeable, getVector, setVector},
	spec.FeatWriteAtomicity:      {spec.FeatureChangeable, getNumber, setNumber(1)},
	spec.FeatAsyncEvents:         {spec.FeatureChangeable, getNumber, setAsyncEvents},
	spec.FeatTimestamp:           {spec.FeatureChangeable, getTimestamp, setTimestamp},
}

const badField = spec.InvalidField | spec.StatusDNR

func (f *features) reset(c *Controller) {
	*f = features{
		vectors:  make([]uint32, c.vectors()),
		recovery: make([]uint32, len(c.namespaces)),
		over:     warningTemp,
	}
	f.value[spec.FeatVolatileWriteCache] = 1
	f.value[spec.FeatArbitration] = 7 // no limit of a burst
	for i := range f.vectors {
		f.vectors[i] = uint32(i)
	}
	c.writeThrough.Store(false)
}

// getFeatures is Get Features (Base 1.4, 5.13).
func (h *host) getFeatures(e *spec.SubmissionEntry) (spec.Status, uint32) {
	f := &featureTable[uint8(e.CDW10)]
	selected := e.CDW10 >> 8 & 7
	switch {
	case f.get == nil, selected > spec.SelectCapabilities:
		return badField, 0
	case selected == spec.SelectCapabilities:
		return spec.Success, f.caps
	}
	// Nothing is saveable, so what is saved is the default.
	return f.get(h, e, selected != spec.SelectCurrent)
}

// setFeatures is Set Features (Base 1.4, 5.21).
func (h *host) setFeatures(e *spec.SubmissionEntry) (spec.Status, uint32) {
	f := &featureTable[uint8(e.CDW10)]
	switch {
	case f.set == nil:
		return badField, 0
	case e.CDW10&spec.SetFeaturesSave != 0:
		return spec.FeatureNotSaveable | spec.StatusDNR, 0
	case f.caps&spec.FeatureNamespace == 0 && e.NSID != 0 && e.NSID != spec.BroadcastNSID:
		if h.c.namespace(e.NSID) == nil {
			return spec.InvalidNamespaceOrFormat | spec.StatusDNR, 0
		}
		return spec.FeatureNotNamespace | spec.StatusDNR, 0
	}
	return f.set(h, e)
}

func getNumber(h *host, e *spec.SubmissionEntry, def bool) (spec.Status, uint32) {
	f := &h.features
	if def {
		f = new(features)
		f.reset(h.c)
	}
	return spec.Success, f.value[uint8(e.CDW10)]
}

// setNumber stores the bits of mask.
func setNumber(mask uint32) func(*host, *spec.SubmissionEntry) (spec.Status, uint32) {
	return func(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
		h.features.value[uint8(e.CDW10)] = e.CDW11 & mask
		return spec.Success, 0
	}
}

func setPower(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	if e.CDW11&0x1f != 0 { // there is power state 0 only (NPSS)
		return badField, 0
	}
	return setNumber(0xff)(h, e)
}

func getWriteCache(h *host, e *spec.SubmissionEntry, def bool) (spec.Status, uint32) {
	if !h.c.volatileCache() {
		return badField, 0
	}
	return getNumber(h, e, def)
}

func setWriteCache(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	if !h.c.volatileCache() {
		return badField, 0
	}
	on := e.CDW11&1 != 0
	h.c.writeThrough.Store(!on)
	if !on {
		// What was written before is not to stay volatile either.
		if st := h.c.flushAll(&h.data); !st.OK() {
			return st, 0
		}
	}
	return setNumber(1)(h, e)
}

// getQueues and setQueues grant all queues that there are, whatever is asked for.
func getQueues(h *host, _ *spec.SubmissionEntry, _ bool) (spec.Status, uint32) {
	n := uint32(h.c.cfg.Queues - 1)
	return spec.Success, n | n<<16
}

func setQueues(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	switch {
	case h.queues.Load() > 0:
		return spec.CommandSequenceError | spec.StatusDNR, 0
	case e.CDW11&0xffff == 0xffff, e.CDW11>>16 == 0xffff:
		return badField, 0
	}
	return getQueues(h, e, false)
}

const coalescingDisable = 1 << 16

func getVector(h *host, e *spec.SubmissionEntry, def bool) (spec.Status, uint32) {
	v := e.CDW11 & 0xffff
	switch {
	case int(v) >= len(h.features.vectors):
		return badField, 0
	case def:
		return spec.Success, v
	}
	return spec.Success, h.features.vectors[v]
}

func setVector(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	v := e.CDW11 & 0xffff
	if int(v) >= len(h.features.vectors) {
		return badField, 0
	}
	h.features.vectors[v] = e.CDW11 & (coalescingDisable | 0xffff)
	return spec.Success, 0
}

func getRecovery(h *host, e *spec.SubmissionEntry, def bool) (spec.Status, uint32) {
	ns := h.c.namespace(e.NSID)
	switch {
	case ns == nil:
		return spec.InvalidNamespaceOrFormat | spec.StatusDNR, 0
	case def:
		return spec.Success, 0
	}
	return spec.Success, h.features.recovery[ns.id-1]
}

func setRecovery(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	const deallocatedErrors = 1 << 16 // DULBE, which NSFEAT does not offer
	ns := h.c.namespace(e.NSID)
	switch {
	case ns == nil && e.NSID != spec.BroadcastNSID:
		return spec.InvalidNamespaceOrFormat | spec.StatusDNR, 0
	case e.CDW11&deallocatedErrors != 0:
		return badField, 0
	}
	for i := range h.features.recovery {
		if ns == nil || uint32(i+1) == ns.id {
			h.features.recovery[i] = e.CDW11 & 0xffff
		}
	}
	return spec.Success, 0
}

func setAsyncEvents(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	h.features.value[spec.FeatAsyncEvents] = e.CDW11
	h.checkTemperature()
	return spec.Success, 0
}

// Temperature thresholds (5.21.1.4). There is one sensor, the composite one.
const (
	thresholdOver  = 0
	thresholdUnder = 1
	allSensors     = 0xf
)

func getTemperature(h *host, e *spec.SubmissionEntry, def bool) (spec.Status, uint32) {
	sensor, kind := e.CDW11>>16&0xf, e.CDW11>>20&3
	over, under := h.features.over, h.features.under
	if def {
		over, under = warningTemp, 0
	}
	switch {
	case sensor != 0:
		return badField, 0
	case kind == thresholdOver:
		return spec.Success, uint32(over)
	case kind == thresholdUnder:
		return spec.Success, uint32(under)
	}
	return badField, 0
}

func setTemperature(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	sensor, kind := e.CDW11>>16&0xf, e.CDW11>>20&3
	switch {
	case sensor != 0 && sensor != allSensors:
		return badField, 0
	case kind == thresholdOver:
		h.features.over = uint16(e.CDW11)
	case kind == thresholdUnder:
		h.features.under = uint16(e.CDW11)
	default:
		return badField, 0
	}
	h.checkTemperature()
	return spec.Success, 0
}

const warnTemperature = 1 << 1 // of the critical warnings

func (h *host) criticalWarning() uint8 {
	if temperature >= h.features.over || temperature <= h.features.under {
		return warnTemperature
	}
	return 0
}

// checkTemperature raises an event if the host wants to know.
func (h *host) checkTemperature() {
	if h.criticalWarning()&uint8(h.features.value[spec.FeatAsyncEvents]) != 0 {
		h.events.Or(1 << eventTemperature)
	}
}

// The timestamp is in milliseconds since 1970, 48 bits; without a host's it counts from
// the controller's start (5.21.1.14).
const (
	timestampSize   = 8
	timestampOrigin = 1 << 57 // the host has set it
	maxTimestamp    = 1<<48 - 1
)

func getTimestamp(h *host, e *spec.SubmissionEntry, _ bool) (spec.Status, uint32) {
	v := h.timestamp()
	if h.features.clockSet {
		v |= timestampOrigin
	}
	var b [timestampSize]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return h.data.toHost(e, b[:]), 0
}

func setTimestamp(h *host, e *spec.SubmissionEntry) (spec.Status, uint32) {
	var b [timestampSize]byte
	if st := h.data.fromHost(e, b[:]); !st.OK() {
		return st, 0
	}
	ms := binary.LittleEndian.Uint64(b[:]) & maxTimestamp
	h.features.clock = time.Duration(ms)*time.Millisecond - time.Since(h.c.smart.start)
	h.features.clockSet = true
	return spec.Success, 0
}
