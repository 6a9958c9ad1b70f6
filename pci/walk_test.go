package pci

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// space makes bytes that are 0 but for what is given by offset; a value of more than a
// byte is little-endian.
func space(size int, values map[int]uint32) []byte {
	b := make([]byte, size)
	for off, v := range values {
		for ; v != 0; v, off = v>>8, off+1 {
			b[off] = byte(v)
		}
	}
	return b
}

func TestWalkOfOwnSpaces(t *testing.T) {
	var got []string
	for _, c := range newNVMe(t).Capabilities() {
		got = append(got, fmt.Sprintf("%x %s", c.Offset, c.Name()))
	}
	want := []string{"40 Power Management", "48 MSI", "60 MSI-X", "6c PCI Express", "a8 Vendor-Specific", "100 Device Serial Number"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if list := newSpace(t, Config{Express: true}).Capabilities(); list != nil {
		t.Errorf("%v in a function without capabilities", list)
	}
}

func TestWalkOfHostileBytes(t *testing.T) {
	const status, first = 0x06, 0x34
	for _, tt := range []struct {
		name  string
		bytes []byte
		found []int // offsets
		says  string
	}{
		{"nothing", nil, nil, "no header"},
		{"less than a header", make([]byte, 63), nil, "no header"},
		{"zeroes", make([]byte, 4096), nil, ""},
		{"ones", slices.Repeat([]byte{0xff}, 4096), nil, "does not answer"},
		{"list without the status bit", space(256, map[int]uint32{first: 0x40, 0x40: 1}), nil, ""},
		{"empty list", space(256, map[int]uint32{status: 0x10}), nil, ""},
		{"one that leads to itself", space(256, map[int]uint32{status: 0x10, first: 0x40, 0x40: 0x4001}), []int{0x40}, "back to 0x40"},
		{"two that lead to each other", space(256, map[int]uint32{status: 0x10, first: 0x40, 0x40: 0x5001, 0x50: 0x4002}), []int{0x40, 0x50}, "back to 0x40"},
		{"low bits of a link", space(256, map[int]uint32{status: 0x10, first: 0x43, 0x40: 0x5201, 0x50: 2}), []int{0x40, 0x50}, ""},
		{"into the header", space(256, map[int]uint32{status: 0x10, first: 0x3c}), nil, "leads to 0x3c"},
		{"behind a short space", space(64, map[int]uint32{status: 0x10, first: 0x40}), nil, "leads to 0x40"},
		{"at the very end", space(256, map[int]uint32{status: 0x10, first: 0xfc, 0xfc: 9}), []int{0xfc}, ""},
		{"id of ones", space(256, map[int]uint32{status: 0x10, first: 0x40, 0x40: 0x5001, 0x50: 0x60ff}), []int{0x40}, "id reads ff"},
		{"of a CardBus bridge", space(256, map[int]uint32{status: 0x10, 0x0e: 0x82, 0x14: 0x40, first: 0x80, 0x40: 1}), []int{0x40}, ""},
		{"extended, of ones", space(4096, map[int]uint32{0x100: 0xffffffff}), nil, ""},
		{"extended, cut", space(0x102, map[int]uint32{0x100: 3}), nil, ""},
		{"extended, to itself", space(4096, map[int]uint32{0x100: 0x10010003}), []int{0x100}, "back to 0x100"},
		{"extended, round", space(4096, map[int]uint32{0x100: 0x20010003, 0x200: 0x10010001}), []int{0x100, 0x200}, "back to 0x100"},
		{"extended, into the standard space", space(4096, map[int]uint32{0x100: 0x04010003}), []int{0x100}, "leads to 0x40"},
		{"extended, behind the end", space(512, map[int]uint32{0x100: 0x80010003}), []int{0x100}, "leads to 0x800"},
		{"extended, the last word", space(4096, map[int]uint32{0x100: 0xffc10003, 0xffc: 1}), []int{0x100, 0xffc}, ""},
		{"both, the first broken", space(4096, map[int]uint32{status: 0x10, first: 0x40, 0x40: 0x4001, 0x100: 3}), []int{0x40, 0x100}, "back to 0x40"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := Walk(tt.bytes)
			var found []int
			for _, c := range list {
				found = append(found, c.Offset)
			}
			if !slices.Equal(found, tt.found) {
				t.Errorf("found %#x, want %#x", found, tt.found)
			}
			switch {
			case tt.says == "" && err != nil:
				t.Error(err)
			case tt.says == "":
			case !errors.Is(err, ErrChain) || !errors.Is(err, syscall.EBADMSG) || !strings.Contains(err.Error(), tt.says):
				t.Errorf("got %v, want ErrChain that says %q", err, tt.says)
			}
		})
	}
}

func TestCapabilityNames(t *testing.T) {
	for _, tt := range []struct {
		c    Capability
		want string
	}{
		{Capability{ID: 0x05}, "MSI"},
		{Capability{ID: 0x15}, "Flattening Portal Bridge"},
		{Capability{ID: 0x16}, "Capability 0x16"},
		{Capability{ID: 0x05, Extended: true}, "Root Complex Link Declaration"},
		{Capability{ID: 0x14, Extended: true}, "Capability 0x14"},
		{Capability{ID: 0xffff, Extended: true}, "Capability 0xffff"},
	} {
		if got := tt.c.Name(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.c, got, tt.want)
		}
	}
}

