package bench

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aio is the kernel's asynchronous I/O, see io_submit(2).
//
// The pointers are sound: the kernel keeps only those to data, which lies outside the Go heap, and
// reads or writes the rest, which the caller's reference keeps alive, before a call returns.
type aio struct {
	context  uintptr
	requests []aioRequest
	all      []*aioRequest // room for list
	list     []*aioRequest // those that are to be submitted
	events   []aioEvent
}

// aioRequest is struct iocb of little-endian machines.
type aioRequest struct {
	data      uint64
	_         [2]uint32 // key, flags
	operation uint16
	_         int16 // priority
	fd        uint32
	buf, size uint64
	offset    int64
	_         [2]uint64 // what an eventfd takes
}

// aioEvent is struct io_event.
type aioEvent struct {
	data, request   uint64
	result, result2 int64
}

const (
	aioRead  = 0 // IOCB_CMD_PREAD
	aioWrite = 1 // IOCB_CMD_PWRITE
)

func newAIO(depth int) (*aio, error) {
	a := &aio{requests: make([]aioRequest, depth), events: make([]aioEvent, depth), all: make([]*aioRequest, 0, depth)}
	a.list = a.all
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&a.context)), 0); e != 0 {
		return nil, e
	}
	return a, nil
}

func (a *aio) close() { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, a.context, 0, 0) }

// prepare has request i be submitted next. buf is not of the Go heap.
func (a *aio) prepare(i uint16, fd int, write bool, buf []byte, offset int64) {
	r := &a.requests[i]
	*r = aioRequest{data: uint64(i), operation: aioRead, fd: uint32(fd), offset: offset,
		buf: uint64(uintptr(unsafe.Pointer(&buf[0]))), size: uint64(len(buf))}
	if write {
		r.operation = aioWrite
	}
	a.list = append(a.list, r)
}

// submit has the kernel begin what was prepared.
func (a *aio) submit() error {
	for len(a.list) > 0 {
		done, _, e := unix.RawSyscall(unix.SYS_IO_SUBMIT, a.context, uintptr(len(a.list)), uintptr(unsafe.Pointer(&a.list[0])))
		switch {
		case e == unix.EAGAIN || e == unix.EINTR:
		case e != 0:
			return e
		default:
			a.list = a.list[done:]
		}
	}
	a.list = a.all[:0]
	return nil
}

// poll calls ended with what has ended.
func (a *aio) poll(ended func(i uint16, result int64) error) error {
	var now unix.Timespec
	n, _, e := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, a.context, 0, uintptr(len(a.events)),
		uintptr(unsafe.Pointer(&a.events[0])), uintptr(unsafe.Pointer(&now)), 0)
	if e == unix.EINTR {
		return nil
	} else if e != 0 {
		return e
	}
	for _, event := range a.events[:n] {
		if event.result < 0 {
			return syscall.Errno(-event.result)
		}
		if err := ended(uint16(event.data), event.result); err != nil {
			return err
		}
	}
	return nil
}
