package block

import (
	"bytes"
	"errors"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// resizers makes one backend of each kind that can change its size, filtered ones included.
func resizers(t *testing.T, size int64, test func(t *testing.T, b Resizer)) {
	kinds(t, size, func(t *testing.T, b Backend) { test(t, b.(Resizer)) })
	for name, wrap := range map[string]func(Backend) (Backend, error){
		"filter": func(b Backend) (Backend, error) { return Wrap(b, "stats", FilterOptions{}) },
		"cache":  func(b Backend) (Backend, error) { return NewVolatile(b, VolatileOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Memory(size)
			must(t, err)
			b, err := wrap(m)
			test(t, closing(t, b, err).(Resizer))
		})
	}
}

func TestResize(t *testing.T) {
	const size = 3<<20 + 512
	resizers(t, size, func(t *testing.T, b Resizer) {
		ones := bytes.Repeat([]byte{1}, 16<<20)
		want := ones[:size]
		must(t, write(b, 0, want))
		for _, n := range []int64{1<<20 + 512, 9 << 20, 9<<20 + 512, 512, 4096, size, 1 << 20, 16 << 20} {
			must(t, b.Resize(n))
			if b.Size() != n {
				t.Fatalf("Size is %d, want %d", b.Size(), n)
			}
			was := min(int64(len(want)), n)
			want = append(want[:was:was], make([]byte, n-was)...)
			got := bytes.Clone(ones[:n])
			must(t, read(b, 0, got))
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes: what was there is not, or what is new is not zero", n)
			}
			if err := read(b, n-512, make([]byte, 1024)); err != ErrRange {
				t.Errorf("%d bytes: a read across the end: %v, want ErrRange", n, err)
			}
			must(t, write(b, 0, ones[:n]))
			must(t, do(b, &Request{Op: Flush}))
			want = ones[:n]
		}
		for _, n := range []int64{0, -512, 1000, math.MinInt64} {
			if err := b.Resize(n); !errors.Is(err, ErrSpec) {
				t.Errorf("%d bytes: %v, want ErrSpec", n, err)
			}
		}
		if b.Size() != 16<<20 {
			t.Errorf("Size is %d after failures", b.Size())
		}
	})
}

func TestResizeFails(t *testing.T) {
	null := func() Backend { b, err := Null(1 << 20); must(t, err); return b }
	closed := func(b Backend) Backend { must(t, b.Close()); return b }
	readOnly, err := File(newPath(t, 1<<20), FileOptions{ReadOnly: true})
	must(t, err)
	unclaimed, err := File(newPath(t, 1<<20), FileOptions{Unclaimed: true})
	must(t, err)
	plain, _ := newFile(t, 1<<20)
	fixed, err := Wrap(&fixedSize{Backend: null()}, "stats", FilterOptions{})
	must(t, err)
	stats, err := Wrap(null(), "stats", FilterOptions{})
	must(t, err)
	cache, err := NewVolatile(null(), VolatileOptions{})
	must(t, err)
	memory, err := Memory(1 << 20)
	must(t, err)
	file, err := File(newPath(t, 1<<20), FileOptions{})
	must(t, err)
	for _, tt := range []struct {
		name string
		b    Backend
		size int64
		want error
	}{
		{"more than the addresses", newMemory(t, 1<<20), 1 << 62, syscall.ENOMEM},
		{"more than a file can have", plain, math.MaxInt64 &^ 511, syscall.EFBIG},
		{"nbd", new(nbd), 1 << 20, ErrFixedSize},
		{"filter in front of what cannot", fixed, 1 << 20, errors.ErrUnsupported},
		{"read-only file", readOnly, 2 << 20, ErrReadOnly},
		{"unclaimed file", unclaimed, 2 << 20, ErrUnclaimed},
		{"closed memory", closed(memory), 2 << 20, ErrClosed},
		{"closed file", closed(file), 2 << 20, ErrClosed},
		{"closed null", closed(null()), 2 << 20, ErrClosed},
		{"closed filter", closed(stats), 2 << 20, ErrClosed},
		{"closed cache", closed(cache), 2 << 20, ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.b.(Resizer).Resize(tt.size); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.name != "nbd" && tt.b.Size() != 1<<20 {
				t.Errorf("Size is %d", tt.b.Size())
			}
		})
	}
	for _, b := range []Backend{readOnly, unclaimed, fixed} {
		must(t, b.Close())
	}
}

// fixedSize hides that a backend is a Resizer.
type fixedSize struct{ Backend }

