package block

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is found by errors.Is where somebody else uses a file or device.
var ErrInUse = errors.New("in use")

var errNoPath = because(ErrSpec, "no path; write file:PATH, for example file:/srv/disk.img")

// openedFile is what File has found out about its file.
type openedFile struct {
	path string
	fd   int
	// direct is a descriptor for requests that go past the page cache, if their buffers' addresses
	// and lengths are multiples of memAlign and their ranges of diskAlign; -1: there is none.
	direct              int
	memAlign, diskAlign uint64
	// found is the size that it had when it was opened, in bytes.
	found int64
	// device: a block device, not a regular file.
	device bool
	// resident: the file is memory and nothing that is done to it waits for a
	// disk.
	resident bool
}

// openFile opens a regular file or a block device. The errors say
// what would be right.
func openFile(path string, readOnly, direct bool) (openedFile, error) {
	if path == "" {
		return openedFile{}, errNoPath
	}
	// Opening some special files has effects of its own, so look first.
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return openedFile{}, explain(path, err, readOnly)
	}
	if err := checkKind(&st); err != nil {
		return openedFile{}, err
	}
	flags := unix.O_CLOEXEC | unix.O_RDONLY
	if !readOnly {
		flags = unix.O_CLOEXEC | unix.O_RDWR
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			flags |= unix.O_EXCL // refuses a device that is mounted
		}
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return openedFile{}, explain(path, err, readOnly)
	}
	o := openedFile{path: path, fd: fd, direct: -1}
	err = o.inspect()
	if err == nil && direct {
		err = o.openDirect(flags)
	}
	if err != nil {
		_ = unix.Close(fd)
		return openedFile{}, err
	}
	return o, nil
}

// inspect checks an open file and fills in what it finds.
func (o *openedFile) inspect() error {
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return because(err, "cannot inspect it: %v", err)
	}
	if err := checkKind(&st); err != nil {
		return err
	}
	o.found = st.Size
	o.device = st.Mode&unix.S_IFMT == unix.S_IFBLK
	if o.device {
		var err error
		if o.found, err = blockDeviceSize(o.fd); err != nil {
			return because(err, "cannot find the device's size: %v", err)
		}
	} else {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(o.fd, &fs); err == nil {
			o.resident = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
		}
	}
	switch {
	case o.found == 0:
		return because(ErrSpec, "the file is empty; give it a size first, for example: truncate -s 1G FILE")
	case o.found%SectorSize != 0:
		return because(ErrSpec, "its size, %d bytes, is not a multiple of %d; %d would be: truncate -s %[3]d FILE",
			o.found, SectorSize, (o.found/SectorSize+1)*SectorSize)
	}
	return nil
}

// checkKind refuses what is neither a regular file nor a block device.
func checkKind(st *unix.Stat_t) error {
	kind := "of unknown kind"
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK:
		return nil
	case unix.S_IFDIR:
		return because(syscall.EISDIR, "is a directory; give a regular file or a block device")
	case unix.S_IFCHR:
		kind = "a character device"
	case unix.S_IFIFO:
		kind = "a named pipe"
	case unix.S_IFSOCK:
		kind = "a socket"
	}
	return because(ErrSpec, "is %s; give a regular file or a block device", kind)
}

// explain says in words what failed to open.
func explain(path string, err error, readOnly bool) error {
	switch err {
	case syscall.ENOENT:
		return because(err, "no such file; create it first, for example: truncate -s 1G FILE")
	case syscall.ENOTDIR:
		return because(err, "a part of the path is not a directory")
	case syscall.EACCES, syscall.EPERM:
		if !readOnly && unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, unix.AT_EACCESS) == nil {
			return because(err, "it can be read but not written; make it writable, or open it read-only")
		}
		return because(err, "no permission to open it; change its mode or owner")
	case syscall.EROFS:
		return because(err, "it lies on a read-only file system; open it read-only, or copy it elsewhere")
	case syscall.EBUSY:
		return because(errors.Join(ErrInUse, err), "the device is mounted or otherwise in use")
	case syscall.ETXTBSY:
		return because(errors.Join(ErrInUse, err), "the file is being executed or used as swap space")
	}
	return because(err, "cannot open: %v", err)
}

