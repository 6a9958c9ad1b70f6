package pci

import "fmt"

// Names of capabilities ("PCI Code and ID Assignment Specification", 2 and 3).
var capNames = [...]string{
	0x00: "Null",
	0x01: "Power Management",
	0x02: "AGP",
	0x03: "Vital Product Data",
	0x04: "Slot Identification",
	0x05: "MSI",
	0x06: "CompactPCI Hot Swap",
	0x07: "PCI-X",
	0x08: "HyperTransport",
	0x09: "Vendor-Specific",
	0x0a: "Debug Port",
	0x0b: "CompactPCI Central Resource Control",
	0x0c: "PCI Hot-Plug",
	0x0d: "Bridge Subsystem ID",
	0x0e: "AGP 8x",
	0x0f: "Secure Device",
	0x10: "PCI Express",
	0x11: "MSI-X",
	0x12: "SATA Configuration",
	0x13: "Advanced Features",
	0x14: "Enhanced Allocation",
	0x15: "Flattening Portal Bridge",
}

var extCapNames = [...]string{
	0x00: "Null",
	0x01: "Advanced Error Reporting",
	0x02: "Virtual Channel",
	0x03: "Device Serial Number",
	0x04: "Power Budgeting",
	0x05: "Root Complex Link Declaration",
	0x06: "Root Complex Internal Link Control",
	0x07: "Root Complex Event Collector",
	0x08: "Multi-Function Virtual Channel",
	0x09: "Virtual Channel",
	0x0a: "RCRB Header",
	0x0b: "Vendor-Specific",
	0x0c: "Configuration Access Correlation",
	0x0d: "Access Control Services",
	0x0e: "Alternative Routing-ID",
	0x0f: "Address Translation Services",
	0x10: "SR-IOV",
	0x11: "MR-IOV",
	0x12: "Multicast",
	0x13: "Page Request Interface",
	0x15: "Resizable BAR",
	0x16: "Dynamic Power Allocation",
	0x17: "TPH Requester",
	0x18: "Latency Tolerance Reporting",
	0x19: "Secondary PCI Express",
	0x1a: "Protocol Multiplexing",
	0x1b: "PASID",
	0x1c: "LN Requester",
	0x1d: "Downstream Port Containment",
	0x1e: "L1 PM Substates",
	0x1f: "Precision Time Measurement",
	0x20: "M-PCIe",
	0x21: "FRS Queueing",
	0x22: "Readiness Time Reporting",
	0x23: "Designated Vendor-Specific",
	0x24: "VF Resizable BAR",
	0x25: "Data Link Feature",
	0x26: "Physical Layer 16 GT/s",
	0x27: "Lane Margining",
	0x28: "Hierarchy ID",
	0x29: "Native PCIe Enclosure Management",
	0x2a: "Physical Layer 32 GT/s",
	0x2b: "Alternate Protocol",
	0x2c: "System Firmware Intermediary",
	0x2d: "Shadow Functions",
	0x2e: "Data Object Exchange",
	0x2f: "Device 3",
	0x30: "Integrity and Data Encryption",
	0x31: "Physical Layer 64 GT/s",
	0x32: "Flit Logging",
	0x33: "Flit Performance Measurement",
	0x34: "Flit Error Injection",
}

// Name is the capability's name, or its id if it has none here.
func (c Capability) Name() string {
	names := capNames[:]
	if c.Extended {
		names = extCapNames[:]
	}
	if int(c.ID) < len(names) && names[c.ID] != "" {
		return names[c.ID]
	}
	return fmt.Sprintf("Capability %#02x", c.ID)
}

// className is a base class with the sub-classes and programming interfaces that devices
// over vfio-user have or are likely to have.
type className struct {
	name       string
	subclasses map[uint8]string
	interfaces map[uint16]string // by sub-class and interface
}

var classNames = map[uint8]className{
	0x00: {name: "Unclassified device", subclasses: map[uint8]string{1: "VGA compatible unclassified device"}},
	0x01: {name: "Mass storage controller", subclasses: map[uint8]string{
		0x00: "SCSI storage controller", 0x01: "IDE interface", 0x02: "Floppy disk controller", 0x04: "RAID bus controller",
		0x05: "ATA controller", 0x06: "SATA controller", 0x07: "Serial Attached SCSI controller",
		0x08: "Non-Volatile memory controller", 0x09: "Universal Flash Storage controller",
	}, interfaces: map[uint16]string{0x0601: "AHCI", 0x0801: "NVMHCI", 0x0802: "NVM Express", 0x0803: "NVM Express administrative"}},
	0x02: {name: "Network controller", subclasses: map[uint8]string{
		0x00: "Ethernet controller", 0x07: "InfiniBand controller", 0x08: "Fabric controller",
	}},
	0x03: {name: "Display controller", subclasses: map[uint8]string{0x00: "VGA compatible controller", 0x02: "3D controller"}},
	0x04: {name: "Multimedia controller", subclasses: map[uint8]string{
		0x00: "Multimedia video controller", 0x01: "Multimedia audio controller", 0x03: "Audio device",
	}},
	0x05: {name: "Memory controller", subclasses: map[uint8]string{0x00: "RAM memory", 0x01: "FLASH memory", 0x02: "CXL memory device"}},
	0x06: {name: "Bridge", subclasses: map[uint8]string{0x00: "Host bridge", 0x01: "ISA bridge", 0x04: "PCI bridge"}},
	0x07: {name: "Communication controller", subclasses: map[uint8]string{
		0x00: "Serial controller", 0x01: "Parallel controller", 0x02: "Multiport serial controller", 0x03: "Modem",
	}},
	0x08: {name: "Generic system peripheral", subclasses: map[uint8]string{
		0x00: "PIC", 0x01: "DMA controller", 0x02: "Timer", 0x03: "RTC", 0x05: "SD Host controller", 0x06: "IOMMU",
	}},
	0x09: {name: "Input device controller"},
	0x0a: {name: "Docking station"},
	0x0b: {name: "Processor"},
	0x0c: {name: "Serial bus controller", subclasses: map[uint8]string{
		0x03: "USB controller", 0x04: "Fibre Channel", 0x05: "SMBus", 0x07: "IPMI interface",
	}, interfaces: map[uint16]string{0x0300: "UHCI", 0x0310: "OHCI", 0x0320: "EHCI", 0x0330: "XHCI", 0x0340: "USB4", 0x03fe: "USB device"}},
	0x0d: {name: "Wireless controller"},
	0x0e: {name: "Intelligent controller"},
	0x0f: {name: "Satellite communications controller"},
	0x10: {name: "Encryption controller"},
	0x11: {name: "Signal processing controller"},
	0x12: {name: "Processing accelerator"},
	0x13: {name: "Non-Essential Instrumentation"},
	0x40: {name: "Coprocessor"},
	0xff: {name: "Unassigned class"},
}

// ClassName says in words what a class code of 24 bits means, as far as it is known here.
func ClassName(class uint32) string {
	base, ok := classNames[uint8(class>>16)]
	if !ok {
		return fmt.Sprintf("Class %06x", class&0xffffff)
	}
	name := base.name
	if sub, ok := base.subclasses[uint8(class>>8)]; ok {
		name = sub
	}
	if iface, ok := base.interfaces[uint16(class)]; ok {
		name += " (" + iface + ")"
	}
	return name
}
