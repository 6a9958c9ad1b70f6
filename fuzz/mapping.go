package fuzz

import (
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/fuzz/choice"
)

// The ways to map memory that a Step can ask for.
const (
	mapFile      = 0xff // a file is mapped
	mapByMessage = 0xfe // memory stays with the client, which answers for it
)

// doMap maps memory.
func (l *life) doMap() {
	sel := l.s.Uint8()
	file := l.s.Intn(len(fileSizes))
	m := codec.DMAMap{ArgSz: codec.DMAMapSize, Flags: codec.DMAFlagRead | codec.DMAFlagWrite}
	fds := []int{l.memory.file(l, file)}
	switch {
	case sel >= mapByMessage:
		m.Addr, m.Size, m.Offset = l.s.Uint64(), uint64(l.s.Uint32()), uint64(l.s.Uint32())
	case sel < 0x80:
		m.Addr = uint64(l.s.Uint8()) << 16
		m.Size = uint64(l.s.Uint8()&0x1f+1) << 12
		m.Offset = uint64(l.s.Uint8()&0x1f) << 12
	default:
		m.Addr, m.Size, m.Offset = l.guestAddress(), l.s.Edge(fileSizes[file]), l.s.Edge(fileSizes[file])
	}
	if sel < mapByMessage && sel&7 == 7 {
		m.Flags = codec.DMAFlags(l.bits(0, 1, 2, 3, 4, 8, 7, 11, 16))
		m.ArgSz = l.argsz(m.ArgSz)
	}
	switch {
	case sel == mapByMessage, sel < 0x80 && sel&0x30 == 0x30:
		fds = nil
	case sel < 0x80 && sel&0x38 == 0x28:
		fds = l.oddFDs()
	}
	l.c.write(l.c.message(codec.CmdDMAMap, 0, m.Append(nil)), fds...)
	if n := len(l.c.maps); n > 0 && l.c.maps[n-1].seq == l.c.count {
		l.c.maps[n-1].fd, l.c.maps[n-1].offset = l.memory.file(l, file), m.Offset
	}
}

// doUnmap takes memory away.
func (l *life) doUnmap() {
	m := codec.DMAUnmap{ArgSz: codec.DMAUnmapSize}
	switch sel := l.s.Uint8(); {
	case sel == exactly:
		m.Addr, m.Size = l.s.Uint64(), uint64(l.s.Uint32())
	case sel < 0x10:
		m.Flags = codec.UnmapFlagAll
	case sel < 0xe0 && len(l.c.maps) > 0:
		g := l.c.maps[l.s.Intn(min(len(l.c.maps), 256))]
		m.Addr, m.Size = g.iova, g.size
		if sel&7 == 7 {
			m.Size = l.s.Edge(g.size)
		}
	default:
		m.Flags = codec.UnmapFlags(l.bits(0, 1, 2, 3, 4))
		m.Addr, m.Size = l.guestAddress(), l.s.Edge(1<<20)
	}
	if l.s.Odds(4) {
		m.Flags |= codec.UnmapFlagGetDirtyBitmap
		m.Bitmap.PgSize = choice.Pick(l.s, uint64(4096), 0, 512, 8192, 4097)
		m.Bitmap.Size = l.s.Edge(codec.BitmapBytes(m.Size, 4096))
		m.ArgSz = l.argsz(1 << 16)
	}
	l.c.write(l.c.message(codec.CmdDMAUnmap, l.flags(), m.Append(nil)))
}

// doTruncate makes a file shorter, or long again.
func (l *life) doTruncate() {
	i := l.s.Intn(len(fileSizes))
	size := fileSizes[i]
	if !l.s.Odds(4) {
		size = l.s.Edge(size) % (size + 1)
		l.truncated = true
		if !l.c.must {
			l.c.may = "memory was truncated"
		}
	}
	l.trace.note("file %d has %d bytes", i, size)
	_ = unix.Ftruncate(l.memory.file(l, i), int64(size))
}

// oddFDs are descriptors that are not what they should be, or too many.
func (l *life) oddFDs() []int {
	switch l.s.Intn(8) {
	case 0:
		return []int{l.eventfd()}
	case 1:
		return []int{l.eventfd(), l.memory.file(l, 3)}
	case 2:
		l.lingers = true
		return []int{l.c.main.fd}
	case 3:
		fds := make([]int, 1+l.s.Intn(24))
		for i := range fds {
			fds[i] = l.eventfd()
		}
		return fds
	case 4:
		return []int{l.open(unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0))}
	case 5:
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			l.t.Fatalf("pipe: %v", err)
		}
		l.opened = append(l.opened, pipe[:]...)
		return pipe[l.s.Intn(2):][:1]
	case 6:
		var pair [2]int
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			l.t.Fatalf("socketpair: %v", err)
		}
		l.opened = append(l.opened, pair[:]...)
		return pair[:1]
	default:
		return []int{l.open(unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))}
	}
}

// open keeps a descriptor until the end of the life.
func (l *life) open(fd int, err error) int {
	if err != nil {
		l.t.Fatalf("open: %v", err)
	}
	if len(l.opened) >= maxEventfds {
		reactor.CloseFDs(l.opened)
		l.opened = l.opened[:0]
	}
	l.opened = append(l.opened, fd)
	return fd
}
