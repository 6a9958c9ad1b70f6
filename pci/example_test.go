package pci_test

import (
	"fmt"

	"vfiouser/pci"
)

// A function with one BAR of 16 KiB and nine MSI-X vectors; the guest sizes the BAR and
// switches bus mastering on.
func Example() {
	s, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x0010, Class: 0x010802, Express: true,
		BARs: [pci.NumBARs]pci.BAR{
			0: {Size: 16 << 10, Type: pci.Mem64},
			4: {Size: 4 << 10},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	msix, err := s.AddMSIX(pci.MSIX{Vectors: 9, TableBAR: 4, PBABAR: 4, PBAOffset: 0x800})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("MSI-X at %#x\n", msix)

	bar := []byte{0xff, 0xff, 0xff, 0xff}
	if _, err := s.Write(0x10, bar); err != nil {
		fmt.Println(err)
	}
	if err := s.Read(0x10, bar); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("BAR 0 reads % x\n", bar)

	changed, err := s.Write(0x04, []byte{0x06, 0x04})
	fmt.Println(changed == pci.ChangedCommand, s.Command().BusMaster(), err)
	// Output:
	// MSI-X at 0x40
	// BAR 0 reads 04 c0 ff ff
	// true true <nil>
}

// A configuration space that comes from anywhere is decoded, and printed for lspci.
func ExampleWalk() {
	s, err := pci.NewSpace(pci.Config{Vendor: 0x1af4, Device: 0x1041, Class: 0x020000, Express: true})
	if err == nil {
		_, err = s.AddPM(pci.PM{})
	}
	if err == nil {
		_, err = s.Place(0x80).AddMSI(pci.MSI{Vectors: 4})
	}
	if err == nil {
		_, err = s.AddSerial(0x0011_22ff_ff33_4455)
	}
	space := make([]byte, s.Size())
	if err == nil {
		err = s.Read(0, space)
	}
	if err != nil {
		fmt.Println(err)
		return
	}

	list, err := pci.Walk(space)
	for _, c := range list {
		fmt.Printf("%x %s: %s\n", c.Offset, c.Name(), c.Detail(space))
	}
	fmt.Println(err)
	fmt.Printf("%.63s\n", pci.AppendDump(nil, pci.ClassName(0x020000), space))

	// Output:
	// 40 Power Management: version 3, in D0 of D0 D3hot
	// 80 MSI: off, 1 of 4 vectors, 64 bits
	// 100 Device Serial Number: 00-11-22-ff-ff-33-44-55
	// <nil>
	// 00:00.0 Ethernet controller
	// 00: f4 1a 41 10 00 00 10 00 00 00 0
}
