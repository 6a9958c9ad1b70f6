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
