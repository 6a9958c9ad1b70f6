package block

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// script answers system calls from a list, then lets the rest through. It
// notes each call.
type script struct {
	mu    sync.Mutex
	calls []string
	// answers by name of the call, used up from the front. An answer with
	// neither count nor errno is let through; fallocate just succeeds.
	answers map[string][]answer
}

type answer struct {
	most  int // transfer at most so many bytes; 0 is no limit
	errno syscall.Errno
}

const none = -1 // an answer that transfers nothing, and no error

func (s *script) next(name, call string) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	list := s.answers[name]
	if len(list) == 0 {
		return answer{}
	}
	s.answers[name] = list[1:]
	return list[0]
}

// noted returns the calls so far and forgets them.
func (s *script) noted() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.calls, ", ")
	s.calls = nil
	return text
}

// scripted returns a backend whose kernel follows a script.
func scripted(t *testing.T, answers map[string][]answer) (*file, *script) {
	f, _ := newFileWith(t, 1<<20, FileOptions{Engine: EngineThreads})
	f.resident = false
	f.noInline[Read].Store(true)
	f.noInline[Write].Store(true)
	s := &script{answers: answers}
	real := f.kernel
	vector := func(name string, call func(int, []unix.Iovec, int64, int) (int, syscall.Errno)) func(int, []unix.Iovec, int64, int) (int, syscall.Errno) {
		return func(fd int, iov []unix.Iovec, off int64, flags int) (int, syscall.Errno) {
			var n int
			for i := range iov {
				n += int(iov[i].Len)
			}
			how := ""
			if flags&unix.RWF_DSYNC != 0 {
				how = " dsync"
			}
			if flags&unix.RWF_NOWAIT != 0 {
				how = " nowait"
			}
			a := s.next(name, fmt.Sprintf("%s %d@%d%s", name, n, off, how))
			if a.errno != 0 || a.most == none {
				return 0, a.errno
			}
			if a.most != 0 {
				left := a.most
				iov = slices.Clone(iov)
				for i := range iov {
					iov[i].SetLen(min(left, int(iov[i].Len)))
					left -= int(iov[i].Len)
				}
			}
			// Not every file system can do without waiting.
			return call(fd, iov, off, flags&^unix.RWF_NOWAIT)
		}
	}
	f.kernel = kernel{
		preadv2:  vector("read", real.preadv2),
		pwritev2: vector("write", real.pwritev2),
		fallocate: func(fd int, mode uint32, off, n int64) error {
			name := map[uint32]string{unix.FALLOC_FL_PUNCH_HOLE: "punch", unix.FALLOC_FL_ZERO_RANGE: "zero"}[mode&^unix.FALLOC_FL_KEEP_SIZE]
			if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
				name += " and grow"
			}
			if a := s.next(name, fmt.Sprintf("%s %d@%d", name, n, off)); a.errno != 0 {
				return a.errno
			}
			return nil
		},
		fdatasync: func(fd int) error {
			if a := s.next("sync", "sync"); a.errno != 0 {
				return a.errno
			}
			return real.fdatasync(fd)
		},
	}
	return f, s
}

