package pci

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Detail says in a line what the registers of a capability say, for those that are known;
// "" for the others, and for one that does not lie inside of the space. The bytes need
// not be trusted.
func (c Capability) Detail(space []byte) string {
	if c.Offset < 0 || c.Offset > len(space) {
		return ""
	}
	b := space[c.Offset:]
	table := capDetails
	if c.Extended {
		table = extCapDetails
	}
	d, ok := table[c.ID]
	if !ok || len(b) < d.size {
		return ""
	}
	return d.text(b)
}

// detail makes the text from at least size bytes.
type detail struct {
	size int
	text func(b []byte) string
}

var capDetails = map[uint16]detail{
	capPM:      {pmSize, detailPM},
	capMSI:     {msiSize, detailMSI},
	capVendor:  {3, func(b []byte) string { return fmt.Sprintf("%d bytes", b[2]) }},
	capExpress: {expDeviceCap + 4, detailExpress},
	capMSIX:    {msixSize, detailMSIX},
}

var extCapDetails = map[uint16]detail{
	extCapSerial: {12, detailSerial},
	extCapVendor: {8, func(b []byte) string {
		w := binary.LittleEndian.Uint32(b[4:])
		return fmt.Sprintf("id %04x, revision %d, %d bytes", uint16(w), w>>16&15, w>>20)
	}},
	extCapDVSEC: {10, func(b []byte) string {
		w := binary.LittleEndian.Uint32(b[4:])
		return fmt.Sprintf("vendor %04x, id %04x, revision %d, %d bytes", uint16(w), binary.LittleEndian.Uint16(b[8:]), w>>16&15, w>>20)
	}},
	extCapAER: {aerSize, func(b []byte) string {
		return fmt.Sprintf("uncorrectable errors %08x, correctable %08x",
			binary.LittleEndian.Uint32(b[aerUncorrectable:]), binary.LittleEndian.Uint32(b[aerCorrectable:]))
	}},
	extCapARI: {8, func(b []byte) string { return fmt.Sprintf("next function %d", b[5]) }},
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func detailPM(b []byte) string {
	pmc, control := binary.LittleEndian.Uint16(b[pmPMC:]), binary.LittleEndian.Uint16(b[pmControl:])
	states := "D0"
	if pmc&pmCapD1 != 0 {
		states += " D1"
	}
	if pmc&pmCapD2 != 0 {
		states += " D2"
	}
	return fmt.Sprintf("version %d, in D%d of %s D3hot", pmc&7, control&pmStateMask, states)
}

func detailMSI(b []byte) string {
	control := binary.LittleEndian.Uint16(b[msiControl:])
	width := 32
	if control&msi64 != 0 {
		width = 64
	}
	text := fmt.Sprintf("%s, %d of %d vectors, %d bits", onOff(control&msiEnable != 0),
		1<<(control>>msiEnabledLog&7), 1<<(control>>msiCapable&7), width)
	if control&msiMaskable != 0 {
		text += ", maskable"
	}
	return text
}

func detailMSIX(b []byte) string {
	control := binary.LittleEndian.Uint16(b[msixControl:])
	table, pba := binary.LittleEndian.Uint32(b[msixTable:]), binary.LittleEndian.Uint32(b[msixPBA:])
	text := onOff(control&msixEnable != 0)
	if control&msixFunctionMask != 0 {
		text += ", all masked"
	}
	return fmt.Sprintf("%s, %d vectors, table in BAR %d at %#x, pending bits in BAR %d at %#x", text,
		control&(maxMSIX-1)+1, table&7, table&^7, pba&7, pba&^7)
}

// expressTypes are the device and port types (7.5.3.2).
var expressTypes = map[uint16]string{
	0: "endpoint", 1: "legacy endpoint", 4: "root port", 5: "upstream port", 6: "downstream port",
	7: "bridge to PCI", 8: "bridge from PCI", 9: "root complex integrated endpoint", 10: "root complex event collector",
}

var linkSpeeds = [...]string{1: "2.5 GT/s", "5 GT/s", "8 GT/s", "16 GT/s", "32 GT/s", "64 GT/s"}

func detailExpress(b []byte) string {
	flags := binary.LittleEndian.Uint16(b[expFlags:])
	kind, ok := expressTypes[flags>>expType&15]
	if !ok {
		kind = fmt.Sprintf("type %d", flags>>expType&15)
	}
	text := fmt.Sprintf("version %d, %s", flags&15, kind)
	if len(b) >= expLinkCap+4 {
		if link := binary.LittleEndian.Uint32(b[expLinkCap:]); link>>4&0x3f != 0 {
			speed := fmt.Sprintf("speed %d", link&15)
			if int(link&15) < len(linkSpeeds) && link&15 != 0 {
				speed = linkSpeeds[link&15]
			}
			text += fmt.Sprintf(", %s x%d", speed, link>>4&0x3f)
		}
	}
	if binary.LittleEndian.Uint32(b[expDeviceCap:])&devCapFLR != 0 {
		text += ", function level reset"
	}
	return text
}

func detailSerial(b []byte) string {
	var parts []string
	for i := 11; i >= 4; i-- {
		parts = append(parts, fmt.Sprintf("%02x", b[i]))
	}
	return strings.Join(parts, "-")
}
