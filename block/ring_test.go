package block

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// newRinged returns a file with an io_uring through which everything goes.
func newRinged(t *testing.T, size int64) *file {
	t.Helper()
	f, _ := newFileWith(t, size, FileOptions{Engine: EngineURing})
	f.detour()
	return f
}

func TestEngineFallsBack(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EPERM, syscall.ENOMEM, syscall.EMFILE} {
		k := systemKernel()
		k.setupRing = func(uint32) (int, ringMemory, error) { return -1, ringMemory{}, errno }
		path := newPath(t, 1<<20)
		b, err := openBackend(path, FileOptions{}, k)
		must(t, err)
		f := b.(*file)
		f.detour()
		want, got := bytes.Repeat([]byte{7}, 4096), make([]byte, 4096)
		r := Request{Op: Write, Batch: true, Length: 4096, Buffers: [][]byte{want}}
		must(t, do(f, &r)) // by goroutines, which wait for no Poll
		must(t, read(f, 0, got))
		if !bytes.Equal(got, want) {
			t.Errorf("%v: the data is damaged", errno)
		}
		f.Poll()
		f.Rest()
		must(t, f.Close())
		if _, err := openBackend(path, FileOptions{Engine: EngineURing}, k); !errors.Is(err, errno) || !strings.Contains(err.Error(), "engine=uring") {
			t.Errorf("io_uring asked for: %v, want %v", err, errno)
		}
		b, err = openBackend(path, FileOptions{Engine: EngineThreads}, k)
		must(t, err)
		must(t, b.Close())
		if n := descriptors(t, path); n != 0 {
			t.Errorf("%d descriptors left", n)
		}
	}
}

func TestEngineSettings(t *testing.T) {
	for _, tt := range []struct {
		arg, path string
		opt       FileOptions
		wrong     string
	}{
		{"a", "a", FileOptions{}, ""},
		{"a,engine=uring", "a", FileOptions{Engine: EngineURing}, ""},
		{"a,engine=threads", "a", FileOptions{Engine: EngineThreads}, ""},
		{"a,engine=threads,engine=auto", "a", FileOptions{}, ""},
		{"a,direct,engine=threads", "a", FileOptions{Engine: EngineThreads, Direct: true}, ""},
		{"a,engine=threads,direct", "a", FileOptions{Engine: EngineThreads, Direct: true}, ""},
		{"a,b", "a,b", FileOptions{}, ""},
		{"direct", "direct", FileOptions{}, ""},
		{"a,direct,b", "a,direct,b", FileOptions{}, ""},
		{"a,engine=", "", FileOptions{}, "unknown engine"},
		{"a,engine=steam", "", FileOptions{}, "unknown engine"},
		{",direct", "", FileOptions{}, "no path"},
		{"", "", FileOptions{}, "no path"},
	} {
		path, opt, err := readFileSettings(tt.arg)
		if tt.wrong == "" && err == nil && path == tt.path && (opt == tt.opt || strings.Contains(tt.arg, "auto")) {
			continue
		}
		if tt.wrong == "" || !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %q, %+v, %v", tt.arg, path, opt, err)
		}
	}
	if err := Check("file:/nowhere,engine=steam"); !errors.Is(err, ErrSpec) {
		t.Errorf("Check: %v", err)
	}
}

// ends collects results without a goroutine.
type ends struct{ ok, failed atomic.Int32 }

func (e *ends) CompleteBlock(_ *Request, err error) {
	if err != nil {
		e.failed.Add(1)
	}
	e.ok.Add(1)
}

// One system call starts a round, and nothing is started before Poll.
func TestRoundIsOneCall(t *testing.T) {
	f := newRinged(t, 1<<20)
	var calls, entries atomic.Int32
	f.ring.enter = func(fd int, n uint32) (int, syscall.Errno) {
		calls.Add(1)
		entries.Add(int32(n))
		return enterRing(fd, n)
	}
	var e ends
	rs := make([]Request, 32)
	for i := range rs {
		rs[i] = Request{Op: Write, Batch: true, Offset: int64(i) * 4096, Length: 4096, Buffers: [][]byte{make([]byte, 4096)}, Completer: &e}
		if done, err := f.Submit(&rs[i]); done {
			t.Fatal(err)
		}
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls before Poll", calls.Load())
	}
	for e.ok.Load() < int32(len(rs)) {
		f.Poll()
		runtime.Gosched()
	}
	f.Rest()
	if calls.Load() != 1 || entries.Load() != 32 || e.failed.Load() != 0 {
		t.Errorf("%d calls with %d entries, %d failures; want 1, 32, 0", calls.Load(), entries.Load(), e.failed.Load())
	}
}

