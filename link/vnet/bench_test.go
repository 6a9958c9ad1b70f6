package vnet_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"vfiouser/link/vnet"
)

func TestNoAllocationForAFrame(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 18))
	var s vnet.Scratch
	for _, can := range []vnet.Offloads{vnet.OffloadNone, vnet.OffloadChecksum, vnet.OffloadAll} {
		for _, size := range []int{0, 100, 1448} {
			data, h := recipe{payload: 60000}.frame(rnd)
			h.GSOSize = uint16(size)
			if size == 0 {
				h.GSOType = vnet.GSONone
			}
			f := vnet.Frame{Header: h, Parts: scatter(rnd, data), Len: len(data)}
			seen := 0
			allocs := testing.AllocsPerRun(20, func() {
				s.Lower(&f, can, func(frames []vnet.Frame) bool {
					seen += len(frames)
					return true
				})
			})
			if allocs != 0 || seen == 0 {
				t.Errorf("size %d, receiver %b: %v allocations, %d frames", size, can, allocs, seen)
			}
		}
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{64, 1448, 65536} {
		data := make([]byte, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				var s vnet.Sum
				s.Add(data)
			}
		})
	}
}

// What Sum is measured against.
func BenchmarkCopy(b *testing.B) {
	for _, n := range []int{1448, 65536} {
		from, to := make([]byte, n), make([]byte, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				copy(to, from)
			}
		})
	}
}

func BenchmarkLower(b *testing.B) {
	rnd := rand.New(rand.NewPCG(19, 20))
	for _, c := range []struct {
		name string
		size uint16
		can  vnet.Offloads
	}{
		{"64KiB as it is", 1448, vnet.OffloadAll},
		{"64KiB to 1448 without sums", 1448, vnet.OffloadChecksum},
		{"64KiB to 1448", 1448, vnet.OffloadNone},
		{"64KiB to 8948", 8948, vnet.OffloadNone},
		{"64KiB checksum", 0, vnet.OffloadNone},
	} {
		b.Run(c.name, func(b *testing.B) {
			data, h := recipe{payload: 65000}.frame(rnd)
			if h.GSOSize = c.size; c.size == 0 {
				h.GSOType = vnet.GSONone
			}
			parts := [][]byte{data}
			if len(data) > 4096 {
				parts = nil
				for i := 0; i < len(data); i += 4096 {
					parts = append(parts, data[i:min(len(data), i+4096)])
				}
			}
			f := vnet.Frame{Header: h, Parts: parts, Len: len(data)}
			var s vnet.Scratch
			emit := func([]vnet.Frame) bool { return true }
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				s.Lower(&f, c.can, emit)
			}
		})
	}
}
