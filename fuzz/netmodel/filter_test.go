package netmodel

import (
	"slices"

	"vfiouser/devices/virtio-net/spec"
)

// filter is what a host has said that it wants to receive (5.1.6.5.1 to 5.1.6.5.3).
type filter struct {
	addresses, tags bool    // are looked at: CTRL_RX, CTRL_VLAN
	modes           [6]bool // by command of spec.ClassRx
	own             string
	unicast, multi  []string
	vlans           [8]bool
}

// newFilter is what holds after a reset.
func newFilter(h *host) filter {
	f := filter{addresses: h.nic.Has(spec.FeatureCtrlRx), tags: h.nic.Has(spec.FeatureCtrlVLAN), own: h.mac}
	f.modes[spec.RxPromisc] = f.addresses
	return f
}

// passes says whether a frame is received; vlan is -1 without a tag.
func (f *filter) passes(to string, vlan int) bool {
	if f.modes[spec.RxPromisc] {
		return true
	}
	if f.tags && vlan >= 0 && !f.vlans[vlan] {
		return false
	}
	switch {
	case !f.addresses:
		return true
	case to == broadcast:
		return !f.modes[spec.RxNoBcast]
	case to[0]&1 != 0:
		return !f.modes[spec.RxNoMulti] && (f.modes[spec.RxAllMulti] || slices.Contains(f.multi, to))
	}
	return !f.modes[spec.RxNoUni] && (f.modes[spec.RxAllUni] || to == f.own || slices.Contains(f.unicast, to))
}

// command changes what a host receives, or on how many queues. What is under way to it has
// arrived before.
func (h *host) command() {
	w, src, nic := h.w, h.w.src, h.nic
	if !nic.Has(spec.FeatureCtrlVQ) {
		return
	}
	h.settleAll()
	on := src.Bool()
	switch src.Intn(6) {
	case 0:
		if nic.Has(spec.FeatureCtrlRx) {
			w.must(nic.SetPromiscuous(w.ctx, on))
			h.filter.modes[spec.RxPromisc] = on
		}
	case 1:
		if nic.Has(spec.FeatureCtrlRx) {
			w.must(nic.SetAllMulticast(w.ctx, on))
			h.filter.modes[spec.RxAllMulti] = on
		}
		if mode := spec.RxAllUni + uint8(src.Intn(4)); nic.Has(spec.FeatureCtrlRxExtra) {
			w.must(nic.SetReceiveMode(w.ctx, mode, on))
			h.filter.modes[mode] = on
		}
	case 2:
		if nic.Has(spec.FeatureCtrlRx) {
			var table spec.MACTable
			h.filter.unicast, h.filter.multi = nil, nil
			for range src.Intn(4) {
				mac := [6]byte{2, 0, 0, 0, 0, byte(src.Intn(3))}
				if src.Bool() {
					mac[0] = 3
					table.Multicast = append(table.Multicast, mac)
					h.filter.multi = append(h.filter.multi, string(mac[:]))
				} else {
					table.Unicast = append(table.Unicast, mac)
					h.filter.unicast = append(h.filter.unicast, string(mac[:]))
				}
			}
			w.must(nic.SetMACTable(w.ctx, table))
		}
	case 3:
		if nic.Has(spec.FeatureCtrlMACAddr) {
			mac := [6]byte{2, 0, 0, 0, 0, byte(src.Intn(3))}
			if on {
				mac = [6]byte([]byte(h.mac))
			}
			w.must(nic.SetMAC(w.ctx, mac))
			h.filter.own = string(mac[:])
		}
	case 4:
		if id := src.Intn(4); nic.Has(spec.FeatureCtrlVLAN) {
			change := nic.RemoveVLAN
			if on {
				change = nic.AddVLAN
			}
			w.must(change(w.ctx, uint16(id)))
			h.filter.vlans[id] = on
		}
	default:
		if nic.Has(spec.FeatureMQ) {
			h.drain() // a queue that is not used any more loses what waits there
			h.pairs = 1 + src.Intn(nic.Pairs())
			w.must(nic.SetPairs(w.ctx, h.pairs))
		}
	}
}
