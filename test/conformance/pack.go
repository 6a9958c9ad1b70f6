package conformance

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

const (
	headerSize = 16

	flagReply   = 0x1
	flagNoReply = 0x10
	flagError   = 0x20
)

// header precedes every message.
type header struct {
	id, command        uint16
	size, flags, errno uint32
}

func (h header) append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, h.id)
	b = binary.NativeEndian.AppendUint16(b, h.command)
	b = binary.NativeEndian.AppendUint32(b, h.size)
	b = binary.NativeEndian.AppendUint32(b, h.flags)
	return binary.NativeEndian.AppendUint32(b, h.errno)
}

func parseHeader(b []byte) header {
	return header{
		binary.NativeEndian.Uint16(b[0:]), binary.NativeEndian.Uint16(b[2:]),
		binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:]),
	}
}

// words are the arguments of a step, sorted by what they are.
type words struct {
	flags  map[string]bool   // bare words
	header map[string]string // h.NAME=VALUE
	fields map[string]string // NAME=VALUE
	caps   []string          // caps.NAME=PATTERN
	items  []item            // KIND:TEXT
	fds    []string          // fds=A,B
	hasFDs bool
}

// item is a piece of payload that follows the fields.
type item struct{ kind, text string }

var itemKinds = []string{"u8", "u16", "u32", "u64", "hex", "zero", "fill", "text", "any", "count", "blob"}

// sortWords sorts arguments; options are the bare words that the step knows.
func sortWords(s step, options ...string) (words, error) {
	w := words{flags: map[string]bool{}, header: map[string]string{}, fields: map[string]string{}}
	for i, a := range s.args {
		colon, equals := strings.IndexByte(a, ':'), strings.IndexByte(a, '=')
		switch {
		case colon > 0 && (equals < 0 || colon < equals || s.quoted[i]) && slices.Contains(itemKinds, a[:colon]):
			w.items = append(w.items, item{a[:colon], a[colon+1:]})
		case strings.HasPrefix(a, "caps.") && equals > 0:
			w.caps = append(w.caps, strings.TrimPrefix(a, "caps."))
		case strings.HasPrefix(a, "h.") && equals > 0:
			w.header[a[2:equals]] = a[equals+1:]
		case strings.HasPrefix(a, "fds="):
			w.hasFDs = true
			if a != "fds=" {
				w.fds = strings.Split(a[4:], ",")
			}
		case equals > 0:
			w.fields[a[:equals]] = a[equals+1:]
		case slices.Contains(options, a):
			w.flags[a] = true
		default:
			return w, fmt.Errorf("what is %q?", a)
		}
	}
	return w, nil
}

// take removes a field that is an option of the step and no field of the payload.
func (w *words) take(name string) (string, bool) {
	v, ok := w.fields[name]
	delete(w.fields, name)
	return v, ok
}

