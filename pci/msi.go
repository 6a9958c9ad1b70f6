package pci

import (
	"encoding/binary"
	"math/bits"
)

// MSI capability (7.7.1), always with a 64-bit address.
const (
	msiSize       = 14
	msiMaskedSize = 24
	msiControl    = 2
	msiAddress    = 4
	msiData       = 12
	msiMask       = 16
	msiPending    = 20

	msiEnable     = 1 << 0
	msiCapable    = 1 // shift, three bits
	msiEnabledLog = 4 // shift, three bits
	msi64         = 1 << 7
	msiMaskable   = 1 << 8

	maxMSI = 32
)

// AddMSI adds message signalled interrupts, a power of two from 1 to 32 of them, with
// or without a mask bit for each, and returns the capability's offset.
func (s *Space) AddMSI(vectors int, maskable bool) (int, error) {
	if err := once(s.msi, "MSI"); err != nil {
		return 0, err
	}
	if vectors < 1 || vectors > maxMSI || bits.OnesCount(uint(vectors)) != 1 {
		return 0, configError("MSI: %d vectors is not a power of two from 1 to %d", vectors, maxMSI)
	}
	size := msiSize
	control := uint16(msi64 | bits.TrailingZeros(uint(vectors))<<msiCapable)
	if maskable {
		size = msiMaskedSize
		control |= msiMaskable
	}
	off, err := s.addCapability(capMSI, size)
	if err != nil {
		return 0, err
	}
	s.msi = off
	s.set16(off+msiControl, control)
	s.allow16(off+msiControl, msiEnable|7<<msiEnabledLog)
	s.allow32(off+msiAddress, ^uint32(3))
	s.allow32(off+msiAddress+4, ^uint32(0))
	s.allow16(off+msiData, 0xffff)
	if maskable {
		s.allow32(off+msiMask, uint32(1<<vectors-1))
	}
	s.watchRange(off+msiControl, size-msiControl, ChangedMSI)
	return off, nil
}

// MSIEnabled is true if the function signals by MSI.
func (s *Space) MSIEnabled() bool {
	return s.msi != 0 && s.get16(s.msi+msiControl)&msiEnable != 0
}

// MSIVectors is the number of messages that the guest has granted; 0 if MSI is off.
func (s *Space) MSIVectors() int {
	if !s.MSIEnabled() {
		return 0
	}
	control := s.get16(s.msi + msiControl)
	return 1 << min(control>>msiEnabledLog&7, control>>msiCapable&7)
}

// MSIMask has a bit for each masked message.
func (s *Space) MSIMask() uint32 {
	if !s.hasMSIMask() {
		return 0
	}
	return s.get32(s.msi + msiMask)
}

// SetMSIPending shows which masked messages wait, a bit for each.
func (s *Space) SetMSIPending(vectors uint32) {
	if s.hasMSIMask() {
		binary.LittleEndian.PutUint32(s.now[s.msi+msiPending:], vectors)
	}
}

func (s *Space) hasMSIMask() bool {
	return s.msi != 0 && s.get16(s.msi+msiControl)&msiMaskable != 0
}
