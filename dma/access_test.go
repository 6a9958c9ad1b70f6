package dma

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAccessIsLittleEndianAtAnyAlignment(t *testing.T) {
	le := binary.LittleEndian
	for off := range 24 {
		b := make([]byte, 32)
		for i := range b {
			b[i] = byte(0x10 + i)
		}
		if got, want := Load16(b, off), le.Uint16(b[off:]); got != want {
			t.Errorf("Load16 at %d: %#x, want %#x", off, got, want)
		}
		if got, want := Load32(b, off), le.Uint32(b[off:]); got != want {
			t.Errorf("Load32 at %d: %#x, want %#x", off, got, want)
		}
		if got, want := Load64(b, off), le.Uint64(b[off:]); got != want {
			t.Errorf("Load64 at %d: %#x, want %#x", off, got, want)
		}
		const v = 0xf1f2f3f4f5f6f7f8
		for name, tc := range map[string]struct {
			store func([]byte)
			want  []byte
		}{
			"Store16":        {func(b []byte) { Store16(b, off, v&0xffff) }, le.AppendUint16(nil, v&0xffff)},
			"Store32":        {func(b []byte) { Store32(b, off, v&0xffffffff) }, le.AppendUint32(nil, v&0xffffffff)},
			"Store64":        {func(b []byte) { Store64(b, off, v) }, le.AppendUint64(nil, v)},
			"StoreRelease16": {func(b []byte) { StoreRelease16(b, off, v&0xffff) }, le.AppendUint16(nil, v&0xffff)},
			"StoreRelease32": {func(b []byte) { StoreRelease32(b, off, v&0xffffffff) }, le.AppendUint32(nil, v&0xffffffff)},
			"StoreRelease64": {func(b []byte) { StoreRelease64(b, off, v) }, le.AppendUint64(nil, v)},
		} {
			got := make([]byte, 32)
			want := make([]byte, 32)
			copy(want[off:], tc.want)
			tc.store(got)
			if string(got) != string(want) {
				t.Errorf("%s at %d:\n got %x\nwant %x", name, off, got, want)
			}
		}
	}
	for off := range 16 {
		got, want := make([]byte, 48), make([]byte, 48)
		Publish16(got[off:], 0x0807060504030201, 0x100f0e0d0c0b0a09)
		for i := range 16 {
			want[off+i] = byte(i + 1)
		}
		if string(got) != string(want) {
			t.Errorf("Publish16 at %d: %x", off, got)
		}
		var entry [64]byte
		src := make([]byte, 96)
		for i := range src {
			src[i] = byte(i)
		}
		CopyIn64(&entry, src[off:])
		if string(entry[:]) != string(src[off:off+64]) {
			t.Errorf("CopyIn64 at %d", off)
		}
	}
}

func TestAccessOutsidePanics(t *testing.T) {
	var entry [64]byte
	for name, f := range map[string]func(b []byte){
		"Load16":         func(b []byte) { Load16(b, 63) },
		"Load32":         func(b []byte) { Load32(b, 61) },
		"Load64":         func(b []byte) { Load64(b, 57) },
		"Store16":        func(b []byte) { Store16(b, 63, 1) },
		"Store32":        func(b []byte) { Store32(b, 61, 1) },
		"Store64":        func(b []byte) { Store64(b, 57, 1) },
		"StoreRelease16": func(b []byte) { StoreRelease16(b, 63, 1) },
		"StoreRelease32": func(b []byte) { StoreRelease32(b, 61, 1) },
		"StoreRelease64": func(b []byte) { StoreRelease64(b, 57, 1) },
		"Publish16":      func(b []byte) { Publish16(b[49:], 1, 1) },
		"CopyIn64":       func(b []byte) { CopyIn64(&entry, b[1:]) },
		"negative":       func(b []byte) { Load32(b, -4) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v := recover(); v == nil {
					t.Error("no panic")
				} else if _, fault := IsFault(v); fault {
					t.Errorf("a fault, not a bounds error: %v", v)
				}
			}()
			f(make([]byte, 64))
		})
	}
}

