package spec

import "encoding/binary"

// Opcodes of the reservation commands.
const (
	NVMReservationRegister = 0x0d
	NVMReservationReport   = 0x0e
	NVMReservationAcquire  = 0x11
	NVMReservationRelease  = 0x15
)

// Actions of Reservation Register, Acquire and Release, in bits 2:0 of CDW10.
const (
	RegisterKey   = 0
	UnregisterKey = 1
	ReplaceKey    = 2

	AcquireReservation = 0
	AcquirePreempt     = 1
	AcquireAbort       = 2 // preempt, and abort the commands of whom it preempts

	ReleaseReservation = 0
	ReleaseClear       = 1
)

// Further fields of CDW10 of the reservation commands.
const (
	ReservationIgnoreKey = 1 << 3 // IEKEY
	ReservationTypeShift = 8      // RTYPE, 8 bits
	RegisterPersistShift = 30     // CPTPL, 2 bits
)

// Values of CPTPL: what becomes of reservations when power is lost.
const (
	PersistUnchanged = 0
	PersistOff       = 2
	PersistOn        = 3
)

// ReportExtended is the EDS bit of CDW11 of Reservation Report.
const ReportExtended = 1 << 0

// ReservationType is the type of a reservation (Base 2.0, figure 449); 0 is none.
type ReservationType uint8

// Types of reservations.
const (
	WriteExclusive                 ReservationType = 1
	ExclusiveAccess                ReservationType = 2
	WriteExclusiveRegistrantsOnly  ReservationType = 3
	ExclusiveAccessRegistrantsOnly ReservationType = 4
	WriteExclusiveAllRegistrants   ReservationType = 5
	ExclusiveAccessAllRegistrants  ReservationType = 6
)

// Bits of RESCAP.
const (
	ReservationsPersist   = 1 << 0 // they can outlive a loss of power
	ReservationsAllTypes  = 0x3f << 1
	ReservationsIgnoreKey = 1 << 7 // IEKEY is that of version 1.3 and later
)

// Valid says whether the type is one of the six.
func (t ReservationType) Valid() bool {
	return t >= WriteExclusive && t <= ExclusiveAccessAllRegistrants
}

// AllRegistrants says whether every registrant holds the reservation.
func (t ReservationType) AllRegistrants() bool {
	return t == WriteExclusiveAllRegistrants || t == ExclusiveAccessAllRegistrants
}

// RegistrantsOnly says whether registrants that do not hold the reservation have its rights.
func (t ReservationType) RegistrantsOnly() bool {
	return t == WriteExclusiveRegistrantsOnly || t == ExclusiveAccessRegistrantsOnly
}

// Exclusive says whether the reservation keeps others from reading, too.
func (t ReservationType) Exclusive() bool {
	return t == ExclusiveAccess || t == ExclusiveAccessRegistrantsOnly || t == ExclusiveAccessAllRegistrants
}

// ReservationKeysSize is the size of the data of Reservation Register and Acquire; Release has the first half.
const (
	ReservationKeysSize = 16
	ReservationKeySize  = 8
)

// ReservationKeys is the data of Reservation Register, Acquire and Release.
type ReservationKeys struct {
	Current uint64 // CRKEY
	Other   uint64 // NRKEY of Register, PRKEY of Acquire
}

// Put writes the 16 bytes of the keys.
func (k *ReservationKeys) Put(b []byte) {
	_ = b[ReservationKeysSize-1]
	binary.LittleEndian.PutUint64(b[0:], k.Current)
	binary.LittleEndian.PutUint64(b[8:], k.Other)
}

// Get reads the keys; what is cut short is 0.
func (k *ReservationKeys) Get(b []byte) {
	var whole [ReservationKeysSize]byte
	copy(whole[:], b)
	k.Current = binary.LittleEndian.Uint64(whole[0:])
	k.Other = binary.LittleEndian.Uint64(whole[8:])
}

// NoController is the controller identifier of a registrant that no controller belongs to now.
const NoController = 0xffff

// Sizes of the data of Reservation Report: its header and its entries, of which the extended form has longer ones.
const (
	reportHeader         = 24
	reportEntry          = 24
	reportExtendedHeader = 64
	reportExtendedEntry  = 64
)

