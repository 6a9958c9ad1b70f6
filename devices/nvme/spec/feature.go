package spec

// Feature identifiers (Base 2.0, 5.27.1).
const (
	FeatArbitration         = 0x01
	FeatPowerManagement     = 0x02
	FeatLBARange            = 0x03
	FeatTemperature         = 0x04
	FeatErrorRecovery       = 0x05
	FeatVolatileWriteCache  = 0x06
	FeatNumberOfQueues      = 0x07
	FeatInterruptCoalescing = 0x08
	FeatInterruptVector     = 0x09
	FeatWriteAtomicity      = 0x0a
	FeatAsyncEvents         = 0x0b
	FeatAutonomousPower     = 0x0c
	FeatTimestamp           = 0x0e
	FeatKeepAlive           = 0x0f
	FeatHostThermal         = 0x10
	FeatNonOperationalPower = 0x11
	FeatHostBehavior        = 0x16
	FeatSanitize            = 0x17
	FeatEnduranceEvents     = 0x18
	FeatProgressMarker      = 0x80
	FeatHostIdentifier      = 0x81
	FeatReservationMask     = 0x82
	FeatReservationPersist  = 0x83
	FeatWriteProtect        = 0x84
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

// States of the write protection of a namespace.
const (
	WriteProtectNone       = 0
	WriteProtectOn         = 1
	WriteProtectPowerCycle = 2 // until there is no power
	WriteProtectPermanent  = 3
)

// Scopes of a feature, in the log page of the features supported (bits 31:20 of an entry).
const (
	ScopeNamespace      = 1 << 20
	ScopeController     = 1 << 21
	ScopeEnduranceGroup = 1 << 23
	ScopeSubsystem      = 1 << 25
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
	AsyncNamespaceChanged   = 0
	AsyncFirmwareActivation = 1
	AsyncTelemetryChanged   = 2
	AsyncEnduranceGroup     = 6

	// Type AsyncIOEvent, of the NVM command set.
	AsyncReservation       = 0
	AsyncSanitizeCompleted = 1
)

// Bits of the asynchronous event configuration (feature 0x0b) and of OAES.
const (
	AsyncConfigHealth    = 0x1f   // critical warnings, bit for bit as in the SMART log
	AsyncConfigNamespace = 1 << 8 // namespace attribute notices
	AsyncConfigFirmware  = 1 << 9 // firmware activation notices
	AsyncConfigTelemetry = 1 << 10
	AsyncConfigEndurance = 1 << 14
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
