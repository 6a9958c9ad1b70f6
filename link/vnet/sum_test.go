package vnet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"vfiouser/link/vnet"
)

func TestSumOfPieces(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	for n := range 3000 {
		data := make([]byte, rnd.IntN(1+rnd.IntN(5000)))
		fill := byte(rnd.Uint32())
		for i := range data {
			data[i] = fill
			if n%3 > 0 {
				data[i] = byte(rnd.Uint32())
			}
			if n%9 == 0 {
				data[i] = 0xff // every addition carries
			}
		}
		var s vnet.Sum
		for _, p := range scatter(rnd, data) {
			s.Add(p)
		}
		if got, want := s.Checksum(), internet(data); got != want {
			t.Fatalf("%d: %d bytes: %#x, want %#x", n, len(data), got, want)
		}
	}
}

// The words where a carry meets all ones.
func TestSumOfCarries(t *testing.T) {
	ones, one := bytes.Repeat([]byte{0xff}, 8), []byte{1, 0, 0, 0, 0, 0, 0, 0}
	words := [][]byte{ones, one, make([]byte, 8), bytes.Repeat([]byte{0xfe}, 8)}
	rnd := rand.New(rand.NewPCG(15, 16))
	for range 20000 {
		var data []byte
		for range rnd.IntN(33) {
			data = append(data, words[rnd.IntN(len(words))]...)
		}
		var s vnet.Sum
		s.Add(data)
		if got, want := s.Checksum(), internet(data); got != want {
			t.Fatalf("%x: %#x, want %#x", data, got, want)
		}
	}
}

func TestSumOfANumber(t *testing.T) {
	var s vnet.Sum
	s.Add([]byte{0x12, 0x34})
	s.AddUint16(0xf00d)
	if got, want := s.Checksum(), internet([]byte{0x12, 0x34, 0xf0, 0x0d}); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}
