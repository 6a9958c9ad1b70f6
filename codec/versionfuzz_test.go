package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"vfiouser/fuzz/choice"
)

// oracleVersion decodes a VERSION by other means than VersionMsg does: the whole text as Go's
// general types, and a rule for what a number is.
func oracleVersion(b []byte) (m VersionMsg, ok bool) {
	if len(b) < 4 {
		return m, false
	}
	m.Major, m.Minor = binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])
	if len(b) == 4 {
		return m, true
	}
	text, _, _ := bytes.Cut(b[4:], []byte{0})
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var top any
	if b[len(b)-1] != 0 || decoder.Decode(&top) != nil {
		return m, false
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) { // something behind the value
		return m, false
	}
	o := versionOracle{ok: true}
	root, isObject := top.(map[string]any)
	if !isObject {
		return m, false
	}
	caps, there := o.object(root, "capabilities")
	if !there {
		return m, o.ok
	}
	for _, n := range []struct {
		name  string
		value *uint64
		bit   Present
	}{
		{"max_msg_fds", &m.Caps.MaxMsgFDs, HasMaxMsgFDs}, {"max_data_xfer_size", &m.Caps.MaxDataXferSize, HasMaxDataXferSize},
		{"max_dma_maps", &m.Caps.MaxDMAMaps, HasMaxDMAMaps}, {"pgsizes", &m.Caps.PgSizes, HasPgSizes},
	} {
		if o.number(caps, n.name, n.value) {
			m.Caps.Present |= n.bit
		}
	}
	o.boolean(caps, "write_multiple", &m.Caps.WriteMultiple)
	if twin, there := o.object(caps, "twin_socket"); there {
		m.Caps.TwinSocket = new(TwinSocket)
		o.boolean(twin, "supported", &m.Caps.TwinSocket.Supported)
		var index uint64
		if o.number(twin, "fd_index", &index) {
			m.Caps.TwinSocket.FDIndex = &index
		}
	}
	if migration, there := o.object(caps, "migration"); there {
		m.Caps.Migration = new(MigrationCaps)
		o.number(migration, "pgsize", &m.Caps.Migration.PgSize)
		o.number(migration, "max_bitmap_size", &m.Caps.Migration.MaxBitmapSize)
	}
	return m, o.ok
}

type versionOracle struct{ ok bool }

func (o *versionOracle) object(in map[string]any, name string) (map[string]any, bool) {
	value, there := in[name]
	object, isObject := value.(map[string]any)
	o.ok = o.ok && (!there || isObject)
	return object, there
}

var digits = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

func (o *versionOracle) number(in map[string]any, name string, to *uint64) bool {
	value, there := in[name]
	if !there {
		return false
	}
	n, isNumber := value.(json.Number)
	v, err := strconv.ParseUint(string(n), 10, 64)
	if !isNumber || !digits.MatchString(string(n)) || err != nil {
		o.ok = false
	}
	*to = v
	return true
}

func (o *versionOracle) boolean(in map[string]any, name string, to *bool) {
	value, there := in[name]
	b, isBoolean := value.(bool)
	o.ok = o.ok && (!there || isBoolean)
	*to = b
}

func checkVersion(t *testing.T, b []byte) {
	t.Helper()
	want, taken := oracleVersion(b)
	var first, second VersionMsg
	switch err := first.Decode(b); {
	case (err == nil) != taken:
		t.Fatalf("got %v; the oracle takes it: %v\n%q", err, taken, b)
	case err != nil:
		var e *Error
		if !errors.As(err, &e) || e.Command != CmdVersion || e.Errno != syscall.EINVAL {
			t.Fatalf("refused with %#v", err)
		}
		return
	case !reflect.DeepEqual(first, want):
		t.Fatalf("read %+v, want %+v\n%q", first, want, b)
	}
	written := first.Append(nil)
	if err := second.Decode(written); err != nil {
		t.Fatalf("refuses what it wrote: %v", err)
	}
	if !reflect.DeepEqual(first, second) {
		t.Fatalf("%+v, then %+v", first, second)
	}
	if again, ok := oracleVersion(written); !ok || !reflect.DeepEqual(again, first) {
		t.Fatalf("written %+v, the oracle reads %+v, %v\n%q", first, again, ok, written)
	}
	if len(written) > maxVersion {
		t.Fatalf("%d bytes", len(written))
	}
	c := &first.Caps
	c.Defaults()
	for i, n := range []struct{ got, read, absent uint64 }{{c.MaxMsgFDs, want.Caps.MaxMsgFDs, 1}, {c.MaxDataXferSize, want.Caps.MaxDataXferSize, 1 << 20},
		{c.MaxDMAMaps, want.Caps.MaxDMAMaps, 65535}, {c.PgSizes, want.Caps.PgSizes, 4096}} {
		if want.Caps.Present>>i&1 == 0 {
			n.read = n.absent
		}
		if n.got != n.read {
			t.Fatalf("with defaults %+v, read %+v", *c, want.Caps)
		}
	}
}

