package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

var testIdentity = identity{version: 3, vendor: 1, device: 2, subVendor: 3, subDevice: 4, shape: 5}

// record is one that is taken apart and can be made wrong.
type record struct {
	kind     recordKind
	sequence uint32
	data     []byte
}

func (r record) append(b []byte) []byte {
	h := binary.LittleEndian.AppendUint32(nil, uint32(r.kind))
	h = binary.LittleEndian.AppendUint32(h, uint32(len(r.data)))
	h = binary.LittleEndian.AppendUint32(h, r.sequence)
	sum := crc32.Update(crc32.Checksum(h, castagnoli), castagnoli, r.data)
	return append(append(append(b, h...), binary.LittleEndian.AppendUint32(nil, sum)...), r.data...)
}

func records(stream []byte) (list []record) {
	for len(stream) > 0 {
		n := binary.LittleEndian.Uint32(stream[4:])
		list = append(list, record{recordKind(stream[0]), binary.LittleEndian.Uint32(stream[8:]), stream[16 : 16+n]})
		stream = stream[16+n:]
	}
	return list
}

func joined(list []record) (stream []byte) {
	for _, r := range list {
		stream = r.append(stream)
	}
	return stream
}

// renumbered gives records the numbers that are right.
func renumbered(list []record) []record {
	for i := range list {
		list[i].sequence = uint32(i)
	}
	return list
}

func writeStream(parts ...[]byte) []byte {
	var out []byte
	w := recordWriter{out: func(r []byte) error { out = append(out, r...); return nil }}
	w.put(recordIdentity, testIdentity.append(nil))
	for _, p := range parts {
		_, _ = w.Write(p)
	}
	w.put(recordConfig, []byte("config"))
	w.put(recordInterrupts, nil)
	w.put(recordEnd, nil)
	return out
}

func TestRecordsCarryAnyAmountOfData(t *testing.T) {
	for _, n := range []int{0, 1, maxRecord - 1, maxRecord, maxRecord + 1, 3*maxRecord + 5} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		stream := writeStream(data[:n/3], data[n/3:])
		if list := records(stream); len(list) != 4+(n+maxRecord-1)/maxRecord || !bytes.Equal(joined(list), stream) {
			t.Errorf("%d bytes make %d records", n, len(list))
		}
		for name, in := range map[string]io.Reader{"whole": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream))} {
			r := recordReader{in: in}
			if version, err := r.begin(testIdentity); version != 3 || err != nil {
				t.Fatal(version, err)
			}
			got, err := io.ReadAll(&r)
			if err != nil || !bytes.Equal(got, data) || string(r.config) != "config" || len(r.interrupts) != 0 || r.finish() != nil {
				t.Errorf("%s: %d bytes of %d, %v", name, len(got), n, err)
			}
		}
	}
}

