package pci

import (
	"fmt"
	"unicode/utf8"
)

// dumpLine is how many bytes stand in a line of a dump.
const dumpLine = 16

// AppendDump appends a configuration space as `lspci -xxxx` prints it, for the function
// 00:00.0; `lspci -F FILE -vvv` decodes that. The title, whose control characters become
// blanks, is what a reader sees; lspci takes its own from the bytes.
func AppendDump(dst []byte, title string, space []byte) []byte {
	dst = append(dst, "00:00.0 "...)
	for _, r := range title {
		if r < ' ' || r == 0x7f {
			r = ' '
		}
		dst = utf8.AppendRune(dst, r)
	}
	dst = append(dst, '\n')
	for off := 0; off < len(space); off += dumpLine {
		dst = fmt.Appendf(dst, "%02x: % x\n", off, space[off:min(off+dumpLine, len(space))])
	}
	return append(dst, '\n')
}
