package bench

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// fileIO is reads or writes of a file at random, depth of them at a time.
type fileIO struct {
	direct, write bool
	size, depth   int
}

// String names the limit of a file past the page cache.
func (f fileIO) String() string {
	op := "read"
	if f.write {
		op = "write"
	}
	return fmt.Sprintf("aio/%s/size=%d/depth=%d", op, f.size, f.depth)
}

// directLimits are bare loops for every file past the page cache that a case reads or writes, with
// the kernel's asynchronous I/O, whose completions are polled.
func directLimits() (limits []Limit) {
	seen := map[fileIO]bool{}
	for _, d := range drives() {
		f := d.fileIO()
		if d.load != 0 || d.backend != "direct" || seen[f] {
			continue
		}
		seen[f] = true
		limits = append(limits, Limit{Name: f.String(), Bytes: f.size, Setup: f.subject})
	}
	return limits
}

// open makes the file and opens it.
func (f fileIO) open(env *Env) (fd int, err error) {
	path, err := newFile(env)
	if err != nil {
		return -1, err
	}
	flags := os.O_RDWR
	if f.direct {
		flags |= unix.O_DIRECT
	}
	file, err := os.OpenFile(path, flags, 0)
	if f.direct && errors.Is(err, unix.EINVAL) {
		return -1, fmt.Errorf("%w: O_DIRECT in %s", ErrUnavailable, env.Dir)
	}
	if err != nil {
		return -1, err
	}
	env.Cleanup(func() { file.Close() })
	return int(file.Fd()), nil
}

// place gives where the next access is, bytes.
func (f fileIO) place(env *Env) int64 {
	return rand.Int64N(int64(env.fileSize()/f.size)) * int64(f.size)
}

func (f fileIO) subject(env *Env) (Subject, error) {
	fd, err := f.open(env)
	if err != nil {
		return Subject{}, err
	}
	memory, err := anonymous(env, f.size*f.depth) // aligned, for O_DIRECT
	if err != nil {
		return Subject{}, err
	}
	requests, err := newAIO(f.depth)
	if err != nil {
		return Subject{}, fmt.Errorf("%w: asynchronous I/O: %w", ErrUnavailable, err)
	}
	env.Cleanup(requests.close)
	return Subject{UnderWay: f.depth, Run: func(n int) error {
		free := make([]uint16, f.depth)
		for i := range free {
			free[i] = uint16(i)
		}
		for begun, ended := 0, 0; ended < n; {
			k := min(len(free), n-begun)
			for _, i := range free[:k] {
				requests.prepare(i, fd, f.write, memory[int(i)*f.size:][:f.size], f.place(env))
			}
			if err := requests.submit(); err != nil {
				return err
			}
			begun += k
			free = append(free[:0], free[k:]...)
			err := requests.poll(func(i uint16, result int64) error {
				if result != int64(f.size) {
					return fmt.Errorf("bench: %v: %d bytes: %w", f, result, io.ErrUnexpectedEOF)
				}
				free = append(free, i)
				ended++
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

// access is a read or write of a file in the page cache, at place number place.
func (f fileIO) access(fd int, place uint64, buf []byte) error {
	call := unix.Pread
	if f.write {
		call = unix.Pwrite
	}
	if n, err := call(fd, buf, int64(place)*int64(f.size)); err != nil || n != len(buf) {
		return fmt.Errorf("bench: %v: %d bytes: %w", f, n, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return nil
}
