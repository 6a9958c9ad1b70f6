package block

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestRequestRules(t *testing.T) {
	const size = 1 << 20
	buf := make([]byte, 4096)
	bufs := [][]byte{buf}
	tests := []struct {
		name string
		req  Request
		want error
	}{
		{"read inside", Request{Op: Read, Length: 4096, Buffers: bufs}, nil},
		{"write at the very end", Request{Op: Write, Offset: size - 4096, Length: 4096, Buffers: bufs}, nil},
		{"nothing at the very end", Request{Op: Read, Offset: size}, nil},
		{"empty write", Request{Op: Write}, nil},
		{"empty discard", Request{Op: Discard, Offset: 512}, nil},
		{"buffers of no length", Request{Op: Write, Length: 4096, Buffers: [][]byte{{}, buf[:512], nil, buf[512:], {}}}, nil},
		{"flush ignores the range", Request{Op: Flush, Offset: -1, Length: math.MaxInt64}, nil},
		{"read across the end", Request{Op: Read, Offset: size - 512, Length: 4096, Buffers: bufs}, ErrRange},
		{"write behind the end", Request{Op: Write, Offset: size + 512, Length: 4096, Buffers: bufs}, ErrRange},
		{"empty read behind the end", Request{Op: Read, Offset: size + 1}, ErrRange},
		{"negative offset", Request{Op: Read, Offset: -4096, Length: 4096, Buffers: bufs}, ErrRange},
		{"negative length", Request{Op: Discard, Offset: 4096, Length: -1}, ErrRange},
		{"end overflows", Request{Op: Write, Offset: math.MaxInt64, Length: math.MaxInt64, Buffers: bufs}, ErrRange},
		{"length overflows", Request{Op: WriteZeroes, Offset: 512, Length: math.MaxInt64}, ErrRange},
		{"smallest offset", Request{Op: Discard, Offset: math.MinInt64, Length: math.MaxInt64}, ErrRange},
		{"discard across the end", Request{Op: Discard, Offset: 512, Length: size}, ErrRange},
		{"too few buffers", Request{Op: Read, Length: 8192, Buffers: bufs}, ErrRequest},
		{"too many buffers", Request{Op: Write, Length: 512, Buffers: bufs}, ErrRequest},
		{"no buffers", Request{Op: Read, Length: 512}, ErrRequest},
		{"unknown operation", Request{Op: Discard + 1}, ErrRequest},
	}
	check := func(t *testing.T, b Backend) {
		if b.Size() != size {
			t.Errorf("Size is %d, want %d", b.Size(), size)
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if err := do(b, &tt.req); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		}
	}
	kinds(t, size, check)
	t.Run("null", func(t *testing.T) {
		b, err := Null(size)
		check(t, closing(t, b, err))
	})
}

func TestClosedBackendRefuses(t *testing.T) {
	for _, spec := range []string{"mem:64M", "null:64M", "file:" + newPath(t, 64<<20)} {
		b, err := Open(spec)
		must(t, err)
		must(t, b.Close())
		must(t, b.Close())
		for _, op := range []Op{Read, Write, WriteZeroes, Discard} {
			r := &Request{Op: op, Length: 32 << 20}
			if op <= Write {
				r.Buffers = [][]byte{make([]byte, r.Length)}
			}
			if err := do(b, r); err != ErrClosed {
				t.Errorf("%s: %v after Close: %v, want ErrClosed", spec, op, err)
			}
		}
	}
}

func TestZeroingReadsAsZeroes(t *testing.T) {
	// Ranges that begin, end and lie anywhere relative to huge pages.
	const size = 24 << 20
	ranges := []struct{ off, n int64 }{
		{0, size}, {0, 512}, {512, 512}, {4096, 4096}, {hugePage - 512, 1024}, {hugePage, hugePage},
		{hugePage - 512, hugePage + 1024}, {hugePage + 512, 3*hugePage - 512}, {size - 512, 512}, {512, size - 512}, {4096, 20 << 20},
	}
	kinds(t, size, func(t *testing.T, b Backend) {
		ones := bytes.Repeat([]byte{0xff}, size)
		nothing, got := make([]byte, size), make([]byte, size)
		must(t, write(b, 0, ones))
		for _, op := range []Op{WriteZeroes, Discard} {
			if op == Discard && !b.Info().CanDiscard {
				continue
			}
			for _, rg := range ranges {
				must(t, do(b, &Request{Op: op, Offset: rg.off, Length: rg.n}))
				must(t, read(b, 0, got))
				end := rg.off + rg.n
				if !bytes.Equal(got[:rg.off], ones[:rg.off]) || !bytes.Equal(got[end:], ones[end:]) {
					t.Errorf("%v of %d at %d: data outside the range is lost", op, rg.n, rg.off)
				}
				if !bytes.Equal(got[rg.off:end], nothing[:rg.n]) {
					t.Errorf("%v of %d at %d: the range is not zero", op, rg.n, rg.off)
				}
				must(t, write(b, rg.off, ones[rg.off:end]))
			}
		}
	})
}

func TestNullMovesNothing(t *testing.T) {
	b, err := Null(1 << 20)
	closing(t, b, err)
	buf := []byte("untouched")
	must(t, read(b, 0, buf))
	if string(buf) != "untouched" {
		t.Errorf("the buffer became %q", buf)
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{(&Error{Op: Write, Offset: 8192, Length: 4096, Err: errors.New("disk on fire")}).Error(), "block: write of 4096 bytes at 8192: disk on fire"},
		{(&Error{Op: Flush, Err: errors.New("disk on fire")}).Error(), "block: flush: disk on fire"},
		{WriteZeroes.String(), "write zeroes"},
		{Op(9).String(), "operation 9"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}
