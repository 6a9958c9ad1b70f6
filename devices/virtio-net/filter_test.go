package virtionet

import (
	"testing"

	"vfiouser/devices/virtio-net/spec"
)

func TestFilter(t *testing.T) {
	const rx, vlan = spec.FeatureCtrlVQ | spec.FeatureCtrlRx | spec.FeatureCtrlRxExtra, spec.FeatureCtrlVQ | spec.FeatureCtrlVLAN
	own, listed, other := mac(1), mac(8), mac(9)
	group, listedGroup := [6]byte{0x33, 0x33, 0, 0, 0, 1}, [6]byte{1, 0, 0x5e, 0, 0, 1}
	many := func(n int, first byte) (list [][6]byte) {
		for i := range n {
			list = append(list, [6]byte{first, 7, 7, 7, byte(i >> 8), byte(i)})
		}
		return list
	}
	set := func(modes ...uint8) func(*filter) {
		return func(f *filter) {
			f.modes[spec.RxPromisc] = false
			f.unicast, f.multi = newMACSet([][6]byte{listed}), newMACSet([][6]byte{listedGroup})
			for _, m := range modes {
				f.modes[m] = true
			}
		}
	}
	type frames map[[6]byte]bool
	for _, c := range []struct {
		name     string
		features uint64
		change   func(*filter)
		tag      int
		want     frames
	}{
		{"after a reset", rx, nil, 0, frames{own: true, other: true, group: true, broadcast: true}},
		{"after a reset, tagged", rx | vlan, nil, 5, frames{own: true, other: true}},
		{"without the feature", 0, nil, 5, frames{own: true, other: true, group: true, broadcast: true}},
		{"tables", rx, set(), 0, frames{own: true, listed: true, other: false, group: false, listedGroup: true, broadcast: true}},
		{"promiscuous", rx, set(spec.RxPromisc, spec.RxNoUni, spec.RxNoMulti, spec.RxNoBcast), 0,
			frames{own: true, other: true, group: true, broadcast: true}},
		{"all multicast", rx, set(spec.RxAllMulti), 0, frames{other: false, group: true}},
		{"all unicast", rx, set(spec.RxAllUni), 0, frames{other: true, group: false}},
		{"no multicast", rx, set(spec.RxNoMulti, spec.RxAllMulti), 0, frames{own: true, group: false, listedGroup: false, broadcast: true}},
		{"no unicast", rx, set(spec.RxNoUni, spec.RxAllUni), 0, frames{own: false, listed: false, other: false, listedGroup: true, broadcast: true}},
		{"no broadcast", rx, set(spec.RxNoBcast, spec.RxAllMulti), 0, frames{own: true, group: true, broadcast: false}},
		{"as many addresses as fit", rx, func(f *filter) {
			set()(f)
			f.unicast, f.multi = newMACSet(many(maxAddresses, 2)), newMACSet(many(maxAddresses, 3))
		}, 0, frames{other: false, group: false, many(maxAddresses, 2)[maxAddresses-1]: true, many(maxAddresses, 3)[0]: true}},
		{"too many addresses", rx, func(f *filter) {
			set()(f)
			f.unicast = newMACSet(many(maxAddresses+1, 2))
		}, 0, frames{other: true, group: false}},
		{"too many groups", rx, func(f *filter) {
			set()(f)
			f.multi = newMACSet(many(maxAddresses+1, 3))
		}, 0, frames{other: false, group: true}},
		{"no tag, empty table", vlan, nil, 0, frames{own: true, other: true}},
		{"tag that is not in the table", vlan, func(f *filter) { f.vlans.set(4, true); f.vlans.set(69, true) }, 5, frames{own: false}},
		{"tag in the table", vlan, func(f *filter) { f.vlans.set(5, true) }, 5, frames{own: true}},
		{"priority does not matter", vlan, func(f *filter) { f.vlans.set(5, true) }, 0xe005, frames{own: true}},
		{"tag taken out", vlan, func(f *filter) { f.vlans.set(5, true); f.vlans.set(5, false) }, 5, frames{own: false}},
		{"last tag", vlan, func(f *filter) { f.vlans.set(4095, true) }, 4095, frames{own: true}},
		{"address and tag", rx | vlan, func(f *filter) { set()(f); f.vlans.set(5, true) }, 5, frames{own: true, other: false}},
		{"promiscuous, tagged", rx | vlan, set(spec.RxPromisc), 5, frames{other: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFilter(own, c.features)
			if c.change != nil {
				c.change(f)
			}
			for dst, want := range c.want {
				frame := headOf(packet{dst: string(dst[:]), vlan: c.tag, payload: 46}.frame())
				if got := f.pass(frame); got != want {
					t.Errorf("to %x: %v", dst, got)
				}
				if f.open() && !want {
					t.Errorf("to %x: the filter claims to be open", dst)
				}
			}
		})
	}
	f := newFilter(own, rx)
	f.modes[spec.RxPromisc] = false
	if f.pass(headOf(own[:])) {
		t.Error("a frame of six bytes passes")
	}
}
