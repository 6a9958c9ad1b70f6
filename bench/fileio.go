package bench

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fileIO is pread(2) or pwrite(2) of a file at random, depth of them at a time.
type fileIO struct {
	direct, write bool
	size, depth   int
}

func (f fileIO) String() string {
	call, cache := "pread", "cached"
	if f.write {
		call = "pwrite"
	}
	if f.direct {
		cache = "direct"
	}
	return fmt.Sprintf("%s/%s/size=%d/depth=%d", call, cache, f.size, f.depth)
}

// fileLimits are bare loops for every file that a case reads or writes.
func fileLimits() (limits []Limit) {
	seen := map[fileIO]bool{}
	for _, d := range drives() {
		f := d.fileIO()
		if d.load != 0 || d.backend != "cached" && d.backend != "direct" || seen[f] {
			continue
		}
		seen[f] = true
		limits = append(limits, Limit{Name: f.String(), Bytes: f.size, Setup: f.subject})
	}
	return limits
}

func (f fileIO) subject(env *Env) (Subject, error) {
	path, err := newFile(env)
	if err != nil {
		return Subject{}, err
	}
	flags := os.O_RDWR
	if f.direct {
		flags |= unix.O_DIRECT
	}
	file, err := os.OpenFile(path, flags, 0)
	if f.direct && errors.Is(err, unix.EINVAL) {
		return Subject{}, fmt.Errorf("%w: O_DIRECT in %s", ErrUnavailable, env.Dir)
	}
	if err != nil {
		return Subject{}, err
	}
	env.Cleanup(func() { file.Close() })
	memory, err := anonymous(env, f.size*f.depth) // aligned, for O_DIRECT
	if err != nil {
		return Subject{}, err
	}
	call := unix.Pread
	if f.write {
		call = unix.Pwrite
	}
	fd, places := int(file.Fd()), int64(env.fileSize()/f.size)
	loop := func(buf []byte, more func() bool) error {
		for more() {
			at := rand.Int64N(places) * int64(f.size)
			if n, err := call(fd, buf, at); err != nil || n != len(buf) {
				return fmt.Errorf("bench: %v: %d bytes: %w", f, n, cmp.Or(err, io.ErrUnexpectedEOF))
			}
		}
		return nil
	}
	if f.depth == 1 {
		return Subject{Run: func(n int) error {
			return loop(memory, func() bool { n--; return n >= 0 })
		}}, nil
	}
	return Subject{UnderWay: f.depth, Run: func(n int) error {
		var left atomic.Int64
		left.Store(int64(n))
		errs := make([]error, f.depth)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				errs[i] = loop(memory[i*f.size:][:f.size], func() bool { return left.Add(-1) >= 0 })
			})
		}
		all.Wait()
		return errors.Join(errs...)
	}}, nil
}
