package spec

// DeviceType is the network card's virtio device type (5.1.1).
const DeviceType = 1

// Feature bits of the network device (5.1.3).
const (
	FeatureCSUM              uint64 = 1 << 0  // device takes frames without checksum
	FeatureGuestCSUM         uint64 = 1 << 1  // driver takes frames without checksum
	FeatureCtrlGuestOffloads uint64 = 1 << 2  // offloads of the driver change at run time
	FeatureMTU               uint64 = 1 << 3  // configuration has the MTU
	FeatureMAC               uint64 = 1 << 5  // configuration has the address
	FeatureGuestTSO4         uint64 = 1 << 7  // driver takes TCP segments over IPv4
	FeatureGuestTSO6         uint64 = 1 << 8  // driver takes TCP segments over IPv6
	FeatureGuestECN          uint64 = 1 << 9  // such segments may have CWR set
	FeatureGuestUFO          uint64 = 1 << 10 // driver takes UDP to be fragmented
	FeatureHostTSO4          uint64 = 1 << 11 // device takes TCP segments over IPv4
	FeatureHostTSO6          uint64 = 1 << 12 // device takes TCP segments over IPv6
	FeatureHostECN           uint64 = 1 << 13 // such segments may have CWR set
	FeatureHostUFO           uint64 = 1 << 14 // device takes UDP to be fragmented
	FeatureMrgRxBuf          uint64 = 1 << 15 // a received frame may take several buffers
	FeatureStatus            uint64 = 1 << 16 // configuration has the link's status
	FeatureCtrlVQ            uint64 = 1 << 17 // there is a control queue
	FeatureCtrlRx            uint64 = 1 << 18 // receive modes and the table of addresses
	FeatureCtrlVLAN          uint64 = 1 << 19 // filter of VLANs
	FeatureCtrlRxExtra       uint64 = 1 << 20 // more receive modes
	FeatureGuestAnnounce     uint64 = 1 << 21 // driver announces itself when asked to
	FeatureMQ                uint64 = 1 << 22 // several queue pairs, steered automatically
	FeatureCtrlMACAddr       uint64 = 1 << 23 // address is set by command
	FeatureHashTunnel        uint64 = 1 << 51 // hash over inner headers
	FeatureVQNotfCoal        uint64 = 1 << 52 // coalescing of notifications, by queue
	FeatureNotfCoal          uint64 = 1 << 53 // coalescing of notifications
	FeatureGuestUSO4         uint64 = 1 << 54 // driver takes UDP segments over IPv4
	FeatureGuestUSO6         uint64 = 1 << 55 // driver takes UDP segments over IPv6
	FeatureHostUSO           uint64 = 1 << 56 // device takes UDP segments
	FeatureHashReport        uint64 = 1 << 57 // hash stands in the header of received frames
	FeatureGuestHdrLen       uint64 = 1 << 59 // driver gives exact header lengths
	FeatureRSS               uint64 = 1 << 60 // receive-side scaling
	FeatureRSCExt            uint64 = 1 << 61 // counts of coalesced segments
	FeatureStandby           uint64 = 1 << 62 // stands by for a primary device
	FeatureSpeedDuplex       uint64 = 1 << 63 // configuration has speed and duplex
)

// GuestOffloads are the feature bits that VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET turns on and
// off; the command's mask has the same bits (5.1.6.5.8).
const GuestOffloads = FeatureGuestCSUM | FeatureGuestTSO4 | FeatureGuestTSO6 | FeatureGuestECN |
	FeatureGuestUFO | FeatureGuestUSO4 | FeatureGuestUSO6

// requirement says that feature needs one of the features of each of the masks.
type requirement struct {
	feature uint64
	needs   [2]uint64
}

