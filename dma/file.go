package dma

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// file is what a descriptor of a client turned out to be.
type file struct {
	dev, ino uint64
	size     uint64 // bytes now; a client can change it at any time
	page     uint64 // granularity of mmap: the huge page size on hugetlbfs
}

// remote lists filesystems on which somebody else decides how long a page fault
// takes. A worker that waits there cannot be preempted, and with it the whole
// process would stand still.
var remote = map[int64]string{
	unix.FUSE_SUPER_MAGIC: "fuse",
	unix.NFS_SUPER_MAGIC:  "nfs",
	unix.SMB_SUPER_MAGIC:  "smb",
	unix.SMB2_SUPER_MAGIC: "smb",
	unix.CIFS_SUPER_MAGIC: "cifs",
	unix.V9FS_MAGIC:       "9p",
	unix.CEPH_SUPER_MAGIC: "ceph",
	unix.AFS_SUPER_MAGIC:  "afs",
	unix.AFS_FS_MAGIC:     "afs",
	unix.CODA_SUPER_MAGIC: "coda",
	// Stacked on another one, which may be any of the above.
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.ECRYPTFS_SUPER_MAGIC:  "ecryptfs",
}

// Prompt tells whether Map answers at once for a descriptor, as it does for memfds and
// files on tmpfs and hugetlbfs. For another one it may have to wait for whoever serves the
// file, which can be the client itself. Prompt never waits.
func Prompt(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0) // EINVAL for all others
	return err == nil
}

// inspect checks that fd can stand behind a region.
func inspect(fd int, prot Prot) (file, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, fmt.Errorf("dma: fstat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return file{}, fmt.Errorf("%w: descriptor is not a regular file or memfd", ErrInvalid)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return file{}, fmt.Errorf("dma: fcntl: %w", err)
	}
	// A mapping found in the cache is not opened again, so what mmap would check is
	// checked here for all.
	mode := flags & unix.O_ACCMODE
	if flags&unix.O_PATH != 0 || mode == unix.O_WRONLY || prot&ProtWrite != 0 && mode != unix.O_RDWR {
		return file{}, fmt.Errorf("dma: descriptor is not open for the protection asked: %w", unix.EACCES)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return file{}, fmt.Errorf("dma: fstatfs: %w", err)
	}
	if name, ok := remote[int64(fs.Type)]; ok {
		return file{}, fmt.Errorf("%w: file is on %s, where page faults may block", ErrInvalid, name)
	}
	f := file{dev: uint64(st.Dev), ino: st.Ino, size: uint64(max(st.Size, 0)), page: uint64(unix.Getpagesize())}
	if fs.Type == unix.HUGETLBFS_MAGIC {
		f.page = max(f.page, uint64(fs.Bsize))
	}
	return f, nil
}

// check verifies that the region lies inside the file.
func (f file) check(offset, size uint64) error {
	if offset > math.MaxInt64 || size > math.MaxInt64-offset || offset+size > f.size {
		return fmt.Errorf("%w: file of %d bytes is shorter than offset %#x plus size %#x",
			ErrInvalid, f.size, offset, size)
	}
	return nil
}

// spans gives the ranges worth mapping for a region, best first: all of the file,
// so that later pieces of the same guest RAM need no mmap of their own (the kernel
// allows 65,530 per process, and the Go runtime dies without), else the pages of
// the region alone.
func (f file) spans(offset, size uint64) [2]span {
	up := func(v uint64) uint64 { return (v + f.page - 1) &^ (f.page - 1) }
	whole := span{0, up(f.size)}
	if whole.end > wholeMax {
		whole = span{}
	}
	return [2]span{whole, {offset &^ (f.page - 1), up(offset + size)}}
}

// span is a range of a file, bytes.
type span struct{ start, end uint64 }

func (s span) len() uint64              { return s.end - s.start }
func (s span) holds(off, n uint64) bool { return off >= s.start && off+n <= s.end }

// wholeMax is the largest file that is mapped whole; address space is finite.
const wholeMax = 1 << 40

// mappingKey says which mappings can be shared.
type mappingKey struct {
	dev, ino uint64
	prot     Prot
}

// mapping is one mmap, shared by all regions that lie in it.
type mapping struct {
	key  mappingKey
	span span
	mem  []byte
	refs int // under Table.mu; 0: out of the cache, to be unmapped
}

// share looks for a live mapping that holds the range and takes a reference.
func (t *Table) share(k mappingKey, off, n uint64) *mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.files[k] {
		if m.span.holds(off, n) {
			m.refs++
			return m
		}
	}
	return nil
}

// open maps what stands behind m, or finds it mapped already.
func (t *Table) open(m Mapping) (*mapping, error) {
	f, err := inspect(m.FD, m.Prot)
	if err != nil {
		return nil, err
	}
	if err := f.check(m.Offset, m.Size); err != nil {
		return nil, err
	}
	k := mappingKey{f.dev, f.ino, m.Prot}
	if fm := t.share(k, m.Offset, m.Size); fm != nil {
		return fm, nil
	}
	err = ErrTooMany
	for _, s := range f.spans(m.Offset, m.Size) {
		if s.len() == 0 || !t.reserve(s.len()) {
			continue
		}
		mem, e := mapFile(m.FD, s, m.Prot)
		if e != nil {
			t.unreserve(s.len())
			err = fmt.Errorf("dma: mmap of %#x bytes at %#x: %w", s.len(), s.start, e)
			continue
		}
		fm := &mapping{key: k, span: s, mem: mem, refs: 1}
		t.mu.Lock()
		t.files[k] = append(t.files[k], fm)
		t.mu.Unlock()
		return fm, nil
	}
	return nil, err
}

// reserve counts a mapping before it exists, so that a limit holds under concurrency.
func (t *Table) reserve(n uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mmaps >= t.cfg.MaxMmaps || n > t.cfg.MaxBytes-t.bytes {
		return false
	}
	t.mmaps++
	t.bytes += n
	return true
}

func (t *Table) unreserve(n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mmaps--
	t.bytes -= n
}

// drop gives one reference back. It was the last one if it returns true: then the mapping
// is to be unmapped.
func (t *Table) drop(m *mapping) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.refs--; m.refs > 0 {
		return false
	}
	list := t.files[m.key]
	for i := range list {
		if list[i] == m {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) == 0 {
		delete(t.files, m.key)
	} else {
		t.files[m.key] = list
	}
	return true
}

func (t *Table) unmap(m *mapping) {
	if err := unmapFile(m.mem); err != nil {
		// Cannot be: the range was mapped here and is nobody else's.
		panic(errors.Join(errors.New("dma: munmap"), err))
	}
	t.unreserve(m.span.len())
}
