package spec

import (
	"encoding/binary"
	"strings"
)

// Values of the CNS field of Identify (Base 2.0, figure 273).
const (
	CNSNamespace            = 0x00
	CNSController           = 0x01
	CNSActiveNamespaces     = 0x02
	CNSDescriptors          = 0x03
	CNSCommandSetNamespace  = 0x05
	CNSCommandSetController = 0x06
	CNSIndependentNamespace = 0x08
	CNSEnduranceGroups      = 0x19
	CNSAllocatedNamespaces  = 0x10
	CNSAllocatedNamespace   = 0x11
	CNSNamespaceControllers = 0x12
	CNSSubsystemControllers = 0x13
	CNSCommandSets          = 0x1c
)

// IdentifySize is the size of every Identify data structure.
const IdentifySize = 4096

// Bits of FNA.
const (
	FNAFormatAll   = 1 << 0 // a format is of all namespaces
	FNAEraseAll    = 1 << 1 // so is an erasure
	FNACryptoErase = 1 << 2
	FNANoBroadcast = 1 << 3
)

// Bits of OACS.
const (
	OACSSecurity            = 1 << 0
	OACSFormat              = 1 << 1
	OACSFirmware            = 1 << 2
	OACSNamespaceManagement = 1 << 3
	OACSSelfTest            = 1 << 4
	OACSDirectives          = 1 << 5
	OACSDoorbellBuffer      = 1 << 8
)

// Bits of NWPC.
const (
	NWPCProtect    = 1 << 0
	NWPCPowerCycle = 1 << 1
	NWPCPermanent  = 1 << 2
)

// Bits of FRMW.
const (
	FRMWReadOnlySlot1   = 1 << 0
	FRMWSlotsShift      = 1
	FRMWActivateNoReset = 1 << 4
)

// Bits of SANICAP.
const (
	SanitizeCryptoErase = 1 << 0
	SanitizeBlockErase  = 1 << 1
	SanitizeOverwrite   = 1 << 2
	SanitizeUnmodified  = 1 << 30 // NODMMAS 01b: nothing else is written after it
)

// Bits of CTRATT.
const (
	CTRATTExtendedHostID     = 1 << 0 // host identifiers of 128 bits
	CTRATTNonOperationalPS   = 1 << 1 // non-operational power state permissive mode
	CTRATTEnduranceGroups    = 1 << 4
	CTRATTExtendedLBAFormats = 1 << 15
)

// Bits of ONCS.
const (
	ONCSCompare            = 1 << 0
	ONCSWriteUncorrectable = 1 << 1
	ONCSDatasetManagement  = 1 << 2
	ONCSWriteZeroes        = 1 << 3
	ONCSSaveFeatures       = 1 << 4
	ONCSReservations       = 1 << 5
	ONCSTimestamp          = 1 << 6
	ONCSVerify             = 1 << 7
	ONCSCopy               = 1 << 8
)

// Formats of the source ranges of Copy, in OCFS.
const (
	OCFSFormat0 = 1 << 0
	OCFSFormat1 = 1 << 1
)

// FUSESCompareAndWrite is the bit of FUSES for the fused operation Compare and Write.
const FUSESCompareAndWrite = 1 << 0

// Bits of VWC.
const (
	VWCPresent        = 1 << 0
	VWCFlushBroadcast = 3 << 1 // Flush with NSID FFFFFFFFh flushes all
)

// Bits of LPA.
const (
	LPASmartPerNamespace = 1 << 0
	LPAEffects           = 1 << 1
	LPAExtendedData      = 1 << 2
	LPATelemetry         = 1 << 3
	LPAPersistentEvents  = 1 << 4
	LPASupportedPages    = 1 << 5 // and the pages 12h and 13h
)

// Bits of IdentifyController.SGLS.
const (
	SGLSSupported      = 1 << 0 // in I/O commands, without alignment
	SGLSBitBucket      = 1 << 16
	SGLSLongerThanData = 1 << 18 // an SGL may describe more than the data
	SGLSMetadata       = 1 << 19 // metadata may have an SGL
)

// Bits of IdentifyController.CMIC.
const CMICControllers = 1 << 1 // the subsystem may have several controllers

