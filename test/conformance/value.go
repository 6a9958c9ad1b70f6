package conformance

import (
	"fmt"
	"strconv"
	"strings"
)

// symbols are the names for numbers that mean the same everywhere in a case. Flags whose
// name means something else in another structure stand with that structure's field.
var symbols = map[string]uint64{
	"INTX": 0, "MSI": 1, "MSIX": 2, "ERR": 3, "REQ": 4,
	"CONFIG": 7, "ROM": 6, "VGA": 8,
	"MAX32": 1<<32 - 1, "MAX64": 1<<64 - 1,
	"STATE_ERROR": 0, "STATE_STOP": 1, "STATE_RUNNING": 2, "STATE_STOP_COPY": 3,
	"STATE_RESUMING": 4, "STATE_RUNNING_P2P": 5, "STATE_PRE_COPY": 6, "STATE_PRE_COPY_P2P": 7,
}

// number reads a decimal or hexadecimal number, with K, M or G for units of 1,024.
func number(s string) (uint64, error) {
	shift := 0
	if !strings.HasPrefix(s, "0x") && s != "" {
		switch s[len(s)-1] {
		case 'K':
			shift = 10
		case 'M':
			shift = 20
		case 'G':
			shift = 30
		}
		if shift > 0 {
			s = s[:len(s)-1]
		}
	}
	v, err := strconv.ParseUint(s, 0, 64)
	if err != nil || v<<shift>>shift != v {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return v << shift, nil
}

// scope is where the names in an expression come from.
type scope struct {
	vars  map[string]uint64
	own   map[string]uint64 // of one field
	blobs map[string][]byte // bytes that replies held, by name
}

// eval computes an expression: terms joined by |, + and -, from left to right, modulo
// 2^64. A term is a number, a name, or a variable with its $.
func (sc scope) eval(expr string) (uint64, error) {
	var v uint64
	op := byte('+')
	for rest := expr; ; {
		i := strings.IndexAny(rest, "|+-")
		term := rest
		if i >= 0 {
			term = rest[:i]
		}
		t, err := sc.term(term)
		if err != nil {
			return 0, fmt.Errorf("%w in %q", err, expr)
		}
		switch op {
		case '+':
			v += t
		case '-':
			v -= t
		case '|':
			v |= t
		}
		if i < 0 {
			return v, nil
		}
		op, rest = rest[i], rest[i+1:]
	}
}

func (sc scope) term(s string) (uint64, error) {
	if name, ok := strings.CutPrefix(s, "$"); ok {
		v, ok := sc.vars[name]
		if !ok {
			return 0, fmt.Errorf("no variable %s", s)
		}
		return v, nil
	}
	if v, ok := sc.own[s]; ok {
		return v, nil
	}
	if v, ok := symbols[s]; ok {
		return v, nil
	}
	return number(s)
}

// pattern is what a field of a reply must be.
//
//	_          anything
//	?name      anything, which is kept in $name
//	A..B       from A to B; either may be left out
//	has:BITS   these bits are set
//	lacks:BITS none of these is
//	VALUE      exactly that
func (sc scope) match(pattern string, v uint64) error {
	ok := false
	switch head, tail, colon := strings.Cut(pattern, ":"); {
	case pattern == "_":
		ok = true
	case strings.HasPrefix(pattern, "?"):
		sc.vars[pattern[1:]] = v
		ok = true
	case colon && (head == "has" || head == "lacks"):
		bits, err := sc.eval(tail)
		if err != nil {
			return err
		}
		ok = head == "has" && v&bits == bits || head == "lacks" && v&bits == 0
	case strings.Contains(pattern, ".."):
		from, to, _ := strings.Cut(pattern, "..")
		low, high := uint64(0), uint64(1<<64-1)
		var err error
		if from != "" {
			if low, err = sc.eval(from); err != nil {
				return err
			}
		}
		if to != "" {
			if high, err = sc.eval(to); err != nil {
				return err
			}
		}
		ok = low <= v && v <= high
	default:
		want, err := sc.eval(pattern)
		if err != nil {
			return err
		}
		ok = v == want
	}
	if !ok {
		return fmt.Errorf("is %#x, want %s", v, pattern)
	}
	return nil
}
