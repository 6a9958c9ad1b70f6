package nvmemodel

import (
	"encoding/binary"
	"slices"
)

// content is what a block holds: zeroes, or the pattern of a stamp, which no other write has.
type content struct {
	stamp uint32 // 0: zeroes
	bad   bool   // Write Uncorrectable has marked it
}

// cell is all that a block may hold: one content, or several after a fault.
type cell []content

func certainly(c content) cell { return cell{c} }

// mayAlso adds what a block may hold.
func (c cell) mayAlso(other ...content) cell {
	next := slices.Clone(c)
	for _, x := range other {
		if !slices.Contains(next, x) {
			next = append(next, x)
		}
	}
	return next
}

func (c cell) mayBe(f func(content) bool) bool { return slices.ContainsFunc(c, f) }

func (c cell) mayBeBad() bool  { return c.mayBe(func(x content) bool { return x.bad }) }
func (c cell) mayBeGood() bool { return c.mayBe(func(x content) bool { return !x.bad }) }

// written is the cell after its marks are taken away.
func (c cell) written(stamp uint32) cell { return certainly(content{stamp: stamp}) }

// marked and deallocated are the cell after Write Uncorrectable and after Dataset Management, which
// leaves a mark where it is.
func (c cell) marked() cell {
	return c.each(func(x content) content { return content{x.stamp, true} })
}

func (c cell) deallocated() cell { return c.each(func(x content) content { return content{0, x.bad} }) }

func (c cell) each(f func(content) content) (next cell) {
	for _, x := range c {
		next = next.mayAlso(f(x))
	}
	return next
}

// fill writes the pattern of a stamp to a block.
func fill(b []byte, stamp uint32) {
	if stamp == 0 {
		clear(b)
		return
	}
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(stamp)<<32|uint64(i))
	}
}

// stampOf is the stamp whose pattern a block has.
func stampOf(b []byte) (stamp uint32, ok bool) {
	stamp = uint32(binary.LittleEndian.Uint64(b) >> 32)
	for i := 0; i < len(b); i += 8 {
		want := uint64(stamp)<<32 | uint64(i)
		if stamp == 0 {
			want = 0
		}
		if binary.LittleEndian.Uint64(b[i:]) != want {
			return 0, false
		}
	}
	return stamp, true
}
