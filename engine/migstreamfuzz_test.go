package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/fuzz/choice"
)

// FuzzRecords: of a stream of migration data with right checksums, and otherwise right mostly, a
// device gets what a plain reading of it finds, in whatever pieces it comes and is read, and an
// error where that ends too early, or has what cannot be there.
//
//fuzz:covers engine/migstream.go
func FuzzRecords(f *testing.F) {
	choice.Fuzz(f, 250, 300, func(t *testing.T, s *choice.Source) { checkRecords(t, s, composeRecords(s)) })
}

// FuzzRecordBytes: the same with any bytes.
//
//fuzz:covers engine/migstream.go
func FuzzRecordBytes(f *testing.F) {
	f.Add(writeStream([]byte("data")))
	f.Add(writeStream(make([]byte, maxRecord+1)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, stream []byte) { checkRecords(t, choice.FromBytes(nil), stream) })
}

// FuzzRecordWriter: whatever is written in whatever pieces comes out as the same, in no more
// records than it takes.
//
//fuzz:covers engine/migstream.go
func FuzzRecordWriter(f *testing.F) {
	choice.Fuzz(f, 40, 100, func(t *testing.T, s *choice.Source) {
		var stream, want []byte
		w := recordWriter{out: func(r []byte) error { stream = append(stream, r...); return nil }}
		w.put(recordIdentity, testIdentity.append(nil))
		config, interrupts := s.Bytes(s.Intn(300)), s.Bytes(s.Intn(30))
		w.put(recordConfig, config)
		for i := 0; i < 8 && s.More(); i++ {
			p := s.Bytes(s.Intn(100))
			if s.Odds(8) {
				p = make([]byte, s.Edge(maxRecord)%(2*maxRecord))
			}
			if n, err := w.Write(p); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
			want = append(want, p...)
		}
		w.put(recordInterrupts, interrupts)
		w.put(recordEnd, nil)
		if n := len(records(stream)); n != 4+(len(want)+maxRecord-1)/maxRecord {
			t.Fatalf("%d records for %d bytes", n, len(want))
		}
		got := readRecords(stream)
		if !got.complete || !bytes.Equal(got.data, want) || !bytes.Equal(got.config, config) || !bytes.Equal(got.interrupts, interrupts) {
			t.Fatalf("%d bytes are written, %d read", len(want), len(got.data))
		}
		checkRecords(t, s, stream)
	})
}

// composeRecords makes a stream of records, in which something is wrong once in a while.
func composeRecords(s *choice.Source) (stream []byte) {
	id := testIdentity
	switch s.Intn(32) {
	case 26:
		id.version = choice.Pick[uint32](s, 0, 2, 4, 1<<31)
	case 27:
		id.vendor++
	case 28:
		id.device++
	case 29:
		id.subVendor++
	case 30:
		id.subDevice++
	case 31:
		id.shape ^= 1 << s.Intn(64)
	}
	first := id.append(nil)
	switch s.Intn(32) {
	case 28:
		binary.LittleEndian.PutUint32(first[8:], uint32(s.Edge(1))) // the format
	case 29:
		first = append(first, 0)
	case 30:
		first = first[:s.Intn(len(first))]
	case 31:
		first[s.Intn(8)] ^= 1 << s.Intn(8)
	}
	list := []record{{kind: recordIdentity, data: first}}
	if s.Odds(32) {
		list[0].kind = recordKind(s.Intn(8))
	}
	usual := []record{{kind: recordConfig, data: []byte("config")}, {kind: recordInterrupts}, {kind: recordEnd}}
	for i := 0; i < 12 && s.More(); i++ {
		switch s.Intn(16) {
		case 13, 14: // what follows once
			if len(usual) > 1 {
				list, usual = append(list, usual[0]), usual[1:]
			}
		case 15:
			list = append(list, record{kind: recordKind(s.Intn(8)), data: s.Bytes(s.Intn(3))})
		default:
			n := s.Intn(40)
			if s.Odds(16) {
				n = int(min(s.Edge(maxRecord), maxRecord+1))
			}
			list = append(list, record{kind: recordDevice, data: bytes.Repeat([]byte{s.Uint8()}, n)})
		}
	}
	if list = append(list, usual...); s.Odds(16) {
		list = slices.Delete(list, len(list)-1, len(list))
	}
	list = renumbered(list)
	if i := s.Intn(len(list)); s.Odds(16) {
		list[i].sequence += uint32(s.Edge(3))
	}
	stream = joined(list)
	switch s.Intn(32) {
	case 29:
		stream = stream[:s.Intn(len(stream))]
	case 30:
		stream[s.Intn(len(stream))] ^= 1 << s.Intn(8)
	case 31:
		stream = append(stream, s.Bytes(s.Intn(40))...)
	}
	return stream
}

