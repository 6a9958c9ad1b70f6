package block

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// blocks returns how many bytes of storage a file occupies.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

func TestFileKeepsDataAcrossOpens(t *testing.T) { engines(t, testFileKeepsDataAcrossOpens) }

func testFileKeepsDataAcrossOpens(t *testing.T, opt FileOptions) {
	path := newPath(t, 1<<20)
	want := []byte(strings.Repeat("persistent", 100))
	b, err := File(path, opt)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	must(t, err)
	must(t, write(b, 512, want[:3], want[3:700], want[700:]))
	must(t, b.Close())
	b, err = File(path, opt)
	closing(t, b, err)
	got := make([]byte, len(want))
	must(t, read(b, 512, got[:500], got[500:]))
	if !bytes.Equal(got, want) {
		t.Error("the data is not what was written")
	}
	whole, err := os.ReadFile(path)
	must(t, err)
	if len(whole) != 1<<20 || !bytes.Equal(whole[512:512+len(want)], want) {
		t.Error("the file does not hold the data at its place")
	}
}

func TestFileIsSparse(t *testing.T) { engines(t, testFileIsSparse) }

func testFileIsSparse(t *testing.T, opt FileOptions) {
	const size = 8 << 20
	f, path := newFileWith(t, size, opt)
	if !f.Info().CanDiscard {
		t.Skip("the file system cannot punch holes")
	}
	full := func() {
		t.Helper()
		must(t, write(f, 0, bytes.Repeat([]byte{1}, size)))
		must(t, do(f, &Request{Op: Flush}))
		if n := blocks(t, path); n < size {
			t.Fatalf("%d bytes occupied after writing all", n)
		}
	}
	for _, tt := range []struct {
		name string
		req  Request
		most int64
	}{
		{"discard all", Request{Op: Discard, Length: size}, 64 << 10},
		{"discard half", Request{Op: Discard, Offset: size / 2, Length: size / 2}, size/2 + 64<<10},
		{"zeroes that may deallocate", Request{Op: WriteZeroes, Deallocate: true, Length: size}, 64 << 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			full()
			must(t, do(f, &tt.req))
			if n := blocks(t, path); n > tt.most {
				t.Errorf("%d bytes occupied, want at most %d", n, tt.most)
			}
			if st, err := os.Stat(path); err != nil || st.Size() != size {
				t.Errorf("the file has %d bytes, want %d", st.Size(), size)
			}
		})
	}
	t.Run("zeroes keep the storage", func(t *testing.T) {
		if f.resident {
			t.Skip("tmpfs has no unwritten extents")
		}
		full()
		must(t, do(f, &Request{Op: WriteZeroes, Length: size}))
		if n := blocks(t, path); n < size {
			t.Errorf("%d bytes occupied, want %d", n, size)
		}
	})
}

func TestFileReportsGuestFault(t *testing.T) { engines(t, testFileReportsGuestFault) }

func testFileReportsGuestFault(t *testing.T, opt FileOptions) {
	f, path := newFileWith(t, 1<<20, opt)
	guest := truncated(t)
	for _, op := range []Op{Read, Write} {
		for _, fua := range []bool{false, true} {
			r := Request{Op: op, FUA: fua, Length: int64(len(guest)), Buffers: [][]byte{guest}}
			if err := do(f, &r); err != ErrMemory {
				t.Errorf("%v, FUA %v: %v, want ErrMemory", op, fua, err)
			}
		}
	}
	// A read that ends beyond a shortened file is zeroed by Go, not by the kernel.
	must(t, os.Truncate(path, 512))
	if err := read(f, 512, guest); err != ErrMemory {
		t.Errorf("zeroing: %v, want ErrMemory", err)
	}
	must(t, write(f, 0, make([]byte, 4096)))
	must(t, do(f, &Request{Op: Flush}))
}

func TestShortenedFileReadsAsZeroes(t *testing.T) { engines(t, testShortenedFileReadsAsZeroes) }

func testShortenedFileReadsAsZeroes(t *testing.T, opt FileOptions) {
	f, path := newFileWith(t, 1<<20, opt)
	must(t, write(f, 0, bytes.Repeat([]byte{1}, 8192)))
	must(t, os.Truncate(path, 1000))
	got := bytes.Repeat([]byte{9}, 8192)
	must(t, read(f, 0, got[:512], got[512:700], got[700:4000], got[4000:]))
	want := append(bytes.Repeat([]byte{1}, 1000), make([]byte, 7192)...)
	if !bytes.Equal(got, want) {
		t.Error("what is left, or the zeroes behind it, are wrong")
	}
}

