package hostile

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
)

// lastPage is the last page of the address space, and also its size less a page.
const lastPage = 1<<64 - pageSize

func TestMappingsThatAreRefused(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const size = 16 * pageSize
	reopened := func(a *attack, m *ram, flags int) int {
		a.Helper()
		fd, err := unix.Open(m.path(), flags|unix.O_CLOEXEC, 0)
		if err != nil {
			a.Fatal(err)
		}
		a.atEnd(func() { _ = unix.Close(fd) })
		return fd
	}
	plain := func(_ *attack, m *ram) []int { return []int{m.fd} }
	for _, c := range []struct {
		name    string
		mapping []byte
		fds     func(a *attack, m *ram) []int
		errno   unix.Errno
	}{
		{"over a region", mapping(ramBase, size, 0, readWrite), plain, unix.EEXIST},
		{"over the end of a region", mapping(ramBase+size-pageSize, size, 0, readWrite), plain, unix.EEXIST},
		{"over the beginning of a region", mapping(ramBase-pageSize, 2*pageSize, 0, readWrite), plain, unix.EEXIST},
		{"inside a region", mapping(ramBase+pageSize, pageSize, 0, readWrite), plain, unix.EEXIST},
		{"around a region", mapping(ramBase-pageSize, 1<<40, 0, readWrite), nil, unix.EEXIST},
		{"the whole address space", mapping(0, lastPage, 0, readWrite), nil, unix.EEXIST},
		{"beyond the address space", mapping(lastPage, 2*pageSize, 0, readWrite), plain, unix.EINVAL},
		{"a size that wraps around", mapping(2*ramBase, lastPage, 0, readWrite), plain, unix.EINVAL},
		{"nothing", mapping(2*ramBase, 0, 0, readWrite), plain, unix.EINVAL},
		{"half a page", mapping(2*ramBase, pageSize/2, 0, readWrite), plain, unix.EINVAL},
		{"at half a page", mapping(2*ramBase+pageSize/2, pageSize, 0, readWrite), plain, unix.EINVAL},
		{"from half a page", mapping(2*ramBase, pageSize, pageSize/2, readWrite), plain, unix.EINVAL},
		{"without any right", mapping(2*ramBase, pageSize, 0, 0), plain, unix.EINVAL},
		{"with unknown flags", mapping(2*ramBase, pageSize, 0, readWrite|1<<20), plain, unix.EINVAL},
		{"a region larger than its file", mapping(2*ramBase, size+pageSize, 0, readWrite), plain, unix.EINVAL},
		{"a region of 1 EiB", mapping(2*ramBase, 1<<60, 0, readWrite), plain, unix.EINVAL},
		{"a region behind its file", mapping(2*ramBase, pageSize, size, readWrite), plain, unix.EINVAL},
		{"an offset that overflows", mapping(2*ramBase, 2*pageSize, lastPage, readWrite), plain, unix.EINVAL},
		{"an offset that is negative", mapping(2*ramBase, pageSize, 1<<63, readWrite), plain, unix.EINVAL},
		{"two descriptors", mapping(2*ramBase, pageSize, 0, readWrite), func(_ *attack, m *ram) []int { return []int{m.fd, m.fd} }, unix.EINVAL},
		{"a read-only file to be written", mapping(2*ramBase, pageSize, 0, readWrite), func(a *attack, m *ram) []int {
			return []int{reopened(a, m, unix.O_RDONLY)}
		}, unix.EACCES},
		{"a write-only file to be read", mapping(2*ramBase, pageSize, 0, readWrite), func(a *attack, m *ram) []int {
			return []int{reopened(a, m, unix.O_WRONLY)}
		}, unix.EACCES},
		{"a path to a file", mapping(2*ramBase, pageSize, 0, readWrite), func(a *attack, m *ram) []int {
			return []int{reopened(a, m, unix.O_PATH)}
		}, unix.EACCES},
		{"a file sealed against writing, to be written", mapping(2*ramBase, pageSize, 0, readWrite), func(a *attack, _ *ram) []int {
			m := a.newRAM(size)
			if _, err := unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
				a.Fatal(err)
			}
			return []int{m.fd}
		}, unix.EPERM},
		{"an empty file", mapping(2*ramBase, pageSize, 0, readWrite), func(a *attack, _ *ram) []int {
			return []int{a.newRAM(0).fd}
		}, unix.EINVAL},
	} {
		l.attack(t, c.name, func(a *attack) {
			g := a.newRig(size)
			var fds []int
			if c.fds != nil {
				fds = c.fds(a, g.ram)
			}
			for range 20 {
				g.refused(c.errno, codec.CmdDMAMap, c.mapping, fds...)
			}
			g.call(codec.CmdDMAUnmap, unmapping(ramBase, size))
		})
	}
	l.attack(t, "unmapping what is not mapped", func(a *attack) {
		g := a.newRig(size)
		for _, r := range [][2]uint64{
			{0, size}, {ramBase, pageSize}, {ramBase, 2 * size}, {ramBase + pageSize, size - pageSize},
			{ramBase, 0}, {ramBase + 1, size}, {lastPage, size}, {0, lastPage},
		} {
			if _, err := g.try(codec.CmdDMAUnmap, unmapping(r[0], r[1])); err != unix.ENOENT && err != unix.EINVAL {
				a.Errorf("%#x, %#x: %v", r[0], r[1], err)
			}
		}
		g.call(codec.CmdDMAUnmap, unmapping(ramBase, size))
		g.refused(unix.ENOENT, codec.CmdDMAUnmap, unmapping(ramBase, size))
	})
}

