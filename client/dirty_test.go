package client

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func TestDMALogging(t *testing.T) {
	ranges := []codec.IOVARange{{IOVA: 0x1000, Length: 0x1000}, {IOVA: 1 << 40, Length: 1 << 30}}
	d := attach(t, func(s *server) {
		m, f := s.feature()
		var start codec.DMALogging
		if err := start.Decode(f.Data); err != nil || f.Flags != codec.FeatureDMALoggingStart|codec.FeatureSet || start.PageSize != 512 ||
			start.Count != 2 || start.Range(0) != ranges[0] || start.Range(1) != ranges[1] {
			t.Errorf("%+v, %+v, %v", f, start, err)
		}
		start.PageSize = 4096
		s.answerFeature(m, f, start.Append(nil))
		m, f = s.feature()
		if f.Flags != codec.FeatureDMALoggingStop|codec.FeatureSet || len(f.Data) != 0 {
			t.Errorf("%+v", f)
		}
		s.answerFeature(m, f, nil)
		m, _ = s.feature()
		s.Refuse(m, unix.EBUSY)
	})
	ctx := testContext(t)
	if size, err := d.StartDMALogging(ctx, 512, ranges...); err != nil || size != 4096 {
		t.Error(size, err)
	}
	if err := d.StopDMALogging(ctx); err != nil {
		t.Error(err)
	}
	if _, err := d.StartDMALogging(ctx, 4096); !errors.Is(err, unix.EBUSY) {
		t.Error(err)
	}
}

// report answers a question for dirty memory: page i of the range is dirty where dirty says so.
func (s *server) report(dirty func(iova uint64) bool) (length uint64) {
	m, f := s.feature()
	var r codec.DMALoggingReport
	if err := r.DecodeRequest(f.Data); err != nil || f.Flags != codec.FeatureDMALoggingReport|codec.FeatureGet {
		s.t.Errorf("%+v, %v", f, err)
		return 0
	}
	r.Bitmap = make([]byte, codec.BitmapBytes(r.Length, r.PageSize))
	for off := uint64(0); off < r.Length; off += r.PageSize {
		if dirty(r.IOVA + off) {
			r.Bitmap[off/r.PageSize/8] |= 1 << (off / r.PageSize % 8)
		}
	}
	if int(f.ArgSz) != 8+24+len(r.Bitmap) {
		s.t.Errorf("argsz %d for a bitmap of %d bytes", f.ArgSz, len(r.Bitmap))
	}
	s.answerFeature(m, f, r.Append(nil))
	return r.Length
}

func TestDirtyBitmap(t *testing.T) {
	const iova, pageSize = 0x4000_0000, 4096
	dirty := func(at uint64) bool { p := (at - iova) / pageSize; return p%7 == 0 || p%64 == 63 }
	for _, pages := range []uint64{1, 63, 64, 65, 1000, 8168*8 - 1, 8168 * 8, 8168*8 + 1, 200000} {
		t.Run(strconv.FormatUint(pages, 10), func(t *testing.T) {
			d := attach(t, func(s *server) { // the server takes and sends 8192 bytes at a time
				for rest := pages * pageSize; rest > 0; {
					n := s.report(dirty)
					if n == 0 || n > rest {
						t.Errorf("%d bytes of %d", n, rest)
						return
					}
					rest -= n
				}
			})
			b, err := d.DirtyBitmap(testContext(t), iova, pages*pageSize, pageSize)
			if err != nil {
				t.Fatal(err)
			}
			var want []uint64
			for p := range pages {
				at := iova + p*pageSize
				if b.Contains(at) != dirty(at) || b.Contains(at+pageSize-1) != dirty(at) {
					t.Fatalf("%d pages: page %d is wrong", pages, p)
				}
				if dirty(at) {
					want = append(want, at)
				}
			}
			var got []uint64
			for at, n := range b.Pages() {
				if n != pageSize {
					t.Fatal("page of", n)
				}
				got = append(got, at)
			}
			if !slices.Equal(got, want) || b.Count() != len(want) {
				t.Errorf("%d pages: %d dirty (%d), want %d", pages, len(got), b.Count(), len(want))
			}
			if b.Contains(iova-1) || b.Contains(iova+pages*pageSize) || b.Contains(math.MaxUint64) {
				t.Error("contains what is outside of the range")
			}
			for range b.Pages() {
				break
			}
		})
	}
}

