package codec

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
)

func TestDecodeHeader(t *testing.T) {
	for _, tt := range []struct {
		name  string
		size  uint32
		flags Flags
		kind  error
	}{
		{"command", 48, 0, nil},
		{"reply", 16, FlagReply, nil},
		{"command without reply", 48, FlagNoReply, nil},
		{"error reply", 16, FlagReply | FlagError, nil},
		{"size of the header alone", 16, 0, nil},
		{"size below the header", 15, 0, ErrSize},
		{"size 0", 0, FlagReply, ErrSize},
		{"4 GiB is for the session to refuse", ^uint32(0), 0, nil},
		{"type 2", 16, 2, ErrFlags},
		{"type 15", 16, 15 | FlagError, ErrFlags},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := pack(uint16(7), uint16(CmdRegionRead), tt.size, uint32(tt.flags), uint32(5))
			h, err := DecodeHeader(pack(b, "payload"))
			wantError(t, err, CmdRegionRead, tt.kind)
			if want := (Header{7, CmdRegionRead, tt.size, tt.flags, 5}); h != want {
				t.Errorf("got %+v, want %+v", h, want)
			}
		})
	}
	for n := range HeaderSize {
		_, err := DecodeHeader(make([]byte, n))
		wantError(t, err, 0, ErrShort)
	}
}

func TestHeaderBytes(t *testing.T) {
	h := Header{ID: 0x0102, Command: CmdRegionWrite, Size: 0x20, Flags: FlagReply | FlagError, Errno: 22}
	want := pack(uint16(0x0102), uint16(10), uint32(0x20), uint32(0x21), uint32(22))
	wantBytes(t, h.Append(nil), want)
	b := bytes.Repeat([]byte{0xee}, HeaderSize+1)
	h.Put(b)
	wantBytes(t, b, append(want, 0xee))
}

func TestHeaderFlags(t *testing.T) {
	for _, tt := range []struct {
		flags                   Flags
		reply, noReply, isError bool
	}{
		{0, false, false, false},
		{FlagNoReply, false, true, false},
		{FlagError, false, false, false}, // reserved in a command
		{FlagReply, true, false, false},
		{FlagReply | FlagError, true, false, true},
		{FlagReply | FlagNoReply, true, false, false}, // means nothing in a reply
	} {
		h := Header{Flags: tt.flags}
		if h.IsReply() != tt.reply || h.NoReply() != tt.noReply || h.IsError() != tt.isError {
			t.Errorf("flags %#x: reply %v, no reply %v, error %v", tt.flags, h.IsReply(), h.NoReply(), h.IsError())
		}
	}
}

func TestHeaderErr(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags Flags
		errno uint32
		want  syscall.Errno
	}{
		{"success", FlagReply, 5, 0},
		{"command", FlagError, 5, 0},
		{"errno", FlagReply | FlagError, 17, syscall.EEXIST},
		{"no errno", FlagReply | FlagError, 0, syscall.EINVAL},
		{"errno that is none", FlagReply | FlagError, 5000, syscall.EINVAL},
		{"negative errno", FlagReply | FlagError, ^uint32(21), syscall.EINVAL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Header{Command: CmdDMAMap, Flags: tt.flags, Errno: tt.errno}.Err()
			if tt.want == 0 {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Command != CmdDMAMap || !errors.Is(err, ErrRemote) || !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v from the peer", err, tt.want)
			}
		})
	}
}

// FuzzHeader: the header is what the oracle takes it for, and is written as it was read.
//
//fuzz:covers codec/header.go
func FuzzHeader(f *testing.F) {
	f.Add(pack(uint16(1), uint16(9), uint32(32), uint32(0), uint32(0)))
	f.Add(pack(uint16(0), uint16(0xffff), uint32(0xffffffff), uint32(0x31), uint32(0xffffffff)))
	f.Add([]byte{1, 2, 3})
	f.Add(pack(uint16(1), uint16(9), uint32(15), uint32(0), uint32(0)))             // shorter than itself
	f.Add(pack(uint16(1), uint16(9), uint32(16), uint32(2), uint32(0)))             // neither command nor reply
	f.Add(pack(uint16(1), uint16(2), uint32(16), uint32(0x21), uint32(17), "rest")) // EEXIST
	f.Add(pack(uint16(1), uint16(2), uint32(16), uint32(0x21), uint32(4095)))       // the largest errno
	f.Add(pack(uint16(1), uint16(2), uint32(16), uint32(0x21), uint32(4096)))
	f.Add(pack(uint16(1), uint16(2), uint32(16), uint32(0x21), uint32(0)))
	f.Add(pack(uint16(1), uint16(2), uint32(16), uint32(0x20), uint32(17))) // a command does not fail
	f.Add(pack(uint16(1), uint16(2), uint32(16), uint32(0x11), uint32(0)))  // a reply to no reply
	f.Fuzz(func(t *testing.T, b []byte) {
		var want oHeader
		taken := consult(&want, b)
		h, err := DecodeHeader(b)
		if (err == nil) != taken {
			t.Fatalf("got %v; the oracle takes it: %v", err, taken)
		}
		if !taken {
			return
		}
		if err := same(&want, &h); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(h.Append(nil), b[:HeaderSize]) {
			t.Fatalf("%+v from % x", h, b)
		}
		reply := want.Flags&0xf == 1
		if h.IsReply() != reply || h.NoReply() != (!reply && want.Flags&0x10 != 0) || h.IsError() != (reply && want.Flags&0x20 != 0) {
			t.Fatalf("flags %#x: reply %v, no reply %v, error %v", h.Flags, h.IsReply(), h.NoReply(), h.IsError())
		}
		errno := syscall.Errno(want.Errno)
		if want.Errno == 0 || want.Errno > 4095 {
			errno = syscall.EINVAL
		}
		var e *Error
		if err := h.Err(); (err != nil) != h.IsError() || err != nil && (!errors.As(err, &e) || *e != Error{h.Command, errno, ErrRemote, errno.Error()}) {
			t.Fatalf("%+v means %v", h, err)
		}
	})
}
