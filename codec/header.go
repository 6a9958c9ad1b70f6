package codec

import (
	"encoding/binary"
	"syscall"
)

// HeaderSize is the size in bytes of the header that precedes every payload.
const HeaderSize = 16

// Flags is the header's third word (specification, "Header").
type Flags uint32

const (
	FlagTypeMask Flags = 0xf // the message's type: 0 is a command, 1 a reply
	FlagReply    Flags = 0x1
	FlagNoReply  Flags = 0x10 // command: no reply is wanted
	FlagError    Flags = 0x20 // reply: the command failed, Errno says why
)

// Header precedes every message.
type Header struct {
	ID      uint16 // chosen by the sender of a command, echoed in the reply
	Command Command
	Size    uint32 // of the whole message with this header, in bytes
	Flags   Flags
	Errno   uint32 // valid in a reply with FlagError; may be 0 even then
}

// maxErrno is the largest errno that Linux returns (MAX_ERRNO).
const maxErrno = 4095

// DecodeHeader reads the header at the start of b. ErrShort asks for more bytes.
// Any other error means that the stream is not, or no longer, in step; the header
// is returned as it was found.
func DecodeHeader(b []byte) (h Header, err error) {
	if len(b) < HeaderSize {
		return h, invalid(0, ErrShort, "header needs 16 bytes")
	}
	// Straight into the result: a copy of it, in one piece, would wait until all these writes are done.
	h.ID = binary.NativeEndian.Uint16(b[0:])
	h.Command = Command(binary.NativeEndian.Uint16(b[2:]))
	h.Size = binary.NativeEndian.Uint32(b[4:])
	h.Flags = Flags(binary.NativeEndian.Uint32(b[8:]))
	h.Errno = binary.NativeEndian.Uint32(b[12:])
	if h.Size < HeaderSize {
		return h, invalid(h.Command, ErrSize, "message size is smaller than the header")
	}
	if h.Flags&FlagTypeMask > FlagReply {
		return h, invalid(h.Command, ErrFlags, "message is neither command nor reply")
	}
	return h, nil
}

// Put writes the header to the first 16 bytes of b, which must be there.
func (h Header) Put(b []byte) {
	_ = b[HeaderSize-1]
	binary.NativeEndian.PutUint16(b[0:], h.ID)
	binary.NativeEndian.PutUint16(b[2:], uint16(h.Command))
	binary.NativeEndian.PutUint32(b[4:], h.Size)
	binary.NativeEndian.PutUint32(b[8:], uint32(h.Flags))
	binary.NativeEndian.PutUint32(b[12:], h.Errno)
}

// Append appends the header to dst.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, make([]byte, HeaderSize)...)
	h.Put(dst[len(dst)-HeaderSize:])
	return dst
}

// IsReply tells a reply from a command.
func (h Header) IsReply() bool { return h.Flags&FlagTypeMask == FlagReply }

// NoReply is true for a command that must not be answered.
func (h Header) NoReply() bool { return !h.IsReply() && h.Flags&FlagNoReply != 0 }

// IsError is true for a reply to a command that failed.
func (h Header) IsError() bool { return h.IsReply() && h.Flags&FlagError != 0 }

// Err is the error that a reply carries (kind ErrRemote), nil for any other
// message. An errno that is missing or none of Linux' reads as EINVAL, as
// libvfio-user has it.
func (h Header) Err() error {
	if !h.IsError() {
		return nil
	}
	errno := syscall.Errno(h.Errno)
	if errno == 0 || errno > maxErrno {
		errno = syscall.EINVAL
	}
	return &Error{Command: h.Command, Errno: errno, Kind: ErrRemote, Reason: errno.Error()}
}
