package reactor

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	// MaxFDs is how many descriptors the kernel lets one message carry (SCM_MAX_FD).
	MaxFDs = 253

	// MaxBuffers is how many buffers one RecvMsg or SendMsg looks at; the rest is left for the next call.
	MaxBuffers = 16
)

// ErrTruncated says that a message carried more descriptors than were asked for, or than the process may still open. None
// of them is left open; the bytes of the message were received all the same.
var ErrTruncated = errors.New("reactor: message carries too many descriptors")

// CloseFDs closes the descriptors that are not negative and sets them to -1.
func CloseFDs(fds []int) {
	for i, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
			fds[i] = -1
		}
	}
}