func TestIdentityIsChecked(t *testing.T) {
	with := func(change func(*identity)) identity { id := testIdentity; change(&id); return id }
	for _, c := range []struct {
		name string
		from identity
		err  error
	}{
		{"the same", testIdentity, nil},
		{"an earlier version", with(func(i *identity) { i.version = 1 }), nil},
		{"a later version", with(func(i *identity) { i.version = 4 }), errIdentity},
		{"vendor", with(func(i *identity) { i.vendor++ }), errIdentity},
		{"device", with(func(i *identity) { i.device++ }), errIdentity},
		{"subsystem vendor", with(func(i *identity) { i.subVendor++ }), errIdentity},
		{"subsystem", with(func(i *identity) { i.subDevice++ }), errIdentity},
		{"shape", with(func(i *identity) { i.shape++ }), errIdentity},
	} {
		version, err := testIdentity.accept(c.from.append(nil))
		if !errors.Is(err, c.err) || err != nil && !errors.Is(err, unix.EINVAL) || err == nil && version != c.from.version {
			t.Errorf("%s: %d, %v", c.name, version, err)
		}
	}
	good := testIdentity.append(nil)
	format := slices.Clone(good)
	format[8]++
	for _, b := range [][]byte{nil, good[1:], append(good, 0), format, append([]byte("x"), good[1:]...)} {
		if _, err := testIdentity.accept(b); !errors.Is(err, errStream) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

// badStreams are what a hostile client, or a broken disk, makes of a stream.
var badStreams = []struct {
	name string
	make func([]record) []byte
}{
	{"cut in a header", func(l []record) []byte { return joined(l)[:8] }},
	{"cut in a record", func(l []record) []byte { s := joined(l); return s[:len(s)-17] }},
	{"without its end", func(l []record) []byte { return joined(l[:len(l)-1]) }},
	{"without a record of data", func(l []record) []byte { return joined(slices.Delete(l, 3, 4)) }},
	{"data twice", func(l []record) []byte { return joined(slices.Insert(l, 3, l[3])) }},
	{"records in another order", func(l []record) []byte { l[3], l[4] = l[4], l[3]; return joined(l) }},
	{"a bit in data", func(l []record) []byte { s := joined(l); s[len(s)-40] ^= 1; return s }},
	{"a bit in a header", func(l []record) []byte { s := joined(l); s[2] ^= 1; return s }},
	{"another device", func(l []record) []byte { l[0].data[16]++; return joined(l) }},
	{"a later version", func(l []record) []byte { l[0].data[12]++; return joined(l) }},
	{"no identity", func(l []record) []byte { return joined(renumbered(l[1:])) }},
	{"two identities", func(l []record) []byte { return joined(renumbered(slices.Insert(l, 1, l[0]))) }},
	{"an unknown kind", func(l []record) []byte { l[3].kind = 99; return joined(l) }},
	{"an empty stream with an end", func(l []record) []byte { return joined(renumbered([]record{l[0], l[len(l)-1]})) }},
	{"no configuration space", func(l []record) []byte { return joined(renumbered(slices.Delete(l, 1, 2))) }},
	{"two configuration spaces", func(l []record) []byte { return joined(renumbered(slices.Insert(l, 1, l[1]))) }},
	{"a configuration space that is short", func(l []record) []byte { l[1].data = l[1].data[1:]; return joined(l) }},
	{"no interrupts", func(l []record) []byte { return joined(renumbered(slices.Delete(l, 2, 3))) }},
	{"interrupts of another device", func(l []record) []byte { l[2].data = append(l[2].data, 0); return joined(l) }},
	{"interrupts in no state", func(l []record) []byte { l[2].data = bytes.Repeat([]byte{0xff}, len(l[2].data)); return joined(l) }},
	{"an end with data", func(l []record) []byte { l[len(l)-1].data = []byte{0}; return joined(l) }},
	{"less than the device wants", func(l []record) []byte {
		l[3].data = l[3].data[:10]
		return joined(renumbered(slices.Delete(l, 4, len(l)-1)))
	}},
	{"more behind the end", func(l []record) []byte { return append(joined(l), 0) }},
	{"a second stream", func(l []record) []byte { return slices.Concat(joined(l), joined(l)) }},
	{"a record of 4 GiB", func(l []record) []byte {
		s := joined(l)
		binary.LittleEndian.PutUint32(s[4:], 0xffffffff)
		return s
	}},
	{"zeros", func([]record) []byte { return make([]byte, 10_000) }},
}

// TestBadStreamsAreRefused: the error comes with a write or with the change of state; the
// device is in ERROR then, where nothing works but a reset, after which everything does.
func TestBadStreamsAreRefused(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newMovable(t, b)
	conn := nb.attach()
	d.bulk = make([]byte, 100_000)
	conn.goTo(codec.MigStopCopy)
	good := conn.take(1 << 20)
	for _, c := range badStreams {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			conn.ok(codec.CmdReset, nil)
			list := records(bytes.Clone(good))
			if len(list) != 6 {
				t.Fatalf("%d records", len(list))
			}
			conn.goTo(codec.MigResuming)
			failed := false
			for part := range slices.Chunk(c.make(list), 50_001) {
				h, _, _ := conn.call(codec.CmdMigDataWrite, migWrite(part))
				if failed = failed || h.Err() != nil; failed != (h.Err() != nil) {
					t.Error("a stream that was refused is taken again")
				}
				if h.Err() != nil && unix.Errno(h.Errno) != unix.EINVAL && unix.Errno(h.Errno) != unix.EIO {
					t.Errorf("errno %d", h.Errno)
				}
			}
			h, _, _ := conn.call(codec.CmdDeviceFeature, setState(codec.MigRunning))
			if h.Err() == nil {
				t.Fatal("the device runs with it")
			}
			conn.in(codec.MigError)
			conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(0, 0, 1))
			conn.fails(unix.EINVAL, codec.CmdDeviceFeature, setState(codec.MigStop))
			conn.fails(unix.EINVAL, codec.CmdMigDataRead, u32(108, 100))
			conn.fails(unix.EINVAL, codec.CmdMigDataWrite, migWrite([]byte("x")))
			conn.ok(codec.CmdReset, nil)
			conn.in(codec.MigRunning)
			conn.peek(0, 0, 1)
		})
	}
	conn.t = t
	conn.ok(codec.CmdReset, nil)
	conn.goTo(codec.MigResuming)
	conn.give(good, 1<<20)
	conn.goTo(codec.MigRunning)
}

// What the device makes of its own data is checked too.
func TestDeviceRefusesItsState(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newMovable(t, b)
	conn := nb.attach()
	conn.goTo(codec.MigStopCopy)
	good := conn.take(1 << 20)
	for _, c := range []struct {
		name  string
		load  func(*Session, io.Reader) error
		write unix.Errno
		set   unix.Errno
	}{
		{"with an errno", func(*Session, io.Reader) error { return errTest }, unix.EDOM, unix.EDOM},
		{"without an errno", func(*Session, io.Reader) error { return io.ErrNoProgress }, unix.EIO, unix.EIO},
		{"at the end", func(_ *Session, r io.Reader) error { _, _ = io.ReadAll(r); return errTest }, unix.EDOM, unix.EDOM},
		{"by not reading it", func(*Session, io.Reader) error { return nil }, unix.EINVAL, unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			conn.ok(codec.CmdReset, nil)
			d.load = c.load
			conn.goTo(codec.MigResuming)
			conn.fails(c.write, codec.CmdMigDataWrite, migWrite(good))
			conn.fails(c.set, codec.CmdDeviceFeature, setState(codec.MigRunning))
			conn.in(codec.MigError)
		})
	}
}
