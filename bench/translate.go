package bench

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"runtime"

	"golang.org/x/sys/unix"

	"vfiouser/dma"
)

// tableSizes are numbers of regions, up to the protocol's default for max_dma_maps.
var tableSizes = []int{1, 16, 256, 4096, 65535}

const regionSize = 4096 // bytes of a region, with as much unmapped behind it

// translateCases are translations of 64 bytes, in the same region again and again and in
// another one each time. The limit of the first is the look at one entry of an array, that of the
// others the quickest binary search among as many numbers, and then that look.
func translateCases() (cases []Case) {
	for _, random := range []bool{false, true} {
		where := "same"
		if random {
			where = "random"
		}
		for _, n := range tableSizes {
			limit := "array-load"
			if random && n > 1 { // else there is nothing to search
				limit = "search"
			}
			cases = append(cases, Case{
				Name:  fmt.Sprintf("translate/%s/regions=%d", where, n),
				Quick: n == 256,
				Limit: fmt.Sprintf("%s/entries=%d", limit, n),
				Setup: func(env *Env) (Subject, error) { return translateSubject(env, n, random) },
			})
		}
	}
	return cases
}

func translateSubject(env *Env, regions int, random bool) (Subject, error) {
	table, err := newTable(env, regions)
	if err != nil {
		return Subject{}, err
	}
	reader := table.NewReader()
	env.Cleanup(reader.Close)
	order := indexes(regions, random)
	i := 0
	reader.Enter() // what the table puts off until somebody looks
	reader.Exit()
	return Subject{Run: func(n int) error {
		reader.Enter()
		defer reader.Exit()
		for range n {
			iova := uint64(order[i&(len(order)-1)]) * 2 * regionSize
			if _, err := reader.Bytes(iova, 64, dma.ProtRead); err != nil {
				return err
			}
			i++
		}
		return nil
	}}, nil
}

func translateLimits() (limits []Limit) {
	for _, entries := range tableSizes {
		limits = append(limits,
			Limit{Name: fmt.Sprintf("array-load/entries=%d", entries), Setup: func(*Env) (Subject, error) {
				array, order := newEntries(entries), indexes(entries, false)
				i := 0
				return Subject{Run: func(n int) error {
					sum := uint64(0)
					for range n {
						at := order[i&(len(order)-1)]
						sum += array[at].translate(uint64(at) * 2 * regionSize)
						i++
					}
					runtime.KeepAlive(sum)
					return nil
				}}, nil
			}})
		if entries == 1 {
			continue
		}
		limits = append(limits,
			Limit{Name: fmt.Sprintf("search/entries=%d", entries), Setup: func(*Env) (Subject, error) {
				array, order := newEntries(entries), indexes(entries, true)
				numbers := newSearchTree(entries)
				i := 0
				return Subject{Run: func(n int) error {
					sum := uint64(0)
					for range n {
						at := uint64(order[i&(len(order)-1)])
						sum += array[numbers.find(at)].translate(at * 2 * regionSize)
						i++
					}
					runtime.KeepAlive(sum)
					return nil
				}}, nil
			}})
	}
	return limits
}

// tableEntry is what describes a region: a cache line.
type tableEntry struct {
	first, size, base uint64
	_                 [40]byte
}

func newEntries(n int) []tableEntry {
	entries := make([]tableEntry, n)
	for i := range entries {
		entries[i] = tableEntry{first: uint64(i) * 2 * regionSize, size: regionSize, base: 1}
	}
	return entries
}

// translate is 0 for an address that is not the entry's.
func (e *tableEntry) translate(iova uint64) uint64 {
	if at := iova - e.first; at < e.size && e.size-at >= 64 {
		return e.base + at
	}
	return 0
}

// searchTree holds the numbers from 0 up in the order in which a binary search comes to them,
// level by level (Eytzinger's): no other is as quick to search by halves, and it cannot be changed.
type searchTree struct {
	numbers, rank []uint64 // from element 1 on
}

func newSearchTree(n int) *searchTree {
	t := &searchTree{numbers: make([]uint64, n+1), rank: make([]uint64, n+1)}
	next := uint64(0)
	var fill func(k int)
	fill = func(k int) {
		if k > n {
			return
		}
		fill(2 * k)
		t.numbers[k], t.rank[k] = next, next
		next++
		fill(2*k + 1)
	}
	fill(1)
	return t
}

// find gives the rank of v, which is in the tree.
func (t *searchTree) find(v uint64) uint64 {
	k := 1
	for k < len(t.numbers) {
		_, less := bits.Sub64(v, t.numbers[k], 0)
		k = 2*k + 1 - int(less)
	}
	// The last step to the right was from the largest number that is not above v.
	return t.rank[k>>(bits.TrailingZeros(uint(k))+1)]
}

// indexes are 65,536 numbers below n: at random, or the middle one again and again.
func indexes(n int, random bool) []uint32 {
	order := make([]uint32, 1<<16)
	for i := range order {
		order[i] = uint32(n / 2)
		if random {
			order[i] = rand.Uint32N(uint32(n))
		}
	}
	return order
}

// newTable maps regions of one file to multiples of twice their size.
func newTable(env *Env, regions int) (*dma.Table, error) {
	table := dma.NewTable(dma.Config{})
	env.Cleanup(func() { table.Close(nil) })
	file, err := memfd(env, int64(regions)*regionSize)
	if err != nil {
		return nil, err
	}
	for i := range uint64(regions) {
		fd, err := unix.FcntlInt(uintptr(file), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		m := dma.Mapping{IOVA: i * 2 * regionSize, Size: regionSize, Offset: i * regionSize, Prot: dma.ProtRead | dma.ProtWrite, FD: fd}
		if err := table.Map(m); err != nil {
			return nil, err
		}
	}
	return table, nil
}

// memfd is a sealed file of size bytes in memory.
func memfd(env *Env, size int64) (int, error) {
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	env.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		return -1, err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	return fd, err
}
