package vnet

// Reason says why a frame is dropped. It is a number so that it can be counted in an array.
type Reason uint8

const (
	ReasonNone          Reason = iota // it is not dropped
	ReasonShort                       // less than an Ethernet header
	ReasonLong                        // more than MaxFrame bytes, or a segment of more than an IP packet can have
	ReasonKind                        // an unknown kind of segmentation, or one that cannot be with ECN
	ReasonSize                        // segments of 0 bytes
	ReasonNoChecksum                  // segmentation without NEEDS_CSUM
	ReasonChecksumRange               // the checksum, or what it is about, lies outside the frame
	ReasonChecksumPlace               // the checksum does not lie where the packet has it
	ReasonHeaders                     // headers are cut off, contradict themselves, or are more than 512 bytes
	ReasonProtocol                    // the packet is not of the protocol of its kind of segmentation
	ReasonFragment                    // segmentation of a fragment
	ReasonSegments                    // more than MaxSegments

	// Reasons is the number of reasons.
	Reasons
)

var reasons = [Reasons]string{
	ReasonNone:          "none",
	ReasonShort:         "too short",
	ReasonLong:          "too long",
	ReasonKind:          "unknown kind of segmentation",
	ReasonSize:          "segments of 0 bytes",
	ReasonNoChecksum:    "segmentation without checksum",
	ReasonChecksumRange: "checksum outside the frame",
	ReasonChecksumPlace: "checksum at the wrong place",
	ReasonHeaders:       "bad headers",
	ReasonProtocol:      "wrong protocol for its segmentation",
	ReasonFragment:      "segmentation of a fragment",
	ReasonSegments:      "too many segments",
}

// String names the reason.
func (r Reason) String() string {
	if r < Reasons {
		return reasons[r]
	}
	return "unknown"
}
