package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"time"
	"vfiouser/fuzz/choice"
)

// shrinking makes an input smaller as long as it fails in the same way. Go's fuzzer does so too,
// but tries to leave out any bytes from any to any other one, for which there is no time, and
// cannot shrink what ends the process. Here operations are left out, which the target itself tells
// (choice.MarksVariable), many at a time and then few, and what is left is zeroed.
type shrinking struct {
	*trial
	kind  string
	limit time.Duration // for an execution
	best  input
	show  func(size int)
}

// batch is how many inputs a process is given at most. The first one that fails ends it.
const batch = 64

// hangTry is how long an execution may last when one that hangs is shrunk: of the result it is seen
// that it lasts.
const hangTry = 500 * time.Millisecond

// shrink shrinks an input that fails until ctx is over, and returns the result, which fails too,
// and how.
func (tr *trial) shrink(ctx context.Context, in input, f failure, show func(size int)) (input, failure) {
	s := shrinking{trial: tr, kind: f.kind, limit: tr.hang, best: in, show: show}
	if f.kind == hangs {
		s.limit = hangTry
	}
	for ctx.Err() == nil {
		before := s.best
		for i, v := range in {
			if !v.whole {
				s.value(ctx, i)
			}
		}
		if s.best.equal(before) {
			break
		}
		// What fails after others in a process may not fail alone.
		which, alone, err := tr.first(context.WithoutCancel(ctx), []input{s.best}, tr.hang, s.same)
		if which < 0 || err != nil {
			break
		}
		in, f = s.best, alone
	}
	return in, f
}

func (s *shrinking) same(f failure) bool { return f.kind == s.kind }

// value shrinks one of the values.
func (s *shrinking) value(ctx context.Context, i int) {
	s.cutTail(ctx, i)
	s.remove(ctx, i, s.operations(ctx, i))
	s.zero(ctx, i, s.operations(ctx, i))
	if len(s.best[i].bytes) <= maxByBytes {
		s.remove(ctx, i, places(len(s.best[i].bytes)))
		s.zero(ctx, i, places(len(s.best[i].bytes)))
	}
}

// maxByBytes is the size of the largest value whose bytes are tried one by one.
const maxByBytes = 4096

// places are the offsets of all bytes, and the end.
func places(n int) []int {
	all := make([]int, n+1)
	for i := range all {
		all[i] = i
	}
	return all
}

// try takes over the first of some candidates for a value that fails likewise, and returns which;
// -1 if none does.
func (s *shrinking) try(ctx context.Context, i int, candidates [][]byte) int {
	var ins []input
	for _, b := range candidates {
		ins = append(ins, s.best.with(i, b))
	}
	which, _, err := s.first(ctx, ins, s.limit, s.same)
	if which < 0 || err != nil {
		return -1
	}
	s.best = ins[which]
	s.show(s.best.size())
	return which
}

// cutTail leaves out what comes after the failure.
func (s *shrinking) cutTail(ctx context.Context, i int) {
	for ctx.Err() == nil {
		b := s.best[i].bytes
		var candidates [][]byte
		for part := range tailParts {
			if n := len(b) * part / tailParts; n < len(b) && (part == 0 || n > len(candidates[len(candidates)-1])) {
				candidates = append(candidates, b[:n])
			}
		}
		if s.try(ctx, i, candidates) < 0 {
			return
		}
	}
}

const tailParts = 16

// remove leaves out pieces of a value, many neighbours at a time and then fewer, from the end on.
// The places are where pieces begin, and the end.
func (s *shrinking) remove(ctx context.Context, i int, at []int) {
	for size := len(at) - 1; size > 0; size /= 2 {
		for end := len(at) - 1; end > 0 && ctx.Err() == nil; {
			b := s.best[i].bytes
			var candidates [][]byte
			for last := end; last > 0 && len(candidates) < batch; last -= size {
				candidates = append(candidates, slices.Concat(b[:at[max(0, last-size)]], b[at[last]:]))
			}
			which := s.try(ctx, i, candidates)
			if which < 0 {
				end -= size * len(candidates)
				continue
			}
			last := end - size*which
			first := max(0, last-size)
			gone := at[last] - at[first]
			at = slices.Delete(at, first+1, last+1)
			for k := first + 1; k < len(at); k++ {
				at[k] -= gone
			}
			end = first
		}
	}
}

// zero replaces pieces of a value with zeroes, which are the simplest choices; of a piece of more
// than one byte all but the first, which says what is done.
func (s *shrinking) zero(ctx context.Context, i int, at []int) {
	for next := 0; next < len(at)-1 && ctx.Err() == nil; {
		var candidates [][]byte
		var of []int // the pieces
		for ; next < len(at)-1 && len(candidates) < batch; next++ {
			from, to := at[next], at[next+1]
			if to-from > 1 {
				from++
			}
			b := bytes.Clone(s.best[i].bytes)
			clear(b[from:to])
			if !bytes.Equal(b, s.best[i].bytes) {
				candidates, of = append(candidates, b), append(of, next)
			}
		}
		if which := s.try(ctx, i, candidates); which >= 0 {
			next = of[which] + 1
		}
	}
}

// seed is an input that the target's code adds, if the target makes choices of it; nil otherwise.
func (tr *trial) seed(ctx context.Context, name string) input {
	ctx, cancel := context.WithTimeout(ctx, tr.hang)
	defer cancel()
	file := filepath.Join(tr.folder, "marks")
	cmd := exec.CommandContext(ctx, tr.binary, "-test.run=^"+tr.name+"$/^"+name+"$")
	cmd.Dir = tr.folder
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(tr.folder), choice.MarksVariable+"="+file)
	_ = cmd.Run() // fails
	content, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var in input
	for line := range strings.Lines(string(content)) {
		digits, ok := strings.CutPrefix(line, "input ")
		b, err := hex.DecodeString(strings.TrimSpace(digits))
		if ok && err == nil && len(b) >= in.size() { // others are not the fuzzer's
			in = input{{text: "[]byte", bytes: b}}
		}
	}
	return in
}

// operations are the offsets at which the operations of a value begin, as the target reads it,
// and the end.
func (s *shrinking) operations(ctx context.Context, i int) []int {
	n := len(s.best[i].bytes)
	s.marks = filepath.Join(s.folder, "marks")
	defer func() { s.marks = "" }()
	_ = os.Remove(s.marks)
	_, _, err := s.first(ctx, []input{s.best}, s.limit, anyFailure)
	content, err2 := os.ReadFile(s.marks)
	if errors.Join(err, err2) != nil {
		return []int{0, n}
	}
	return operations(string(content), n)
}

// operations reads marks: the size of what was read as choices and an offset in it. Of a
// value of n bytes that may be the rest after what was taken otherwise.
func operations(marks string, n int) []int {
	at := []int{0}
	size := 0
	for line := range strings.Lines(marks) {
		of, offset, _ := strings.Cut(strings.TrimSpace(line), " ")
		total, err := strconv.Atoi(of)
		where, err2 := strconv.Atoi(offset)
		if errors.Join(err, err2) != nil || total > n || total < size {
			continue
		}
		if total > size {
			at, size = at[:1], total
		}
		at = append(at, n-total+where)
	}
	at = append(at, n)
	slices.Sort(at)
	return slices.Compact(at)
}