func TestMappingsInNumbers(t *testing.T) {
	l := newLab(t, nvme.Trap)
	// page is a mapping of a page; they do not touch each other.
	page := func(i int) []byte { return mapping(ramBase+uint64(i)*2*pageSize, pageSize, 0, readWrite) }
	l.attack(t, "65,536", func(a *attack) {
		s := a.session()
		const limit, batch = 65_535, 512
		for first := 0; first < limit+1; first += batch {
			var b []byte
			for i := range batch {
				b = append(b, s.message(codec.CmdDMAMap, 0, page(first+i))...)
			}
			s.must(b)
			for i := range batch {
				h, _, err := s.reply()
				if err != nil {
					a.Fatal(err)
				}
				if err := h.Err(); (err != nil) != (first+i >= limit) {
					a.Fatalf("mapping %d: %v", first+i, err)
				}
			}
		}
		s.alive()
	})
	l.attack(t, "10,000 of one file", func(a *attack) {
		s, m := a.session(), a.newRAM(pageSize)
		for i := range 10_000 {
			s.call(codec.CmdDMAMap, page(i), m.fd)
		}
	})
	l.attack(t, "2,000 of as many files", func(a *attack) {
		s := a.session()
		mapped := 0
		for i := range uint64(2000) {
			m := a.newRAM(pageSize)
			_, err := s.try(codec.CmdDMAMap, mapping(i*pageSize, pageSize, 0, readWrite), m.fd)
			switch err {
			case nil:
				mapped++
			case unix.ENOSPC: // the kernel's mappings are the whole process's
			default:
				a.Fatal(err)
			}
		}
		if mapped < 500 || mapped == 2000 {
			a.Errorf("%d are mapped", mapped)
		}
		s.alive()
	})
	l.attack(t, "2,000 mapped and unmapped", func(a *attack) {
		g := a.newRig(1 << 20)
		for range 2000 {
			g.call(codec.CmdDMAMap, mapping(2*ramBase, 1<<20, 0, readWrite), g.ram.fd)
			g.call(codec.CmdDMAUnmap, unmapping(2*ramBase, 1<<20))
		}
	})
	l.attack(t, "a file of 1 TiB", func(a *attack) {
		g := a.newRig(1 << 40)
		for range 20 {
			g.call(codec.CmdDMAUnmap, unmapping(ramBase, 1<<40))
			g.call(codec.CmdDMAMap, mapping(ramBase, 1<<40, 0, readWrite), g.ram.fd)
		}
	})
}
