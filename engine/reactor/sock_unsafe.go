package reactor

import (
	"encoding/binary"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls are raw (see raw_unsafe.go): MSG_DONTWAIT keeps them from blocking. The pointers inside a message header keep
// the buffers alive as the header itself is kept. Buffers must be ordinary memory of the process; guest memory may fault
// and block.

// control is room for one SCM_RIGHTS message of MaxFDs descriptors, aligned as a Cmsghdr must be.
type control [(unix.SizeofCmsghdr + MaxFDs*4 + 7) / 8]uint64

// bytes returns the first n bytes. Sound: n is never more than the size of c, and any memory may be seen as bytes.
func (c *control) bytes(n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), n)
}

// iovecs describes buffers, the empty ones left out, and returns how many of iov are used.
func iovecs(iov *[MaxBuffers]unix.Iovec, bufs [][]byte) int {
	n := 0
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if n == len(iov) {
			break
		}
		iov[n].Base = unsafe.SliceData(b)
		iov[n].SetLen(len(b))
		n++
	}
	return n
}

// RecvMsg receives once from the stream socket fd into bufs, without blocking, and puts the descriptors that came along
// (close-on-exec) into fds, owned by the caller. A read never goes beyond a message that carries descriptors, so they
// belong to the message whose first byte lies in the last segment read.
//
// Errors: io.EOF at the end of the stream; unix.EAGAIN if there is nothing; ErrTruncated together with n > 0; any
// other errno of recvmsg(2).
func RecvMsg(fd int, fds []int, bufs ...[]byte) (n, nfds int, err error) {
	var (
		iov     [MaxBuffers]unix.Iovec
		control control
		msg     unix.Msghdr
	)
	count := iovecs(&iov, bufs)
	if count == 0 {
		return 0, 0, unix.EINVAL
	}
	msg.Iov = &iov[0]
	msg.SetIovlen(count)
	for {
		if len(fds) > 0 {
			msg.Control = &control.bytes(1)[0]
			// Exactly what fds can hold, padding not included: the kernel itself drops what does not fit.
			msg.SetControllen(unix.SizeofCmsghdr + min(len(fds), MaxFDs)*4)
		}
		r, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)),
			unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, 0, errno
		}
		n = int(r)
		break
	}
	if msg.Controllen > 0 {
		nfds = parseRights(control.bytes(int(msg.Controllen)), fds)
	}
	if msg.Flags&unix.MSG_CTRUNC != 0 {
		CloseFDs(fds[:nfds])
		return n, 0, ErrTruncated
	}
	if n == 0 {
		CloseFDs(fds[:nfds])
		return 0, 0, io.EOF
	}
	return n, nfds, nil
}

// parseRights collects the descriptors of all SCM_RIGHTS messages in control.
func parseRights(control []byte, fds []int) int {
	n := 0
	for len(control) >= unix.SizeofCmsghdr {
		// Sound: the length was checked, and a control begins aligned and advances by aligned lengths.
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(control)))
		length := int(h.Len)
		if length < unix.SizeofCmsghdr || length > len(control) {
			break
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS {
			for data := control[unix.SizeofCmsghdr:length]; len(data) >= 4; data = data[4:] {
				got := int(int32(binary.NativeEndian.Uint32(data)))
				if n < len(fds) {
					fds[n] = got
					n++
				} else {
					_ = unix.Close(got)
				}
			}
		}
		control = control[min(unix.CmsgSpace(length-unix.SizeofCmsghdr), len(control)):]
	}
	return n
}

// SendMsg sends bufs, and with their first byte the descriptors fds, in one message on the stream socket fd, without
// blocking and without SIGPIPE. It may send less than everything; if it sent anything, the descriptors are gone with
// it. They stay open here.
//
// Errors: unix.EAGAIN if nothing fits, unix.EPIPE if the peer is gone, any other errno of sendmsg(2).
func SendMsg(fd int, fds []int, bufs ...[]byte) (int, error) {
	var (
		iov     [MaxBuffers]unix.Iovec
		control control
		msg     unix.Msghdr
	)
	count := iovecs(&iov, bufs)
	if count == 0 || len(fds) > MaxFDs {
		return 0, unix.EINVAL
	}
	msg.Iov = &iov[0]
	msg.SetIovlen(count)
	if len(fds) > 0 {
		length := unix.SizeofCmsghdr + len(fds)*4
		data := control.bytes(length)[unix.SizeofCmsghdr:]
		// Sound: control is aligned and larger than the header.
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control))
		h.Level = unix.SOL_SOCKET
		h.Type = unix.SCM_RIGHTS
		h.SetLen(length)
		for i, f := range fds {
			binary.NativeEndian.PutUint32(data[i*4:], uint32(f))
		}
		msg.Control = &control.bytes(1)[0]
		msg.SetControllen(length)
	}
	for {
		r, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
