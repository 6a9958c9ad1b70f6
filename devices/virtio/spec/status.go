package spec

import (
	"fmt"
	"strings"
)

// Status is the device status field (2.1).
type Status uint8

// Bits of the status, in the order in which a driver sets them.
const (
	StatusAcknowledge Status = 1 << 0 // the guest has found the device
	StatusDriver      Status = 1 << 1 // it has a driver for it
	StatusFeaturesOK  Status = 1 << 3 // features are negotiated
	StatusDriverOK    Status = 1 << 2 // the device is driven
	StatusNeedsReset  Status = 1 << 6 // set by the device: it cannot go on
	StatusFailed      Status = 1 << 7 // the driver has given up
)

// StatusByDriver are the bits that a driver sets.
const StatusByDriver = StatusAcknowledge | StatusDriver | StatusFeaturesOK | StatusDriverOK | StatusFailed

// Has says whether all bits of want are set.
func (s Status) Has(want Status) bool { return s&want == want }

// String names the bits.
func (s Status) String() string {
	if s == 0 {
		return "RESET"
	}
	var names []string
	for bit, name := range statusNames {
		if s>>bit&1 != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

var statusNames = func() (names [8]string) {
	for bit := range names {
		names[bit] = fmt.Sprintf("bit %d", bit)
	}
	names[0], names[1], names[2], names[3] = "ACKNOWLEDGE", "DRIVER", "DRIVER_OK", "FEATURES_OK"
	names[6], names[7] = "DEVICE_NEEDS_RESET", "FAILED"
	return names
}()

// Bits of the ISR status (4.1.4.5).
const (
	ISRQueue  = 1 << 0 // something was used in a queue
	ISRConfig = 1 << 1 // the configuration has changed
)
