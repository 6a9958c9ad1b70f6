package virtionet

import (
	"encoding/binary"

	"vfiouser/devices/virtio-net/spec"
)

// tableSize is the most entries of the indirection table of RSS.
const tableSize = 128

// setMode is a command that turns a receive mode on or off (5.1.6.5.1).
func setMode(mode uint8) func(*control, []byte) bool {
	return func(k *control, data []byte) bool {
		if data[0] > 1 {
			return false
		}
		k.filter.modes[mode] = data[0] == 1
		k.publish()
		return true
	}
}

// setAddresses is VIRTIO_NET_CTRL_MAC_TABLE_SET (5.1.6.5.2).
func (k *control) setAddresses(data []byte) bool {
	var t spec.MACTable
	if t.Parse(data) != nil {
		return false
	}
	k.filter.unicast, k.filter.multi = newMACSet(t.Unicast), newMACSet(t.Multicast)
	k.publish()
	return true
}

// setMAC is VIRTIO_NET_CTRL_MAC_ADDR_SET (5.1.6.5.2).
func (k *control) setMAC(data []byte) bool {
	mac := [6]byte(data)
	if mac[0]&1 != 0 {
		return false
	}
	k.filter.mac = macKey(data)
	k.publish()
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.c.config.MAC = mac
	return true
}

// setVLAN is a command that adds or deletes a VLAN (5.1.6.5.3).
func setVLAN(in bool) func(*control, []byte) bool {
	return func(k *control, data []byte) bool {
		id := binary.LittleEndian.Uint16(data)
		if id >= spec.VLANs {
			return false
		}
		// The data path has the set that was published.
		vlans := *k.filter.vlans
		vlans.set(id, in)
		k.filter.vlans = &vlans
		k.publish()
		return true
	}
}

// announced is VIRTIO_NET_CTRL_ANNOUNCE_ACK (5.1.6.5.4).
func (k *control) announced([]byte) bool {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.c.config.Status &^= spec.StatusAnnounce
	return true
}

// setPairs is VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET: automatic steering (5.1.6.5.6).
func (k *control) setPairs(data []byte) bool {
	n := int(binary.LittleEndian.Uint16(data))
	if n < 1 || n > len(k.c.pairs) {
		return false
	}
	k.pairs, k.transmit, k.rss = n, n, nil
	k.publish()
	return true
}

// setRSS is VIRTIO_NET_CTRL_MQ_RSS_CONFIG (5.1.6.5.7.1).
func (k *control) setRSS(data []byte) bool {
	var c spec.RSSConfig
	if c.Parse(data) != nil || len(c.Table) > tableSize || c.MaxTx < 1 || int(c.MaxTx) > len(k.c.pairs) {
		return false
	}
	hash, ok := newHashing(c.HashTypes, c.Key)
	if !ok {
		return false
	}
	rss, pairs := &scaling{table: make([]uint8, len(c.Table)), unclassified: uint8(c.Unclassified)}, int(c.Unclassified)+1
	for i, q := range c.Table {
		rss.table[i] = uint8(q)
		pairs = max(pairs, int(q)+1)
	}
	if pairs > len(k.c.pairs) {
		return false
	}
	k.pairs, k.transmit, k.hash, k.rss = pairs, int(c.MaxTx), hash, rss
	k.publish()
	return true
}

// setHash is VIRTIO_NET_CTRL_MQ_HASH_CONFIG (5.1.6.5.6.4).
func (k *control) setHash(data []byte) bool {
	var c spec.HashConfig
	if c.Parse(data) != nil {
		return false
	}
	hash, ok := newHashing(c.HashTypes, c.Key)
	if ok {
		k.hash = hash
		k.publish()
	}
	return ok
}

// newHashing checks what a driver wants hashed, and under which key.
func newHashing(types uint32, key []byte) (*hashing, bool) {
	if types&^spec.HashAll != 0 || len(key) > spec.KeySize {
		return nil, false
	}
	return &hashing{types: types, table: newToeplitz(key)}, true
}

// setOffloads is VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET (5.1.6.5.8).
func (k *control) setOffloads(data []byte) bool {
	offloads := binary.LittleEndian.Uint64(data)
	if offloads&^(k.features&spec.GuestOffloads) != 0 {
		return false
	}
	k.offloads = offloads
	k.publish()
	return true
}
