package virtionet

import (
	"encoding/binary"

	"vfiouser/devices/virtio-net/spec"
)

// maxAddresses bounds each of the two tables of addresses. Longer ones let everything of
// their kind pass (5.1.6.5.2).
const maxAddresses = 64

// filter says which frames are received. It is immutable once the data path has it.
type filter struct {
	modes   [spec.RxNoBcast + 1]bool // by command of spec.ClassRx
	anyMAC  bool                     // CTRL_RX is not negotiated: no frame is refused for its address
	mac     uint64                   // the card's own address
	unicast macSet
	multi   macSet
	vlans   *vlanSet // nil: CTRL_VLAN is not negotiated
}

// newFilter is the state after a reset. The driver starts in promiscuous mode, so that nothing
// is lost before it says what it wants; without CTRL_RX it has no means to.
func newFilter(mac [6]byte, features uint64) *filter {
	f := &filter{mac: macKey(mac[:])}
	if features&spec.FeatureCtrlRx != 0 {
		f.modes[spec.RxPromisc] = true
	} else {
		f.anyMAC = true
	}
	if features&spec.FeatureCtrlVLAN != 0 {
		f.vlans = &vlanSet{}
	}
	return f
}

// open says whether every frame passes, so that none has to be looked at.
func (f *filter) open() bool { return f.modes[spec.RxPromisc] || f.anyMAC && f.vlans == nil }

// pass says whether a frame is received.
func (f *filter) pass(h *head) bool {
	if f.modes[spec.RxPromisc] {
		return true
	}
	if h.n < etherSize {
		return false
	}
	return (f.anyMAC || f.passMAC(h)) && (f.vlans == nil || f.vlans.pass(h))
}

func (f *filter) passMAC(h *head) bool {
	key := macKey(h.data[:])
	switch {
	case key == macKey(broadcast[:]):
		return !f.modes[spec.RxNoBcast]
	case h.data[0]&1 != 0:
		return !f.modes[spec.RxNoMulti] && (f.modes[spec.RxAllMulti] || f.multi.has(key))
	default:
		return !f.modes[spec.RxNoUni] && (key == f.mac || f.modes[spec.RxAllUni] || f.unicast.has(key))
	}
}

var broadcast = [macSize]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// macKey is an address as a number that is not 0.
func macKey(mac []byte) uint64 {
	return uint64(binary.BigEndian.Uint32(mac))<<32 | uint64(binary.BigEndian.Uint16(mac[4:]))<<16 | 1
}

// macSet is a set of addresses: a hash table, half full at most.
type macSet struct {
	all   bool // too many were given
	slots [2 * maxAddresses]uint64
}

func newMACSet(macs [][6]byte) macSet {
	if len(macs) > maxAddresses {
		return macSet{all: true}
	}
	var s macSet
	for i := range macs {
		key := macKey(macs[i][:])
		*s.find(key) = key
	}
	return s
}

// find returns the slot of a key, or a free one where it belongs.
func (s *macSet) find(key uint64) *uint64 {
	// The upper bits of the product depend on all bits of the key.
	for i := key * 0x9e3779b97f4a7c15 >> 32; ; i++ {
		slot := &s.slots[i%uint64(len(s.slots))]
		if *slot == key || *slot == 0 {
			return slot
		}
	}
}

func (s *macSet) has(key uint64) bool { return s.all || *s.find(key) == key }

// vlanSet is a set of VLAN identifiers.
type vlanSet [spec.VLANs / 64]uint64

func (s *vlanSet) set(id uint16, in bool) {
	if bit := uint64(1) << (id % 64); in {
		s[id/64] |= bit
	} else {
		s[id/64] &^= bit
	}
}

// pass takes frames without a tag, and those whose tag is in the set (5.1.6.5.3).
func (s *vlanSet) pass(h *head) bool {
	if binary.BigEndian.Uint16(h.data[2*macSize:]) != typeVLAN || h.n < etherSize+vlanSize {
		return true
	}
	id := binary.BigEndian.Uint16(h.data[etherSize:]) % spec.VLANs
	return s[id/64]>>(id%64)&1 != 0
}
