package virtionet

import (
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	"vfiouser/link/vnet"
)

// ringFeatures are the bits of rings and transport that a card offers.
const ringFeatures = ring.FeatureVersion1 | ring.FeatureRingPacked | ring.FeatureIndirectDesc | ring.FeatureEventIdx |
	ring.FeatureInOrder | ring.FeatureRingReset | ring.FeatureNotificationData | ring.FeatureAccessPlatform

// cardFeatures are the bits of the network device that a card offers.
const cardFeatures = spec.FeatureCSUM | spec.FeatureGuestCSUM | spec.FeatureCtrlGuestOffloads | spec.FeatureMAC |
	spec.FeatureGuestTSO4 | spec.FeatureGuestTSO6 | spec.FeatureGuestECN | spec.FeatureGuestUSO4 | spec.FeatureGuestUSO6 |
	spec.FeatureHostTSO4 | spec.FeatureHostTSO6 | spec.FeatureHostECN | spec.FeatureHostUSO |
	spec.FeatureMrgRxBuf | spec.FeatureStatus | spec.FeatureCtrlVQ | spec.FeatureCtrlRx | spec.FeatureCtrlRxExtra |
	spec.FeatureCtrlVLAN | spec.FeatureGuestAnnounce | spec.FeatureCtrlMACAddr | spec.FeatureHashReport |
	spec.FeatureSpeedDuplex | spec.FeatureNotfCoal | spec.FeatureVQNotfCoal

// offered are the features of a card.
func (c *Config) offered() uint64 {
	f := uint64(ringFeatures | cardFeatures)
	if c.MTU != 0 {
		f |= spec.FeatureMTU
	}
	if c.Pairs > 1 {
		f |= spec.FeatureMQ | spec.FeatureRSS
	}
	f = f&^c.Without | ring.FeatureVersion1
	if f&spec.FeatureCtrlVQ == 0 {
		// Without the commands they could not be used (5.1.4.1).
		f &^= spec.FeatureHashReport | spec.FeatureCtrlRxExtra | spec.FeatureCtrlGuestOffloads
	}
	if f&spec.FeatureCtrlRx == 0 {
		f &^= spec.FeatureCtrlRxExtra
	}
	return f &^ spec.Unmet(f)
}

// consistent says whether a driver may accept these features together (5.1.3.1).
func consistent(accepted uint64) bool { return spec.Unmet(accepted) == 0 }

// pairs of an offload and the feature bits that it takes.
type offloadBit struct {
	offload     vnet.Offloads
	guest, host uint64
}

var offloadBits = [...]offloadBit{
	{vnet.OffloadChecksum, spec.FeatureGuestCSUM, spec.FeatureCSUM},
	{vnet.OffloadTSO4, spec.FeatureGuestTSO4, spec.FeatureHostTSO4},
	{vnet.OffloadTSO6, spec.FeatureGuestTSO6, spec.FeatureHostTSO6},
	{vnet.OffloadECN, spec.FeatureGuestECN, spec.FeatureHostECN},
	{vnet.OffloadUSO4, spec.FeatureGuestUSO4, spec.FeatureHostUSO},
	{vnet.OffloadUSO6, spec.FeatureGuestUSO6, spec.FeatureHostUSO},
}

// guestOffloads is what a driver with these features finishes itself. They may be the mask
// of VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, in which checksums can be off and segments on;
// segments without checksums cannot be had (5.1.6.4.1).
func guestOffloads(features uint64) (o vnet.Offloads) {
	features &^= spec.Unmet(features & spec.GuestOffloads)
	for _, b := range offloadBits {
		if features&b.guest != 0 {
			o |= b.offload
		}
	}
	return o
}

// hostOffloads is what a driver with these features may leave to the card.
func hostOffloads(features uint64) (o vnet.Offloads) {
	for _, b := range offloadBits {
		if features&b.host != 0 {
			o |= b.offload
		}
	}
	return o
}

// headerSize is that of the header in front of each frame, both ways.
func headerSize(features uint64) int {
	if features&spec.FeatureHashReport != 0 {
		return spec.HeaderSizeHash
	}
	return spec.HeaderSize
}
