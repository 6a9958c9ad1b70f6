package bench

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// moves fill a structure from a payload, or a payload from a structure, with the fewest loads and
// stores. They are called as the functions of a codec are: not inlined.
var moves = []struct {
	size int // bytes
	move func(to *[128]byte, from []byte)
}{
	{8, func(to *[128]byte, from []byte) { *(*[8]byte)(to[:]) = [8]byte(from) }},
	{16, func(to *[128]byte, from []byte) { *(*[16]byte)(to[:]) = [16]byte(from) }},
	{32, func(to *[128]byte, from []byte) { *(*[32]byte)(to[:]) = [32]byte(from) }},
	{64, func(to *[128]byte, from []byte) { *(*[64]byte)(to[:]) = [64]byte(from) }},
	{128, func(to *[128]byte, from []byte) { *(*[128]byte)(to[:]) = [128]byte(from) }},
}

func moveName(size int) string { return fmt.Sprintf("move/size=%d", size) }

// moveLimit names the least that moves so many bytes; none where there are more than in any
// message whose form is fixed.
func moveLimit(size int) string {
	for _, m := range moves {
		if size <= m.size {
			return moveName(m.size)
		}
	}
	return ""
}

// What JSON takes in any case: to write it, copies of its words, and its numbers in digits; to
// read it, a look at each byte, and the numbers.
const (
	textWrite = "text-write"
	textRead  = "text-read"
)

func codecLimits() (limits []Limit) {
	for i, m := range moves {
		limits = append(limits, Limit{Name: moveName(m.size), Bytes: m.size, Setup: func(*Env) (Subject, error) {
			to, from := new([128]byte), make([]byte, m.size)
			return Subject{Run: func(n int) error {
				move := moves[i].move
				for range n {
					move(to, from)
				}
				return nil
			}}, nil
		}})
	}
	return append(limits,
		Limit{Name: textWrite, Setup: func(*Env) (Subject, error) {
			text, numbers := versionText()
			return writes(func(dst []byte) []byte {
				dst = append(dst, text...)
				for _, n := range numbers {
					dst = strconv.AppendUint(dst, n, 10)
				}
				return dst
			}), nil
		}},
		Limit{Name: textRead, Setup: func(*Env) (Subject, error) {
			text, numbers := versionText()
			return reads(func(p []byte) error {
				number, i := uint64(0), 0
				for _, c := range p {
					switch {
					case c-'0' < 10:
						number = 10*number + uint64(c-'0')
					case number != 0:
						numbers[i], number = number, 0
						i++
					}
				}
				return nil
			}, []byte(text)), nil
		}})
}

// versionText is what VERSION says in text, and the numbers in it.
func versionText() (text string, numbers []uint64) {
	for _, f := range codecForms() {
		if f.name == "version" {
			text = string(f.encode(nil)[4:])
		}
	}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsDigit(r) }) {
		if n, err := strconv.ParseUint(word, 10, 64); err == nil && n != 0 {
			numbers = append(numbers, n)
		}
	}
	return text, numbers
}
