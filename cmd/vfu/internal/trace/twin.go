package trace

import (
	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// maxVersion is the longest VERSION reply, in bytes, in which a twin socket is looked for.
const maxVersion = 64 << 10

// twinFinder waits for the VERSION reply, the first message of a server. If that passes a
// twin socket, it puts one of ours in its place. The reply is held back until it is
// whole, but only if descriptors come with it.
type twinFinder struct {
	found func(server, client stream) // the server's end for us, and ours for the client

	over bool
	held segment
}

// change is called with every segment, and with an empty one at the end.
func (f *twinFinder) change(s segment) []segment {
	if f.over {
		return []segment{s}
	}
	first := f.held.bytes == nil
	if len(s.bytes) == 0 || first != (len(s.fds) > 0) {
		// The end, no descriptors with the first byte, or some with another.
		f.over = true
		return f.release(s)
	}
	f.held.bytes = append(f.held.bytes, s.bytes...)
	if first {
		f.held.fds = s.fds
	}
	if len(f.held.bytes) < codec.HeaderSize {
		return nil
	}
	h, err := codec.DecodeHeader(f.held.bytes)
	whole := uint64(len(f.held.bytes)) >= uint64(h.Size)
	wanted := err == nil && h.IsReply() && !h.IsError() && h.Command == codec.CmdVersion && h.Size <= maxVersion
	if wanted && !whole {
		return nil
	}
	f.over = true
	if wanted {
		f.replace(f.held.bytes[codec.HeaderSize:h.Size])
	}
	return f.release(segment{})
}

// release is what was held back, and s.
func (f *twinFinder) release(s segment) []segment {
	var out []segment
	if f.held.bytes != nil {
		out = append(out, f.held)
	}
	if len(s.bytes) > 0 {
		out = append(out, s)
	}
	f.held = segment{}
	return out
}

// replace exchanges the socket among the descriptors that the VERSION reply names.
func (f *twinFinder) replace(payload []byte) {
	var v codec.VersionMsg
	if v.Decode(payload) != nil || v.Caps.TwinSocket == nil || v.Caps.TwinSocket.FDIndex == nil {
		return
	}
	i := *v.Caps.TwinSocket.FDIndex
	if !v.Caps.TwinSocket.Supported || i >= uint64(len(f.held.fds)) || !isUnixStream(f.held.fds[i]) {
		return
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return // then it goes through untraced
	}
	theirs := f.held.fds[i]
	if flags, err := unix.FcntlInt(uintptr(theirs), unix.F_GETFL, 0); err == nil {
		_ = unix.SetNonblock(pair[1], flags&unix.O_NONBLOCK != 0)
	}
	f.held.fds[i] = pair[1]
	f.found(stream{theirs}, stream{pair[0]})
}
