package main

import (
	"fmt"
	"strings"

	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
)

// featureName is how a feature bit of a virtio device is called here: the specification's
// name in small letters without its prefix, or "bit" and its number.
func featureName(deviceType, bit int) string {
	name := ""
	switch f := uint64(1) << bit; {
	case f&spec.RingFeatures != 0:
		name = strings.ReplaceAll(spec.FeatureNames(f), "bit ", "bit")
	case deviceType == netspec.DeviceType:
		name = netspec.FeatureName(bit)
	}
	if name == "" {
		name = fmt.Sprintf("bit%d", bit)
	}
	return strings.ToLower(name)
}

func featureNames(deviceType int, features uint64) []string {
	list := []string{}
	for bit := range 64 {
		if features>>bit&1 != 0 {
			list = append(list, featureName(deviceType, bit))
		}
	}
	return list
}
