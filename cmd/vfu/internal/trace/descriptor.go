package trace

import (
	"fmt"
	"os"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// Kinds of descriptors. Any other anonymous one is called as the kernel calls it.
const (
	kindMemfd   = "memfd"
	kindFile    = "file"
	kindEventfd = "eventfd"
	kindSocket  = "socket"
	kindPipe    = "pipe"
	kindDevice  = "device"
	kindOther   = "other"
)

// Descriptor is what a descriptor that was passed refers to.
type Descriptor struct {
	Kind string `json:"kind"`
	Size int64  `json:"size,omitempty"` // of a file or a memfd, bytes
}

func (d Descriptor) String() string {
	if d.Kind == kindMemfd || d.Kind == kindFile {
		return d.Kind + " " + units.BytesSize(float64(d.Size))
	}
	return d.Kind
}

// identify looks at open descriptors.
func identify(fds []int) []Descriptor {
	var all []Descriptor
	for _, fd := range fds {
		all = append(all, identifyOne(fd))
	}
	return all
}

func identifyOne(fd int) Descriptor {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return Descriptor{Kind: kindOther}
	}
	name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if strings.HasPrefix(name, "/memfd:") {
			return Descriptor{kindMemfd, st.Size}
		}
		return Descriptor{kindFile, st.Size}
	case unix.S_IFSOCK:
		return Descriptor{Kind: kindSocket}
	case unix.S_IFIFO:
		return Descriptor{Kind: kindPipe}
	case unix.S_IFCHR, unix.S_IFBLK:
		return Descriptor{Kind: kindDevice}
	}
	if kind, ok := strings.CutPrefix(name, "anon_inode:"); ok {
		return Descriptor{Kind: strings.Trim(kind, "[]")}
	}
	return Descriptor{Kind: kindOther}
}

// open makes a descriptor of the kind and size; other than these of all kinds matter to
// nobody who receives one, and a file is as good as a memfd.
func (d Descriptor) open() (int, error) {
	switch d.Kind {
	case kindEventfd:
		return unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	case kindSocket:
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		_ = unix.Close(pair[1])
		return pair[0], nil
	case kindPipe:
		var pair [2]int
		if err := unix.Pipe2(pair[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return -1, err
		}
		_ = unix.Close(pair[0])
		return pair[1], nil
	case kindDevice:
		return unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	fd, err := unix.MemfdCreate("vfu-replay", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	if err := unix.Ftruncate(fd, max(d.Size, 0)); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openAll makes descriptors; on an error none is left open.
func openAll(all []Descriptor) ([]int, error) {
	var fds []int
	for _, d := range all {
		fd, err := d.open()
		if err != nil {
			closeAll(fds)
			return nil, fmt.Errorf("cannot make a descriptor like the recorded %v: %w", d, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
