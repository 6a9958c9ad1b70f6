package spec

import "fmt"

// Status is the 15-bit status field of a completion entry, without the phase
// tag: SC in bits 7:0, SCT in 10:8, CRD in 12:11, More in 13, DNR in 14
// (Base 2.0, 3.3.3.2.1). The zero value is success. It is an error, so that a
// driver can return it and callers compare it with errors.Is, which ignores
// CRD, More and DNR.
type Status uint16

// Status code types.
const (
	SCTGeneric  = 0
	SCTCommand  = 1
	SCTMedia    = 2
	SCTPath     = 3
	SCTVendor   = 7
	codeMask    = 0x7ff
	crdShift    = 11
	statusWidth = 0x7fff
)

// Bits of a status.
const (
	StatusMore Status = 1 << 13 // the error log says more
	StatusDNR  Status = 1 << 14 // a retry will fail too
)

// Generic status codes.
const (
	Success                       Status = 0x00
	InvalidOpcode                 Status = 0x01
	InvalidField                  Status = 0x02
	CommandIDConflict             Status = 0x03
	DataTransferError             Status = 0x04
	PowerLossAbort                Status = 0x05
	InternalError                 Status = 0x06
	AbortRequested                Status = 0x07
	AbortSQDeletion               Status = 0x08
	AbortFailedFused              Status = 0x09
	AbortMissingFused             Status = 0x0a
	InvalidNamespaceOrFormat      Status = 0x0b
	CommandSequenceError          Status = 0x0c
	InvalidSGLSegment             Status = 0x0d
	InvalidNumberOfSGLDescriptors Status = 0x0e
	DataSGLLengthInvalid          Status = 0x0f
	MetadataSGLLengthInvalid      Status = 0x10
	SGLDescriptorTypeInvalid      Status = 0x11
	InvalidPRPOffset              Status = 0x13
	OperationDenied               Status = 0x15
	HostIDInconsistent            Status = 0x18
	KeepAliveExpired              Status = 0x19
	KeepAliveInvalid              Status = 0x1a
	AbortPreempted                Status = 0x1b
	SanitizeFailed                Status = 0x1c
	SanitizeInProgress            Status = 0x1d
	NamespaceWriteProtected       Status = 0x20
	TransientTransport            Status = 0x22
	LBAOutOfRange                 Status = 0x80
	CapacityExceeded              Status = 0x81
	NamespaceNotReady             Status = 0x82
	FormatInProgress              Status = 0x84
	ReservationConflict           Status = 0x83
)

// Command specific status codes.
const (
	CompletionQueueInvalid         Status = SCTCommand << 8
	InvalidQueueID                 Status = SCTCommand<<8 | 0x01
	InvalidQueueSize               Status = SCTCommand<<8 | 0x02
	AbortLimitExceeded             Status = SCTCommand<<8 | 0x03
	AsyncEventLimitExceeded        Status = SCTCommand<<8 | 0x05
	InvalidFirmwareSlot            Status = SCTCommand<<8 | 0x06
	InvalidFirmwareImage           Status = SCTCommand<<8 | 0x07
	SelfTestInProgress             Status = SCTCommand<<8 | 0x1d
	InvalidInterruptVector         Status = SCTCommand<<8 | 0x08
	InvalidLogPage                 Status = SCTCommand<<8 | 0x09
	InvalidFormat                  Status = SCTCommand<<8 | 0x0a
	InvalidQueueDeletion           Status = SCTCommand<<8 | 0x0c
	FeatureNotSaveable             Status = SCTCommand<<8 | 0x0d
	FeatureNotChangeable           Status = SCTCommand<<8 | 0x0e
	FeatureNotNamespace            Status = SCTCommand<<8 | 0x0f
	FirmwareNeedsReset             Status = SCTCommand<<8 | 0x11
	OverlappingRange               Status = SCTCommand<<8 | 0x14
	NamespaceInsufficientCapacity  Status = SCTCommand<<8 | 0x15
	NamespaceIdentifierUnavailable Status = SCTCommand<<8 | 0x16
	NamespaceAlreadyAttached       Status = SCTCommand<<8 | 0x18
	NamespaceIsPrivate             Status = SCTCommand<<8 | 0x19
	NamespaceNotAttached           Status = SCTCommand<<8 | 0x1a
	ThinProvisioningNotSupported   Status = SCTCommand<<8 | 0x1b
	ControllerListInvalid          Status = SCTCommand<<8 | 0x1c
	InvalidControllerID            Status = SCTCommand<<8 | 0x1f
	CommandSetNotSupported         Status = SCTCommand<<8 | 0x29
	ConflictingAttributes          Status = SCTCommand<<8 | 0x80
	InvalidProtectionInfo          Status = SCTCommand<<8 | 0x81
	WriteToReadOnly                Status = SCTCommand<<8 | 0x82
	CommandSizeLimitsExceeded      Status = SCTCommand<<8 | 0x83
)

// Media and data integrity errors.
const (
	WriteFault          Status = SCTMedia<<8 | 0x80
	UnrecoveredRead     Status = SCTMedia<<8 | 0x81
	GuardCheck          Status = SCTMedia<<8 | 0x82
	AppTagCheck         Status = SCTMedia<<8 | 0x83
	RefTagCheck         Status = SCTMedia<<8 | 0x84
	CompareFailure      Status = SCTMedia<<8 | 0x85
	AccessDenied        Status = SCTMedia<<8 | 0x86
	DeallocatedOrUnread Status = SCTMedia<<8 | 0x87
	StorageTagCheck     Status = SCTMedia<<8 | 0x88
)

