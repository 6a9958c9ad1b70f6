package nvme

import (
	"slices"
	"sync"
	"time"

	"vfiouser/devices/nvme/spec"
)

// Temperatures in kelvin: what the drive claims to have, and its limits.
const (
	temperature = 273 + 37
	warningTemp = 273 + 70
	criticalTmp = 273 + 80
	minThermal  = 273 + 30 // MNTMT
	maxThermal  = 273 + 75 // MXTMT
)

// sensors are the temperatures of the sensors 1, 2, …; the composite temperature is sensor 0.
var sensors = [...]uint16{temperature, temperature - 4}

// Temperature thresholds (Base 2.0, 5.27.1.3): a part is the sensor, and the kind in bits 5:4.
const (
	thresholdOver  = 0
	thresholdUnder = 1
	allSensors     = 0xf
)

var temperatureFeature = feature{
	caps: saveable, scope: spec.ScopeController, mask: 0xffff,
	part: temperaturePart, all: temperatureParts, fallback: temperatureFallback, changed: (*host).checkTemperature,
	parts: func(*host) (parts []uint32) {
		for kind := uint32(thresholdOver); kind <= thresholdUnder; kind++ {
			for sensor := range uint32(len(sensors) + 1) {
				parts = append(parts, kind<<4|sensor)
			}
		}
		return parts
	},
}

func temperaturePart(_ *host, e *spec.SubmissionEntry) (uint32, spec.Status) {
	sensor, kind := e.CDW11>>16&0xf, e.CDW11>>20&3
	if int(sensor) > len(sensors) || kind > thresholdUnder {
		return 0, badField
	}
	return kind<<4 | sensor, spec.Success
}

func temperatureParts(h *host, e *spec.SubmissionEntry) (parts []uint32, st spec.Status) {
	one := *e
	if e.CDW11>>16&0xf != allSensors {
		part, st := temperaturePart(h, e)
		return []uint32{part}, st
	}
	for sensor := range uint32(len(sensors) + 1) {
		one.CDW11 = e.CDW11&^(0xf<<16) | sensor<<16
		part, st := temperaturePart(h, &one)
		if !st.OK() {
			return nil, st
		}
		parts = append(parts, part)
	}
	return parts, spec.Success
}

func temperatureFallback(_ *host, part uint32) featureValue {
	switch {
	case part>>4 == thresholdUnder:
		return featureValue{}
	case part&0xf == 0:
		return featureValue{Number: warningTemp}
	}
	return featureValue{Number: 0xffff}
}

// Critical warnings (Base 2.0, figure 207).
const (
	warnTemperature = 1 << 1
	warnReadOnly    = 1 << 3
)

// criticalWarning is what the host has to know. That the storage of all namespaces is read-only
// is such a thing; that they are write protected is not.
func (h *host) criticalWarning() (w uint8) {
	if list := h.c.active(); len(list) > 0 && !slices.ContainsFunc(list, func(ns *namespace) bool { return !ns.backend.Info().ReadOnly }) {
		w |= warnReadOnly
	}
	for sensor := range len(sensors) + 1 {
		t := uint32(temperature)
		if sensor > 0 {
			t = uint32(sensors[sensor-1])
		}
		over := h.value(spec.FeatTemperature, uint32(thresholdOver<<4|sensor)).Number
		under := h.value(spec.FeatTemperature, uint32(thresholdUnder<<4|sensor)).Number
		if t >= over || t <= under {
			w |= warnTemperature
		}
	}
	return w
}

// checkTemperature raises an event if the host wants to know.
func (h *host) checkTemperature() {
	if h.criticalWarning()&uint8(h.number(spec.FeatAsyncEvents))&warnTemperature != 0 {
		h.events.Or(1 << eventTemperature)
	}
}

// checkHostThermal wants the temperatures TMT1 < TMT2 within the limits; 0 is none (Base 2.0,
// 5.27.1.13).
func checkHostThermal(_ *host, _ uint32, v featureValue) spec.Status {
	light, heavy := v.Number>>16, v.Number&0xffff
	for _, t := range []uint32{light, heavy} {
		if t != 0 && (t < minThermal || t > maxThermal) {
			return badField
		}
	}
	if light != 0 && heavy != 0 && light >= heavy {
		return badField
	}
	return spec.Success
}

// throttling counts how often and how long the host's limits were exceeded, for SMART:
// 0 is TMT1, 1 is TMT2.
type throttling struct {
	mu    sync.Mutex
	level int // 0: none, 1: TMT1 exceeded, 2: TMT2 exceeded
	since time.Time
	count [2]uint32
	spent [2]time.Duration
}

// throttle follows the feature 10h.
func (h *host) throttle() {
	v := h.number(spec.FeatHostThermal)
	light, heavy := v>>16, v&0xffff
	level := 0
	if light != 0 && temperature >= light {
		level = 1
	}
	if heavy != 0 && temperature >= heavy {
		level = 2
	}
	h.c.smart.throttling.enter(level, time.Now())
}

func (t *throttling) enter(level int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if level == t.level {
		return
	}
	if t.level > 0 {
		t.spent[t.level-1] += now.Sub(t.since)
	}
	if t.level, t.since = level, now; level > 0 {
		t.count[level-1]++
	}
}

// log fills in the transitions and the seconds.
func (t *throttling) log(s *spec.Smart, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.count {
		spent := t.spent[i]
		if t.level == i+1 {
			spent += now.Sub(t.since)
		}
		s.ThermalTransitions[i] = t.count[i]
		s.ThermalSeconds[i] = uint32(spent / time.Second)
	}
}
