package spec

import (
	"math/rand/v2"
	"testing"
)

// slow16 and slow64 are the definitions, bit for bit.
func slow16(p []byte) (crc uint16) {
	for _, b := range p {
		for i := 7; i >= 0; i-- {
			bit := uint16(b>>i)&1 ^ crc>>15
			crc <<= 1
			if bit != 0 {
				crc ^= 0x8bb7
			}
		}
	}
	return crc
}

func slow64(p []byte) uint64 {
	crc := ^uint64(0)
	for _, b := range p {
		for i := range 8 {
			bit := uint64(b>>i)&1 ^ crc&1
			crc >>= 1
			if bit != 0 {
				crc ^= 0x9a6c9329ac4bc9b5
			}
		}
	}
	return ^crc
}

func TestGuardsOfTheSpecification(t *testing.T) {
	fill := func(f func(i int) byte) []byte {
		b := make([]byte, 4096)
		for i := range b {
			b[i] = f(i)
		}
		return b
	}
	for _, c := range []struct {
		name  string
		guard Guard
		data  []byte
		want  uint64
	}{
		{"digits", Guard16, []byte("123456789"), 0xd0db},
		{"digits", Guard64, []byte("123456789"), 0xae8b14860a799888},
		{"zeroes", Guard16, make([]byte, 512), 0},
		{"zeroes", Guard64, make([]byte, 4096), 0x6482d367eb22b64e},
		{"ones", Guard64, fill(func(int) byte { return 0xff }), 0xc0ddba7302eca3ac},
		{"up", Guard64, fill(func(i int) byte { return byte(i) }), 0x3e729f5f6750449c},
		{"down", Guard64, fill(func(i int) byte { return byte(255 - i) }), 0x9a2df64b8e9e517e},
	} {
		if got := c.guard.Compute(c.data, nil); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestGuardsAreTheirDefinition(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 4200)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	for n := range 300 {
		at, split := rnd.IntN(8), 0
		p := b[at : at+n]
		if n > 0 {
			split = rnd.IntN(n)
		}
		if got, want := Guard16.Compute(p[:split], p[split:]), uint64(slow16(p)); got != want {
			t.Fatalf("%d bytes: %#x, want %#x", n, got, want)
		}
		if got, want := Guard64.Compute(p[:split], p[split:]), slow64(p); got != want {
			t.Fatalf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
}

func BenchmarkGuard(b *testing.B) {
	data := make([]byte, 4096)
	for _, c := range []struct {
		name  string
		guard Guard
	}{{"16", Guard16}, {"64", Guard64}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				c.guard.Compute(data, nil)
			}
		})
	}
}