func TestFileAndKernel(t *testing.T) {
	type script = map[string][]answer
	buf := bytes.Repeat([]byte("0123456789abcdef"), 128) // 2,048 bytes
	bufs := [][]byte{buf[:100], buf[100:1100], buf[1100:]}
	rd := Request{Op: Read, Offset: 512, Length: 2048, Buffers: bufs}
	wr := Request{Op: Write, Offset: 512, Length: 2048, Buffers: bufs}
	fua := Request{Op: Write, FUA: true, Offset: 512, Length: 2048, Buffers: bufs}
	zero := Request{Op: WriteZeroes, Offset: 512, Length: 1024}
	zeroFUA := Request{Op: WriteZeroes, FUA: true, Offset: 512, Length: 1024}
	dealloc := Request{Op: WriteZeroes, Deallocate: true, Offset: 512, Length: 1024}
	disc := Request{Op: Discard, Offset: 512, Length: 1024}
	flush := Request{Op: Flush}
	tests := []struct {
		name    string
		req     Request
		answers script
		want    error
		calls   string
	}{
		{"read at once", rd, nil, nil, "read 2048@512"},
		{"write at once", wr, nil, nil, "write 2048@512"},
		{"partial read is resumed", rd, script{"read": {{most: 50}, {most: 550}}}, nil, "read 2048@512, read 1998@562, read 1448@1112"},
		{"partial write is resumed", wr, script{"write": {{most: 100}, {most: 1000}}}, nil, "write 2048@512, write 1948@612, write 948@1612"},
		{"interrupted read", rd, script{"read": {{errno: syscall.EINTR}, {errno: syscall.EINTR}}}, nil, "read 2048@512, read 2048@512, read 2048@512"},
		{"EAGAIN is tried again", wr, script{"write": {{errno: syscall.EAGAIN}}}, nil, "write 2048@512, write 2048@512"},
		{"EFAULT is the caller's memory", rd, script{"read": {{errno: syscall.EFAULT}}}, ErrMemory, "read 2048@512"},
		{"EFAULT in the middle", wr, script{"write": {{most: 512}, {errno: syscall.EFAULT}}}, ErrMemory, "write 2048@512, write 1536@1024"},
		{"EIO on read", rd, script{"read": {{errno: syscall.EIO}}}, syscall.EIO, "read 2048@512"},
		{"EIO on write", wr, script{"write": {{errno: syscall.EIO}}}, syscall.EIO, "write 2048@512"},
		{"no space", wr, script{"write": {{most: 1024}, {errno: syscall.ENOSPC}}}, syscall.ENOSPC, "write 2048@512, write 1024@1536"},
		{"write that writes nothing", wr, script{"write": {{most: none}}}, syscall.EIO, "write 2048@512"},
		{"FUA is one call", fua, nil, nil, "write 2048@512 dsync"},
		{"FUA on an old file system", fua, script{"write": {{errno: syscall.EOPNOTSUPP}}}, nil, "write 2048@512 dsync, write 2048@512, sync"},
		{"write unsupported", wr, script{"write": {{errno: syscall.EOPNOTSUPP}}}, syscall.EOPNOTSUPP, "write 2048@512"},
		{"flush", flush, nil, nil, "sync"},
		{"interrupted flush", flush, script{"sync": {{errno: syscall.EINTR}}}, nil, "sync, sync"},
		{"flush fails", flush, script{"sync": {{errno: syscall.EIO}}}, syscall.EIO, "sync"},
		{"discard", disc, nil, nil, "punch 1024@512"},
		{"discard interrupted", disc, script{"punch": {{errno: syscall.EINTR}, {errno: syscall.EAGAIN}}}, nil, "punch 1024@512, punch 1024@512, punch 1024@512"},
		{"discard unsupported", disc, script{"punch": {{errno: syscall.EOPNOTSUPP}}}, nil, "punch 1024@512"},
		{"discard in parts of a device's blocks", disc, script{"punch": {{errno: syscall.EINVAL}}}, nil, "punch 1024@512"},
		{"discard fails", disc, script{"punch": {{errno: syscall.EIO}}}, syscall.EIO, "punch 1024@512"},
		{"zeroes", zero, nil, nil, "zero 1024@512"},
		{"zeroes may deallocate", dealloc, nil, nil, "punch 1024@512"},
		{"zeroes and FUA", zeroFUA, nil, nil, "zero 1024@512, sync"},
		{"zeroes by a hole", zero, script{"zero": {{errno: syscall.EOPNOTSUPP}}}, nil, "zero 1024@512, punch 1024@512"},
		{"zeroes without a hole", dealloc, script{"punch": {{errno: syscall.EOPNOTSUPP}}}, nil, "punch 1024@512, zero 1024@512"},
		{"zeroes as data", zeroFUA, script{"zero": {{errno: syscall.EOPNOTSUPP}}, "punch": {{errno: syscall.ENODEV}}}, nil,
			"zero 1024@512, punch 1024@512, write 1024@512, sync"},
		{"zeroes as data, no space", zero, script{"zero": {{errno: syscall.EINVAL}}, "punch": {{errno: syscall.EINVAL}}, "write": {{errno: syscall.ENOSPC}}},
			syscall.ENOSPC, "zero 1024@512, punch 1024@512, write 1024@512"},
		{"zeroes fail", zero, script{"zero": {{errno: syscall.ENOSPC}}}, syscall.ENOSPC, "zero 1024@512"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, s := scripted(t, tt.answers)
			err := do(f, &tt.req)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			var failure *Error
			if _, isErrno := tt.want.(syscall.Errno); isErrno && !errors.As(err, &failure) {
				t.Errorf("%#v is no *Error", err)
			}
			if got := s.noted(); got != tt.calls {
				t.Errorf("the kernel saw %q, want %q", got, tt.calls)
			}
		})
	}
}

func TestPartialTransfersKeepTheData(t *testing.T) {
	want := make([]byte, 4096)
	for i := range want {
		want[i] = byte(i * 7)
	}
	var parts []answer
	for n := 1; n < 60; n += 7 {
		parts = append(parts, answer{most: n}, answer{errno: syscall.EINTR})
	}
	f, _ := scripted(t, map[string][]answer{"read": slices.Clone(parts), "write": slices.Clone(parts)})
	must(t, write(f, 1024, want[:9], want[9:10], want[10:300], want[300:]))
	got := make([]byte, len(want))
	must(t, read(f, 1024, got[:200], got[200:201], got[201:]))
	if !bytes.Equal(got, want) {
		t.Error("the data is damaged")
	}
}

func TestEndlessEAGAINEnds(t *testing.T) {
	f, _ := scripted(t, map[string][]answer{"read": slices.Repeat([]answer{{errno: syscall.EAGAIN}}, 2*maxRetries)})
	if err := read(f, 0, make([]byte, 512)); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("got %v", err)
	}
}

