package dma

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// fill maps n regions of one page, a page apart, and gives the space they take.
func fill(b *testing.B, tab *Table, n int) uint64 {
	file := newFile(b, int64(n)*page)
	for i := range uint64(n) {
		must(b, tab.Map(Mapping{IOVA: i * 2 * page, Size: page, Offset: i * page, Prot: rw, FD: dup(b, file)}))
	}
	return uint64(n) * 2 * page
}

func BenchmarkTranslate(b *testing.B) {
	for _, n := range []int{1, 100, 65535} {
		tab := newTable(b, Config{})
		fill(b, tab, n)
		r := newReader(b, tab)
		rng := rand.New(rand.NewPCG(1, 1))
		var random, local [1 << 16]uint64
		for i := range random {
			random[i] = rng.Uint64N(uint64(n)) * 2 * page
			local[i] = uint64(n/2)*2*page + rng.Uint64N(page/64)*64
		}
		for name, where := range map[string]*[1 << 16]uint64{"random": &random, "local": &local} {
			b.Run(fmt.Sprintf("regions=%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				r.Enter()
				defer r.Exit()
				i := 0
				for b.Loop() {
					if _, err := r.Bytes(where[i&0xffff], 64, ProtRead); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

func BenchmarkMapUnmap(b *testing.B) {
	for _, n := range []int{0, 100, 65533} {
		tab := newTable(b, Config{})
		end := fill(b, tab, max(n, 1)) // one always, so that the file stays mapped
		file := newFile(b, page)
		must(b, tab.Map(Mapping{IOVA: end, Size: page, Prot: rw, FD: dup(b, file)}))
		for _, kind := range []string{"message", "shared", "mmap"} {
			b.Run(fmt.Sprintf("regions=%d/%s", n, kind), func(b *testing.B) {
				fresh := newFile(b, page)
				for b.Loop() {
					m := Mapping{IOVA: page, Size: page, Prot: rw, FD: -1}
					switch kind {
					case "shared":
						m.FD = dup(b, file)
					case "mmap":
						m.FD = dup(b, fresh)
					}
					must(b, tab.Map(m))
					must(b, tab.Unmap(page, page, nil))
				}
			})
		}
	}
}

// BenchmarkMapAll is a client that maps as much as the protocol lets it.
func BenchmarkMapAll(b *testing.B) {
	for b.Loop() {
		tab := newTable(b, Config{})
		fill(b, tab, 65535)
	}
}

func BenchmarkEnterExit(b *testing.B) {
	tab := newTable(b, Config{})
	r := newReader(b, tab)
	for b.Loop() {
		r.Enter()
		r.Exit()
	}
}

func BenchmarkPin(b *testing.B) {
	tab := newTable(b, Config{})
	fill(b, tab, 1)
	r := newReader(b, tab)
	r.Enter()
	defer r.Exit()
	for b.Loop() {
		_, pin, err := r.Pin(0, 64, rw)
		if err != nil {
			b.Fatal(err)
		}
		pin.Release()
	}
}

var sink uint64

func BenchmarkAccess(b *testing.B) {
	mem, _ := sharedPage(b)
	var entry [64]byte
	for _, tc := range []struct {
		name string
		f    func(off int)
	}{
		{"CopyIn64", func(off int) { CopyIn64(&entry, mem[off:]) }},
		{"Publish16", func(off int) { Publish16(mem[off:], 1, 2) }},
		{"Load16", func(off int) { sink += uint64(Load16(mem, off)) }},
		{"Load32", func(off int) { sink += uint64(Load32(mem, off)) }},
		{"Load64", func(off int) { sink += Load64(mem, off) }},
		{"StoreRelease32", func(off int) { StoreRelease32(mem, off, 1) }},
		{"Store32", func(off int) { Store32(mem, off, 1) }},
		{"Store16", func(off int) { Store16(mem, off, 1) }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				tc.f(i & 0x3f * 16)
				i++
			}
		})
	}
}

// BenchmarkWriteSection is a section with one translation for writing, with and without
// a log.
func BenchmarkWriteSection(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("logging=%v", on), func(b *testing.B) {
			b.ReportAllocs()
			tab := newTable(b, Config{})
			fill(b, tab, 1)
			if on {
				logging(b, tab)
			}
			r := newReader(b, tab)
			for b.Loop() {
				r.Enter()
				if _, err := r.Bytes(0, 64, rw); err != nil {
					b.Fatal(err)
				}
				r.Exit()
			}
		})
	}
}

// BenchmarkReportDirty reports 32 GiB in pages of 4 KiB, the most that fits into a
// message of 1 MiB, of which every page or every other page was written.
func BenchmarkReportDirty(b *testing.B) {
	const pages = 8 << 20
	for name, step := range map[string]uint64{"all": 1, "half": 2, "none": pages} {
		for _, size := range []uint64{page, 2 * page} {
			b.Run(fmt.Sprintf("%s/page=%d", name, size), func(b *testing.B) {
				tab := newTable(b, Config{})
				logging(b, tab)
				bitmap := make([]uint64, pages/64)
				for b.Loop() {
					b.StopTimer()
					switch step {
					case 1:
						tab.MarkDirty(0, pages*page)
					case 2:
						for p := uint64(0); p < pages; p += step {
							tab.MarkDirty(p*page, 1)
						}
					}
					b.StartTimer()
					if err := tab.ReportDirty(Range{0, pages * page}, size, bitmap); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
