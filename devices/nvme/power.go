package nvme

import (
	"encoding/binary"
	"time"

	"vfiouser/devices/nvme/spec"
)

// powerStates are the power states (Base 2.0, 8.15). In the last two nothing is executed;
// an I/O command takes the controller back to where it was. It takes so long to leave them that
// Linux does not go there by itself.
var powerStates = []spec.PowerState{
	{MaxPower: 2500, IdlePower: 300, IdleScale: spec.PowerCentiwatts},
	{MaxPower: 1500, EntryLatency: 5, ExitLatency: 5, RelativeRead: 1, RelativeReadLatency: 1, RelativeWrite: 1, RelativeWriteLatency: 1},
	{MaxPower: 900, EntryLatency: 10, ExitLatency: 10, RelativeRead: 2, RelativeReadLatency: 2, RelativeWrite: 2, RelativeWriteLatency: 2},
	{MaxPower: 500, MaxScale: true, NonOperational: true, EntryLatency: 50_000, ExitLatency: 60_000,
		RelativeRead: 3, RelativeReadLatency: 3, RelativeWrite: 3, RelativeWriteLatency: 3},
	{MaxPower: 50, MaxScale: true, NonOperational: true, EntryLatency: 100_000, ExitLatency: 200_000,
		RelativeRead: 4, RelativeReadLatency: 4, RelativeWrite: 4, RelativeWriteLatency: 4},
}

const powerStateMask = 0x1f // of feature 02h

// power is the power state as far as it was looked at: nothing happens when it changes, so
// what an observer would have seen is worked out when somebody asks.
type power struct {
	state       uint8
	operational uint8 // the last state in which commands were executed
	commands    uint64
	since       time.Time // nothing has changed, and the host has done nothing
}

// checkPower refuses states beyond NPSS.
func checkPower(_ *host, _ uint32, v featureValue) spec.Status {
	if int(v.Number&powerStateMask) >= len(powerStates) {
		return badField
	}
	return spec.Success
}

func checkAutonomousPower(_ *host, _ uint32, v featureValue) spec.Status {
	for i := range powerStates {
		if to, _ := autonomous(v.Data, i); to != 0 && (to >= len(powerStates) || !powerStates[to].NonOperational) {
			return badField
		}
	}
	return spec.Success
}

// autonomous is an entry of the table of feature 0Ch: the state to go to after an idle
// time; 0 means never.
func autonomous(table []byte, from int) (to int, after time.Duration) {
	w := binary.LittleEndian.Uint64(table[8*from:])
	return int(w >> 3 & powerStateMask), time.Duration(w>>8&0xffffff) * time.Millisecond
}

// powerChanged follows the features 02h and 0Ch.
func (h *host) powerChanged() {
	p := &h.features.power
	p.enter(uint8(h.number(spec.FeatPowerManagement) & powerStateMask))
	p.commands, p.since = h.c.smart.commands(), time.Now()
}

func (p *power) enter(state uint8) {
	if p.state = state; !powerStates[state].NonOperational {
		p.operational = state
	}
}

// lookAtPower brings the power state up to date.
func (h *host) lookAtPower(now time.Time) uint8 {
	p := &h.features.power
	if n := h.c.smart.commands(); n != p.commands {
		since := now
		if idle := h.c.smart.idleSince(); idle.After(p.since) {
			since = idle
		}
		p.commands, p.since = n, since
		p.enter(p.operational)
	}
	table := h.value(spec.FeatAutonomousPower, 0)
	if table.Number == 0 {
		return p.state
	}
	for range powerStates {
		to, after := autonomous(table.Data, int(p.state))
		if to == 0 || after == 0 || now.Sub(p.since) < after {
			break
		}
		p.enter(uint8(to))
		p.since = p.since.Add(after)
	}
	return p.state
}

// currentPower is Get Features of the power management feature.
func currentPower(h *host, _ uint32, v featureValue) featureValue {
	v.Number = v.Number&^powerStateMask | uint32(h.lookAtPower(time.Now()))
	return v
}