// lockPatience is how long the lock is tried for when a file is opened: the io_uring of a
// process that was killed lets go of its files some time after the process is gone.
const (
	lockPatience = time.Second
	lockPause    = 5 * time.Millisecond
)

// lock takes an advisory lock on the open file: two servers that write to one
// file destroy its data. QEMU locks bytes of its images in the same way, so it
// is kept out too. File systems without locks go without.
func (o *openedFile) lock(readOnly bool, patience time.Duration) error {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if readOnly {
		l.Type = unix.F_RDLCK
	}
	err := unix.FcntlFlock(uintptr(o.fd), unix.F_OFD_SETLK, &l)
	for begin := time.Now(); (err == syscall.EAGAIN || err == syscall.EACCES) && time.Since(begin) < patience; {
		time.Sleep(lockPause)
		err = unix.FcntlFlock(uintptr(o.fd), unix.F_OFD_SETLK, &l)
	}
	switch err {
	case syscall.EAGAIN, syscall.EACCES:
		return because(errors.Join(ErrInUse, err), "another process (or another device of this one) uses the file; two writers would destroy its data")
	}
	return nil
}

// canPunch tells whether a file can give storage back, by punching a hole
// behind its end, where nothing is.
func (o *openedFile) canPunch() bool {
	err := unix.Fallocate(o.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, o.found, SectorSize)
	// A block device says EINVAL to that range, whatever else it can do.
	return err == nil || err == syscall.EINVAL
}

// openDirect opens the file once more, for what goes past the page cache.
func (o *openedFile) openDirect(flags int) error {
	fd, err := unix.Open(o.path, flags&^unix.O_EXCL|unix.O_DIRECT, 0)
	if err != nil {
		return because(err, "cannot open it for going past the page cache: %v; leave out direct", err)
	}
	var is, was unix.Stat_t
	if err = unix.Fstat(fd, &is); err == nil {
		err = unix.Fstat(o.fd, &was)
	}
	if err == nil && (is.Dev != was.Dev || is.Ino != was.Ino) {
		err = because(syscall.ESTALE, "it was replaced while it was opened")
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	// What is right everywhere, for kernels that do not say.
	o.direct, o.memAlign, o.diskAlign = fd, 4096, 4096
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) == nil && st.Mask&unix.STATX_DIOALIGN != 0 {
		if st.Dio_offset_align == 0 || st.Dio_mem_align == 0 {
			_ = unix.Close(fd)
			o.direct = -1
			return because(syscall.EOPNOTSUPP, "its file system cannot go past the page cache; leave out direct")
		}
		o.memAlign, o.diskAlign = uint64(st.Dio_mem_align), uint64(st.Dio_offset_align)
	}
	return nil
}

// descriptor is the one for a vector of what is left of a request.
func (o *openedFile) descriptor(iov []unix.Iovec, r *Request) int {
	if o.direct < 0 {
		return o.fd
	}
	at := uint64(r.Offset + r.done)
	end := at
	for i := range iov {
		end += uint64(iov[i].Len)
	}
	if (at|end)&(o.diskAlign-1) != 0 || !aligned(iov, o.memAlign) {
		return o.fd
	}
	return o.direct
}

// release closes what was opened. The lock goes first: the kernel may keep the file for a moment longer
// than what it did with it for us.
func (o *openedFile) release() error {
	_ = unix.FcntlFlock(uintptr(o.fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	err := unix.Close(o.fd)
	if o.direct >= 0 {
		err = errors.Join(err, unix.Close(o.direct))
	}
	return err
}
