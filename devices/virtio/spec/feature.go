package spec

import (
	"fmt"
	"strings"
)

// Feature bits of every device, for rings and negotiation (6). Bits 0 to 23 and 50 to 63
// are those of the type of device.
const (
	FeatureIndirectDesc     uint64 = 1 << 28 // descriptors may refer to tables of descriptors
	FeatureEventIdx         uint64 = 1 << 29 // used_event and avail_event
	FeatureVersion1         uint64 = 1 << 32 // not a legacy device or driver
	FeatureAccessPlatform   uint64 = 1 << 33 // addresses may be translated by an IOMMU
	FeatureRingPacked       uint64 = 1 << 34 // packed virtqueues
	FeatureInOrder          uint64 = 1 << 35 // buffers are used in the order in which they came
	FeatureOrderPlatform    uint64 = 1 << 36 // memory is ordered as for a device in hardware
	FeatureSRIOV            uint64 = 1 << 37 // single root I/O virtualisation
	FeatureNotificationData uint64 = 1 << 38 // notifications say how far the driver is
	FeatureNotifConfigData  uint64 = 1 << 39 // the device chooses what a notification says
	FeatureRingReset        uint64 = 1 << 40 // queues can be reset one by one
	FeatureAdminVQ          uint64 = 1 << 41 // administration virtqueues
)

// RingFeatures are the bits that are a matter of rings and negotiation, not of the type of
// device: 24 to 49.
const RingFeatures uint64 = 1<<50 - 1<<24

var featureNames = map[uint64]string{
	FeatureIndirectDesc: "INDIRECT_DESC", FeatureEventIdx: "EVENT_IDX", FeatureVersion1: "VERSION_1",
	FeatureAccessPlatform: "ACCESS_PLATFORM", FeatureRingPacked: "RING_PACKED", FeatureInOrder: "IN_ORDER",
	FeatureOrderPlatform: "ORDER_PLATFORM", FeatureSRIOV: "SR_IOV", FeatureNotificationData: "NOTIFICATION_DATA",
	FeatureNotifConfigData: "NOTIF_CONFIG_DATA", FeatureRingReset: "RING_RESET", FeatureAdminVQ: "ADMIN_VQ",
}

// FeatureNames lists the features of a set that are a matter of the ring, as the
// specification names them without VIRTIO_F_, and the others as "bit N".
func FeatureNames(features uint64) string {
	var names []string
	for bit := range 64 {
		f := uint64(1) << bit
		if features&f == 0 {
			continue
		}
		name, ok := featureNames[f]
		if !ok {
			name = fmt.Sprintf("bit %d", bit)
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}
