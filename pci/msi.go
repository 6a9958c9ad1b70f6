package pci

import (
	"encoding/binary"
	"math/bits"
)

// MSI capability (7.7.1). What follows the address moves by four bytes if that has 64 bits.
const (
	msiSize    = 10 // with an address of 32 bits and without masks
	msiControl = 2
	msiAddress = 4
	msiData    = 8
	msiMask    = 12
	msiPending = 16
	msiUpper   = 4 // what the upper half of an address takes, in bytes
	msiMasks   = 10

	msiEnable     = 1 << 0
	msiCapable    = 1 // shift, three bits
	msiEnabledLog = 4 // shift, three bits
	msi64         = 1 << 7
	msiMaskable   = 1 << 8

	maxMSI = 32
)

// MSI describes message signalled interrupts.
type MSI struct {
	Vectors   int  // a power of two from 1 to 32
	Maskable  bool // a mask and a pending bit for each
	Address32 bool // the address of messages has 32 bits; endpoints on Express need 64 (7.7.1.2)
}

// AddMSI adds message signalled interrupts and returns the capability's offset.
func (s *Space) AddMSI(m MSI) (int, error) {
	if err := once(s.msi, "MSI"); err != nil {
		return 0, err
	}
	if m.Vectors < 1 || m.Vectors > maxMSI || bits.OnesCount(uint(m.Vectors)) != 1 {
		return 0, configError("MSI: %d vectors is not a power of two from 1 to %d", m.Vectors, maxMSI)
	}
	size, upper := msiSize, 0
	control := uint16(bits.TrailingZeros(uint(m.Vectors)) << msiCapable)
	if !m.Address32 {
		size, upper = size+msiUpper, msiUpper
		control |= msi64
	}
	if m.Maskable {
		size += msiMasks
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
	if !m.Address32 {
		s.allow32(off+msiAddress+4, ^uint32(0))
	}
	s.allow16(off+msiData+upper, 0xffff)
	if m.Maskable {
		s.allow32(off+msiMask+upper, uint32(1<<m.Vectors-1))
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

// MSIMessage is where the guest wants messages to be written, and the data of the first.
func (s *Space) MSIMessage() (address uint64, data uint16) {
	if s.msi == 0 {
		return 0, 0
	}
	address = uint64(s.get32(s.msi + msiAddress))
	if s.msiUpper() != 0 {
		address |= uint64(s.get32(s.msi+msiAddress+4)) << 32
	}
	return address, s.get16(s.msi + msiData + s.msiUpper())
}

// MSIMask has a bit for each masked message.
func (s *Space) MSIMask() uint32 {
	if !s.MSIMaskable() {
		return 0
	}
	return s.get32(s.msi + msiMask + s.msiUpper())
}

// SetMSIPending shows which masked messages wait, a bit for each.
func (s *Space) SetMSIPending(vectors uint32) {
	if s.MSIMaskable() {
		binary.LittleEndian.PutUint32(s.now[s.msi+msiPending+s.msiUpper():], vectors)
	}
}

// MSIMaskable is true if messages can be masked.
func (s *Space) MSIMaskable() bool {
	return s.msi != 0 && s.get16(s.msi+msiControl)&msiMaskable != 0
}

func (s *Space) msiUpper() int {
	if s.get16(s.msi+msiControl)&msi64 != 0 {
		return msiUpper
	}
	return 0
}