// What nobody polls for any more is delivered all the same: after Rest, and on Close.
func TestRestDelivers(t *testing.T) {
	for _, polls := range []int{0, 1, 100} {
		f := newRinged(t, 4<<20)
		rs := make([]Request, 300)
		c := make(result, len(rs))
		for round := range 3 {
			for i := range rs {
				rs[i] = Request{Op: Write, Batch: true, Offset: int64(i) * 4096, Length: 4096, Buffers: [][]byte{make([]byte, 4096)}, Completer: c}
				if done, err := f.Submit(&rs[i]); done {
					t.Fatal(err)
				}
			}
			for range polls {
				f.Poll()
			}
			if round == 2 {
				must(t, f.Close())
			} else {
				f.Rest()
			}
			for range rs {
				must(t, <-c)
			}
		}
		f.Poll()
		f.Rest()
	}
}

// More requests than there is room for wait for their turn, those of the crew included.
func TestRingIsBounded(t *testing.T) {
	f := newRinged(t, 8<<20)
	var most atomic.Uint32
	f.ring.enter = func(fd int, n uint32) (int, syscall.Errno) {
		most.Store(max(most.Load(), n))
		return enterRing(fd, n)
	}
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			rs := make([]Request, 4*ringEntries)
			c := make(result, len(rs))
			for j := range rs {
				rs[j] = Request{Op: Read, Batch: j%3 != 0, Offset: int64(i+j) * 512, Length: 512, Buffers: [][]byte{make([]byte, 512)}, Completer: c}
				if done, err := f.Submit(&rs[j]); done {
					t.Error(err)
				}
			}
			f.Rest()
			for range rs {
				if err := <-c; err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if most.Load() > ringEntries {
		t.Errorf("%d entries in one call", most.Load())
	}
	f.ring.mu.Lock()
	defer f.ring.mu.Unlock()
	for _, s := range f.ring.slots {
		for _, v := range s.iov[:cap(s.iov)] {
			if v.Base != nil {
				t.Fatal("a slot at rest keeps a buffer")
			}
		}
	}
}

// A kernel that cannot take requests now does not lose them.
func TestRingIsRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EAGAIN, syscall.EBUSY, syscall.EINTR, syscall.EBADF, 0} {
		t.Run(errno.Error(), func(t *testing.T) {
			f := newRinged(t, 1<<20)
			var calls int
			f.ring.enter = func(fd int, n uint32) (int, syscall.Errno) {
				calls++
				if calls%3 == 1 {
					return 0, errno
				}
				took, failed := enterRing(fd, min(n, 7))
				return took, failed
			}
			rs := make([]Request, ringEntries+50)
			c := make(result, len(rs))
			for i := range rs {
				rs[i] = Request{Op: Write, Batch: true, Offset: int64(i) * 512, Length: 512, Buffers: [][]byte{bytes.Repeat([]byte{byte(i)}, 512)}, Completer: c}
				if done, err := f.Submit(&rs[i]); done {
					t.Fatal(err)
				}
				if i%100 == 99 {
					f.Rest()
				}
			}
			f.Rest()
			for range rs {
				must(t, <-c)
			}
			got := make([]byte, 512*len(rs))
			must(t, read(f, 0, got))
			for i := range rs {
				if !bytes.Equal(got[i*512:][:512], rs[i].Buffers[0]) {
					t.Fatalf("request %d is lost", i)
				}
			}
		})
	}
}

