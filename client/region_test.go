package client

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func memfd(t *testing.T, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}

const mmapFlags = codec.RegionFlagRead | codec.RegionFlagWrite | codec.RegionFlagMmap

func TestRegionInfo(t *testing.T) {
	many := make([]codec.Area, 62)
	for i := range many {
		many[i] = codec.Area{Offset: uint64(i) * 4096, Size: 4096}
	}
	for _, test := range []struct {
		name  string
		info  codec.RegionInfo
		asked int // questions
		fds   int
		areas []codec.Area
	}{
		{"absent", codec.RegionInfo{}, 1, 0, nil},
		{"by message only", codec.RegionInfo{Size: 100, Flags: 3}, 1, 0, nil},
		{"mappable as a whole", codec.RegionInfo{Size: 8192, Flags: mmapFlags}, 1, 1, []codec.Area{{Offset: 0, Size: 8192}}},
		{"two areas in one file", codec.RegionInfo{Size: 16384, Flags: mmapFlags, Sparse: []codec.Area{{Offset: 0, Size: 4096}, {Offset: 8192, Size: 8192}}}, 1, 1,
			[]codec.Area{{Offset: 0, Size: 4096}, {Offset: 8192, Size: 8192}}},
		{"two areas in two files", codec.RegionInfo{Size: 16384, Flags: mmapFlags, Sparse: []codec.Area{{Offset: 0, Size: 4096}, {Offset: 8192, Size: 8192}}}, 1, 2,
			[]codec.Area{{Offset: 0, Size: 4096}, {Offset: 8192, Size: 8192}}},
		{"more areas than there is room for at first", codec.RegionInfo{Size: 62 * 4096, Flags: mmapFlags, Sparse: many}, 2, 62, many},
		{"areas that overlap, which nobody forbids", codec.RegionInfo{Size: 16384, Flags: mmapFlags, Sparse: []codec.Area{{Offset: 0, Size: 8192}, {Offset: 4096, Size: 8192}}}, 1, 1,
			[]codec.Area{{Offset: 0, Size: 8192}, {Offset: 4096, Size: 8192}}},
		{"areas without the flag", codec.RegionInfo{Size: 8192, Flags: 3, Sparse: many[:2]}, 1, 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				for i := range test.asked {
					m := s.Want(codec.CmdGetRegionInfo)
					var ask codec.RegionInfo
					if err := ask.DecodeRequest(m.Payload); err != nil || ask.Index != 2 {
						t.Errorf("%+v, %v", ask, err)
					}
					info := test.info
					info.Index = 2
					var fds []int
					if i == test.asked-1 {
						for range test.fds {
							fds = append(fds, memfd(t, 1<<20))
						}
					}
					s.Reply(m, info.AppendReply(nil, ask.ArgSz), fds...)
				}
			})
			r, err := d.Region(testContext(t), 2)
			if err != nil {
				t.Fatal(err)
			}
			if r.Index != 2 || r.Size != test.info.Size || len(r.Areas) != len(test.areas) {
				t.Fatalf("%+v", r)
			}
			for i, a := range test.areas {
				if r.Areas[i] != a {
					t.Errorf("area %d is %+v", i, r.Areas[i])
				}
				m, err := r.Mmap(i)
				if err != nil {
					t.Fatal(err)
				}
				m.Store32(a.Offset, 7)
				m.Close()
				m.Close()
			}
			if _, err := r.Mmap(len(test.areas)); !errors.Is(err, ErrNotMappable) {
				t.Errorf("an area that is not there: %v", err)
			}
			r.Close()
			r.Close()
			if len(test.areas) > 0 {
				if _, err := r.Mmap(0); !errors.Is(err, ErrClosed) {
					t.Errorf("closed region: %v", err)
				}
			}
		})
	}
}