func TestResizedFileIsAsLong(t *testing.T) {
	f, path := newFile(t, 1<<20)
	for _, n := range []int64{4 << 20, 512} {
		must(t, f.Resize(n))
		if info, err := os.Stat(path); err != nil || info.Size() != n {
			t.Errorf("the file has %d bytes, want %d; %v", info.Size(), n, err)
		}
	}
}

// A new length that cannot be made durable is not kept.
func TestResizeIsDurable(t *testing.T) {
	f, path := newFile(t, 1<<20)
	f.kernel.fdatasync = func(int) error { return syscall.EIO }
	if err := f.Resize(2 << 20); !errors.Is(err, syscall.EIO) || f.Size() != 1<<20 {
		t.Errorf("%v, and the size is %d", err, f.Size())
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1<<20 {
		t.Errorf("the file has %d bytes; %v", info.Size(), err)
	}
}

func TestResizeGivesMemoryBack(t *testing.T) {
	m := newMemory(t, 8<<20)
	must(t, write(m, 0, bytes.Repeat([]byte{1}, 8<<20)))
	must(t, m.Resize(2<<20))
	if n := resident(t, m.data[:8<<20]); n != 2<<20 {
		t.Errorf("%d bytes populated, want 2 MiB", n)
	}
}

// A cache forgets what is cut off, and the sectors of a page that are not go on being cached.
func TestResizedCache(t *testing.T) {
	m := newMemory(t, 1<<20)
	v, err := NewVolatile(m, VolatileOptions{})
	must(t, err)
	ones := bytes.Repeat([]byte{1}, 1<<20)
	must(t, write(v, 0, ones))
	must(t, v.Resize(volatilePage+1024))
	if len(v.pages) != 2 {
		t.Errorf("%d pages are in the cache, want 2", len(v.pages))
	}
	must(t, do(v, &Request{Op: Flush}))
	must(t, v.Resize(4*volatilePage))
	got := make([]byte, 4*volatilePage)
	must(t, read(v, 0, got))
	if n := bytes.Count(got, []byte{1}); n != volatilePage+1024 || !bytes.Equal(got[:n], ones[:n]) {
		t.Errorf("%d bytes are left, want %d", n, volatilePage+1024)
	}
	must(t, v.Close())
}

// A request that was on its way when its range was cut off fails, and the cache stays sound.
func TestResizeOvertakesCachedWrite(t *testing.T) {
	m := newMemory(t, 1<<20)
	v, err := NewVolatile(m, VolatileOptions{})
	must(t, err)
	v.mu.Lock()
	c := make(result, 1)
	page := make([]byte, 4096)
	done, err := v.Submit(&Request{Op: Write, Offset: 512 << 10, Length: 4096, Buffers: [][]byte{page}, Completer: c})
	if done {
		t.Fatal(err)
	}
	must(t, m.Resize(64<<10))
	v.mu.Unlock()
	if err := <-c; err != ErrRange {
		t.Errorf("%v, want ErrRange", err)
	}
	must(t, do(v, &Request{Op: Flush}))
	must(t, v.Close())
}

// Requests that keep to what stays do not notice a change of the size.
func TestResizeUnderLoad(t *testing.T) {
	resizers(t, 4<<20, func(t *testing.T, b Resizer) {
		var stop atomic.Bool
		var wait sync.WaitGroup
		for i := range 3 {
			wait.Go(func() {
				for n := byte(0); !stop.Load() || n == 0; n++ {
					data, got := bytes.Repeat([]byte{n}, 8192), make([]byte, 8192)
					off := int64(i) * 65536
					if err := errors.Join(write(b, off, data), read(b, off, got)); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%v, or other data", err)
						return
					}
				}
			})
		}
		for range 20 {
			must(t, b.Resize(1<<20))
			must(t, b.Resize(40<<20))
		}
		stop.Store(true)
		wait.Wait()
	})
}

// A block device has the size that it has; it need not be used whole.
func TestResizeDevice(t *testing.T) {
	b, err := File(loopDevice(t, 1<<20), FileOptions{})
	f := closing(t, b, err).(*file)
	must(t, f.Resize(512<<10))
	if err := read(f, 512<<10, make([]byte, 512)); err != ErrRange {
		t.Errorf("behind the end: %v", err)
	}
	must(t, f.Resize(1<<20))
	if err := f.Resize(2 << 20); !errors.Is(err, syscall.ENOSPC) || f.Size() != 1<<20 {
		t.Errorf("%v, and the size is %d", err, f.Size())
	}
}