// IdentifyController is what Identify with CNS 01h returns, as far as it has
// a meaning for an I/O controller without firmware, sanitize or namespace
// management (Base 2.0, figure 275; offsets stand in Put).
type IdentifyController struct {
	VendorID            uint16
	SubsystemVendorID   uint16
	Serial              string // 20 ASCII characters, padded with spaces
	Model               string // 40
	Firmware            string // 8
	RAB                 uint8  // recommended arbitration burst, exponent
	OUI                 [3]byte
	CMIC                uint8
	MDTS                uint8 // largest transfer, exponent in units of CAP.MPSMIN; 0: none
	ControllerID        uint16
	Version             uint32
	RTD3Resume          uint32 // µs
	RTD3Entry           uint32 // µs
	OAES                uint32
	CTRATT              uint32
	ControllerType      uint8 // 1: I/O controller
	OACS                uint16
	ACL                 uint8 // zero based
	AERL                uint8 // zero based
	FRMW                uint8
	LPA                 uint8
	ELPE                uint8 // zero based
	NPSS                uint8 // zero based
	AVSCC               uint8
	APSTA               uint8
	WarningTemp         uint16    // K
	CriticalTemp        uint16    // K
	MTFA                uint16    // units of 100 ms, of a firmware activation
	TotalCapacity       [2]uint64 // TNVMCAP, bytes
	UnallocatedCapacity [2]uint64 // UNVMCAP, bytes
	SelfTestTime        uint16    // minutes, of the extended one
	SelfTestOptions     uint8
	FWUG                uint8  // units of 4 KiB
	KAS                 uint16 // units of 100 ms
	HCTMA               uint16
	MinThermal          uint16 // K, MNTMT
	MaxThermal          uint16 // K, MXTMT
	SANICAP             uint32
	EnduranceGroups     uint16 // highest identifier, ENDGIDMAX
	PELS                uint32 // units of 64 KiB
	SQES                uint8
	CQES                uint8
	MaxCommands         uint16
	Namespaces          uint32
	ONCS                uint16
	FUSES               uint16
	FNA                 uint8
	MNAN                uint32 // namespaces that may be allocated
	VWC                 uint8
	AWUN                uint16 // zero based
	AWUPF               uint16
	ICSVSCC             uint8
	NWPC                uint8
	ACWU                uint16
	OCFS                uint16
	SGLS                uint32
	MaxNamespaces       uint32
	SubNQN              string // 256 bytes, NUL padded
	PowerStates         [32]PowerState
}

// Put writes all 4,096 bytes.
func (c *IdentifyController) Put(b []byte) {
	b = b[:IdentifySize]
	clear(b)
	le := binary.LittleEndian
	le.PutUint16(b[0:], c.VendorID)
	le.PutUint16(b[2:], c.SubsystemVendorID)
	putText(b[4:24], c.Serial)
	putText(b[24:64], c.Model)
	putText(b[64:72], c.Firmware)
	b[72] = c.RAB
	copy(b[73:76], c.OUI[:])
	b[76] = c.CMIC
	b[77] = c.MDTS
	le.PutUint16(b[78:], c.ControllerID)
	le.PutUint32(b[80:], c.Version)
	le.PutUint32(b[84:], c.RTD3Resume)
	le.PutUint32(b[88:], c.RTD3Entry)
	le.PutUint32(b[92:], c.OAES)
	le.PutUint32(b[96:], c.CTRATT)
	b[111] = c.ControllerType
	le.PutUint16(b[256:], c.OACS)
	b[258] = c.ACL
	b[259] = c.AERL
	b[260] = c.FRMW
	b[261] = c.LPA
	b[262] = c.ELPE
	b[263] = c.NPSS
	b[264] = c.AVSCC
	b[265] = c.APSTA
	le.PutUint16(b[266:], c.WarningTemp)
	le.PutUint16(b[268:], c.CriticalTemp)
	le.PutUint64(b[280:], c.TotalCapacity[0])
	le.PutUint64(b[288:], c.TotalCapacity[1])
	le.PutUint64(b[296:], c.UnallocatedCapacity[0])
	le.PutUint64(b[304:], c.UnallocatedCapacity[1])
	le.PutUint16(b[270:], c.MTFA)
	le.PutUint16(b[316:], c.SelfTestTime)
	b[318] = c.SelfTestOptions
	b[319] = c.FWUG
	le.PutUint16(b[320:], c.KAS)
	le.PutUint16(b[322:], c.HCTMA)
	le.PutUint16(b[324:], c.MinThermal)
	le.PutUint16(b[326:], c.MaxThermal)
	le.PutUint32(b[328:], c.SANICAP)
	le.PutUint16(b[340:], c.EnduranceGroups)
	le.PutUint32(b[352:], c.PELS)
	b[512] = c.SQES
	b[513] = c.CQES
	le.PutUint16(b[514:], c.MaxCommands)
	le.PutUint32(b[516:], c.Namespaces)
	le.PutUint16(b[520:], c.ONCS)
	le.PutUint16(b[522:], c.FUSES)
	b[524] = c.FNA
	le.PutUint32(b[540:], c.MNAN)
	b[525] = c.VWC
	le.PutUint16(b[526:], c.AWUN)
	le.PutUint16(b[528:], c.AWUPF)
	b[530] = c.ICSVSCC
	b[531] = c.NWPC
	le.PutUint16(b[532:], c.ACWU)
	le.PutUint16(b[534:], c.OCFS)
	le.PutUint32(b[536:], c.SGLS)
	le.PutUint32(b[540:], c.MaxNamespaces)
	copy(b[768:1024], c.SubNQN)
	for i := range c.PowerStates {
		c.PowerStates[i].Put(b[2048+PowerStateSize*i:])
	}
}

