package pci

import "math/bits"

// Express describes the PCI Express capability of an endpoint. The zero value is an
// endpoint behind a link of 8 GT/s and four lanes without function level reset.
type Express struct {
	Type  ExpressType
	FLR   bool
	Speed LinkSpeed // 0: 8 GT/s
	Lanes int       // 1, 2, 4, 8 or 16; 0: 4
}

// ExpressType is the device or port type (7.5.3.2).
type ExpressType uint8

const (
	Endpoint              ExpressType = 0
	LegacyEndpoint        ExpressType = 1
	RootComplexIntegrated ExpressType = 9 // an endpoint without a link
)

// LinkSpeed is the encoding of the link capabilities register (7.5.3.6).
type LinkSpeed uint8

const (
	Speed2_5GT LinkSpeed = 1 + iota
	Speed5GT
	Speed8GT
	Speed16GT
	Speed32GT
)

// PCI Express capability (7.5.3), version 2.
const (
	expressSize    = 0x3c
	expFlags       = 0x02
	expDeviceCap   = 0x04
	expDeviceCtl   = 0x08
	expDeviceSta   = 0x0a
	expLinkCap     = 0x0c
	expLinkCtl     = 0x10
	expLinkSta     = 0x12
	expDeviceCap2  = 0x24
	expDeviceCtl2  = 0x28
	expLinkCap2    = 0x2c
	expLinkCtl2    = 0x30
	expLinkSta2    = 0x32
	expressVersion = 2
	expType        = 4 // shift, four bits

	flrBit = 0x80 // Initiate Function Level Reset, in the upper byte of device control
)

// Device capabilities (7.5.3.3): payloads up to 256 bytes, extended tags, role-based
// error reporting; behind a link no limit on the latency of L0s and L1.
const (
	devCapBase    = 1 | 1<<5 | 1<<15
	devCapLatency = 7<<6 | 7<<9
	devCapFLR     = 1 << 28
)

// Device control (7.5.3.4): relaxed ordering, no snoop and read requests of 512 bytes at
// power-on; error reporting, payload, tags and these are writable.
const (
	devCtlInitial  = 1<<4 | 1<<11 | 2<<12
	devCtlWritable = 0x1f | 7<<5 | 1<<8 | 1<<11 | 7<<12
	devStaErrors   = 0xf // RW1C (7.5.3.5)
)

// Link registers (7.5.3.6 to 7.5.3.8): no power states of the link, and said so; the
// reference clock is the slot's.
const (
	linkCapNoASPM   = 1 << 22
	linkCtlWritable = 3 | 1<<3 | 1<<6 | 1<<7 | 1<<9
	linkStaSlotClk  = 1 << 12
)

// Second set (7.5.3.15 to 7.5.3.20): every range of completion time-outs, which can be
// switched off; equalization is complete at 8 GT/s and above.
const (
	devCap2Timeouts  = 0xf | 1<<4
	devCap2LTR       = 1 << 11
	devCtl2Writable  = 0xf | 1<<4
	devCtl2LTR       = 1 << 10
	linkCtl2Writable = 0xffbf // all but selectable de-emphasis, which is a port's
	linkSta2Equal    = 0xf << 1
)

// AddExpress makes the function a PCI Express endpoint and returns the capability's
// offset. It needs a space of 4,096 bytes.
func (s *Space) AddExpress(e Express) (int, error) {
	if err := once(s.express, "PCI Express"); err != nil {
		return 0, err
	}
	if len(s.now) != ExpressSpaceSize {
		return 0, configError("PCI Express needs a space of %d bytes: set Config.Express", ExpressSpaceSize)
	}
	if err := e.complete(); err != nil {
		return 0, err
	}
	off, err := s.addCapability(capExpress, expressSize)
	if err != nil {
		return 0, err
	}
	s.express = off
	s.set16(off+expFlags, expressVersion|uint16(e.Type)<<expType)
	s.watchRange(off+expDeviceCtl, expressSize-expDeviceCtl, ChangedCapability)

	capabilities := uint32(devCapBase)
	if e.Type != RootComplexIntegrated {
		capabilities |= devCapLatency
	}
	if e.FLR {
		capabilities |= devCapFLR
		s.flr = off + expDeviceCtl + 1
	}
	s.set32(off+expDeviceCap, capabilities)
	s.set16(off+expDeviceCtl, devCtlInitial)
	s.allow16(off+expDeviceCtl, devCtlWritable)
	s.clear16(off+expDeviceSta, devStaErrors)
	s.set32(off+expDeviceCap2, devCap2Timeouts)
	s.allow16(off+expDeviceCtl2, devCtl2Writable)
	if e.Type != RootComplexIntegrated {
		s.layLink(off, e)
	}
	return off, nil
}

// complete checks e and fills in what is left out.
func (e *Express) complete() error {
	switch e.Type {
	case Endpoint, LegacyEndpoint:
	case RootComplexIntegrated:
		if e.Speed != 0 || e.Lanes != 0 {
			return configError("PCI Express: an endpoint integrated in the root complex has no link")
		}
		return nil
	default:
		return configError("PCI Express: type %d is no endpoint", e.Type)
	}
	if e.Speed == 0 {
		e.Speed = Speed8GT
	}
	if e.Lanes == 0 {
		e.Lanes = 4
	}
	if e.Speed > Speed32GT {
		return configError("PCI Express: unknown link speed %d", e.Speed)
	}
	if e.Lanes < 1 || e.Lanes > 16 || bits.OnesCount(uint(e.Lanes)) != 1 {
		return configError("PCI Express: a link of %d lanes is none of 1, 2, 4, 8, 16", e.Lanes)
	}
	return nil
}

// layLink fills in the registers of the link, which is up and has trained.
func (s *Space) layLink(off int, e Express) {
	link := uint32(e.Speed) | uint32(e.Lanes)<<4
	s.set32(off+expLinkCap, link|linkCapNoASPM)
	s.allow16(off+expLinkCtl, linkCtlWritable)
	s.set16(off+expLinkSta, uint16(link)|linkStaSlotClk)

	s.set32(off+expLinkCap2, (1<<e.Speed-1)<<1) // a bit for each speed up to the highest
	s.set16(off+expLinkCtl2, uint16(e.Speed))
	s.allow16(off+expLinkCtl2, linkCtl2Writable)
	if e.Speed >= Speed8GT {
		s.set16(off+expLinkSta2, linkSta2Equal)
	}
}
