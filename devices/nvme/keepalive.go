package nvme

import (
	"time"

	"vfiouser/devices/nvme/spec"
)

// keepAliveUnit is the granularity of the keep alive timer (KAS is in units of 100 ms).
const keepAliveUnit = 100 * time.Millisecond

// maxKeepAlive is the largest KATO in milliseconds: a day.
const maxKeepAlive = 24 * 60 * 60 * 1000

// keepAlive is the timer that ends a controller whose host is silent (Base 2.0, 3.9).
type keepAlive struct {
	timer *time.Timer
	turn  int // counts the timers
}

func (k *keepAlive) stop() {
	if k.timer != nil {
		k.timer.Stop()
	}
	k.timer = nil
	k.turn++
}

func checkKeepAlive(_ *host, _ uint32, v featureValue) spec.Status {
	if v.Number > maxKeepAlive {
		return spec.KeepAliveInvalid | spec.StatusDNR
	}
	return spec.Success
}

// applyKeepAlive rounds up to the granularity.
func applyKeepAlive(_ *host, _ uint32, v *featureValue) spec.Status {
	const unit = uint32(keepAliveUnit / time.Millisecond)
	v.Number = (v.Number + unit - 1) / unit * unit
	return spec.Success
}

// keepAliveCommand is Keep Alive (Base 2.0, 5.21).
func (h *host) keepAliveCommand(*spec.SubmissionEntry) (spec.Status, uint32) {
	h.restartKeepAlive()
	return spec.Success, 0
}

// restartKeepAlive begins to wait anew.
func (h *host) restartKeepAlive() {
	k := &h.features.keepAlive
	k.stop()
	timeout := time.Duration(h.number(spec.FeatKeepAlive)) * time.Millisecond
	if timeout == 0 {
		return
	}
	turn := k.turn
	k.timer = time.AfterFunc(timeout, func() {
		h.ask(func(r *request) {
			r.tasks = append(r.tasks, func() {
				if h.features.keepAlive.turn == turn {
					h.keepAliveExpired()
				}
			})
		})
	})
}

// keepAliveExpired stops the controller (Base 2.0, 3.9.3.2): the host sees a fatal status, and
// has to reset it.
func (h *host) keepAliveExpired() {
	if h.held { // it is not the host that is silent
		h.restartKeepAlive()
		return
	}
	h.features.keepAlive.stop()
	h.c.errors.add(spec.ErrorEntry{CID: noLocation, SQID: noLocation, Status: spec.KeepAliveExpired, Parameter: noLocation})
	h.reportTelemetry("keep alive timer expired")
	h.admin.open = false
	h.ready.Store(false)
	h.dropQueues()
	h.aer.waiting, h.shadow = nil, shadow{} // they are nothing without queues
	h.c.regs.setStatus(func(s spec.CSTS) spec.CSTS { return s | spec.CSTSFatal })
}