// reading is what a stream says.
type reading struct {
	version            uint32
	begins, complete   bool
	foreign            bool // it does not begin because it is another device's
	data               []byte
	config, interrupts []byte
}

// readRecords reads a stream as the comment over recordKind has it.
func readRecords(stream []byte) (r reading) {
	le := binary.LittleEndian
	for i := uint32(0); len(stream) >= 16; i++ {
		kind, n := le.Uint16(stream), int(le.Uint32(stream[4:]))
		if n > 65536 || n > len(stream)-16 || le.Uint32(stream[8:]) != i {
			return r
		}
		data := stream[16 : 16+n]
		if crc32.Checksum(slices.Concat(stream[:12], data), castagnoli) != le.Uint32(stream[12:]) {
			return r
		}
		stream = stream[16+n:]
		switch {
		case i == 0:
			if kind != 1 || n != 32 || string(data[:12]) != "vfu-mig\x00\x01\x00\x00\x00" {
				return r
			}
			want := testIdentity.append(nil)
			r.version = le.Uint32(data[12:])
			if r.foreign = !bytes.Equal(data[16:], want[16:]) || r.version > 3; r.foreign {
				return r
			}
			r.begins = true
		case kind == 2:
			r.data = append(r.data, data...)
		case kind == 3 && r.config == nil:
			r.config = append([]byte{}, data...)
		case kind == 4 && r.interrupts == nil:
			r.interrupts = append([]byte{}, data...)
		default:
			r.complete = kind == 5 && n == 0 && r.config != nil && r.interrupts != nil
			return r
		}
	}
	return r
}

// checkRecords reads a stream as a device does, and to its end or not so far.
func checkRecords(t *testing.T, s *choice.Source, stream []byte) {
	t.Helper()
	want := readRecords(stream)
	r := recordReader{in: &inPieces{s, stream}}
	version, err := r.begin(testIdentity)
	switch {
	case (err == nil) != want.begins || err == nil && version != want.version:
		t.Fatalf("version %d, %v; want %+v", version, err, want)
	case err != nil:
		if !errors.Is(err, unix.EINVAL) || errors.Is(err, errIdentity) != want.foreign {
			t.Fatalf("refused with %v; of another device: %v", err, want.foreign)
		}
		return
	}
	var got []byte
	enough := len(want.data) + 1
	if s.Odds(4) {
		enough = s.Intn(enough)
	}
	for err == nil && len(got) < enough {
		p := make([]byte, 1+min(s.Intn(100), enough-len(got)-1))
		if s.Odds(16) {
			p = nil
		}
		var n int
		if n, err = r.Read(p); n == 0 && err == nil && len(p) > 0 {
			t.Fatal("nothing is read, without a reason")
		}
		got = append(got, p[:n]...)
		if !s.More() && len(got) < enough { // the rest at once
			rest, e := io.ReadAll(io.LimitReader(&r, int64(enough-len(got))))
			if got = append(got, rest...); len(got) < enough && e == nil {
				e = io.EOF
			}
			err = errors.Join(err, e)
		}
	}
	if len(got) > len(want.data) || !bytes.Equal(got, want.data[:len(got)]) {
		t.Fatalf("the device reads %d bytes that are others, of %d", len(got), len(want.data))
	}
	if err == nil && len(got) < len(want.data) {
		if e := r.finish(); !errors.Is(e, errStream) {
			t.Fatalf("the device leaves %d bytes, and %v", len(want.data)-len(got), e)
		}
		return
	}
	if len(got) < len(want.data) && errors.Is(err, io.EOF) {
		t.Fatalf("%d bytes of %d, and the end", len(got), len(want.data))
	}
	switch e := r.finish(); {
	case (e == nil) != want.complete || e != nil && !errors.Is(e, unix.EINVAL):
		t.Fatalf("complete: %v, %v", want.complete, e)
	case want.complete && (!bytes.Equal(r.config, want.config) || !bytes.Equal(r.interrupts, want.interrupts)):
		t.Fatalf("%q and %q, want %q and %q", r.config, r.interrupts, want.config, want.interrupts)
	}
}

// inPieces hands out what comes from a client in messages of any size.
type inPieces struct {
	s    *choice.Source
	rest []byte
}

func (p *inPieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := min(len(b), len(p.rest))
	if p.s.More() {
		n = min(n, 1+p.s.Intn(2000))
	}
	copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	return n, nil
}
