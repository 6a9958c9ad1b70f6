package bench

import (
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// warmSizes are those of copies that never leave the cache, bytes.
var warmSizes = [...]int{64, 256}

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

// memcpyLimits are one core that copies: what it just had ("warm"), blocks at random places of
// storage to a few buffers ("read") and back ("write"), and all of the storage in order.
func memcpyLimits() (limits []Limit) {
	for _, size := range warmSizes {
		limits = append(limits, Limit{Name: fmt.Sprintf("memcpy/warm/size=%d", size), Bytes: size, Setup: func(*Env) (Subject, error) {
			from, to := make([]byte, size), make([]byte, size)
			return Subject{Run: func(n int) error {
				for range n {
					copy(to, from)
				}
				return nil
			}}, nil
		}})
	}
	for _, op := range []string{"read", "write"} {
		for _, size := range blockSizes {
			limits = append(limits, Limit{Name: copyName(op, size), Bytes: size, Setup: func(env *Env) (Subject, error) {
				next := randomBlocks(uint64(env.storage() / size))
				return copySubject(env, size, op == "write", func() int { return int(next()) * size })
			}})
		}
		limits = append(limits, Limit{Name: copyName(op+"/sequential", sequentialSize), Bytes: sequentialSize, Setup: func(env *Env) (Subject, error) {
			at := 0
			return copySubject(env, sequentialSize, op == "write", func() int {
				at = (at + sequentialSize) % env.storage()
				return at
			})
		}})
	}
	return limits
}

func copyName(op string, size int) string { return fmt.Sprintf("memcpy/%s/size=%d", op, size) }

// copySubject copies size bytes between the place of the storage that next gives and one buffer
// after the other.
func copySubject(env *Env, size int, write bool, next func() int) (Subject, error) {
	storage, err := anonymous(env, env.storage())
	if err != nil {
		return Subject{}, err
	}
	buffers, err := anonymous(env, max(32*size, 4096))
	if err != nil {
		return Subject{}, err
	}
	at := 0
	return Subject{Run: func(n int) error {
		for range n {
			place := storage[next():][:size]
			buffer := buffers[at:][:size]
			if at += size; at == len(buffers) {
				at = 0
			}
			if write {
				copy(place, buffer)
			} else {
				copy(buffer, place)
			}
		}
		return nil
	}}, nil
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

// blockSizes are sizes of I/O, bytes.
var blockSizes = []int{512, 4096, 64 << 10, 128 << 10}

const sequentialSize = 128 << 10 // bytes of I/O in order
