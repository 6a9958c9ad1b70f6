package bench

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/dma"
)

// mapKinds are ways to map: memory that is reached by message, a part of a file that is mapped
// already, as QEMU sends it again and again, and a file that is not.
var mapKinds = []struct{ name, limit string }{
	{"message", "heap-alloc/size=128"},
	{"shared", "dup-stat-close"},
	{"mmap", "mmap-munmap"},
}

// mapCases map a region and unmap it again in a table with others; with its own, and one that
// keeps its file mapped, there are as many as the name says, three at least. The limits are what cannot
// be done without: memory to remember it in; the look at which file it is; mmap(2) and
// munmap(2).
func mapCases() (cases []Case) {
	for _, kind := range mapKinds {
		for _, n := range tableSizes {
			cases = append(cases, Case{
				Name:  fmt.Sprintf("map/%s/regions=%d", kind.name, n),
				Quick: n == 256,
				Full:  n == 16 || n == 4096,
				Limit: kind.limit,
				Setup: func(env *Env) (Subject, error) { return mapSubject(env, kind.name, n) },
			})
		}
	}
	return cases
}

func mapSubject(env *Env, kind string, regions int) (Subject, error) {
	regions = max(regions-2, 1)
	table, err := newTable(env, regions)
	if err != nil {
		return Subject{}, err
	}
	file, err := memfd(env, regionSize)
	if err != nil {
		return Subject{}, err
	}
	between := dma.Mapping{IOVA: uint64(regions/2)*2*regionSize + regionSize, Size: regionSize, Prot: dma.ProtRead | dma.ProtWrite, FD: -1}
	if kind == "shared" {
		keep := between
		keep.IOVA = uint64(regions) * 2 * regionSize
		if keep.FD, err = unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return Subject{}, err
		}
		if err := table.Map(keep); err != nil {
			return Subject{}, err
		}
	}
	return Subject{Run: func(n int) error {
		for range n {
			m := between
			if kind != "message" {
				if m.FD, err = unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0); err != nil {
					return err
				}
			}
			if err := table.Map(m); err != nil {
				return err
			}
			if err := table.Unmap(m.IOVA, m.Size, nil); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

func mapLimits() []Limit {
	return []Limit{
		{Name: "heap-alloc/size=128", Setup: func(*Env) (Subject, error) {
			var record atomic.Pointer[[128]byte]
			return Subject{Run: func(n int) error {
				for range n {
					record.Store(new([128]byte))
				}
				return nil
			}}, nil
		}},
		{Name: "dup-stat-close", Setup: func(env *Env) (Subject, error) { return descriptorSubject(env, false) }},
		{Name: "mmap-munmap", Setup: func(env *Env) (Subject, error) { return descriptorSubject(env, true) }},
	}
}

// descriptorSubject duplicates a descriptor, looks whose it is, and maps its file if it is to.
func descriptorSubject(env *Env, mapped bool) (Subject, error) {
	file, err := memfd(env, regionSize)
	if err != nil {
		return Subject{}, err
	}
	return Subject{Run: func(n int) error {
		var stat unix.Stat_t
		for range n {
			fd, err := unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err := unix.Fstat(fd, &stat); err != nil {
				return err
			}
			if mapped {
				mem, err := unix.MmapPtr(fd, 0, nil, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err != nil {
					return err
				}
				if err := unix.MunmapPtr(mem, regionSize); err != nil {
					return err
				}
			}
			unix.Close(fd)
		}
		return nil
	}}, nil
}