// ReservationStatus is the data of Reservation Report (Base 2.0, figures 447 and 448).
type ReservationStatus struct {
	Generation  uint32
	Type        ReservationType
	Persistent  bool // PTPLS
	Controllers []RegisteredController
}

// RegisteredController is a controller whose host is a registrant.
type RegisteredController struct {
	Controller uint16
	Holder     bool // its host holds the reservation
	Host       HostID
	Key        uint64
}

// Size is the size in bytes of the whole data.
func (s *ReservationStatus) Size(extended bool) int {
	if extended {
		return reportExtendedHeader + len(s.Controllers)*reportExtendedEntry
	}
	return reportHeader + len(s.Controllers)*reportEntry
}

// Put writes Size bytes.
func (s *ReservationStatus) Put(b []byte, extended bool) {
	b = b[:s.Size(extended)]
	clear(b)
	le := binary.LittleEndian
	le.PutUint32(b[0:], s.Generation)
	b[4] = uint8(s.Type)
	le.PutUint16(b[5:], uint16(len(s.Controllers)))
	if s.Persistent {
		b[9] = 1
	}
	header, entry := reportHeader, reportEntry
	if extended {
		header, entry = reportExtendedHeader, reportExtendedEntry
	}
	for i, c := range s.Controllers {
		e := b[header+i*entry:][:entry]
		le.PutUint16(e[0:], c.Controller)
		if c.Holder {
			e[2] = 1
		}
		if extended {
			le.PutUint64(e[8:], c.Key)
			copy(e[16:], c.Host[:])
		} else {
			copy(e[8:16], c.Host[:])
			le.PutUint64(e[16:], c.Key)
		}
	}
}

// Get reads as many controllers as b has and returns how many there are.
func (s *ReservationStatus) Get(b []byte, extended bool) (total int) {
	header, entry := reportHeader, reportEntry
	if extended {
		header, entry = reportExtendedHeader, reportExtendedEntry
	}
	*s = ReservationStatus{}
	if len(b) < header {
		return 0
	}
	le := binary.LittleEndian
	s.Generation, s.Type, s.Persistent = le.Uint32(b[0:]), ReservationType(b[4]), b[9]&1 != 0
	total = int(le.Uint16(b[5:]))
	for i := range min(total, (len(b)-header)/entry) {
		e := b[header+i*entry:][:entry]
		c := RegisteredController{Controller: le.Uint16(e[0:]), Holder: e[2]&1 != 0}
		if extended {
			c.Key = le.Uint64(e[8:])
			copy(c.Host[:], e[16:])
		} else {
			copy(c.Host[:8], e[8:])
			c.Key = le.Uint64(e[16:])
		}
		s.Controllers = append(s.Controllers, c)
	}
	return total
}

// HostIDExtended is the EXHID bit of CDW11 of the Host Identifier feature.
const HostIDExtended = 1 << 0

// HostID is a host identifier: of 64 bits, with eight zeroes behind them, or of 128 bits.
type HostID [16]byte

// Types of reservation notifications. In the mask, the bit of a type's number stands for it.
const (
	NoticeNone                  = 0
	NoticeRegistrationPreempted = 1
	NoticeReservationReleased   = 2
	NoticeReservationPreempted  = 3
	NoticeMask                  = 0xe
)

// LogReservation is the reservation notification log page, and its size. Reading it takes the oldest notification.
const (
	LogReservation     = 0x80
	ReservationLogSize = 64
)

// ReservationNotice is the content of the reservation notification log page.
type ReservationNotice struct {
	Count     uint64 // of the notifications since the reset, 0: none
	Type      uint8
	Available uint8 // further ones that were not read
	NSID      uint32
}

// Put writes the 64 bytes of the page.
func (n *ReservationNotice) Put(b []byte) {
	b = b[:ReservationLogSize]
	clear(b)
	binary.LittleEndian.PutUint64(b[0:], n.Count)
	b[8], b[9] = n.Type, n.Available
	binary.LittleEndian.PutUint32(b[12:], n.NSID)
}

// Get reads the 64 bytes of the page.
func (n *ReservationNotice) Get(b []byte) {
	b = b[:ReservationLogSize]
	*n = ReservationNotice{binary.LittleEndian.Uint64(b[0:]), b[8], b[9], binary.LittleEndian.Uint32(b[12:])}
}