func TestDirtyBitmapOfAnOddRange(t *testing.T) {
	d := attach(t, func(s *server) {
		m, f := s.feature()
		var r codec.DMALoggingReport
		_ = r.DecodeRequest(f.Data)
		r.Bitmap = bytes.Repeat([]byte{0xff}, 8) // also what is outside
		s.answerFeature(m, f, r.Append(nil))
	})
	b, err := d.DirtyBitmap(testContext(t), math.MaxUint64-0x2fff, 0x2800, 0x1000)
	if err != nil {
		t.Fatal(err)
	}
	if b.Count() != 3 || !b.Contains(math.MaxUint64-0x800) || b.Contains(math.MaxUint64-0x7ff) {
		t.Errorf("%+v", b)
	}
	lengths := []uint64{}
	for _, n := range b.Pages() {
		lengths = append(lengths, n)
	}
	if !slices.Equal(lengths, []uint64{0x1000, 0x1000, 0x800}) {
		t.Error(lengths)
	}
}

func TestDirtyBitmapKeepsWhatWasReportedBeforeAnError(t *testing.T) {
	d := attach(t, func(s *server) {
		s.report(func(uint64) bool { return true })
		m, _ := s.feature()
		s.Refuse(m, unix.EIO)
	})
	d.peer.Migration = &codec.MigrationCaps{MaxBitmapSize: 19} // 16 bytes are whole words
	b, err := d.DirtyBitmap(testContext(t), 0, 200<<12, 1<<12)
	if !errors.Is(err, unix.EIO) || b.Count() != 128 {
		t.Errorf("%v, %d pages", err, b.Count())
	}
}

func TestUnmapDirtyDMA(t *testing.T) {
	mem := newMemory(t, 70<<12)
	answer := func(change func(u *codec.DMAUnmap)) func(*server) {
		return func(s *server) {
			s.Reply(s.Want(codec.CmdDMAMap), nil)
			m := s.Want(codec.CmdDMAUnmap)
			var u codec.DMAUnmap
			if err := u.DecodeRequest(m.Payload); err != nil || u.Flags != codec.UnmapFlagGetDirtyBitmap || u.ArgSz != 24+16+16 ||
				u.Addr != 0x10000 || u.Size != 70<<12 || u.Bitmap.PgSize != 4096 || u.Bitmap.Size != 16 {
				t.Errorf("%+v, %v", u, err)
			}
			u.Bitmap.Data = make([]byte, u.Bitmap.Size)
			u.Bitmap.Data[0], u.Bitmap.Data[8] = 0x81, 0xe0
			change(&u)
			s.Reply(m, u.Append(nil))
		}
	}
	unmap := func(d *Device) (*DirtyBitmap, error) {
		if err := d.MapDMA(testContext(t), mem.At(0x10000)); err != nil {
			t.Fatal(err)
		}
		return d.UnmapDirtyDMA(testContext(t), 0x10000, 70<<12, 4096)
	}
	t.Run("right", func(t *testing.T) {
		d := attach(t, answer(func(*codec.DMAUnmap) {}))
		b, err := unmap(d)
		if err != nil || b.Count() != 3 || !b.Contains(0x10000) || !b.Contains(0x17000) || !b.Contains(0x10000+69<<12) {
			t.Errorf("%+v, %v", b, err)
		}
		if _, mapped := d.MappingOf(mem); mapped {
			t.Error("still mapped")
		}
	})
	for name, change := range map[string]func(u *codec.DMAUnmap){
		"no bitmap":              func(u *codec.DMAUnmap) { u.Flags = 0 },
		"another address":        func(u *codec.DMAUnmap) { u.Addr++ },
		"another size":           func(u *codec.DMAUnmap) { u.Size++ },
		"another page size":      func(u *codec.DMAUnmap) { u.Bitmap.PgSize = 8192 },
		"a bitmap cut short":     func(u *codec.DMAUnmap) { u.Bitmap.Data = u.Bitmap.Data[:8] },
		"a shorter bitmap":       func(u *codec.DMAUnmap) { u.Bitmap.Data = u.Bitmap.Data[:8]; u.Bitmap.Size = 8 },
		"a longer bitmap":        func(u *codec.DMAUnmap) { u.Bitmap.Data = make([]byte, 24); u.Bitmap.Size = 24 },
		"argsz without a bitmap": func(u *codec.DMAUnmap) { u.ArgSz = 24 },
	} {
		t.Run(name, func(t *testing.T) {
			d := attach(t, answer(change))
			if _, err := unmap(d); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			ended(t, d, ErrProtocol)
		})
	}
	t.Run("unmap without bitmap that is answered with another region", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.Reply(s.Want(codec.CmdDMAUnmap), (&codec.DMAUnmap{ArgSz: 24, Addr: 0x2000, Size: 0x1000}).Append(nil))
		})
		if err := d.UnmapDMA(testContext(t), 0x1000, 0x1000); !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	})
}

