package pci

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// newNVMe is the configuration space of a typical NVMe controller.
func newNVMe(t testing.TB) *Space {
	t.Helper()
	s := newSpace(t, Config{
		Vendor: 0x1b36, Device: 0x0010, SubVendor: 0x1af4, SubDevice: 0x1100,
		Class: 0x010802, Revision: 2, InterruptPin: 1, Express: true,
		BARs: [NumBARs]BAR{
			0: {Size: 16 << 10, Type: Mem64},
			4: {Size: 4 << 10, Type: Mem32},
			5: {Size: 4 << 10, Type: Mem32},
		},
	})
	add := added(t)
	add(s.AddPM(PM{}))
	add(s.AddMSI(MSI{Vectors: 32, Maskable: true}))
	add(s.AddMSIX(MSIX{Vectors: 65, TableBAR: 4, PBABAR: 5}))
	add(s.AddExpress(Express{FLR: true}))
	add(s.AddVendor([]byte("vfiouser")))
	add(s.AddSerial(0x0011_22ff_ff33_4455))
	return s
}

func newSpace(t testing.TB, c Config) *Space {
	t.Helper()
	s, err := NewSpace(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// added takes what a builder returns, which must be no error.
func added(t testing.TB) func(off int, err error) int {
	return func(off int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return off
	}
}

func dump(t testing.TB, s *Space) string {
	t.Helper()
	return string(AppendDump(nil, "Non-Volatile memory controller", bytesAt(t, s, 0, s.Size())))
}

func TestGoldenNVMeSpace(t *testing.T) {
	const file = "testdata/nvme.lspci"
	got := dump(t, newNVMe(t))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("configuration space differs from %s:\n%s", file, got)
	}
}