func TestHostileRegionInfoEndsTheSession(t *testing.T) {
	sparse := []codec.Area{{Offset: 0, Size: 4096}, {Offset: 4096, Size: 4096}}
	for _, test := range []struct {
		name  string
		reply func(m wire) []byte
		fds   int
	}{
		{"descriptor missing", func(wire) []byte {
			return (&codec.RegionInfo{Size: 8192, Flags: mmapFlags}).AppendReply(nil, 1000)
		}, 0},
		{"more descriptors than areas", func(wire) []byte {
			return (&codec.RegionInfo{Size: 8192, Flags: mmapFlags, Sparse: sparse}).AppendReply(nil, 1000)
		}, 3},
		{"mappable without a size", func(wire) []byte {
			return (&codec.RegionInfo{Flags: mmapFlags}).AppendReply(nil, 1000)
		}, 1},
		{"another index", func(wire) []byte { return (&codec.RegionInfo{Index: 1}).AppendReply(nil, 1000) }, 0},
		{"capabilities that point to themselves", func(wire) []byte {
			b := (&codec.RegionInfo{Size: 8192, Flags: mmapFlags, Sparse: sparse}).AppendReply(nil, 1000)
			b[36] = 32
			return b
		}, 1},
		{"an area beyond the region", func(wire) []byte {
			return (&codec.RegionInfo{Size: 4096, Flags: mmapFlags, Sparse: sparse}).AppendReply(nil, 1000)
		}, 1},
		{"argsz that exceeds every bound", func(wire) []byte {
			b := (&codec.RegionInfo{Size: 8192, Flags: 3}).AppendReply(nil, 1000)
			b[3] = 0xff
			return b
		}, 0},
		{"argsz larger than the reply that had room", func(wire) []byte {
			b := (&codec.RegionInfo{Size: 8192, Flags: 3}).AppendReply(nil, 1000)
			b[0] = 64
			return b
		}, 0},
		{"less than the structure", func(wire) []byte { return make([]byte, 31) }, 0},
		{"more than there is room for", func(wire) []byte { return make([]byte, firstArgsz+1) }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				var fds []int
				for range test.fds {
					fds = append(fds, memfd(t, 8192))
				}
				m := s.Want(codec.CmdGetRegionInfo)
				s.Reply(m, test.reply(m), fds...)
			})
			if _, err := d.Region(testContext(t), 0); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			ended(t, d, ErrProtocol)
		})
	}
}

func TestGrowingArgszEndsTheSession(t *testing.T) {
	d := attach(t, func(s *server) {
		for i := range byte(2) {
			b := (&codec.RegionInfo{Size: 8192, Flags: 3}).AppendReply(nil, 1000)
			b[1] = 8 + i
			s.Reply(s.Want(codec.CmdGetRegionInfo), b)
		}
	})
	if _, err := d.Region(testContext(t), 0); !errors.Is(err, ErrProtocol) {
		t.Error(err)
	}
}

func TestRegionIndexIsChecked(t *testing.T) {
	d := attach(t, func(*server) {})
	for _, i := range []int{-1, 9, 1 << 40} {
		if _, err := d.Region(testContext(t), i); !errors.Is(err, ErrInvalid) {
			t.Errorf("region %d: %v", i, err)
		}
	}
}

func TestMmapSharesWithTheServer(t *testing.T) {
	file := memfd(t, 3*4096)
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdGetRegionInfo), (&codec.RegionInfo{
			Size: 8192, Offset: 4096, Flags: mmapFlags, Sparse: []codec.Area{{Offset: 4096, Size: 4096}}}).AppendReply(nil, 1000), file)
	})
	r, err := d.Region(testContext(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Mmap(0)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	d.Close() // the mapping outlives both
	m.Store32(0x1004, 0x11223344)
	m.Store64(0x1008, 0x8877665544332211)
	b := make([]byte, 12)
	if _, err := unix.Pread(file, b, 2*4096+4); err != nil || !bytes.Equal(b, []byte{0x44, 0x33, 0x22, 0x11, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}) {
		t.Errorf("%x, %v", b, err)
	}
	if m.Load32(0x1004) != 0x11223344 || m.Load64(0x1008) != 0x8877665544332211 || m.Size() != 4096 {
		t.Error("loads differ from stores")
	}
	for name, access := range map[string]func(){
		"before the area": func() { m.Load32(0xffc) },
		"behind the area": func() { m.Load32(0x2000) },
		"across its end":  func() { m.Load64(0x1ffc) },
		"unaligned":       func() { m.Store64(0x1004, 0) },
		"overflow":        func() { m.Load64(^uint64(7)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error(name, "does not panic")
				}
			}()
			access()
		}()
	}
	m.Close()
}