// sharedPage gives two mappings of one page, as a device and a guest have them. The
// race detector does not look at memory outside the heap, which is what is wanted
// here: the two sides are not one program.
func sharedPage(t testing.TB) (device, guest []byte) {
	t.Helper()
	file := newFile(t, page)
	var out [2][]byte
	for i := range out {
		tab := newTable(t, Config{})
		must(t, tab.Map(Mapping{IOVA: 0, Size: page, Prot: rw, FD: dup(t, file)}))
		out[i] = tab.Regions()[0].Local
	}
	return out[0], out[1]
}

// spin waits as a polling queue does, and lets others run on a machine with one core.
func spin(ok func() bool) {
	for i := 1; !ok(); i++ {
		if i%1000 == 0 {
			runtime.Gosched()
		}
	}
}

// A guest that polls the phase of a completion sees all of the entry with it.
func TestPublishIsNeverTorn(t *testing.T) {
	device, guest := sharedPage(t)
	const entries, rounds = 64, 100
	errs := make(chan error, 1)
	go func() {
		for i := range uint64(entries * rounds) {
			slot := guest[i%entries*16:][:16]
			spin(func() bool { return Load64(slot, 8) == ^i })
			if lo := Load64(slot, 0); lo != i*0x0101010101010101 {
				errs <- fmt.Errorf("entry %d: lower half %#x", i, lo)
				return
			}
			Store64(guest, page-8, i+1)
		}
		errs <- nil
	}()
	for i := range uint64(entries * rounds) {
		spin(func() bool { return i-Load64(device, page-8) < entries })
		Publish16(device[i%entries*16:], i*0x0101010101010101, ^i)
	}
	must(t, <-errs)
}

// Two sides that each store and then look at the other's word cannot both miss: what
// the event index of a queue relies on.
func TestStoreIsAFullFence(t *testing.T) {
	type word struct {
		store func(b []byte, off int, v uint32)
		load  func(b []byte, off int) uint32
	}
	for name, w := range map[string]word{
		"16": {
			func(b []byte, off int, v uint32) { Store16(b, off, uint16(v)) },
			func(b []byte, off int) uint32 { return uint32(Load16(b, off)) },
		},
		"32": {Store32, Load32},
		"64": {
			func(b []byte, off int, v uint32) { Store64(b, off, uint64(v)) },
			func(b []byte, off int) uint32 { return uint32(Load64(b, off)) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			device, guest := sharedPage(t)
			const rounds, pairs = 200, page/16 - 1
			// meet lets both sides begin a round together.
			meet := func(b []byte, mine, theirs int, round uint32) {
				Store32(b, mine, round)
				spin(func() bool { return Load32(b, theirs) >= round })
			}
			side := func(b []byte, mine, theirs int) *[rounds][pairs]bool {
				missed := new([rounds][pairs]bool)
				for r := range uint32(rounds) {
					meet(b, page-16+mine, page-16+theirs, r+1)
					for i := range pairs {
						w.store(b, 16*i+mine, r+1)
						missed[r][i] = w.load(b, 16*i+theirs) < r+1
					}
				}
				return missed
			}
			other := make(chan *[rounds][pairs]bool)
			go func() { other <- side(guest, 8, 0) }()
			a := side(device, 0, 8)
			b := <-other
			for r := range a {
				for i := range a[r] {
					if a[r][i] && b[r][i] {
						t.Fatalf("round %d, pair %d: both sides missed the other", r, i)
					}
				}
			}
		})
	}
}

func TestPrefetchChangesNothing(t *testing.T) {
	b := []byte{1, 2, 3}
	PrefetchWrite(&b[1])
	if b[0] != 1 || b[1] != 2 || b[2] != 3 {
		t.Error(b)
	}
	// What is not there is no fault.
	fd := newFile(t, page)
	m, err := unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(m)
	must(t, unix.Ftruncate(fd, 0))
	PrefetchWrite(&m[0])
}
