package dma

import (
	"math"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMapRefuses(t *testing.T) {
	checkFDs(t)
	file := newFile(t, 8*page)
	for _, tc := range []struct {
		name  string
		m     Mapping // FD 0: a descriptor of the file; -1: none
		want  error
		errno syscall.Errno
	}{
		{"size 0", Mapping{IOVA: page, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"size 0 without descriptor", Mapping{IOVA: page, Prot: rw, FD: -1}, ErrInvalid, unix.EINVAL},
		{"wrap around", Mapping{IOVA: math.MaxUint64 - page + 1, Size: 2 * page, Prot: rw, FD: -1}, ErrInvalid, unix.EINVAL},
		{"wrap around by all", Mapping{IOVA: 2 * page, Size: math.MaxUint64 - page + 1, Prot: rw, FD: -1}, ErrInvalid, unix.EINVAL},
		{"address not aligned", Mapping{IOVA: page + 512, Size: page, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"size not aligned", Mapping{IOVA: page, Size: page + 1, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"offset not aligned", Mapping{IOVA: page, Size: page, Offset: 1, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"no protection", Mapping{IOVA: page, Size: page}, ErrInvalid, unix.EINVAL},
		{"unknown protection", Mapping{IOVA: page, Size: page, Prot: 4 | rw}, ErrInvalid, unix.EINVAL},
		{"file too short", Mapping{IOVA: page, Size: 9 * page, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"offset beyond the file", Mapping{IOVA: page, Size: page, Offset: 8 * page, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"offset plus size overflows", Mapping{IOVA: page, Size: 2 * page, Offset: math.MaxUint64 - page + 1, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"offset beyond the signed range", Mapping{IOVA: page, Size: page, Offset: 1 << 63, Prot: rw}, ErrInvalid, unix.EINVAL},
		{"enormous size", Mapping{Size: 1 << 63, Prot: rw}, ErrInvalid, unix.EINVAL},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab := newTable(t, Config{})
			if tc.m.FD == 0 {
				tc.m.FD = dup(t, file)
			}
			wantErr(t, tab.Map(tc.m), tc.want, tc.errno)
			if tc.m.FD > 0 && isOpen(tc.m.FD) {
				t.Error("descriptor is still open")
			}
			if s := tab.Stats(); s != (Stats{}) {
				t.Errorf("table holds %+v", s)
			}
		})
	}
}

func TestMapRefusesDescriptors(t *testing.T) {
	checkFDs(t)
	memfd := newFile(t, page)
	open := func(name string, flags int) func(*testing.T) int {
		return func(t *testing.T) int {
			fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
			must(t, err)
			return fd
		}
	}
	reopen := func(flags int) func(*testing.T) int {
		return func(t *testing.T) int {
			return open("/proc/self/fd/"+itoa(memfd), flags)(t)
		}
	}
	for _, tc := range []struct {
		name  string
		open  func(*testing.T) int
		prot  Prot
		errno syscall.Errno
	}{
		{"directory", open(os.TempDir(), unix.O_RDONLY), ProtRead, unix.EINVAL},
		{"character device", open("/dev/zero", unix.O_RDWR), rw, unix.EINVAL},
		{"pipe", func(t *testing.T) int {
			var p [2]int
			must(t, unix.Pipe2(p[:], unix.O_CLOEXEC))
			must(t, unix.Close(p[1]))
			return p[0]
		}, ProtRead, unix.EINVAL},
		{"eventfd", func(t *testing.T) int {
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			must(t, err)
			return fd
		}, rw, unix.EINVAL},
		{"path only", reopen(unix.O_PATH), ProtRead, unix.EACCES},
		{"read-only for a writable region", reopen(unix.O_RDONLY), rw, unix.EACCES},
		{"write-only", reopen(unix.O_WRONLY), ProtWrite, unix.EACCES},
		{"sealed against writing", func(t *testing.T) int {
			fd, err := unix.MemfdCreate("sealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			must(t, err)
			must(t, unix.Ftruncate(fd, page))
			_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
			must(t, err)
			return fd
		}, rw, unix.EPERM},
		{"file of procfs", open("/proc/self/status", unix.O_RDONLY), ProtRead, unix.EINVAL},
		{"closed descriptor", func(*testing.T) int { return 1 << 20 }, rw, unix.EBADF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab := newTable(t, Config{})
			fd := tc.open(t)
			err := tab.Map(Mapping{IOVA: page, Size: page, Prot: tc.prot, FD: fd})
			wantErr(t, err, tc.errno, tc.errno)
			if isOpen(fd) {
				t.Error("descriptor is still open")
			}
		})
	}
}

// A read-only descriptor is enough for a region that the device only reads, and a
// cached writable mapping of the same file is no way around the check.
func TestMapReadOnly(t *testing.T) {
	checkFDs(t)
	tab := newTable(t, Config{})
	file := newFile(t, 2*page)
	readonly, err := unix.Open("/proc/self/fd/"+itoa(file), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(readonly)
	must(t, tab.Map(Mapping{IOVA: 0, Size: page, Prot: ProtRead, FD: dup(t, readonly)}))
	must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: dup(t, file)}))
	wantErr(t, tab.Map(Mapping{IOVA: 2 * page, Size: page, Prot: rw, FD: dup(t, readonly)}), unix.EACCES, unix.EACCES)

	r := newReader(t, tab)
	r.Enter()
	defer r.Exit()
	_, err = r.Bytes(0, 1, ProtRead)
	must(t, err)
	_, err = r.Bytes(0, 1, ProtWrite)
	wantErr(t, err, ErrProt, unix.EACCES)
	if s := tab.Stats(); s.Mmaps != 2 {
		t.Errorf("read-only and writable regions share a mapping: %+v", s)
	}
}

func TestMapRefusesOverlap(t *testing.T) {
	checkFDs(t)
	file := newFile(t, 64*page)
	const at, size = 16 * page, 4 * page
	for _, tc := range []struct {
		name       string
		iova, size uint64
		ok         bool
	}{
		{"same", at, size, false},
		{"inside", at + page, page, false},
		{"around", at - page, size + 2*page, false},
		{"over the start", at - page, 2 * page, false},
		{"over the end", at + size - page, 2 * page, false},
		{"same start, shorter", at, page, false},
		{"same end", at + size - page, page, false},
		{"just below", at - page, page, true},
		{"just above", at + size, page, true},
		{"far below", 0, page, true},
		{"far above", 1 << 63, page, true},
		{"top of the address space", math.MaxUint64 - page + 1, page, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab := newTable(t, Config{})
			must(t, tab.Map(Mapping{IOVA: at, Size: size, Prot: rw, FD: dup(t, file)}))
			for _, fd := range []int{dup(t, file), -1} {
				err := tab.Map(Mapping{IOVA: tc.iova, Size: tc.size, Prot: rw, FD: fd})
				if tc.ok {
					must(t, err)
					must(t, tab.Unmap(tc.iova, tc.size, nil))
				} else {
					wantErr(t, err, ErrExists, unix.EEXIST)
				}
				if fd >= 0 && isOpen(fd) {
					t.Error("descriptor is still open")
				}
			}
		})
	}
}

func TestWholeAddressSpaceInOneMessageRegion(t *testing.T) {
	tab := newTable(t, Config{})
	const size = math.MaxUint64 - page + 1
	must(t, tab.Map(Mapping{IOVA: 0, Size: size, Prot: rw, FD: -1}))
	r := newReader(t, tab)
	r.Enter()
	defer r.Exit()
	for iova, want := range map[uint64]error{
		0:                    ErrMessage,
		size - 1:             ErrMessage,
		size:                 ErrNotMapped,
		math.MaxUint64:       ErrNotMapped,
		math.MaxUint64 - 100: ErrNotMapped,
	} {
		if _, err := r.Bytes(iova, 1, ProtRead); err != want {
			t.Errorf("%#x: %v, want %v", iova, err, want)
		}
	}
}

func TestLimits(t *testing.T) {
	checkFDs(t)
	t.Run("regions", func(t *testing.T) {
		tab := newTable(t, Config{MaxMaps: 2})
		must(t, tab.Map(Mapping{IOVA: 0, Size: page, Prot: rw, FD: -1}))
		must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: -1}))
		wantErr(t, tab.Map(Mapping{IOVA: 2 * page, Size: page, Prot: rw, FD: dup(t, newFile(t, page))}), ErrTooMany, unix.ENOSPC)
		must(t, tab.Unmap(0, page, nil))
		must(t, tab.Map(Mapping{IOVA: 2 * page, Size: page, Prot: rw, FD: -1}))
	})
	t.Run("mmaps", func(t *testing.T) {
		tab := newTable(t, Config{MaxMmaps: 1})
		file := newFile(t, 2*page)
		must(t, tab.Map(Mapping{IOVA: 0, Size: page, Prot: rw, FD: dup(t, file)}))
		must(t, tab.Map(Mapping{IOVA: page, Size: page, Offset: page, Prot: rw, FD: dup(t, file)}))
		wantErr(t, tab.Map(Mapping{IOVA: 2 * page, Size: page, Prot: rw, FD: dup(t, newFile(t, page))}), ErrTooMany, unix.ENOSPC)
	})
	t.Run("bytes", func(t *testing.T) {
		tab := newTable(t, Config{MaxBytes: 4 * page})
		file := newFile(t, 6*page)
		// The file is too large to be mapped whole, its parts are not.
		must(t, tab.Map(Mapping{IOVA: 0, Size: 2 * page, Offset: page, Prot: rw, FD: dup(t, file)}))
		must(t, tab.Map(Mapping{IOVA: 8 * page, Size: 2 * page, Offset: 4 * page, Prot: rw, FD: dup(t, file)}))
		wantErr(t, tab.Map(Mapping{IOVA: 16 * page, Size: page, Prot: rw, FD: dup(t, file)}), ErrTooMany, unix.ENOSPC)
		if s := tab.Stats(); s.Bytes != 4*page || s.Mmaps != 2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("address space", func(t *testing.T) {
		tab := newTable(t, Config{MaxBytes: math.MaxUint64})
		file := newFile(t, 1<<60)
		wantErr(t, tab.Map(Mapping{Size: 1 << 60, Prot: rw, FD: dup(t, file)}), unix.ENOMEM, unix.ENOMEM)
		must(t, tab.Map(Mapping{Size: page, Offset: 1 << 59, Prot: rw, FD: dup(t, file)}))
	})
	t.Run("closed", func(t *testing.T) {
		tab := newTable(t, Config{})
		tab.Close(nil)
		wantErr(t, tab.Map(Mapping{Size: page, Prot: rw, FD: dup(t, newFile(t, page))}), ErrClosed, unix.ESHUTDOWN)
	})
}

// A client sends pieces of the same memory through new descriptors; they share one
// mapping, and it lives as long as the last of them.
func TestPiecesOfOneFileShareAMapping(t *testing.T) {
	checkFDs(t)
	tab := newTable(t, Config{})
	file := newFile(t, 8*page)
	r := newReader(t, tab)
	for i := range uint64(4) {
		must(t, tab.Map(Mapping{IOVA: i * 16 * page, Size: 2 * page, Offset: i * 2 * page, Prot: rw, FD: dup(t, file)}))
	}
	// The same piece a second time, elsewhere.
	must(t, tab.Map(Mapping{IOVA: 100 * page, Size: page, Offset: page, Prot: rw, FD: dup(t, file)}))
	if s := tab.Stats(); s.Mmaps != 1 || s.Regions != 5 || mapsOf(t) != 1 {
		t.Fatalf("%+v, %d lines in maps", s, mapsOf(t))
	}
	r.Enter()
	a, err := r.Bytes(page, 8, ProtWrite)
	must(t, err)
	b, err := r.Bytes(100*page, 8, ProtRead)
	must(t, err)
	Store64(a, 0, 42)
	if got := Load64(b, 0); got != 42 {
		t.Errorf("the same piece mapped twice reads %d", got)
	}
	r.Exit()

	// A file that grew is mapped anew where the old mapping does not reach.
	must(t, unix.Ftruncate(file, 16*page))
	must(t, tab.Map(Mapping{IOVA: 200 * page, Size: 2 * page, Offset: 7 * page, Prot: rw, FD: dup(t, file)}))
	if s := tab.Stats(); s.Mmaps != 2 {
		t.Errorf("%+v", s)
	}
	for i := range uint64(4) {
		must(t, tab.Unmap(i*16*page, 2*page, nil))
	}
	if s := tab.Stats(); s.Mmaps != 2 {
		t.Errorf("a mapping in use went away: %+v", s)
	}
	must(t, tab.Unmap(100*page, page, nil))
	if s := tab.Stats(); s.Mmaps != 1 || mapsOf(t) != 1 {
		t.Errorf("a mapping without a region stays: %+v", s)
	}
}

func TestHugetlbfs(t *testing.T) {
	checkFDs(t)
	const huge = 2 << 20
	fd, err := unix.MemfdCreate(fileName(t), unix.MFD_CLOEXEC|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB)
	if err != nil {
		t.Skipf("no 2 MiB pages: %v", err)
	}
	defer unix.Close(fd)
	must(t, unix.Ftruncate(fd, 4*huge))
	tab := newTable(t, Config{})
	// A piece smaller than a page of the file and not aligned to one. Nothing is
	// touched: whether the system has huge pages to give is not the question.
	must(t, tab.Map(Mapping{IOVA: 0, Size: page, Offset: huge + page, Prot: rw, FD: dup(t, fd)}))
	limited := newTable(t, Config{MaxBytes: 2 * huge})
	must(t, limited.Map(Mapping{IOVA: 0, Size: huge, Offset: huge / 2, Prot: rw, FD: dup(t, fd)}))
	if got := limited.Stats().Bytes; got != 2*huge {
		t.Errorf("%d bytes mapped for a piece across two huge pages", got)
	}
}

func TestRegionsAndLookup(t *testing.T) {
	checkFDs(t)
	tab := newTable(t, Config{})
	must(t, tab.Map(Mapping{IOVA: 9 * page, Size: page, Prot: ProtRead, FD: -1}))
	must(t, tab.Map(Mapping{IOVA: page, Size: 2 * page, Offset: page, Prot: rw, FD: dup(t, newFile(t, 4*page))}))
	list := tab.Regions()
	if got := ranges(list); got != "0x1000+0x2000 0x9000+0x1000" {
		t.Fatal(got)
	}
	if a, b := list[0], list[1]; len(a.Local) != 2*page || a.Offset != page || a.Prot != rw || b.Local != nil || b.Prot != ProtRead {
		t.Errorf("%+v", list)
	}
	for _, tc := range []struct {
		iova, n uint64
		p       Prot
		local   bool
		err     error
	}{
		{page, 2 * page, rw, true, nil},
		{9 * page, page, ProtRead, false, nil},
		{9 * page, page, ProtWrite, false, ErrProt},
		{9 * page, page + 1, ProtRead, false, ErrNotMapped},
		{0, 1, ProtRead, false, ErrNotMapped},
	} {
		g, err := tab.Lookup(tc.iova, tc.n, tc.p)
		if err != tc.err || (g.Local != nil) != tc.local {
			t.Errorf("Lookup(%#x, %#x): %+v, %v", tc.iova, tc.n, g, err)
		}
	}
}