// Get reads all 4,096 bytes.
func (c *IdentifyController) Get(b []byte) {
	b = b[:IdentifySize]
	le := binary.LittleEndian
	*c = IdentifyController{
		VendorID:            le.Uint16(b[0:]),
		SubsystemVendorID:   le.Uint16(b[2:]),
		Serial:              text(b[4:24]),
		Model:               text(b[24:64]),
		Firmware:            text(b[64:72]),
		RAB:                 b[72],
		OUI:                 [3]byte(b[73:76]),
		CMIC:                b[76],
		MDTS:                b[77],
		ControllerID:        le.Uint16(b[78:]),
		Version:             le.Uint32(b[80:]),
		RTD3Resume:          le.Uint32(b[84:]),
		RTD3Entry:           le.Uint32(b[88:]),
		OAES:                le.Uint32(b[92:]),
		CTRATT:              le.Uint32(b[96:]),
		ControllerType:      b[111],
		OACS:                le.Uint16(b[256:]),
		ACL:                 b[258],
		AERL:                b[259],
		FRMW:                b[260],
		LPA:                 b[261],
		ELPE:                b[262],
		NPSS:                b[263],
		AVSCC:               b[264],
		APSTA:               b[265],
		WarningTemp:         le.Uint16(b[266:]),
		CriticalTemp:        le.Uint16(b[268:]),
		TotalCapacity:       [2]uint64{le.Uint64(b[280:]), le.Uint64(b[288:])},
		UnallocatedCapacity: [2]uint64{le.Uint64(b[296:]), le.Uint64(b[304:])},
		MNAN:                le.Uint32(b[540:]),
		MTFA:                le.Uint16(b[270:]),
		SelfTestTime:        le.Uint16(b[316:]),
		SelfTestOptions:     b[318],
		FWUG:                b[319],
		KAS:                 le.Uint16(b[320:]),
		HCTMA:               le.Uint16(b[322:]),
		MinThermal:          le.Uint16(b[324:]),
		MaxThermal:          le.Uint16(b[326:]),
		SANICAP:             le.Uint32(b[328:]),
		EnduranceGroups:     le.Uint16(b[340:]),
		PELS:                le.Uint32(b[352:]),
		SQES:                b[512],
		CQES:                b[513],
		MaxCommands:         le.Uint16(b[514:]),
		Namespaces:          le.Uint32(b[516:]),
		ONCS:                le.Uint16(b[520:]),
		FUSES:               le.Uint16(b[522:]),
		FNA:                 b[524],
		VWC:                 b[525],
		AWUN:                le.Uint16(b[526:]),
		AWUPF:               le.Uint16(b[528:]),
		ICSVSCC:             b[530],
		NWPC:                b[531],
		ACWU:                le.Uint16(b[532:]),
		OCFS:                le.Uint16(b[534:]),
		SGLS:                le.Uint32(b[536:]),
		MaxNamespaces:       le.Uint32(b[540:]),
		SubNQN:              text(b[768:1024]),
	}
	for i := range c.PowerStates {
		c.PowerStates[i].Get(b[2048+PowerStateSize*i:])
	}
}

// putText fills b with ASCII text padded with spaces.
func putText(b []byte, s string) {
	n := copy(b, s)
	for i := n; i < len(b); i++ {
		b[i] = ' '
	}
}

// Text reads ASCII text that is padded with spaces or NULs.
func Text(b []byte) string { return text(b) }

// text is the inverse of putText; it takes NUL padding too.
func text(b []byte) string { return strings.TrimRight(string(b), " \x00") }