func TestFileInMemoryIsSynchronous(t *testing.T) {
	f, _ := newFile(t, 8<<20)
	f.resident = true
	guest := truncated(t)
	for _, tt := range []struct {
		name string
		req  Request
		done bool
		want error
	}{
		{"small read", Request{Op: Read, Length: 512, Buffers: [][]byte{guest[:512]}}, true, nil},
		{"small write", Request{Op: Write, FUA: true, Length: 512, Buffers: [][]byte{guest[:512]}}, true, nil},
		{"flush", Request{Op: Flush}, true, nil},
		{"guest fault", Request{Op: Read, Length: int64(len(guest)), Buffers: [][]byte{guest}}, true, ErrMemory},
		{"large discard", Request{Op: Discard, Length: 8 << 20}, false, nil},
	} {
		c := make(result, 1)
		tt.req.Completer = c
		done, err := f.Submit(&tt.req)
		if done != tt.done {
			t.Errorf("%s: done is %v, want %v", tt.name, done, tt.done)
		}
		if !done {
			err = <-c
		}
		if err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestAsynchronousRequestNeedsCompleter(t *testing.T) {
	engines(t, testAsynchronousRequestNeedsCompleter)
}

func testAsynchronousRequestNeedsCompleter(t *testing.T, opt FileOptions) {
	f, _ := newFileWith(t, 1<<20, opt)
	if done, err := f.Submit(&Request{Op: Flush}); !done || !errors.Is(err, ErrRequest) {
		t.Errorf("got %v, %v", done, err)
	}
}

func TestManyBuffersInOneRequest(t *testing.T) { engines(t, testManyBuffersInOneRequest) }

func testManyBuffersInOneRequest(t *testing.T, opt FileOptions) {
	const n = 3*maxIovecs + 7
	f, _ := newFileWith(t, 2<<20, opt)
	f.detour()
	want, got := make([]byte, n*512), make([]byte, n*512)
	var in, out [][]byte
	for i := range n {
		want[i*512] = byte(i)
		in = append(in, want[i*512:][:512])
		out = append(out, got[i*512:][:512])
	}
	for _, fua := range []bool{false, true} {
		must(t, do(f, &Request{Op: Write, FUA: fua, Offset: 512, Length: n * 512, Buffers: in}))
	}
	must(t, read(f, 512, out...))
	if !bytes.Equal(got, want) {
		t.Error("the data is damaged")
	}
}

// TestBlockDevice needs root and a free loop device.
func TestBlockDevice(t *testing.T) {
	dev := loopDevice(t, 8<<20)
	b, err := File(dev, FileOptions{})
	closing(t, b, err)
	if b.Size() != 8<<20 {
		t.Errorf("Size is %d", b.Size())
	}
	want, got := bytes.Repeat([]byte("block"), 2048), make([]byte, 10240)
	must(t, write(b, 512, want))
	must(t, do(b, &Request{Op: Flush}))
	must(t, do(b, &Request{Op: Discard, Offset: 4 << 20, Length: 4 << 20}))
	must(t, read(b, 512, got))
	if !bytes.Equal(got, want) {
		t.Error("the data is damaged")
	}
	must(t, do(b, &Request{Op: WriteZeroes, Offset: 1024, Length: 1024}))
	must(t, read(b, 512, got))
	if !bytes.Equal(got[512:1536], make([]byte, 1024)) || !bytes.Equal(got[:512], want[:512]) || !bytes.Equal(got[1536:], want[1536:]) {
		t.Error("zeroes are not where they belong")
	}
	if _, err := File(dev, FileOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("opened again: %v, want ErrInUse", err)
	}
}

// loopDevice returns the path of a block device of size bytes.
func loopDevice(t *testing.T, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a loop device needs root")
	}
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices: %v", err)
	}
	defer ctl.Close()
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Skipf("no free loop device: %v", err)
	}
	backing, err := os.OpenFile(newPath(t, size), os.O_RDWR, 0)
	must(t, err)
	defer backing.Close()
	dev := "/dev/loop" + strconv.Itoa(n)
	loop, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no free loop device: %v", err)
	}
	defer loop.Close()
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(backing.Fd())); err != nil {
		t.Skipf("loop device refused: %v", err)
	}
	t.Cleanup(func() {
		loop, err := os.OpenFile(dev, os.O_RDWR, 0)
		must(t, err)
		defer loop.Close()
		must(t, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0))
	})
	return dev
}