func TestZeroesAsDataCoverTheRange(t *testing.T) {
	const off, n = 512, 1<<20 - 1024
	unsupported := []answer{{errno: syscall.EOPNOTSUPP}}
	f, _ := scripted(t, map[string][]answer{"zero": unsupported, "punch": unsupported, "write": {{}, {most: 100 << 10}}})
	ones := bytes.Repeat([]byte{1}, 1<<20)
	must(t, write(f, 0, ones))
	must(t, do(f, &Request{Op: WriteZeroes, Offset: off, Length: n}))
	got := make([]byte, 1<<20)
	must(t, read(f, 0, got))
	copy(ones[off:off+n], make([]byte, n))
	if !bytes.Equal(got, ones) {
		t.Error("zeroes are not where they belong")
	}
}

func TestFlushFollowsTheWritesItCovers(t *testing.T) {
	f, s := scripted(t, nil)
	for i := range int64(3) {
		must(t, write(f, i*512, make([]byte, 512)))
	}
	must(t, do(f, &Request{Op: Flush}))
	if got, want := s.noted(), "write 512@0, write 512@512, write 512@1024, sync"; got != want {
		t.Errorf("the kernel saw %q, want %q", got, want)
	}
}

// The kernel reports lost data once; afterwards the pages count as clean.
func TestLostDataIsNotForgotten(t *testing.T) {
	fua := Request{Op: Write, FUA: true, Length: 512, Buffers: [][]byte{make([]byte, 512)}}
	for _, tt := range []struct {
		name    string
		first   Request
		answers map[string][]answer
	}{
		{"flush", Request{Op: Flush}, map[string][]answer{"sync": {{errno: syscall.EIO}}}},
		{"flush without space", Request{Op: Flush}, map[string][]answer{"sync": {{errno: syscall.ENOSPC}}}},
		{"FUA", fua, map[string][]answer{"write": {{errno: syscall.EIO}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := scripted(t, tt.answers)
			first := do(f, &tt.first)
			if first == nil {
				t.Fatal("no error")
			}
			for _, r := range []Request{{Op: Flush}, fua, {Op: WriteZeroes, FUA: true, Length: 512}} {
				if err := do(f, &r); err != first {
					t.Errorf("%v, FUA %v: %v, want %v again", r.Op, r.FUA, err, first)
				}
			}
			must(t, write(f, 0, make([]byte, 512)))
			must(t, read(f, 0, make([]byte, 512)))
		})
	}
	t.Run("a full disk loses nothing", func(t *testing.T) {
		f, _ := scripted(t, map[string][]answer{"write": {{errno: syscall.ENOSPC}}})
		if err := do(f, &fua); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		must(t, do(f, &Request{Op: Flush}))
	})
}

func TestSmallTransfersAreTriedWithoutWaiting(t *testing.T) {
	buf := make([]byte, 4096)
	for _, tt := range []struct {
		name         string
		op           Op
		answers      []answer
		first, later string
		done         bool // by Submit, the first time
	}{
		{"all there", Read, nil, "read 4096@0 nowait", "read 4096@0 nowait", true},
		{"nothing there", Read, []answer{{errno: syscall.EAGAIN}}, "read 4096@0 nowait, read 4096@0", "read 4096@0 nowait", false},
		{"a part there", Read, []answer{{most: 1024}}, "read 4096@0 nowait, read 3072@1024", "read 4096@0 nowait", false},
		{"unsupported", Read, []answer{{errno: syscall.EOPNOTSUPP}}, "read 4096@0 nowait, read 4096@0", "read 4096@0", false},
		{"failure", Read, []answer{{errno: syscall.EIO}}, "read 4096@0 nowait, read 4096@0", "read 4096@0 nowait", false},
		{"write must wait", Write, []answer{{errno: syscall.EAGAIN}}, "write 4096@0 nowait, write 4096@0", "write 4096@0 nowait", false},
		{"write unsupported", Write, []answer{{errno: syscall.EOPNOTSUPP}}, "write 4096@0 nowait, write 4096@0", "write 4096@0", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, s := scripted(t, map[string][]answer{tt.op.String(): tt.answers})
			f.noInline[tt.op].Store(false)
			c := make(result, 1)
			r := Request{Op: tt.op, Length: 4096, Buffers: [][]byte{buf}, Completer: c}
			done, err := f.Submit(&r)
			if done != tt.done {
				t.Errorf("done is %v, want %v", done, tt.done)
			}
			if !done {
				err = <-c
			}
			must(t, err)
			if got := s.noted(); got != tt.first {
				t.Errorf("first the kernel saw %q, want %q", got, tt.first)
			}
			must(t, do(f, &r))
			if got := s.noted(); got != tt.later {
				t.Errorf("later the kernel saw %q, want %q", got, tt.later)
			}
		})
	}
}
