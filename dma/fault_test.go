package dma

import (
	"errors"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded runs f as a worker would and gives what it panicked with.
func guarded(f func()) (v any) {
	done := make(chan any)
	go func() {
		debug.SetPanicOnFault(true)
		defer func() { done <- recover() }()
		f()
	}()
	return <-done
}

// A client truncates its memory while the device uses it: the goroutine gets a
// panic that names the address, and the table can be taken down as usual.
func TestTruncatedMemoryIsARecoverableFault(t *testing.T) {
	buf := make([]byte, 8*page)
	var entry [64]byte
	for _, tc := range []struct {
		name  string
		touch func(b []byte)
	}{
		{"copy out", func(b []byte) { Copy(buf, b) }},
		{"copy in", func(b []byte) { Copy(b, buf) }},
		{"queue entry", func(b []byte) { CopyIn64(&entry, b[4*page:]) }},
		{"publish", func(b []byte) { Publish16(b[4*page:], 1, 2) }},
		{"load 16", func(b []byte) { Load16(b, 4*page) }},
		{"load 32", func(b []byte) { Load32(b, 4*page) }},
		{"load 64", func(b []byte) { Load64(b, 4*page) }},
		{"load across words", func(b []byte) { Load64(b, 4*page+3) }},
		{"store 16", func(b []byte) { Store16(b, 4*page, 1) }},
		{"store 32", func(b []byte) { Store32(b, 4*page, 1) }},
		{"store 64", func(b []byte) { Store64(b, 4*page, 1) }},
		{"store release", func(b []byte) { StoreRelease32(b, 4*page, 1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkFDs(t)
			tab := newTable(t, Config{})
			file := newFile(t, 8*page)
			must(t, tab.Map(Mapping{IOVA: page, Size: 8 * page, Prot: rw, FD: dup(t, file)}))
			r := newReader(t, tab)
			v := guarded(func() {
				r.Enter()
				b, err := r.Bytes(page, 8*page, rw)
				must(t, err)
				b[0], b[7*page] = 1, 1 // present
				must(t, unix.Ftruncate(file, page))
				tc.touch(b)
				r.Exit()
			})
			if _, ok := IsFault(v); !ok {
				t.Fatalf("recovered %v", v)
			}
			unmapped := false
			must(t, tab.Unmap(page, 8*page, func() { unmapped = true }))
			if unmapped {
				t.Error("unmapped inside the section that faulted")
			}
			r.Exit() // as a worker's recover does
			if !unmapped || mapsOf(t) != 0 {
				t.Error("not unmapped after the fault")
			}
		})
	}
}

func TestIsFaultKnowsOnlyFaults(t *testing.T) {
	var p *int
	for name, v := range map[string]any{
		"nothing":         guarded(func() {}),
		"error":           guarded(func() { panic(errors.New("x")) }),
		"nil dereference": guarded(func() { *p = 1 }),
		"index":           guarded(func() { _ = []int{}[len(t.Name())] }),
	} {
		if addr, ok := IsFault(v); ok {
			t.Errorf("%s: fault at %#x", name, addr)
		}
	}
}

// A goroutine that copies from one guest to another learns which of them has truncated its
// memory.
func TestReaderHoldsTheAddressOfAFault(t *testing.T) {
	var tables [2]*Table
	var readers [2]*Reader
	var files [2]int
	for i := range tables {
		tables[i] = newTable(t, Config{})
		files[i] = newFile(t, 4*page)
		must(t, tables[i].Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: -1}))
		must(t, tables[i].Map(Mapping{IOVA: 4 * page, Size: 4 * page, Prot: rw, FD: dup(t, files[i])}))
		readers[i] = newReader(t, tables[i])
	}
	for gone := range tables {
		v := guarded(func() {
			var mem [2][]byte
			for i, r := range readers {
				r.Enter()
				b, err := r.Bytes(4*page, 4*page, rw)
				must(t, err)
				mem[i] = b
			}
			must(t, unix.Ftruncate(files[gone], page))
			Copy(mem[0], mem[1])
		})
		addr, ok := IsFault(v)
		if !ok {
			t.Fatalf("recovered %v", v)
		}
		for i, r := range readers {
			if r.Holds(addr) != (i == gone) {
				t.Errorf("memory %d is gone, reader %d says %v of the address", gone, i, r.Holds(addr))
			}
			r.Exit()
		}
		must(t, unix.Ftruncate(files[gone], 4*page))
	}
	if newReader(t, tables[0]).Holds(1) {
		t.Error("a reader that never entered holds an address")
	}
}
