package bench

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"vfiouser/dma"
)

// mapKinds are ways to map: memory that is reached by message, a part of a file that is mapped
// already, as QEMU sends it again and again, and a file that is not.
var mapKinds = []struct{ name, limit string }{
	{"message", "sorted-insert"},
	{"shared", "dup-stat-close-insert"},
	{"mmap", "mmap-munmap-insert"},
}

// mapCases map a region and unmap it again in a table with others; with its own, and one that
// keeps its file mapped, there are as many as the name says, three at least. The limits are what
// cannot be done without: memory to remember it in, at its place among as many; the look at
// which file it is; mmap(2) and munmap(2).
func mapCases() (cases []Case) {
	for _, kind := range mapKinds {
		for _, n := range tableSizes {
			cases = append(cases, Case{
				Name:  fmt.Sprintf("map/%s/regions=%d", kind.name, n),
				Quick: n == 256,
				Full:  n == 16 || n == 4096,
				Limit: fmt.Sprintf("%s/entries=%d", kind.limit, n),
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

func mapLimits() (limits []Limit) {
	for i, kind := range mapKinds {
		for _, n := range tableSizes {
			limits = append(limits, Limit{Name: fmt.Sprintf("%s/entries=%d", kind.limit, n), Setup: func(env *Env) (Subject, error) {
				file, err := memfd(env, regionSize)
				if err != nil {
					return Subject{}, err
				}
				list := newSortedList(n)
				return Subject{Run: repeat(func() error {
					if i > 0 {
						if err := lookAtFile(file, i > 1); err != nil {
							return err
						}
					}
					list.insertAndRemove(uint64(n) | 1)
					return nil
				})}, nil
			}})
		}
	}
	return limits
}

// lookAtFile duplicates a descriptor, looks whose it is, and maps its file if it is to.
func lookAtFile(file int, mapped bool) error {
	fd, err := unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || !mapped {
		return err
	}
	mem, err := unix.MmapPtr(fd, 0, nil, regionSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return unix.MunmapPtr(mem, regionSize)
}

// sortedList is the quickest to change of what can be searched by halves: numbers in order, cut
// into runs of at most twice the square root of their number, each with what it stands for. Nobody
// may search it meanwhile.
type sortedList struct {
	first []uint64 // of each run
	runs  []sortedRun
}

type sortedRun struct {
	numbers []uint64
	records []*[64]byte
}

// newSortedList is one of n even numbers.
func newSortedList(n int) *sortedList {
	l := &sortedList{}
	length := int(math.Sqrt(float64(n)))
	for at := 0; at < n; at += length {
		run := sortedRun{numbers: make([]uint64, 0, 2*length), records: make([]*[64]byte, 0, 2*length)}
		for i := at; i < min(at+length, n); i++ {
			run.numbers, run.records = append(run.numbers, uint64(2*i)), append(run.records, new([64]byte))
		}
		l.first, l.runs = append(l.first, uint64(2*at)), append(l.runs, run)
	}
	return l
}

// insertAndRemove finds the place of v twice.
func (l *sortedList) insertAndRemove(v uint64) {
	run, at := l.find(v)
	run.numbers, run.records = slices.Insert(run.numbers, at, v), slices.Insert(run.records, at, new([64]byte))
	run, at = l.find(v)
	run.numbers, run.records = slices.Delete(run.numbers, at, at+1), slices.Delete(run.records, at, at+1)
}

func (l *sortedList) find(v uint64) (run *sortedRun, at int) {
	i, found := slices.BinarySearch(l.first, v)
	if !found {
		i--
	}
	run = &l.runs[max(i, 0)]
	at, _ = slices.BinarySearch(run.numbers, v)
	return run, at
}
