package choice

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"sync"
)

// Source hands out choices. Those of an input end with it: from then on every choice is the
// zero, the first, or no. It is not for concurrent use.
type Source struct {
	input []byte        // that is left
	size  int           // of all of it
	rng   *rand.ChaCha8 // nil: choices come from input
	steps int           // that are left, with rng
}

// FromBytes reads the choices from b, which it keeps.
func FromBytes(b []byte) *Source {
	if marks := marks(); marks != nil {
		fmt.Fprintf(marks, "input %x\n", b)
	}
	return &Source{input: b, size: len(b)}
}

// MarksVariable names in the environment a file to which FromBytes writes the word input and the
// input, in hexadecimal digits, and More the size of the input and the offset at which the next
// operation begins. Who shrinks an input can leave out whole operations then.
const MarksVariable = "VFIOUSER_MARKS"

var marks = sync.OnceValue(openMarks)

// openMarks opens that file; nil if none is asked for.
func openMarks() *os.File {
	name, ok := os.LookupEnv(MarksVariable)
	if !ok {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil
	}
	return f
}

// FromSeed has choices that depend on the seed alone. More is true so many times.
func FromSeed(seed uint64, steps int) *Source {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &Source{rng: rand.NewChaCha8(key), steps: steps}
}

// Seeded tells whether the choices come from a seed. Then who runs the program says how long it is; a
// fuzzer's input is to be cut short where it would take too long.
func (s *Source) Seeded() bool { return s.rng != nil }

// More tells whether there is something left to choose. A program asks once for each operation.
func (s *Source) More() bool {
	if s.rng == nil {
		if marks := marks(); marks != nil {
			fmt.Fprintln(marks, s.size, s.size-len(s.input))
		}
		return len(s.input) > 0
	}
	s.steps--
	return s.steps >= 0
}

// Fill makes p the next bytes, with zeroes after the end of the input.
func (s *Source) Fill(p []byte) {
	if s.rng != nil {
		_, _ = s.rng.Read(p) // never fails
		return
	}
	n := copy(p, s.input)
	s.input = s.input[n:]
	clear(p[n:])
}

// Bytes are the next n bytes, with zeroes after the end of the input.
func (s *Source) Bytes(n int) []byte {
	p := make([]byte, n)
	s.Fill(p)
	return p
}

// Uint8 is any number of 8 bits.
func (s *Source) Uint8() uint8 {
	var b [1]byte
	s.Fill(b[:])
	return b[0]
}

// Uint16 is any number of 16 bits.
func (s *Source) Uint16() uint16 {
	var b [2]byte
	s.Fill(b[:])
	return binary.LittleEndian.Uint16(b[:])
}

// Uint32 is any number of 32 bits.
func (s *Source) Uint32() uint32 {
	var b [4]byte
	s.Fill(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// Uint64 is any number of 64 bits.
func (s *Source) Uint64() uint64 {
	var b [8]byte
	s.Fill(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// Intn is a number from 0 up to but not n, which is at least 1. It takes no more bytes of the
// input than n needs, none if n is 1.
func (s *Source) Intn(n int) int {
	if n < 1 {
		panic("choice: Intn of less than 1")
	}
	var b [8]byte
	s.Fill(b[:(bits.Len(uint(n-1))+7)/8])
	return int(binary.LittleEndian.Uint64(b[:]) % uint64(n))
}

// Bool is yes or no.
func (s *Source) Bool() bool { return s.Uint8()&1 == 1 }

// Odds is yes once in n times, n from 1 to 256, and no after the end of the input unless n is 1.
func (s *Source) Odds(n int) bool { return s.Intn(n) == n-1 }

// Edge is a number of 64 bits that is worth trying where limit is a bound: often 0, limit, a
// power of two or the largest number, or one of their neighbours; else any up to limit, seldom
// any at all.
func (s *Source) Edge(limit uint64) uint64 {
	how := s.Uint8()
	near := uint64(how>>4&3) - 1 // -1, 0, 1 or 2
	switch how & 7 {
	case 0:
		return near + 1 // 0 to 3
	case 1:
		return limit + near
	case 2:
		return 1<<(s.Uint8()&63) + near
	case 3:
		return near - 1 // the largest ones, or 0 or 1
	case 4:
		return s.Uint64()
	default:
		if limit == ^uint64(0) {
			return s.Uint64()
		}
		return s.below(limit + 1)
	}
}

// below is a number less than n, which is not 0.
func (s *Source) below(n uint64) uint64 {
	var b [8]byte
	s.Fill(b[:(bits.Len64(n-1)+7)/8])
	return binary.LittleEndian.Uint64(b[:]) % n
}

// Pick is one of several, of which there is at least one.
func Pick[T any](s *Source, of ...T) T { return of[s.Intn(len(of))] }
