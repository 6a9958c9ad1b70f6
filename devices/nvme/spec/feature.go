package spec

// Feature identifiers (Base 2.0, 5.27.1).
const (
	FeatArbitration         = 0x01
	FeatPowerManagement     = 0x02
	FeatTemperature         = 0x04
	FeatErrorRecovery       = 0x05
	FeatVolatileWriteCache  = 0x06
	FeatNumberOfQueues      = 0x07
	FeatInterruptCoalescing = 0x08
	FeatInterruptVector     = 0x09
	FeatWriteAtomicity      = 0x0a
	FeatAsyncEvents         = 0x0b
	FeatTimestamp           = 0x0e
	FeatHostBehavior        = 0x16
)

// Values of the Select field of Get Features.
const (
	SelectCurrent      = 0
	SelectDefault      = 1
	SelectSaved        = 2
	SelectCapabilities = 3
)

// Capabilities of a feature, in dword 0 of Get Features with
// SelectCapabilities.
const (
	FeatureSaveable   = 1 << 0
	FeatureNamespace  = 1 << 1
	FeatureChangeable = 1 << 2
)

// Set Features CDW10 bit that asks for the value to be saved.
const SetFeaturesSave = 1 << 31

// Asynchronous event types, in bits 2:0 of dword 0 of the completion.
const (
	AsyncError    = 0
	AsyncHealth   = 1
	AsyncNotice   = 2
	AsyncIOEvent  = 6
	AsyncVendored = 7
)

// Asynchronous event information.
const (
	// Type AsyncError.
	AsyncInvalidDoorbell   = 0 // write to the doorbell of a queue that does not exist
	AsyncInvalidTail       = 1 // invalid doorbell write value
	AsyncDiagnosticFailure = 2
	AsyncInternalPersist   = 3
	AsyncInternalTransient = 4

	// Type AsyncHealth.
	AsyncReliability = 0
	AsyncTemperature = 1
	AsyncSpare       = 2

	// Type AsyncNotice.
	AsyncNamespaceChanged = 0
)

// Bits of the asynchronous event configuration (feature 0x0b) and of OAES.
const (
	AsyncConfigHealth    = 0x1f   // critical warnings, bit for bit as in the SMART log
	AsyncConfigNamespace = 1 << 8 // namespace attribute notices
)

// AsyncResult is dword 0 of the completion of an Asynchronous Event Request.
type AsyncResult uint32

// NewAsyncResult builds the dword from a type, its information and the log
// page whose reading clears the event.
func NewAsyncResult(kind, info, page uint8) AsyncResult {
	return AsyncResult(kind&7) | AsyncResult(info)<<8 | AsyncResult(page)<<16
}

// Type is the event type.
func (r AsyncResult) Type() uint8 { return uint8(r) & 7 }

// Info is the event information.
func (r AsyncResult) Info() uint8 { return uint8(r >> 8) }

// LogPage is the log page to read.
func (r AsyncResult) LogPage() uint8 { return uint8(r >> 16) }
