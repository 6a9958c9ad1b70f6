package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// makers make the kinds of descriptors that a case can pass. Some make two ends.
var makers = map[string]func(size uint64) (map[string]int, error){
	"memfd":    func(size uint64) (map[string]int, error) { return memfd(size, unix.O_RDWR) },
	"readonly": func(size uint64) (map[string]int, error) { return memfd(size, unix.O_RDONLY) },
	"eventfd": func(uint64) (map[string]int, error) {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		return map[string]int{"": fd}, err
	},
	"pipe": func(uint64) (map[string]int, error) {
		var p [2]int
		err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
		return map[string]int{".r": p[0], ".w": p[1]}, err
	},
	"socket": func(uint64) (map[string]int, error) {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return map[string]int{".r": p[0], ".w": p[1]}, err
	},
	"directory": func(uint64) (map[string]int, error) {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return map[string]int{"": fd}, err
	},
	"null": func(uint64) (map[string]int, error) {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		return map[string]int{"": fd}, err
	},
}

// memfd makes a file of memory; a seal tells later whether somebody has it mapped.
func memfd(size uint64, mode int) (map[string]int, error) {
	fd, err := unix.MemfdCreate("conformance", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		err = unix.Ftruncate(fd, int64(size))
	}
	if err == nil && mode == unix.O_RDONLY {
		whole := fd
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", whole), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		_ = unix.Close(whole)
	}
	return map[string]int{"": fd}, err
}

// isKind says whether a descriptor is an eventfd, a file or a socket.
func isKind(fd int, kind string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	switch kind {
	case "eventfd":
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		return strings.Contains(link, "[eventfd]"), err
	case "file":
		return st.Mode&unix.S_IFMT == unix.S_IFREG, nil
	case "socket":
		return st.Mode&unix.S_IFMT == unix.S_IFSOCK, nil
	}
	return false, fmt.Errorf("%q is no kind of descriptor", kind)
}

// count waits until an eventfd is signalled, takes its count and compares it.
func count(fd int, want uint64) error {
	if err := waitFD(fd, unix.POLLIN, time.Now().Add(patience)); err != nil {
		return fmt.Errorf("is not signalled: %w", err)
	}
	var b [8]byte
	if _, err := unix.Read(fd, b[:]); err != nil {
		return err
	}
	if got := binary.NativeEndian.Uint64(b[:]); got != want {
		return fmt.Errorf("was signalled %d times, want %d", got, want)
	}
	return nil
}

// silent checks that an eventfd is not signalled now.
func silent(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err != nil || n != 0 {
		return errors.Join(errors.New("is signalled"), err)
	}
	return nil
}

// released waits until nobody has the other end open any more.
func released(fd int) error {
	deadline := time.Now().Add(patience)
	for {
		if err := waitFD(fd, unix.POLLIN|unix.POLLHUP, deadline); err != nil {
			return fmt.Errorf("the other end is still open: %w", err)
		}
		var b [64]byte
		n, err := unix.Read(fd, b[:])
		if n == 0 || err == unix.ECONNRESET {
			return nil
		}
		if err != nil && err != unix.EINTR && err != unix.EAGAIN {
			return err
		}
	}
}

// unmapped checks that nobody has a memfd mapped for writing: only then the kernel seals
// it. The seal comes off no more, so this is the last that a case does with it.
func unmapped(fd int, eventually bool) error {
	deadline := time.Now().Add(patience)
	for {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
		switch {
		case err == nil:
			return nil
		case err != unix.EBUSY:
			return err
		case !eventually || time.Now().After(deadline):
			return errors.New("somebody has it mapped")
		}
		time.Sleep(time.Millisecond) // nothing tells
	}
}

// mapped checks the opposite.
func mapped(fd int) error {
	switch _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err {
	case nil:
		return errors.New("nobody has it mapped")
	case unix.EBUSY:
		return nil
	default:
		return err
	}
}