// OK says whether the command succeeded.
func (s Status) OK() bool { return s&codeMask == 0 }

// SC is the status code.
func (s Status) SC() uint8 { return uint8(s) }

// SCT is the status code type.
func (s Status) SCT() uint8 { return uint8(s>>8) & 7 }

// CRD is the command retry delay index.
func (s Status) CRD() uint8 { return uint8(s>>crdShift) & 3 }

// More says whether the error log holds more about this status.
func (s Status) More() bool { return s&StatusMore != 0 }

// DNR says whether the same command would fail again.
func (s Status) DNR() bool { return s&StatusDNR != 0 }

// Code is the status without CRD, More and DNR, as the constants above are.
func (s Status) Code() Status { return s & codeMask }

// Is lets errors.Is compare the codes alone.
func (s Status) Is(target error) bool {
	t, ok := target.(Status)
	return ok && t.Code() == s.Code()
}

// Error names the status.
func (s Status) Error() string {
	name, ok := statusNames[s.Code()]
	if !ok {
		name = "unknown status"
	}
	dnr := ""
	if s.DNR() {
		dnr = ", do not retry"
	}
	return fmt.Sprintf("nvme: %s (SCT %d, SC %#02x%s)", name, s.SCT(), s.SC(), dnr)
}

var statusNames = map[Status]string{
	Success:                        "success",
	InvalidOpcode:                  "invalid command opcode",
	InvalidField:                   "invalid field in command",
	CommandIDConflict:              "command id conflict",
	DataTransferError:              "data transfer error",
	PowerLossAbort:                 "aborted by power loss",
	InternalError:                  "internal error",
	AbortRequested:                 "abort requested",
	AbortSQDeletion:                "aborted by deletion of the submission queue",
	AbortFailedFused:               "aborted, fused command failed",
	AbortMissingFused:              "aborted, fused command missing",
	InvalidNamespaceOrFormat:       "invalid namespace or format",
	CommandSequenceError:           "command sequence error",
	InvalidSGLSegment:              "invalid SGL segment descriptor",
	InvalidNumberOfSGLDescriptors:  "invalid number of SGL descriptors",
	DataSGLLengthInvalid:           "data SGL length invalid",
	MetadataSGLLengthInvalid:       "metadata SGL length invalid",
	SGLDescriptorTypeInvalid:       "SGL descriptor type invalid",
	InvalidPRPOffset:               "invalid PRP offset",
	KeepAliveExpired:               "keep alive timer expired",
	KeepAliveInvalid:               "keep alive timeout invalid",
	OperationDenied:                "operation denied",
	HostIDInconsistent:             "host identifiers of inconsistent format",
	AbortPreempted:                 "aborted, the reservation was preempted",
	NamespaceWriteProtected:        "namespace is write protected",
	TransientTransport:             "transient transport error",
	LBAOutOfRange:                  "LBA out of range",
	CapacityExceeded:               "capacity exceeded",
	NamespaceNotReady:              "namespace not ready",
	ReservationConflict:            "reservation conflict",
	CompletionQueueInvalid:         "completion queue invalid",
	InvalidQueueID:                 "invalid queue identifier",
	InvalidQueueSize:               "invalid queue size",
	AbortLimitExceeded:             "abort command limit exceeded",
	AsyncEventLimitExceeded:        "asynchronous event request limit exceeded",
	InvalidFirmwareSlot:            "invalid firmware slot",
	InvalidFirmwareImage:           "invalid firmware image",
	SelfTestInProgress:             "device self-test in progress",
	SanitizeFailed:                 "sanitize failed",
	SanitizeInProgress:             "sanitize in progress",
	InvalidInterruptVector:         "invalid interrupt vector",
	InvalidLogPage:                 "invalid log page",
	InvalidFormat:                  "invalid format",
	NamespaceInsufficientCapacity:  "namespace insufficient capacity",
	NamespaceIdentifierUnavailable: "namespace identifier unavailable",
	NamespaceAlreadyAttached:       "namespace already attached",
	NamespaceIsPrivate:             "namespace is private",
	NamespaceNotAttached:           "namespace not attached",
	ThinProvisioningNotSupported:   "thin provisioning not supported",
	ControllerListInvalid:          "controller list invalid",
	CommandSetNotSupported:         "I/O command set not supported",
	FormatInProgress:               "format in progress",
	InvalidQueueDeletion:           "invalid queue deletion",
	FeatureNotSaveable:             "feature identifier not saveable",
	FeatureNotChangeable:           "feature not changeable",
	FeatureNotNamespace:            "feature not namespace specific",
	FirmwareNeedsReset:             "firmware activation requires a controller reset",
	OverlappingRange:               "overlapping range",
	InvalidControllerID:            "invalid controller identifier",
	ConflictingAttributes:          "conflicting attributes",
	InvalidProtectionInfo:          "invalid protection information",
	WriteToReadOnly:                "attempted write to read only range",
	CommandSizeLimitsExceeded:      "command size limits exceeded",
	WriteFault:                     "write fault",
	UnrecoveredRead:                "unrecovered read error",
	GuardCheck:                     "end-to-end guard check error",
	AppTagCheck:                    "end-to-end application tag check error",
	RefTagCheck:                    "end-to-end reference tag check error",
	CompareFailure:                 "compare failure",
	AccessDenied:                   "access denied",
	DeallocatedOrUnread:            "deallocated or unwritten logical block",
	StorageTagCheck:                "end-to-end storage tag check error",
}
