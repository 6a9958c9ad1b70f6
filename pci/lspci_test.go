package pci

import (
	"testing"

	"vfiouser/test/lspci"
)

func TestLspciDecodesTheNVMeSpace(t *testing.T) {
	s := newNVMe(t)
	lspci.Compare(t, "testdata/nvme.decoded", lspci.Decode(t, []byte(dump(t, s))))
}

// The function that libvfio-user's sample for lspci describes, made with our builders: a
// function without ids, with power management, a vendor's capability of 16 bytes, PCI
// Express with function level reset, a serial number, and two vendor-specific extended
// capabilities, the second at a place of its own.
func TestLspciDecodesTheSampleOfLibvfioUser(t *testing.T) {
	s := newSpace(t, Config{Express: true})
	add := added(t)
	add(s.AddPM(PM{}))
	add(s.AddVendor(append([]byte("abcdefgh"), make([]byte, 5)...)))
	add(s.AddExpress(Express{FLR: true}))
	add(s.AddSerial(0xcafebabe_deadbeef))
	add(s.AddVendorExtended(VendorExtended{ID: 1, Revision: 1, Data: make([]byte, 13)}))
	add(s.Place(0x400).AddVendorExtended(VendorExtended{ID: 2, Revision: 2, Data: make([]byte, 13)}))
	lspci.Compare(t, "testdata/sample.decoded", lspci.Decode(t, AppendDump(nil, "bogus PCI device", bytesAt(t, s, 0, s.Size()))))
}

// Every builder, and registers as a guest's driver has set them up.
func TestLspciDecodesEverything(t *testing.T) {
	s := newSpace(t, Config{Vendor: 0x1af4, Device: 0x1041, Class: 0x020000, InterruptPin: 2, Express: true, ROMSize: 128 << 10,
		BARs: [NumBARs]BAR{{Size: 64 << 10, Type: Mem64, Prefetch: true}, {}, {Size: 32, Type: IO}, {Size: 8 << 10}}})
	add := added(t)
	pm := add(s.Place(0xe0).AddPM(PM{D1: true, D2: true, PME: PMED0 | PMED3hot | PMED3cold, SoftReset: true}))
	msi := add(s.AddMSI(MSI{Vectors: 4, Address32: true, Maskable: true}))
	msix := add(s.AddMSIX(MSIX{Vectors: 33, TableBAR: 3, PBABAR: 3, PBAOffset: 0x1000}))
	add(s.AddExpress(Express{Type: RootComplexIntegrated}))
	add(s.AddRaw(RawCapability{ID: 0x0d, Data: []byte{0, 0, 0xf4, 0x1a, 0x34, 0x12}}))
	aer := add(s.AddAER())
	add(s.AddARI(5))
	ltr := add(s.AddLTR())
	add(s.AddDVSEC(DVSEC{Vendor: 0x1e98, ID: 0x8, Revision: 1, Data: make([]byte, 6)}))
	add(s.AddRawExtended(RawExtended{ID: 0x10, Version: 1, Data: make([]byte, 0x3c)}))

	for _, w := range []struct {
		off, n int
		v      uint32
	}{
		{0x04, 2, 0x0507}, {0x10, 4, 0xc0000000}, {0x14, 4, 0x20}, {0x18, 4, 0xe000}, {0x1c, 4, 0xfebf0000},
		{0x30, 4, 0xfe000001}, {0x3c, 1, 10}, {pm + 4, 2, 0x0102},
		{msi + 2, 2, 0x0021}, {msi + 4, 4, 0xfee01000}, {msi + 8, 2, 0x4041}, {msi + 12, 4, 0x5},
		{msix + 2, 2, 0xc000}, {ltr + 4, 4, 0x10010c02},
	} {
		write(t, s, w.off, w.n, w.v)
	}
	s.SetMSIPending(4)
	s.SetInterruptStatus(true)
	if err := s.Set(aer+6, []byte{0x10}); err != nil {
		t.Fatal(err)
	}
	lspci.Compare(t, "testdata/everything.decoded", lspci.Decode(t, AppendDump(nil, "Ethernet controller", bytesAt(t, s, 0, s.Size()))))
}