func TestClassNames(t *testing.T) {
	for class, want := range map[uint32]string{
		0x010802: "Non-Volatile memory controller (NVM Express)",
		0x0108ff: "Non-Volatile memory controller",
		0x018000: "Mass storage controller",
		0x020000: "Ethernet controller",
		0xff0000: "Unassigned class",
		0x550102: "Class 550102",
	} {
		if got := ClassName(class); got != want {
			t.Errorf("%06x: %q, want %q", class, got, want)
		}
	}
}

func TestCapabilityDetails(t *testing.T) {
	s := newSpace(t, Config{Express: true, BARs: [NumBARs]BAR{2: {Size: 4096}}})
	add := added(t)
	add(s.AddPM(PM{D1: true}))
	add(s.AddMSI(MSI{Vectors: 8, Maskable: true}))
	add(s.AddMSIX(MSIX{Vectors: 17, TableBAR: 2, PBABAR: 2, PBAOffset: 0x800}))
	add(s.AddExpress(Express{FLR: true, Lanes: 16}))
	add(s.AddVendor([]byte("four")))
	add(s.AddRaw(RawCapability{ID: 3, Data: make([]byte, 6)}))
	add(s.AddSerial(0x0011_22ff_ff33_4455))
	add(s.AddAER())
	add(s.AddARI(3))
	add(s.AddVendorExtended(VendorExtended{ID: 0xabc, Revision: 2}))
	add(s.AddDVSEC(DVSEC{Vendor: 0x1e98, ID: 8, Revision: 1}))
	write(t, s, s.pm+pmControl, 2, 3)
	write(t, s, s.msi+msiControl, 2, 1|2<<4)
	write(t, s, s.msix+msixControl, 2, 0xc000)
	b := bytesAt(t, s, 0, s.Size())
	var got []string
	for _, c := range s.Capabilities() {
		got = append(got, c.Name()+": "+c.Detail(b))
		if c.Detail(b[:min(c.Offset+2, 0xfe)]) != "" {
			t.Errorf("%s: a detail of bytes that are cut", c.Name())
		}
	}
	want := []string{
		"Power Management: version 3, in D3 of D0 D1 D3hot",
		"MSI: on, 4 of 8 vectors, 64 bits, maskable",
		"MSI-X: on, all masked, 17 vectors, table in BAR 2 at 0x0, pending bits in BAR 2 at 0x800",
		"PCI Express: version 2, endpoint, 8 GT/s x16, function level reset",
		"Vendor-Specific: 7 bytes",
		"Vital Product Data: ",
		"Device Serial Number: 00-11-22-ff-ff-33-44-55",
		"Advanced Error Reporting: uncorrectable errors 00000000, correctable 00000000",
		"Alternative Routing-ID: next function 3",
		"Vendor-Specific: id 0abc, revision 2, 8 bytes",
		"Designated Vendor-Specific: vendor 1e98, id 0008, revision 1, 10 bytes",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	unknown := space(256, map[int]uint32{0x40: 0x00e20010, 0x4c: 0x7f})
	if got := (Capability{Offset: 0x40, ID: 0x10}).Detail(unknown); got != "version 2, type 14, speed 15 x7" {
		t.Errorf("unknown type and speed: %q", got)
	}
	for _, off := range []int{-1, 4097} {
		if got := (Capability{Offset: off, ID: 5}).Detail(b); got != "" {
			t.Errorf("at %d: %q", off, got)
		}
	}
}

func TestDecodeHeader(t *testing.T) {
	s := newSpace(t, Config{Vendor: 0x1b36, Device: 0x10, SubVendor: 0x1af4, SubDevice: 0x1100, Class: 0x010802, Revision: 2,
		InterruptPin: 1, ROMSize: 65536, BARs: [NumBARs]BAR{
			{Size: 16 << 10, Type: Mem64, Prefetch: true}, {}, {Size: 32, Type: IO}, {Size: 4096},
		}})
	for off, v := range map[int]uint32{0x04: 0x0406, 0x10: 0xfebf4000, 0x14: 0x38, 0x18: 0xc000, 0x1c: 0xfe000000, 0x30: 0xfd000001, 0x3c: 11} {
		write(t, s, off, 4, v)
	}
	got, err := DecodeHeader(bytesAt(t, s, 0, 256))
	if err != nil {
		t.Fatal(err)
	}
	want := Header{Vendor: 0x1b36, Device: 0x10, SubVendor: 0x1af4, SubDevice: 0x1100, Class: 0x010802, Revision: 2,
		Command: 0x0406, InterruptLine: 11, InterruptPin: 1, ROM: 0xfd000000, ROMEnable: true,
		BARs: [NumBARs]BaseAddress{
			{Address: 0x38_febf4000, Type: Mem64, Prefetch: true}, {Upper: true}, {Address: 0xc000, Type: IO}, {Address: 0xfe000000},
		}}
	if got.Command &= 0x0406; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	bridge := space(64, map[int]uint32{0x0e: 0x81, 0x10: 0xffffffff, 0x3d: 1})
	if h, err := DecodeHeader(bridge); err != nil || h != (Header{Type: 1, MultiFunction: true}) {
		t.Errorf("bridge: %+v, %v", h, err)
	}
	last := space(64, map[int]uint32{0x24: 0x00000004})
	if h, err := DecodeHeader(last); err != nil || h.BARs[5] != (BaseAddress{}) {
		t.Errorf("64 bits in the last register: %+v, %v", h.BARs[5], err)
	}
	if _, err := DecodeHeader(make([]byte, 63)); !errors.Is(err, ErrRange) {
		t.Errorf("too short: %v", err)
	}
}
