package virtionet

import (
	"fmt"
	"time"

	"vfiouser/devices/virtio-net/spec"
	common "vfiouser/devices/virtio/spec"
	"vfiouser/drivers/virtio"
	"vfiouser/link/vnet"
)

// AllFeatures are the features that the driver can use.
const AllFeatures = common.FeatureVersion1 | common.FeatureRingPacked | common.FeatureIndirectDesc | common.FeatureEventIdx |
	common.FeatureInOrder | common.FeatureNotificationData | common.FeatureRingReset |
	spec.FeatureCSUM | spec.FeatureHostTSO4 | spec.FeatureHostTSO6 | spec.FeatureHostECN | spec.FeatureHostUSO |
	spec.FeatureMAC | spec.FeatureMTU | spec.FeatureStatus | spec.FeatureSpeedDuplex | spec.FeatureMrgRxBuf |
	spec.FeatureCtrlVQ | spec.FeatureCtrlRx | spec.FeatureCtrlRxExtra | spec.FeatureCtrlMACAddr | spec.FeatureGuestAnnounce |
	spec.FeatureMQ | spec.FeatureNotfCoal | spec.FeatureVQNotfCoal | Explicit

// Explicit are the features that are used only if they are asked for. Most of them leave something to the program: checksums and
// segments of what it receives, VLANs that it must ask for, queues that it must choose.
const Explicit = receiveOffloads | spec.FeatureCtrlGuestOffloads | spec.FeatureCtrlVLAN | spec.FeatureRSS | spec.FeatureHashReport

const (
	receiveOffloads = spec.FeatureGuestCSUM | receiveSegments
	// receiveSegments let the device deliver frames of 64 KiB.
	receiveSegments = spec.FeatureGuestTSO4 | spec.FeatureGuestTSO6 | spec.FeatureGuestECN | spec.FeatureGuestUSO4 | spec.FeatureGuestUSO6
)

// DefaultFeatures are used if Options says nothing.
const DefaultFeatures = AllFeatures &^ Explicit

const (
	defaultQueueSize  = 256
	defaultBufferSize = 2048
	maxBufferSize     = 1 << 17
	ethernet          = 18 // Ethernet header and a VLAN tag, bytes
)

// Options of Open. The zero value opens one pair.
type Options struct {
	// Pairs is how many queue pairs are asked for; 0 means 1. The card may have fewer: see NIC.Pairs.
	Pairs int
	// QueueSize is the number of entries of each queue, a power of two; 0 means 256, or what the card has if that is less. Each
	// queue has as many buffers.
	QueueSize int
	// BufferSize is the size of a buffer in bytes, header included: a multiple of 64, at most 128 KiB; 0 means 2,048, or what a frame
	// of the card's MTU takes. A longer frame takes several buffers when it is sent. When it is received it does only with
	// MRG_RXBUF: without it, features that need longer buffers are not used.
	BufferSize int
	// Features are those that may be used, with VERSION_1 always; 0 means DefaultFeatures.
	Features uint64
	// Notify says how the card is told of new buffers.
	Notify virtio.NotifyMode
	// IOVA is where the memory is mapped if it is not mapped to the device yet; 0 means 4 GiB.
	IOVA uint64
	// Timeout bounds resets and commands of the control queue; 0 means 30 s.
	Timeout time.Duration
}

func (o *Options) check() error {
	if o.Pairs == 0 {
		o.Pairs = 1
	}
	if o.Features == 0 {
		o.Features = DefaultFeatures
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	switch {
	case o.Pairs < 1 || o.Pairs > spec.MaxPairs:
		return fmt.Errorf("%w: %d queue pairs", ErrInvalid, o.Pairs)
	case o.QueueSize < 0 || o.QueueSize > common.MaxQueueSize || o.QueueSize&(o.QueueSize-1) != 0:
		return fmt.Errorf("%w: queues of %d entries", ErrInvalid, o.QueueSize)
	case o.BufferSize < 0 || o.BufferSize > maxBufferSize || o.BufferSize%64 != 0:
		return fmt.Errorf("%w: buffers of %d bytes", ErrInvalid, o.BufferSize)
	case o.Features&^AllFeatures != 0:
		return fmt.Errorf("%w: features %#x, which the driver does not know", ErrInvalid, o.Features&^AllFeatures)
	case o.Timeout < 0:
		return fmt.Errorf("%w: time-out", ErrInvalid)
	}
	return nil
}

// choose settles features and the size of buffers.
func (o *Options) choose(offered uint64, mtu int) (features uint64, bufferSize int, err error) {
	features = offered & (o.Features | common.FeatureVersion1)
	if o.Pairs == 1 {
		features &^= spec.FeatureMQ
	}
	features &^= spec.Unmet(features)
	// What a frame of the MTU takes, header included.
	least := (spec.HeaderSizeHash + ethernet + mtu + 63) &^ 63
	bufferSize = o.BufferSize
	if bufferSize == 0 {
		bufferSize = max(defaultBufferSize, least)
		if features&spec.FeatureMrgRxBuf != 0 {
			bufferSize = defaultBufferSize
		}
	}
	if features&spec.FeatureMrgRxBuf == 0 {
		if bufferSize < least {
			return 0, 0, fmt.Errorf("%w: buffers of %d bytes for frames with an MTU of %d, without MRG_RXBUF", ErrInvalid, bufferSize, mtu)
		}
		if bufferSize < spec.HeaderSizeHash+vnet.MaxFrame {
			features &^= receiveSegments
		}
	}
	return features, bufferSize, nil
}