func TestMappedAccessors(t *testing.T) {
	file := memfd(t, 2*4096)
	info := codec.RegionInfo{Size: 8192, Flags: mmapFlags, Sparse: []codec.Area{{Offset: 4096, Size: 4096}}}
	readOnly := info
	readOnly.Flags &^= codec.RegionFlagWrite
	d := attach(t, func(s *server) {
		s.Reply(s.Want(codec.CmdGetRegionInfo), info.AppendReply(nil, 1000), file)
		s.Reply(s.Want(codec.CmdGetRegionInfo), readOnly.AppendReply(nil, 1000), file)
	})
	mapRegion := func() *MappedRegion {
		r, err := d.Region(testContext(t), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		m, err := r.Mmap(0)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m, fixed := mapRegion(), mapRegion()
	defer m.Close()
	defer fixed.Close()
	m.Store8(0x1001, 0x11)
	m.Store16(0x1002, 0x3322)
	m.Store32(0x1004, 0x77665544)
	m.Store64(0x1008, 0xffeeddccbbaa9988)
	p := make([]byte, 16)
	want := []byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	if n, err := fixed.ReadAt(p, 0x1000); n != 16 || err != nil || !bytes.Equal(p, want) {
		t.Errorf("%x, %v", p, err)
	}
	if fixed.Load8(0x1001) != 0x11 || fixed.Load16(0x1002) != 0x3322 || fixed.Load32(0x1004) != 0x77665544 || fixed.Load64(0x1008) != 0xffeeddccbbaa9988 {
		t.Error("loads differ from stores")
	}
	if n, err := m.WriteAt([]byte("end!"), 0x1ffc); n != 4 || err != nil || fixed.Load32(0x1ffc) != 0x21646e65 {
		t.Error(n, err)
	}
	for _, test := range []struct {
		name string
		do   func() (int, error)
		n    int
		want error
	}{
		{"read across the end", func() (int, error) { return m.ReadAt(p, 0x1ff8) }, 8, io.EOF},
		{"read at the end", func() (int, error) { return m.ReadAt(p, 0x2000) }, 0, io.EOF},
		{"write across the end", func() (int, error) { return m.WriteAt(p, 0x1ff8) }, 8, io.ErrShortWrite},
		{"read before the area", func() (int, error) { return m.ReadAt(p, 0xfff) }, 0, ErrInvalid},
		{"read behind the area", func() (int, error) { return m.ReadAt(p, 0x2001) }, 0, ErrInvalid},
		{"read at a negative offset", func() (int, error) { return m.ReadAt(p, -1) }, 0, ErrInvalid},
		{"write before the area", func() (int, error) { return m.WriteAt(p, 0) }, 0, ErrInvalid},
		{"write to what may only be read", func() (int, error) { return fixed.WriteAt(p, 0x1000) }, 0, ErrInvalid},
	} {
		if n, err := test.do(); n != test.n || !errors.Is(err, test.want) {
			t.Errorf("%s: %d, %v", test.name, n, err)
		}
	}
	for name, access := range map[string]func(){
		"8 bits before the area":  func() { m.Load8(0xfff) },
		"8 bits behind the area":  func() { m.Store8(0x2000, 0) },
		"16 bits, not aligned":    func() { m.Load16(0x1001) },
		"16 bits across the end":  func() { m.Store16(0x1fff, 0) },
		"8 bits, read-only":       func() { fixed.Store8(0x1000, 0) },
		"16 bits, read-only":      func() { fixed.Store16(0x1000, 0) },
		"32 bits, read-only":      func() { fixed.Store32(0x1000, 0) },
		"64 bits, read-only":      func() { fixed.Store64(0x1000, 0) },
		"an offset that wraps":    func() { m.Load8(1<<64 - 1) },
		"32 bits at an odd place": func() { m.Store32(0x1002, 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error(name, "does not panic")
				}
			}()
			access()
		}()
	}
}

func TestMmapChecksTheFile(t *testing.T) {
	for name, info := range map[string]codec.RegionInfo{
		"too short":             {Size: 8192, Flags: mmapFlags},
		"offset beyond it":      {Size: 4096, Offset: 8192, Flags: mmapFlags},
		"offset that overflows": {Size: 8192, Offset: ^uint64(0), Flags: mmapFlags, Sparse: []codec.Area{{Offset: 4096, Size: 4096}}},
	} {
		t.Run(name, func(t *testing.T) {
			file := memfd(t, 4096)
			d := attach(t, func(s *server) {
				s.Reply(s.Want(codec.CmdGetRegionInfo), info.AppendReply(nil, 1000), file)
			})
			r, err := d.Region(testContext(t), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := r.Mmap(0); !errors.Is(err, ErrNotMappable) {
				t.Error(err)
			}
		})
	}
}

func TestRegionAccessIsSplit(t *testing.T) {
	const size = 2*8192 + 100 // the server takes 8,192 at a time
	var counts []uint32
	var written []byte
	posted := make(chan struct{})
	d := attach(t, func(s *server) {
		for range 9 {
			m, ok := s.Next()
			if !ok {
				return
			}
			var a codec.RegionAccess
			if m.Command == codec.CmdRegionRead {
				_ = a.DecodeReadRequest(m.Payload)
			} else {
				_ = a.DecodeWriteRequest(m.Payload)
				written = append(written, a.Data...)
			}
			if a.Region != 4 || a.Offset != 1000+uint64(len(counts)%3)*8192 {
				t.Errorf("access %+v", a)
			}
			counts = append(counts, a.Count)
			s.Access(m)
		}
		close(posted)
	})
	p := make([]byte, size)
	if err := d.ReadRegion(testContext(t), 4, 1000, p); err != nil {
		t.Fatal(err)
	}
	for i := range p {
		if p[i] != byte(1000+i) {
			t.Fatalf("byte %d is %#x", i, p[i])
		}
	}
	if err := d.WriteRegion(testContext(t), 4, 1000, p); err != nil {
		t.Fatal(err)
	}
	if err := d.PostRegion(testContext(t), 4, 1000, p); err != nil {
		t.Fatal(err)
	}
	<-posted
	if !bytes.Equal(written, append(bytes.Clone(p), p...)) {
		t.Error("written data differs")
	}
	for i, n := range counts {
		if want := []uint32{8192, 8192, 100}[i%3]; n != want {
			t.Errorf("access %d of %d bytes", i, n)
		}
	}
}

func TestRegisters(t *testing.T) {
	posted := make(chan struct{})
	d := attach(t, func(s *server) {
		for _, want := range [][]byte{{9}, {2, 1}, {4, 3, 2, 1}, {8, 7, 6, 5, 4, 3, 2, 1}, {0xdd, 0xcc, 0xbb, 0xaa}, {1, 0, 0, 0, 0, 0, 0, 0x80}} {
			m := s.Want(codec.CmdRegionWrite)
			var a codec.RegionAccess
			if err := a.DecodeWriteRequest(m.Payload); err != nil || !bytes.Equal(a.Data, want) {
				t.Errorf("%+v, %v", a, err)
			}
			s.Access(m)
		}
		close(posted)
		s.ServeAccesses()
	})
	ctx := testContext(t)
	if err := errors.Join(d.WriteRegion8(ctx, 0, 0, 9), d.WriteRegion16(ctx, 0, 0, 0x0102), d.WriteRegion32(ctx, 0, 0, 0x01020304), d.WriteRegion64(ctx, 0, 0, 0x0102030405060708),
		d.PostRegion32(ctx, 0, 0, 0xaabbccdd), d.PostRegion64(ctx, 0, 0, 0x8000000000000001)); err != nil {
		t.Error(err)
	}
	<-posted
	if v, err := d.ReadRegion8(ctx, 0, 0x10); err != nil || v != 0x10 {
		t.Errorf("%#x, %v", v, err)
	}
	if v, err := d.ReadRegion16(ctx, 0, 0x10); err != nil || v != 0x1110 {
		t.Errorf("%#x, %v", v, err)
	}
	if v, err := d.ReadRegion32(ctx, 0, 0x10); err != nil || v != 0x13121110 {
		t.Errorf("%#x, %v", v, err)
	}
	if v, err := d.ReadRegion64(ctx, 0, 0x10); err != nil || v != 0x1716151413121110 {
		t.Errorf("%#x, %v", v, err)
	}
}

func TestRegionErrors(t *testing.T) {
	d := attach(t, func(s *server) {
		s.Refuse(s.Want(codec.CmdRegionRead), unix.EFAULT)
		s.Refuse(s.Want(codec.CmdRegionWrite), 0)
		s.Reply(s.Want(codec.CmdRegionRead), (&codec.RegionAccess{Count: 2, Data: []byte{1, 2}}).Append(nil))
		s.Reply(s.Want(codec.CmdRegionWrite), (&codec.RegionAccess{Count: 3}).AppendHead(nil))
	})
	ctx := testContext(t)
	p := make([]byte, 8)
	if err := d.ReadRegion(ctx, 0, 0, p); !errors.Is(err, unix.EFAULT) {
		t.Error(err)
	}
	if err := d.WriteRegion(ctx, 0, 0, p); !errors.Is(err, unix.EINVAL) {
		t.Error("an errno of 0:", err)
	}
	if err := d.ReadRegion(ctx, 0, 0, p); !errors.Is(err, ErrShortTransfer) {
		t.Error(err)
	}
	if err := d.WriteRegion(ctx, 0, 0, p); !errors.Is(err, ErrShortTransfer) {
		t.Error(err)
	}
	if d.Err() != nil {
		t.Error(d.Err())
	}
}
