package pci

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"vfiouser/fuzz/choice"
)

// FuzzWalk: bytes of a stranger lead neither out of the space nor round for ever, and everything
// is found that a plain reading of them finds.
//
//fuzz:covers pci/walk.go pci/header.go pci/detail.go pci/names.go pci/dump.go
func FuzzWalk(f *testing.F) {
	nvme := bytesAt(f, newNVMe(f), 0, ExpressSpaceSize)
	f.Add(nvme)
	f.Add(nvme[:256])
	f.Add(nvme[:0x102])
	f.Add(space(256, map[int]uint32{0x06: 0x10, 0x34: 0x40, 0x40: 0x4001}))
	f.Add(space(4096, map[int]uint32{0x100: 0x20010003, 0x200: 0x10010001}))
	f.Fuzz(func(t *testing.T, b []byte) { checkWalk(t, b[:min(len(b), 2*ExpressSpaceSize)]) })
}

// FuzzChains: the same with spaces that have lists of capabilities, which are right mostly.
//
//fuzz:covers pci/walk.go pci/header.go pci/detail.go pci/names.go pci/dump.go
func FuzzChains(f *testing.F) {
	choice.Fuzz(f, 150, 300, func(t *testing.T, s *choice.Source) { checkWalk(t, chained(s)) })
}

// chained is a space of any size with both lists. Links are right but for one in many.
func chained(s *choice.Source) []byte {
	b := make([]byte, ExpressSpaceSize)
	s.Fill(b[:headerSize])
	b[0x06], b[0x0e] = choice.Pick[byte](s, 0x10, 0x10, 0x10, 0), choice.Pick[byte](s, 0, 0x80, 1, 2, 0x7f, 0x82)
	ids := []uint16{1, 5, 9, 0x10, 0x11, 3, 0xb, 0x23, 0x0e, 0x18, 0xff, 0xffff, 0}
	link := 0x34
	if b[0x0e]&0x7f == 2 {
		link = 0x14
	}
	visited := []int{0x40}
	for b[link] = 0; s.More() && !s.Odds(8); {
		off := 0x40 + 4*s.Intn(48)
		switch s.Intn(32) {
		case 29:
			off = choice.Pick(s, visited...)
		case 30:
			off = s.Intn(256)
		case 31:
			off |= 3
		}
		visited = append(visited, off)
		b[link] = byte(off)
		off &^= 3
		s.Fill(b[off : off+16])
		b[off], b[off+1] = byte(choice.Pick(s, ids...)), 0
		link = off + 1
	}
	visited = visited[:0]
	for at := 0x100; s.More() && !s.Odds(8); {
		visited = append(visited, at)
		next := 0x100 + 4*s.Intn(0x3c0)
		switch s.Intn(32) {
		case 30:
			next = choice.Pick(s, visited...)
		case 31:
			next = s.Intn(4096)
		}
		s.Fill(b[at : at+16])
		id, version := choice.Pick(s, ids...), uint32(s.Intn(16))
		binary.LittleEndian.PutUint32(b[at:], uint32(id)|version<<16|uint32(next)<<20)
		if at = next &^ 3; at > 4080 {
			break
		}
	}
	last := 0x100
	if len(visited) > 0 {
		last = visited[len(visited)-1]
	}
	return b[:choice.Pick(s, 4096, 256, last+3, 4096, 0x103, last+4, s.Intn(4097))]
}

// checkWalk compares everything that reads a space with a plain reading of it.
func checkWalk(t *testing.T, b []byte) {
	t.Helper()
	before := slices.Clone(b)
	list, err := Walk(b)
	want, broken := chainsOf(b)
	if !slices.Equal(list, want) || errors.Is(err, ErrChain) != broken || (err != nil) != broken {
		t.Fatalf("found %+v, want %+v; %v, broken: %v", list, want, err, broken)
	}
	for _, c := range append(list, Capability{Offset: len(b) + 1, ID: 1}, Capability{Offset: -1, ID: 5}) {
		if c.Name() == "" || strings.ContainsAny(c.Detail(b), "\n%") {
			t.Fatalf("%+v %q %q", c, c.Name(), c.Detail(b))
		}
	}
	switch h, err := DecodeHeader(b); {
	case (err == nil) != (len(b) >= 64):
		t.Fatalf("header of %d bytes: %v", len(b), err)
	case err == nil && (h != headerOf(b) || ClassName(h.Class) == ""):
		t.Fatalf("header %+v, want %+v", h, headerOf(b))
	}
	checkDump(t, b)
	if !slices.Equal(b, before) {
		t.Fatal("the bytes were changed")
	}
}