// What the kernel says of one request.
func TestRingResults(t *testing.T) {
	const size = 64 << 10
	pattern := bytes.Repeat([]byte("0123456789abcdef"), 256) // 4,096 bytes
	for _, tt := range []struct {
		name   string
		op     Op
		fua    bool
		res    int32 // in place of the kernel's
		want   error
		sticks bool // later flushes fail too
	}{
		{"torn read", Read, false, 1000, nil, false},
		{"read of nothing", Read, false, 0, nil, false},
		{"read again", Read, false, -int32(syscall.EAGAIN), nil, false},
		{"interrupted", Read, false, -int32(syscall.EINTR), nil, false},
		{"its thread has ended", Write, false, -int32(syscall.ECANCELED), nil, false},
		{"operation not known", Read, false, -int32(syscall.EINVAL), nil, false},
		{"torn write", Write, false, 512, nil, false},
		{"write of nothing", Write, false, 0, nil, false},
		{"no FUA", Write, true, -int32(syscall.EOPNOTSUPP), nil, false},
		{"bad sector", Read, false, -int32(syscall.EIO), syscall.EIO, false},
		{"bad sector of a write", Write, false, -int32(syscall.EIO), syscall.EIO, false},
		{"full", Write, false, -int32(syscall.ENOSPC), syscall.ENOSPC, false},
		{"guest memory", Write, false, -int32(syscall.EFAULT), ErrMemory, false},
		{"FUA fails", Write, true, -int32(syscall.EIO), syscall.EIO, true},
		{"flush fails", Flush, false, -int32(syscall.EIO), syscall.EIO, true},
		{"flush is full", Flush, false, -int32(syscall.ENOSPC), syscall.ENOSPC, true},
		{"flush again", Flush, false, -int32(syscall.EINTR), nil, false},
		{"no holes", Discard, false, -int32(syscall.EOPNOTSUPP), nil, false},
		{"no zeroes", WriteZeroes, false, -int32(syscall.EOPNOTSUPP), nil, false},
		{"no room for zeroes", WriteZeroes, false, -int32(syscall.ENOSPC), syscall.ENOSPC, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newRinged(t, size)
			must(t, write(f, 4096, pattern))
			var once atomic.Bool
			f.kernel.result = func(_ *Request, res int32) int32 {
				if once.Swap(true) {
					return res
				}
				return tt.res
			}
			buf := bytes.Clone(pattern)
			r := Request{Op: tt.op, FUA: tt.fua, Offset: 4096, Length: 4096}
			switch tt.op {
			case Read:
				clear(buf)
				fallthrough
			case Write:
				r.Buffers = [][]byte{buf[:600], buf[600:1400], buf[1400:]}
			}
			if err := do(f, &r); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.want == nil && tt.op <= Write {
				got := make([]byte, 4096)
				must(t, read(f, 4096, got))
				if !bytes.Equal(got, pattern) || !bytes.Equal(buf, pattern) {
					t.Error("the data is damaged")
				}
			}
			for _, r := range []Request{{Op: Flush}, {Op: Write, FUA: true, Length: 512, Buffers: [][]byte{buf[:512]}}} {
				if err := do(f, &r); (err != nil) != tt.sticks {
					t.Errorf("later %v: %v", r.Op, err)
				}
			}
		})
	}
}

// The kernel gives up what a thread had in flight that ends.
func TestSubmittingThreadEnds(t *testing.T) {
	f := newRinged(t, 8<<20)
	for range 20 {
		rs := make([]Request, 64)
		c := make(result, len(rs))
		submitted := make(chan struct{})
		go func() {
			defer close(submitted)
			runtime.LockOSThread() // it is not unlocked, so the thread ends with the goroutine
			for i := range rs {
				rs[i] = Request{Op: Write, Batch: true, Offset: int64(i) * 65536, Length: 65536, Buffers: [][]byte{make([]byte, 65536)}, Completer: c}
				if done, err := f.Submit(&rs[i]); done {
					t.Error(err)
				}
			}
			f.Poll()
			f.Rest()
		}()
		<-submitted
		for range rs {
			must(t, <-c)
		}
	}
}