func TestDirtyArgumentsAreChecked(t *testing.T) {
	d := attach(t, func(*server) {})
	for name, a := range map[string][3]uint64{
		"page size 0":             {0, 4096, 0},
		"page size 3":             {0, 4096, 3},
		"nothing":                 {0, 0, 4096},
		"wraps":                   {math.MaxUint64, 2, 4096},
		"more than anybody needs": {0, math.MaxUint64, 1},
	} {
		if _, err := d.DirtyBitmap(testContext(t), a[0], a[1], a[2]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := d.UnmapDirtyDMA(testContext(t), a[0], a[1], a[2]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.UnmapDirtyDMA(testContext(t), 0, 8192*8*4096, 4096); !errors.Is(err, ErrInvalid) {
		t.Error("a bitmap that exceeds a message:", err)
	}
}

func TestHostileDirtyReportEndsTheSession(t *testing.T) {
	for name, change := range map[string]func(r *codec.DMALoggingReport){
		"another address":    func(r *codec.DMALoggingReport) { r.IOVA++ },
		"another length":     func(r *codec.DMALoggingReport) { r.Length -= 4096 },
		"another page size":  func(r *codec.DMALoggingReport) { r.PageSize *= 2 },
		"a bitmap cut short": func(r *codec.DMALoggingReport) { r.Bitmap = r.Bitmap[8:] },
		"no bitmap":          func(r *codec.DMALoggingReport) { r.Bitmap = nil },
		"an odd page size":   func(r *codec.DMALoggingReport) { r.PageSize = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				m, f := s.feature()
				var r codec.DMALoggingReport
				_ = r.DecodeRequest(f.Data)
				r.Bitmap = make([]byte, codec.BitmapBytes(r.Length, r.PageSize))
				change(&r)
				s.answerFeature(m, f, r.Append(nil))
			})
			if _, err := d.DirtyBitmap(testContext(t), 0, 65*4096, 4096); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			ended(t, d, ErrProtocol)
		})
	}
	t.Run("logging with page size 3", func(t *testing.T) {
		d := attach(t, func(s *server) {
			m, f := s.feature()
			s.answerFeature(m, f, (&codec.DMALogging{PageSize: 3}).Append(nil))
		})
		if _, err := d.StartDMALogging(testContext(t), 4096); !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	})
}