// chainsOf follows the links of both lists, at most as often as there are words.
func chainsOf(b []byte) (list []Capability, broken bool) {
	if len(b) < 64 || b[0] == 0xff && b[1] == 0xff {
		return nil, true
	}
	seen := map[int]bool{}
	if b[6]&0x10 != 0 {
		link := 0x34
		if b[0x0e]&0x7f == 2 { // a CardBus bridge
			link = 0x14
		}
		for b[link] >= 4 {
			off := int(b[link] / 4 * 4)
			if off < 0x40 || off+2 > len(b) || seen[off] || b[off] == 0xff {
				broken = true
				break
			}
			seen[off], link = true, off+1
			list = append(list, Capability{Offset: off, ID: uint16(b[off])})
		}
	}
	if len(b) < 0x104 {
		return list, broken
	}
	first := binary.LittleEndian.Uint32(b[0x100:])
	for off := 0x100; first != 0 && first != 0xffffffff; {
		if off < 0x100 || off+4 > len(b) || seen[off] {
			return list, true
		}
		seen[off] = true
		list = append(list, Capability{Offset: off, ID: uint16(b[off]) | uint16(b[off+1])<<8, Extended: true, Version: b[off+2] % 16})
		if off = (int(b[off+2])>>4 | int(b[off+3])<<4) / 4 * 4; off == 0 {
			break
		}
	}
	return list, broken
}

// headerOf reads a header of at least 64 bytes.
func headerOf(b []byte) Header {
	number := func(off, n int) (v uint64) {
		for i := range n {
			v |= uint64(b[off+i]) << (8 * i)
		}
		return v
	}
	h := Header{Vendor: uint16(number(0, 2)), Device: uint16(number(2, 2)), Command: Command(number(4, 2)), Status: uint16(number(6, 2)),
		Revision: b[8], Class: uint32(number(9, 3)), Type: b[0x0e] % 128, MultiFunction: b[0x0e] >= 128}
	if h.Type != 0 {
		return h
	}
	h.SubVendor, h.SubDevice = uint16(number(0x2c, 2)), uint16(number(0x2e, 2))
	h.ROM, h.ROMEnable = uint32(number(0x30, 4)/2048*2048), b[0x30]%2 == 1
	h.InterruptLine, h.InterruptPin = b[0x3c], b[0x3d]
	for i := range h.BARs {
		low := number(0x10+4*i, 4)
		switch upper := i > 0 && h.BARs[i-1].Type == Mem64; {
		case upper:
			h.BARs[i].Upper = true
		case low%2 == 1:
			h.BARs[i] = BaseAddress{Address: low / 4 * 4, Type: IO}
		case low&4 != 0 && i < 5:
			h.BARs[i] = BaseAddress{Address: number(0x10+4*i, 8) / 16 * 16, Type: Mem64, Prefetch: low&8 != 0}
		default:
			h.BARs[i] = BaseAddress{Address: low / 16 * 16, Prefetch: low&8 != 0}
		}
	}
	return h
}

// checkDump reads a dump back. Its title may be anything.
func checkDump(t *testing.T, b []byte) {
	t.Helper()
	lines := strings.Split(string(AppendDump(nil, string(b), b)), "\n")
	if !strings.HasPrefix(lines[0], "00:00.0 ") || strings.ContainsAny(lines[0], "\r\x1b") {
		t.Fatalf("the first line is %q", lines[0])
	}
	var got []byte
	for i, line := range lines[1:] {
		if line == "" {
			break
		}
		at, text, _ := strings.Cut(line, ": ")
		part, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		offset, err2 := hex.DecodeString(strings.Repeat("0", 4-len(at)) + at)
		if err != nil || err2 != nil || len(part) > 16 || int(binary.BigEndian.Uint16(offset)) != 16*i {
			t.Fatalf("line %d is %q", i+1, line)
		}
		got = append(got, part...)
	}
	if !slices.Equal(got, b) {
		t.Fatalf("the dump has\n% x, want\n% x", got, b)
	}
}
