package block

import (
	"slices"
	"strconv"
	"strings"
)

// opWords are the operations in the settings of filters.
var opWords = [...]string{"read", "write", "flush", "zeroes", "discard"}

// settings are a filter's, taken apart: which requests are meant, and what is left for the
// filter's kind to read.
type settings struct {
	selector
	off  bool
	seed uint64
	rest []string
}

// selector says which requests a filter is about.
type selector struct {
	ops      uint8 // a bit for each Op
	chance   float64
	from, to int64  // requests that touch this range, in bytes; to 0: all
	skip     uint64 // so many pass first
	times    uint64 // so many are hit; 0: without end

	matched, done uint64
}

// parseSettings reads what all filters have in common.
func parseSettings(text string) (*settings, error) {
	s := &settings{selector: selector{chance: 1}}
	for part := range strings.SplitSeq(text, ":") {
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		var err error
		switch {
		case part == "off":
			s.off = true
		case part == "once":
			s.times = 1
		case strings.HasSuffix(part, "%"):
			s.chance, err = strconv.ParseFloat(strings.TrimSuffix(part, "%"), 64)
			if s.chance /= 100; err != nil || !(s.chance >= 0 && s.chance <= 1) {
				return nil, because(ErrSpec, "bad percentage %q; it is 0%% to 100%%", part)
			}
		case key == "times":
			s.times, err = positive(part, value)
		case key == "after":
			s.skip, err = positive(part, value)
		case key == "seed":
			s.seed, err = positive(part, value)
		case key == "at":
			err = s.place(value)
		default:
			if !s.operations(part) {
				s.rest = append(s.rest, part)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if s.ops == 0 {
		s.ops = 1<<len(opWords) - 1
	}
	return s, nil
}

func positive(part, value string) (uint64, error) {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || n == 0 {
		return 0, because(ErrSpec, "bad number in %q; it is 1 or more", part)
	}
	return n, nil
}

// operations reads names of operations with slashes between them.
func (s *settings) operations(part string) bool {
	ops := s.ops
	for word := range strings.SplitSeq(part, "/") {
		i := slices.Index(opWords[:], word)
		if i < 0 {
			return false
		}
		ops |= 1 << i
	}
	s.ops = ops
	return true
}

// place reads OFFSET+LENGTH.
func (s *settings) place(value string) (err error) {
	offset, length, found := strings.Cut(value, "+")
	if !found {
		return because(ErrSpec, "bad place %q; write at=OFFSET+LENGTH, for example at=1M+4K", value)
	}
	if offset != "0" {
		if s.from, err = parseSize(offset); err != nil {
			return err
		}
	}
	n, err := parseSize(length)
	s.to = s.from + n
	if err == nil && s.to < n {
		err = because(ErrSpec, "the place %q ends beyond 8E", value)
	}
	return err
}

// meant tells whether a request is one of those that the filter is about. f.mu is held.
func (s *settings) meant(f *Filter, r *Request) bool {
	switch {
	case s.off, s.ops>>r.Op&1 == 0:
		return false
	case s.to > 0 && (r.Op == Flush || r.Offset >= s.to || r.Offset+r.Length <= s.from):
		return false
	}
	if s.matched++; s.matched <= s.skip || s.times > 0 && s.done >= s.times {
		return false
	}
	if s.chance < 1 && f.rng.Float64() >= s.chance {
		return false
	}
	s.done++
	f.hits.Add(1)
	return true
}

// one takes the first part of the rest that read likes.
func (s *settings) one(read func(part string) (ok bool, err error)) error {
	for i, part := range s.rest {
		ok, err := read(part)
		if err != nil {
			return err
		}
		if ok {
			s.rest = slices.Delete(s.rest, i, i+1)
			return nil
		}
	}
	return nil
}