// payload builds the payload of a command.
func (w *words) payload(l layout, sc scope) ([]byte, error) {
	var b []byte
	fields := l.fields
	for _, f := range l.more {
		if _, ok := w.fields[f.name]; ok {
			fields = slices.Concat(l.fields, l.more)
			break
		}
	}
	argsz := false
	for _, f := range fields {
		sc.own = f.names
		var v uint64
		text, ok := w.take(f.name)
		if ok {
			var err error
			if v, err = sc.eval(text); err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
		}
		argsz = argsz || f.name == "argsz" && !ok
		var err error
		if b, err = appendNumber(b, f.size, v); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	for name := range w.fields {
		return nil, fmt.Errorf("there is no field %s", name)
	}
	sc.own = nil
	b, err := appendItems(b, w.items, sc)
	if argsz {
		binary.NativeEndian.PutUint32(b, uint32(len(b)))
	}
	return b, err
}

// appendItems appends what follows the fields.
func appendItems(b []byte, items []item, sc scope) ([]byte, error) {
	for _, it := range items {
		switch it.kind {
		case "text":
			b = append(b, strings.ReplaceAll(it.text, `\0`, "\x00")...)
		case "hex":
			raw, err := hex.DecodeString(it.text)
			if err != nil {
				return b, fmt.Errorf("%q: %w", it.text, err)
			}
			b = append(b, raw...)
		case "zero", "fill", "count":
			raw, err := pattern(it, sc)
			if err != nil {
				return b, err
			}
			b = append(b, raw...)
		case "any":
			return b, fmt.Errorf("any:%s is for replies", it.text)
		case "blob":
			blob, ok := sc.blobs[it.text]
			if !ok {
				return b, fmt.Errorf("no bytes are kept as %s", it.text)
			}
			b = append(b, blob...)
		default:
			v, err := sc.eval(it.text)
			if err != nil {
				return b, err
			}
			if b, err = appendNumber(b, width(it.kind), v); err != nil {
				return b, err
			}
		}
	}
	return b, nil
}

func width(kind string) int {
	return map[string]int{"u8": 1, "u16": 2, "u32": 4, "u64": 8}[kind]
}

// maxPattern bounds what a typing error in a case can cost, in bytes.
const maxPattern = 4 << 20

// pattern is zero:N, fill:BYTE:N or count:N: many bytes in few words. count has each
// byte tell the low bits of its place divided by 16, plus its place, so that a shift
// shows.
func pattern(it item, sc scope) ([]byte, error) {
	value, length := "0", it.text
	if it.kind == "fill" {
		value, length, _ = strings.Cut(it.text, ":")
	}
	v, err := sc.eval(value)
	if err != nil {
		return nil, err
	}
	n, err := sc.eval(length)
	if err != nil {
		return nil, err
	}
	if n > maxPattern || v > 0xff {
		return nil, fmt.Errorf("%s:%s is too much", it.kind, it.text)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(v)
		if it.kind == "count" {
			b[i] = byte(i + i/16)
		}
	}
	return b, nil
}

// matchItems checks that b is what the items say, and nothing more.
func matchItems(b []byte, items []item, sc scope) error {
	at := 0
	for _, it := range items {
		label := it.kind + ":" + it.text
		rest := b[at:]
		switch n := width(it.kind); {
		case n > 0:
			v, _, ok := takeNumber(rest, n)
			if !ok {
				return fmt.Errorf("ends before %s, %d bytes after the fields", label, at)
			}
			if err := sc.match(it.text, v); err != nil {
				return fmt.Errorf("%s, %d bytes after the fields, %w", label, at, err)
			}
			at += n
		case it.kind == "any":
			n, err := sc.eval(it.text)
			if err != nil {
				return err
			}
			if uint64(len(rest)) < n {
				return fmt.Errorf("ends before %s, %d bytes after the fields", label, at)
			}
			at += int(n)
		case it.kind == "blob":
			if kept, there := sc.blobs[it.text]; there && !bytes.Equal(kept, rest) {
				return fmt.Errorf("%s is %x, was %x", label, rest, kept)
			}
			sc.keep(it.text, bytes.Clone(rest))
			at = len(b)
		default:
			want, err := appendItems(nil, []item{it}, sc)
			if err != nil {
				return err
			}
			if len(rest) < len(want) {
				return fmt.Errorf("ends before %s, %d bytes after the fields", label, at)
			}
			for i := range want {
				if rest[i] != want[i] {
					return fmt.Errorf("%s: byte %d is %#02x, want %#02x", label, i, rest[i], want[i])
				}
			}
			at += len(want)
		}
	}
	if at < len(b) {
		return fmt.Errorf("goes on for %d bytes more than it should", len(b)-at)
	}
	return nil
}

// matchField checks the field at the start of b and gives what follows it. A field that is
// not named is 0.
func (w *words) matchField(b []byte, f field, sc scope) (rest []byte, err error) {
	v, rest, ok := takeNumber(b, f.size)
	if !ok {
		return nil, fmt.Errorf("ends before %s", f.name)
	}
	want, named := w.take(f.name)
	if !named {
		want = "0"
	}
	sc.own = f.names
	if err := sc.match(want, v); err != nil {
		return nil, fmt.Errorf("%s %w", f.name, err)
	}
	return rest, nil
}

// matchPayload checks a payload against what a step says of it: fields that are not named
// are 0.
func (w *words) matchPayload(b []byte, l layout, sc scope) error {
	fields := l.fields
	for _, f := range l.more {
		if _, ok := w.fields[f.name]; ok {
			fields = slices.Concat(l.fields, l.more)
			break
		}
	}
	for _, f := range fields {
		var err error
		if b, err = w.matchField(b, f, sc); err != nil {
			return err
		}
	}
	for name := range w.fields {
		return fmt.Errorf("there is no field %s", name)
	}
	return matchItems(b, w.items, sc)
}