// FuzzVersion: VERSION is what the oracle takes it for, and reading what was written changes nothing.
//
//fuzz:covers codec/version.go
func FuzzVersion(f *testing.F) {
	f.Add(versionPayload(`{"capabilities":{"max_msg_fds":16,"pgsizes":4096,"write_multiple":true}}`))
	f.Add(versionPayload(`{"capabilities":{"twin_socket":{"supported":false,"fd_index":3},"migration":{}}}`))
	f.Add(versionPayload(strings.Repeat(`{"capabilities":`, 50) + strings.Repeat("}", 50)))
	f.Add(versionPayload(`{"capabilities":{},"capabilities":null}`)) // of two, the last one counts
	f.Add(versionPayload(`{"capabilities":{"max_msg_fds":1e0}}`))
	f.Add(versionPayload(`{"capabilities":{"max_msg_fds":01}}`))
	f.Add(versionPayload(`{"capabilities":{"max_msg_fds":-0}}`))
	f.Add(versionPayload(`{"cap\u0061bilities":{"pgsizes":7}}`)) // an escaped name
	f.Add(versionPayload("{\"capabilities\xff\":{}}"))
	f.Add(versionPayload(`{} x`))
	f.Add(versionPayload("{}\x00\xff"))
	f.Add(pack(uint32(0), "{}\x00x"))
	f.Add(versionPayload(`{"capabilities":{"max_msg_fds":0,"max_data_xfer_size":0,"max_dma_maps":0,"pgsizes":0}}`))
	f.Add(pack(uint32(0)))
	f.Add(pack(uint32(0), `{}`))
	f.Fuzz(checkVersion)
}

// FuzzVersionObject: the same with objects that have the members there are, and others, with
// values that fit or do not.
//
//fuzz:covers codec/version.go
func FuzzVersionObject(f *testing.F) {
	choice.Corpus(f, 20, 100)
	f.Fuzz(func(t *testing.T, program []byte) {
		s := choice.FromBytes(program)
		text := versionMembers(s, nil, 0)
		if s.Odds(32) {
			text = text[:s.Intn(len(text)+1)]
		}
		checkVersion(t, append(pack(s.Uint16(), s.Uint16(), text), 0))
	})
}

// versionMembers is an object. The way to where members mean something is the most likely one.
func versionMembers(s *choice.Source, within []string, depth int) []byte {
	names := append([]string{"capabilities", "x"}, within...)
	if len(within) > 0 {
		names = append(within, "capabilities")
	}
	b := []byte{'{'}
	for i := 0; i < 6 && s.More(); i++ {
		if i > 0 {
			b = append(b, ',')
		}
		name := choice.Pick(s, names...)
		b = append(strconv.AppendQuote(b, name), ':')
		b = append(b, versionValue(s, name, depth)...)
	}
	return append(b, '}')
}

func versionValue(s *choice.Source, name string, depth int) []byte {
	if s.Odds(8) {
		values := []string{"null", "true", "false", "-1", "-0", "1.0", "1e2", `"1"`, "[]", "{}", "18446744073709551616", "[{}]", `"\u0000"`, " 7 ", "01"}
		return []byte(choice.Pick(s, values...))
	}
	if members, isObject := map[string][]string{
		"capabilities": {"max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes", "write_multiple", "twin_socket", "migration"},
		"twin_socket":  {"supported", "fd_index"},
		"migration":    {"pgsize", "max_bitmap_size"},
	}[name]; isObject && depth < 4 {
		return versionMembers(s, members, depth+1)
	}
	if name == "write_multiple" || name == "supported" {
		return strconv.AppendBool(nil, s.Bool())
	}
	return strconv.AppendUint(nil, s.Edge(1<<20), 10)
}
