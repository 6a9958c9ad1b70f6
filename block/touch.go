package block

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// touch runs a function of which a fault on guest memory is to be expected, and makes
// ErrMemory of it. Only in here is guest memory touched by Go in a goroutine of a backend.
func touch(fn func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch v := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a fault, see debug.SetPanicOnFault
			err = ErrMemory
		default:
			panic(v)
		}
	}()
	fn()
	return nil
}

// zeroBuffers zeroes n bytes of a request's buffers behind the first skip.
func zeroBuffers(bufs [][]byte, skip, n int64) error {
	return touch(func() {
		eachPart(bufs, skip, n, func(part []byte) bool { clear(part); return true })
	})
}

// fillBuffers copies src into a request's buffers behind the first skip bytes.
func fillBuffers(bufs [][]byte, skip int64, src []byte) error {
	return touch(func() {
		eachPart(bufs, skip, int64(len(src)), func(part []byte) bool {
			src = src[copy(part, src):]
			return true
		})
	})
}

// eachPart calls fn for the parts of n bytes behind the first skip, none of them empty, until
// it returns false.
func eachPart(bufs [][]byte, skip, n int64, fn func(part []byte) bool) {
	for _, b := range bufs {
		if skip >= int64(len(b)) {
			skip -= int64(len(b))
			continue
		}
		b = b[skip:]
		skip = 0
		b = b[:min(n, int64(len(b)))]
		n -= int64(len(b))
		if len(b) > 0 && !fn(b) || n == 0 {
			return
		}
	}
}

// appendVector appends those parts to a vector, as far as there is room for them.
func appendVector(iov []unix.Iovec, bufs [][]byte, skip, n int64) []unix.Iovec {
	eachPart(bufs, skip, n, func(part []byte) bool {
		v := unix.Iovec{Base: &part[0]}
		v.SetLen(len(part))
		iov = append(iov, v)
		return len(iov) < cap(iov)
	})
	return iov
}

// drainBuffers fills dst from a request's buffers behind the first skip bytes.
func drainBuffers(dst []byte, bufs [][]byte, skip int64) error {
	return touch(func() {
		eachPart(bufs, skip, int64(len(dst)), func(part []byte) bool {
			dst = dst[copy(dst, part):]
			return true
		})
	})
}
