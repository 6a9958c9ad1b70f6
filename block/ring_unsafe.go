package block

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The interface of io_uring, see io_uring_setup(2) and io_uring_enter(2).
const (
	ringOpReadv     = 1
	ringOpWritev    = 2
	ringOpFsync     = 3
	ringOpFallocate = 17
	ringOpRead      = 22
	ringOpWrite     = 23

	ringFsyncDatasync = 1

	ringOffSQ, ringOffSQEs = 0, 0x10000000 // for mmap(2)
	ringSingleMmap         = 1 << 0        // features
	ringNoDrop             = 1 << 1
	ringSubmitStable       = 1 << 2
	ringNativeWorkers      = 1 << 9
	ringFeatures           = ringSingleMmap | ringNoDrop | ringSubmitStable | ringNativeWorkers

	ringRegisterFiles   = 2
	ringUnregisterFiles = 3
	ringRegisterEventfd = 4
	ringFixedFile       = 1 // in the flags of an entry
	ringEventfdDisabled = 1 // in the flags of the completion queue
	ringSetupClamp      = 1 << 4

	// maxRingTransfer is the most that one entry moves, in bytes.
	maxRingTransfer = 1 << 30
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// ringEntry is struct io_uring_sqe.
type ringEntry struct {
	op, flags uint8
	ioprio    uint16
	fd        int32
	off, addr uint64
	n, rw     uint32
	user      uint64
	_         [3]uint64
}

// ringResult is struct io_uring_cqe.
type ringResult struct {
	user  uint64
	res   int32
	flags uint32
}

// ringMemory is the part of an io_uring that is shared with the kernel. What the kernel
// writes, and what it reads while it may be looking, is accessed atomically.
type ringMemory struct {
	sqTail, cqHead, cqTail, cqFlags *uint32
	entries                         []ringEntry  // their number is a power of two
	results                         []ringResult // too
	unmap                           func()
}

// setupRing makes an io_uring of so many entries.
func setupRing(entries uint32) (fd int, m ringMemory, err error) {
	p := ringParams{flags: ringSetupClamp}
	r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return -1, m, errno
	}
	fd = int(r)
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if p.features&ringFeatures != ringFeatures {
		return -1, m, fmt.Errorf("the kernel's io_uring has features %#x: %w", p.features, errors.ErrUnsupported)
	}
	// Both queues are in one mapping (ringSingleMmap); its length and all offsets are the
	// kernel's own.
	size := uintptr(max(p.sq.array+4*p.sqEntries, p.cq.cqes+uint32(unsafe.Sizeof(ringResult{}))*p.cqEntries))
	rings, err := unix.MmapPtr(fd, ringOffSQ, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return -1, m, err
	}
	length := unsafe.Sizeof(ringEntry{}) * uintptr(p.sqEntries)
	entriesAt, err := unix.MmapPtr(fd, ringOffSQEs, nil, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		_ = unix.MunmapPtr(rings, size)
		return -1, m, err
	}
	word := func(offset uint32) *uint32 { return (*uint32)(unsafe.Add(rings, offset)) }
	m = ringMemory{
		sqTail: word(p.sq.tail), cqHead: word(p.cq.head), cqTail: word(p.cq.tail), cqFlags: word(p.cq.flags),
		entries: unsafe.Slice((*ringEntry)(entriesAt), p.sqEntries),
		results: unsafe.Slice((*ringResult)(unsafe.Add(rings, p.cq.cqes)), p.cqEntries),
		unmap: func() {
			_ = unix.MunmapPtr(rings, size)
			_ = unix.MunmapPtr(entriesAt, length)
		},
	}
	// Entries are used in their order.
	order := unsafe.Slice(word(p.sq.array), p.sqEntries)
	for i := range order {
		order[i] = uint32(i)
	}
	return fd, m, nil
}

