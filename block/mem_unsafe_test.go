package block

import (
	"bytes"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident counts the bytes of b that have memory behind them.
func resident(t *testing.T, b []byte) (n int64) {
	t.Helper()
	pagemap, err := os.Open("/proc/self/pagemap")
	must(t, err)
	defer pagemap.Close()
	page := os.Getpagesize()
	entries := make([]byte, len(b)/page*8)
	_, err = pagemap.ReadAt(entries, int64(uintptr(unsafe.Pointer(&b[0])))/int64(page)*8)
	must(t, err)
	for i := 7; i < len(entries); i += 8 {
		if entries[i]&0xc0 != 0 { // present or swapped
			n += int64(page)
		}
	}
	return n
}

func newMemory(t *testing.T, size int64) *memory {
	t.Helper()
	b, err := Memory(size)
	return closing(t, b, err).(*memory)
}

func TestMemoryIsPopulatedByWritesAlone(t *testing.T) {
	m := newMemory(t, 1<<40)
	page := make([]byte, 4096)
	must(t, read(m, 512<<30, page))
	must(t, do(m, &Request{Op: WriteZeroes, Offset: 512, Length: 1024}))
	must(t, do(m, &Request{Op: Discard, Offset: 0, Length: m.Size()}))
	if n := resident(t, m.data[1<<30:][:8<<20]); n != 0 {
		t.Errorf("%d bytes populated", n)
	}
	page[0] = 1
	must(t, write(m, 1<<30, page))
	if n := resident(t, m.data[1<<30:][:8<<20]); n == 0 || n > hugePage {
		t.Errorf("%d bytes populated by one page", n)
	}
}

func TestMemoryGivesBack(t *testing.T) {
	const size = 32 << 20
	ones := bytes.Repeat([]byte{1}, size)
	for _, tt := range []struct {
		name     string
		req      Request
		resident int64
	}{
		{"discard in Submit", Request{Op: Discard, Length: 8 << 20}, size - 8<<20},
		{"zeroes in Submit", Request{Op: WriteZeroes, Offset: 2 << 20, Length: 8 << 20}, size - 8<<20},
		{"discard in the background", Request{Op: Discard, Offset: 4 << 20, Length: 24 << 20}, size - 24<<20},
		{"only whole huge pages", Request{Op: Discard, Offset: 512, Length: 4 << 20}, size - hugePage},
		{"all", Request{Op: Discard, Length: size}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory(t, size)
			must(t, write(m, 0, ones))
			must(t, do(m, &tt.req))
			if n := resident(t, m.data[:size]); n != tt.resident {
				t.Errorf("%d bytes populated, want %d", n, tt.resident)
			}
		})
	}
}

func TestMemoryIsReleased(t *testing.T) {
	mapped := func(at uintptr) bool {
		var vec [hugePage / 4096]byte
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, at, hugePage, uintptr(unsafe.Pointer(&vec)))
		return errno == 0
	}
	b, err := Memory(8 << 20)
	must(t, err)
	data := b.(*memory).data[:8<<20]
	must(t, write(b, 0, bytes.Repeat([]byte{1}, len(data))))
	must(t, b.Close())
	if n := resident(t, data); n != 0 {
		t.Errorf("%d bytes populated after Close", n)
	}
	at := uintptr(unsafe.Pointer(&data[0]))
	b, data = nil, nil
	collect(t, "the addresses are free", func() bool { return !mapped(at) })
}

func TestMemorySurvivesGuestFault(t *testing.T) {
	m := newMemory(t, 1<<20)
	guest := truncated(t)
	page := len(guest) / 2
	submit := func(r *Request) (fault any) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() { fault = recover() }()
		_, err := m.Submit(r)
		t.Errorf("%v: %v, want a fault", r.Op, err)
		return nil
	}
	for _, op := range []Op{Read, Write} {
		fault := submit(&Request{Op: op, Length: int64(len(guest)), Buffers: [][]byte{guest}})
		addr, ok := fault.(interface{ Addr() uintptr })
		if !ok {
			t.Fatalf("%v: recovered %v, want a fault", op, fault)
		}
		first := uintptr(unsafe.Pointer(&guest[0]))
		if at := addr.Addr(); at < first+uintptr(page) || at >= first+uintptr(len(guest)) {
			t.Errorf("%v: fault at offset %d, want the second page", op, at-first)
		}
	}
	want := []byte(strings.Repeat("goes on ", 64))
	got := make([]byte, len(want))
	must(t, write(m, 4096, want))
	must(t, read(m, 4096, got))
	if !bytes.Equal(got, want) {
		t.Error("the data is damaged")
	}
}

func TestMemoryBeginsOnHugePage(t *testing.T) {
	for range 4 {
		m := newMemory(t, 512)
		if at := uintptr(unsafe.Pointer(&m.data[0])); at%hugePage != 0 {
			t.Errorf("begins at %#x", at)
		}
	}
}