// Many rounds of somebody who polls and of others who do not, at the same time.
func TestPollersAndOthers(t *testing.T) {
	f := newRinged(t, 8<<20)
	var wait sync.WaitGroup
	for i := range 2 {
		wait.Go(func() {
			var e ends
			rs := make([]Request, 16)
			for round := range 200 {
				for j := range rs {
					rs[j] = Request{Op: Op((round + j) % 2), Batch: true, Offset: int64(i*16+j) * 4096, Length: 4096, Buffers: [][]byte{make([]byte, 4096)}, Completer: &e}
					if done, err := f.Submit(&rs[j]); done {
						t.Error(err)
						return
					}
				}
				for e.ok.Load() < int32(len(rs)*(round+1)) {
					f.Poll()
					if round%7 == 0 {
						f.Rest()
					}
					runtime.Gosched()
				}
			}
			f.Rest()
			if e.failed.Load() != 0 {
				t.Errorf("%d failures", e.failed.Load())
			}
		})
	}
	for i := range 2 {
		wait.Go(func() {
			for j := range 300 {
				data := bytes.Repeat([]byte{byte(j)}, 8192)
				got := make([]byte, len(data))
				off := int64(4<<20 + i<<20)
				if err := errors.Join(write(f, off, data[:5000], data[5000:]), read(f, off, got)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%v, or other data", err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func TestRingLeavesNothing(t *testing.T) {
	count := func() (n int) {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		for _, e := range entries {
			target, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
			if strings.Contains(target, "io_uring") || strings.Contains(target, "eventfd") {
				n++
			}
		}
		return n
	}
	path := newPath(t, 1<<20)
	first, err := File(path, FileOptions{Engine: EngineURing})
	if err != nil {
		t.Skip(err)
	}
	must(t, first.Close())
	before := count()
	for range 20 {
		b, err := File(path, FileOptions{Engine: EngineURing}) // never ErrInUse
		must(t, err)
		must(t, write(b, 0, make([]byte, 128<<10)))
		must(t, b.Close())
	}
	if n := count(); n != before {
		t.Errorf("%d descriptors, then %d", before, n)
	}
}

// Past the page cache or not, all see the same data.
func TestDirectIsCoherent(t *testing.T) {
	for _, engine := range []Engine{EngineURing, EngineThreads} {
		t.Run(fmt.Sprint(engine), func(t *testing.T) {
			f, _ := newFileWith(t, 1<<20, FileOptions{Engine: engine, Direct: true})
			f.detour()
			page := make([]byte, 16384+8)
			data := page[:8192]
			odd := page[8193:][:8192]
			for i := range 50 {
				for j := range data {
					data[j] = byte(i + j)
				}
				off := int64(i%4) * 512
				if i%2 == 0 {
					copy(odd, data)
					must(t, write(f, off, odd))
					clear(odd)
				} else {
					must(t, write(f, off, data))
				}
				got := make([]byte, 8192)
				must(t, read(f, off, got))
				clear(odd)
				must(t, read(f, off, odd[:1], odd[1:600], odd[600:]))
				if !bytes.Equal(got, data) || !bytes.Equal(odd, data) {
					t.Fatalf("round %d: the data is damaged", i)
				}
			}
		})
	}
}

// A vector that the kernel takes in parts need not be aligned where it is parted.
func TestDirectInParts(t *testing.T) {
	engines(t, func(t *testing.T, opt FileOptions) {
		f, _ := newFileWith(t, 1<<20, opt)
		f.detour()
		f.memAlign = 4 // whatever the file asks for: the crew finds out
		parts := func(data []byte) [][]byte {
			bufs := [][]byte{data[:8]}
			for data = data[8:]; len(data) > 512; data = data[512:] {
				bufs = append(bufs, data[:512])
			}
			return append(bufs, data)
		}
		want, got := make([]byte, 512*512), make([]byte, 512*512)
		for i := range want {
			want[i] = byte(i >> 3)
		}
		must(t, write(f, 512, parts(want)...))
		must(t, read(f, 512, parts(got)...))
		if !bytes.Equal(got, want) {
			t.Error("the data is damaged")
		}
	})
}

// A round allocates nothing, however it is torn into buffers.
func TestRoundAllocatesNothing(t *testing.T) {
	f := newRinged(t, 1<<20)
	var e ends
	rs := make([]Request, 32)
	for i := range rs {
		data := make([]byte, 8192)
		rs[i] = Request{Op: Op(i % 2), Batch: true, Offset: int64(i) * 8192, Length: 8192, Buffers: [][]byte{data[:4096], data[4096:]}, Completer: &e}
	}
	want := int32(0)
	round := func() {
		want += int32(len(rs))
		for i := range rs {
			if done, err := f.Submit(&rs[i]); done {
				t.Fatal(err)
			}
		}
		for e.ok.Load() < want {
			f.Poll()
		}
		f.Rest()
	}
	if n := testing.AllocsPerRun(100, round); n != 0 || e.failed.Load() != 0 {
		t.Errorf("%v allocations, %d failures", n, e.failed.Load())
	}
}