// watchRing has an eventfd signalled for each completion.
func watchRing(fd, event int) error {
	e := int32(event)
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), ringRegisterEventfd, uintptr(unsafe.Pointer(&e)), 1, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// keepFiles has entries name these files by their position, which saves the kernel the search for
// each request; -1 leaves a position free. The ring holds them open until dropFiles.
func keepFiles(fd int, files ...int32) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), ringRegisterFiles,
		uintptr(unsafe.Pointer(unsafe.SliceData(files))), uintptr(len(files)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// dropFiles lets the files go at once; closing the ring would do that later. Nothing is in flight.
func dropFiles(fd int) {
	_, _, _ = unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), ringUnregisterFiles, 0, 0, 0, 0)
}

// enterRing has the kernel start n entries and returns how many it took. It does not wait.
func enterRing(fd int, n uint32) (int, syscall.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(n), 0, 0, 0, 0)
	return int(r), errno
}

// fill makes the entry of a request, whose vector is iov, on one of the ring's files. The kernel
// has read the vector when it has taken the entry (ringSubmitStable); the buffers stay reachable
// through the request, which the caller keeps until its completion, and memory of Go's heap does
// not move. The kernel checks every address.
func (e *ringEntry) fill(r *Request, file int32, iov []unix.Iovec, user uint64) {
	*e = ringEntry{flags: ringFixedFile, fd: file, user: user, off: uint64(r.Offset + r.done)}
	switch r.Op {
	case Read, Write:
		one, many := uint8(ringOpRead), uint8(ringOpReadv)
		if r.Op == Write {
			one, many = ringOpWrite, ringOpWritev
			if r.FUA {
				e.rw = unix.RWF_DSYNC
			}
		}
		if len(iov) == 1 {
			e.op, e.addr = one, uint64(uintptr(unsafe.Pointer(iov[0].Base)))
			e.n = uint32(min(uint64(iov[0].Len), maxRingTransfer))
		} else {
			e.op, e.addr = many, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(iov))))
			e.n = uint32(len(iov))
		}
	case Flush:
		e.op, e.off, e.rw = ringOpFsync, 0, ringFsyncDatasync
	default:
		e.op, e.addr = ringOpFallocate, uint64(r.Length)
		e.n = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE
		if r.Op == WriteZeroes && !r.Deallocate {
			e.n = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_ZERO_RANGE
		}
	}
	runtime.KeepAlive(iov)
}

// aligned tells whether a vector's addresses and lengths are multiples of align.
func aligned(iov []unix.Iovec, align uint64) bool {
	var bits uint64
	for i := range iov {
		bits |= uint64(uintptr(unsafe.Pointer(iov[i].Base))) | uint64(iov[i].Len)
	}
	return bits&(align-1) == 0
}

// The queues' indices run freely; masks make positions of them.

// next takes the oldest result, if there is one.
func (m *ringMemory) next() (res ringResult, ok bool) {
	head := *m.cqHead // only we write it
	if head == atomic.LoadUint32(m.cqTail) {
		return res, false
	}
	res = m.results[head&uint32(len(m.results)-1)]
	atomic.StoreUint32(m.cqHead, head+1)
	return res, true
}

// ready tells whether there is a result.
func (m *ringMemory) ready() bool { return atomic.LoadUint32(m.cqHead) != atomic.LoadUint32(m.cqTail) }

// push makes the next entry visible to the kernel.
func (m *ringMemory) push() { atomic.StoreUint32(m.sqTail, *m.sqTail+1) }

// entry is the one that push makes visible.
func (m *ringMemory) entry() *ringEntry {
	return &m.entries[*m.sqTail&uint32(len(m.entries)-1)]
}

// pull takes back the last entry that was pushed, which the kernel has not taken.
func (m *ringMemory) pull() *ringEntry {
	atomic.StoreUint32(m.sqTail, *m.sqTail-1)
	return m.entry()
}

// mute has the eventfd signalled no more, or again.
func (m *ringMemory) mute(on bool) {
	var flags uint32
	if on {
		flags = ringEventfdDisabled
	}
	atomic.StoreUint32(m.cqFlags, flags)
}
