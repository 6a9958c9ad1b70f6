package bench

import (
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// Memory that is read and written at random is more than caches hold, bytes.
const (
	storageSize = 128 << 20
	smallSize   = 4 << 20
)

// storage is the size of that memory.
func (e *Env) storage() int {
	if e.small {
		return smallSize
	}
	return storageSize
}

// anonymous is memory like that of the mem backend: populated, and in huge pages if there are
// any.
func anonymous(env *Env, size int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { _ = unix.Munmap(mem) })
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 1
	}
	return mem, nil
}

// randomBlocks gives one number below n after the other.
func randomBlocks(n uint64) func() uint64 {
	list := make([]uint64, 1<<16)
	for i := range list {
		list[i] = rand.Uint64N(n)
	}
	i := 0
	return func() uint64 {
		i++
		return list[i&(len(list)-1)]
	}
}

const sequentialSize = 128 << 10 // bytes of I/O in order
