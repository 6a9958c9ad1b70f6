package spec

// Offsets of the controller registers in BAR0 (Base 2.0, section 3.1.3).
const (
	RegCAP    = 0x00 // controller capabilities, 64 bits
	RegVS     = 0x08 // version
	RegINTMS  = 0x0c // interrupt mask set
	RegINTMC  = 0x10 // interrupt mask clear
	RegCC     = 0x14 // controller configuration
	RegCSTS   = 0x1c // controller status
	RegNSSR   = 0x20 // NVM subsystem reset
	RegAQA    = 0x24 // admin queue attributes
	RegASQ    = 0x28 // admin submission queue base, 64 bits
	RegACQ    = 0x30 // admin completion queue base, 64 bits
	RegCMBLOC = 0x38 // controller memory buffer location
	RegCMBSZ  = 0x3c // controller memory buffer size
	RegBPINFO = 0x40 // boot partition information
	RegCRTO   = 0x68 // controller ready timeouts, with media in bits 15:0 in units of 500 ms
	RegPMRCAP = 0xe00

	// RegDoorbells is where the doorbells begin (PCIe transport, 3.1.2).
	RegDoorbells = 0x1000
)

// Version numbers as they stand in VS and in Identify Controller.
const (
	Version1_3 = 0x00010300
	Version1_4 = 0x00010400
	Version2_0 = 0x00020000
)

// NSSRReset is the value ("NVMe") that, written to NSSR, resets the subsystem.
const NSSRReset = 0x4e564d65

// Cap is the CAP register.
type Cap uint64

// Fields of CAP that are single bits or sets.
const (
	CapCQR Cap = 1 << 16 // queues must be physically contiguous
	// CapAMSWeighted: weighted round robin with urgent priority class is supported.
	CapAMSWeighted Cap = 1 << 17
	CapNSSRS       Cap = 1 << 36 // subsystem reset supported
	CapCSSNVM      Cap = 1 << 37 // NVM command set

	CapCSSAll  Cap = 1 << 43 // I/O command sets by CC.CSS = CSSAll
	CapCSSNone Cap = 1 << 44 // no I/O command set: admin commands only

	CapCRWMS Cap = 1 << 59 // CRTO says when the controller is ready with its media
)

// NewCap builds a CAP value: mqes is zero based, to in units of 500 ms,
// dstrd and the page sizes are exponents as the register holds them.
func NewCap(mqes uint16, to uint8, dstrd uint8, mpsMin, mpsMax uint8, flags Cap) Cap {
	return Cap(mqes) | Cap(to)<<24 | Cap(dstrd&0xf)<<32 | Cap(mpsMin&0xf)<<48 | Cap(mpsMax&0xf)<<52 | flags
}

// MQES is the largest queue size, zero based.
func (c Cap) MQES() uint16 { return uint16(c) }

// TO is the time, in units of 500 ms, within which CSTS.RDY follows CC.EN.
func (c Cap) TO() uint8 { return uint8(c >> 24) }

// DSTRD is the doorbell stride exponent: doorbells are 4 << DSTRD bytes apart.
func (c Cap) DSTRD() uint8 { return uint8(c>>32) & 0xf }

// MPSMin is the smallest memory page size as 4 KiB << MPSMin.
func (c Cap) MPSMin() uint8 { return uint8(c>>48) & 0xf }

// MPSMax is the largest memory page size as 4 KiB << MPSMax.
func (c Cap) MPSMax() uint8 { return uint8(c>>52) & 0xf }

// DoorbellStride is the distance between two doorbells in bytes.
func (c Cap) DoorbellStride() int { return 4 << c.DSTRD() }

// SQTailDoorbell is the offset in BAR0 of the tail doorbell of queue qid for
// a stride in bytes.
func SQTailDoorbell(qid uint16, stride int) uint64 {
	return RegDoorbells + 2*uint64(qid)*uint64(stride)
}

// CQHeadDoorbell is the offset in BAR0 of the head doorbell of queue qid for
// a stride in bytes.
func CQHeadDoorbell(qid uint16, stride int) uint64 {
	return RegDoorbells + (2*uint64(qid)+1)*uint64(stride)
}

// CC is the controller configuration register.
type CC uint32

// Values of CC fields.
const (
	CCEnable CC = 1 << 0

	CSSNVM       = 0 // NVM command set
	CSSAll       = 6 // all supported I/O command sets
	CSSAdminOnly = 7

	AMSRoundRobin = 0
	AMSWeighted   = 1 // weighted round robin with urgent priority class

	ShutdownNone   = 0
	ShutdownNormal = 1
	ShutdownAbrupt = 2
)

// NewCC builds a CC value with round robin arbitration and the NVM command
// set; mps, iosqes and iocqes are the exponents that the register holds.
func NewCC(enable bool, mps, iosqes, iocqes uint8) CC {
	c := CC(mps&0xf)<<7 | CC(iosqes&0xf)<<16 | CC(iocqes&0xf)<<20
	if enable {
		c |= CCEnable
	}
	return c
}

// EN says whether the controller is to be enabled.
func (c CC) EN() bool { return c&CCEnable != 0 }

// CSS is the command set selected.
func (c CC) CSS() uint8 { return uint8(c>>4) & 7 }

// MPS is the memory page size as 4 KiB << MPS.
func (c CC) MPS() uint8 { return uint8(c>>7) & 0xf }

// AMS is the arbitration mechanism selected.
func (c CC) AMS() uint8 { return uint8(c>>11) & 7 }

// SHN is the shutdown notification.
func (c CC) SHN() uint8 { return uint8(c>>14) & 3 }

// IOSQES is the size of an I/O submission entry as an exponent of two.
func (c CC) IOSQES() uint8 { return uint8(c>>16) & 0xf }

// IOCQES is the size of an I/O completion entry as an exponent of two.
func (c CC) IOCQES() uint8 { return uint8(c>>20) & 0xf }

// WithSHN is c with its shutdown notification replaced.
func (c CC) WithSHN(shn uint8) CC { return c&^(3<<14) | CC(shn&3)<<14 }

// CSTS is the controller status register.
type CSTS uint32

// Bits of CSTS.
const (
	CSTSReady     CSTS = 1 << 0
	CSTSFatal     CSTS = 1 << 1
	CSTSShutdown  CSTS = 3 << 2
	CSTSNSSRO     CSTS = 1 << 4
	CSTSPaused    CSTS = 1 << 5
	ShutNormal         = 0 // normal operation
	ShutOccurring      = 1
	ShutComplete       = 2
)

// RDY says whether the controller takes commands.
func (c CSTS) RDY() bool { return c&CSTSReady != 0 }

// CFS says whether the controller has failed fatally.
func (c CSTS) CFS() bool { return c&CSTSFatal != 0 }

// SHST is the shutdown status: ShutNormal, ShutOccurring or ShutComplete.
func (c CSTS) SHST() uint8 { return uint8(c>>2) & 3 }

// WithSHST is c with its shutdown status replaced.
func (c CSTS) WithSHST(s uint8) CSTS { return c&^CSTSShutdown | CSTS(s&3)<<2 }

// AQA is the admin queue attributes register; both sizes are zero based.
type AQA uint32

// NewAQA builds the register from two zero based sizes.
func NewAQA(asqs, acqs uint16) AQA { return AQA(asqs&0xfff) | AQA(acqs&0xfff)<<16 }

// ASQS is the size of the admin submission queue, zero based.
func (a AQA) ASQS() uint16 { return uint16(a) & 0xfff }

// ACQS is the size of the admin completion queue, zero based.
func (a AQA) ACQS() uint16 { return uint16(a>>16) & 0xfff }