// requirements is the table of 5.1.3.1.
var requirements = []requirement{
	{FeatureGuestTSO4, [2]uint64{FeatureGuestCSUM}},
	{FeatureGuestTSO6, [2]uint64{FeatureGuestCSUM}},
	{FeatureGuestECN, [2]uint64{FeatureGuestTSO4 | FeatureGuestTSO6}},
	{FeatureGuestUFO, [2]uint64{FeatureGuestCSUM}},
	{FeatureGuestUSO4, [2]uint64{FeatureGuestCSUM}},
	{FeatureGuestUSO6, [2]uint64{FeatureGuestCSUM}},
	{FeatureHostTSO4, [2]uint64{FeatureCSUM}},
	{FeatureHostTSO6, [2]uint64{FeatureCSUM}},
	{FeatureHostECN, [2]uint64{FeatureHostTSO4 | FeatureHostTSO6}},
	{FeatureHostUFO, [2]uint64{FeatureCSUM}},
	{FeatureHostUSO, [2]uint64{FeatureCSUM}},
	{FeatureCtrlRx, [2]uint64{FeatureCtrlVQ}},
	{FeatureCtrlVLAN, [2]uint64{FeatureCtrlVQ}},
	{FeatureGuestAnnounce, [2]uint64{FeatureCtrlVQ}},
	{FeatureMQ, [2]uint64{FeatureCtrlVQ}},
	{FeatureCtrlMACAddr, [2]uint64{FeatureCtrlVQ}},
	{FeatureNotfCoal, [2]uint64{FeatureCtrlVQ}},
	{FeatureRSCExt, [2]uint64{FeatureHostTSO4 | FeatureHostTSO6}},
	{FeatureRSS, [2]uint64{FeatureCtrlVQ}},
	{FeatureVQNotfCoal, [2]uint64{FeatureCtrlVQ}},
	{FeatureHashTunnel, [2]uint64{FeatureCtrlVQ, FeatureRSS | FeatureHashReport}},
}

// Unmet returns the features of the set that need another one that is not in it (5.1.3.1),
// and features that need those; 0 if the set is consistent.
func Unmet(features uint64) uint64 {
	var unmet uint64
	for more := true; more; {
		more = false
		have := features &^ unmet
		for _, r := range requirements {
			if have&r.feature != 0 && !r.met(have) {
				unmet |= r.feature
				more = true
			}
		}
	}
	return unmet
}

func (r *requirement) met(have uint64) bool {
	for _, mask := range r.needs {
		if mask != 0 && have&mask == 0 {
			return false
		}
	}
	return true
}

// featureNames are the names of the specification, without VIRTIO_NET_F_, by bit.
var featureNames = [64]string{
	0: "CSUM", 1: "GUEST_CSUM", 2: "CTRL_GUEST_OFFLOADS", 3: "MTU", 5: "MAC", 7: "GUEST_TSO4", 8: "GUEST_TSO6",
	9: "GUEST_ECN", 10: "GUEST_UFO", 11: "HOST_TSO4", 12: "HOST_TSO6", 13: "HOST_ECN", 14: "HOST_UFO", 15: "MRG_RXBUF",
	16: "STATUS", 17: "CTRL_VQ", 18: "CTRL_RX", 19: "CTRL_VLAN", 20: "CTRL_RX_EXTRA", 21: "GUEST_ANNOUNCE", 22: "MQ",
	23: "CTRL_MAC_ADDR", 51: "HASH_TUNNEL", 52: "VQ_NOTF_COAL", 53: "NOTF_COAL", 54: "GUEST_USO4", 55: "GUEST_USO6",
	56: "HOST_USO", 57: "HASH_REPORT", 59: "GUEST_HDRLEN", 60: "RSS", 61: "RSC_EXT", 62: "STANDBY", 63: "SPEED_DUPLEX",
}

// FeatureName returns the specification's name of a feature bit (0 to 63) without its
// prefix VIRTIO_NET_F_, or "" if the network device has no such feature.
func FeatureName(bit int) string {
	if bit < 0 || bit >= len(featureNames) {
		return ""
	}
	return featureNames[bit]
}
