package pci

import (
	"flag"
	"fmt"
	"os"
	"strings"
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

// dump writes a space as lspci -xxxx does; `lspci -F FILE -vvv` reads it back.
func dump(t testing.TB, s *Space) string {
	t.Helper()
	p := make([]byte, s.Size())
	if err := s.Read(0, p); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("00:00.0 Non-Volatile memory controller\n")
	for i := 0; i < len(p); i += 16 {
		fmt.Fprintf(&b, "%02x: % x\n", i, p[i:i+16])
	}
	return b.String()
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
