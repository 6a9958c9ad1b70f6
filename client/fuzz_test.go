package client

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/client/clienttest"
	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/fuzz/choice"
	"vfiouser/test/holdings"
)

// FuzzReply answers a request with what is right but for some bytes of it, or for its header, with descriptors or without, in
// pieces, or with something behind it. The call ends with a result if nothing was changed, with the errno if the server refuses,
// with ErrProtocol if the answer is not one to this request, else with a result or with an error that has a type; and no
// descriptor is left.
//
//fuzz:covers client/call.go client/conn.go client/input.go client/region.go client/regionio.go client/iofds.go client/irq.go client/writemulti.go
//fuzz:covers client/dma.go client/dirty.go client/feature.go client/migration.go
func FuzzReply(f *testing.F) {
	for i := range requests { // nothing is changed
		f.Add([]byte{byte(i), 0, 0, 0, 0, 0})
	}
	f.Add([]byte{1, 1, 2, 3, 4, 6, 0, 0, 0, 0, 0, 0, 0}) // a write of four bytes has written six
	choice.Corpus(f, 60, 60)
	loop, err := reactor.New(reactor.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { loop.Close() })
	f.Fuzz(func(t *testing.T, input []byte) {
		s := choice.FromBytes(input)
		a := &answer{request: &requests[s.Intn(len(requests))]}
		a.fds = a.request.fds
		open := holdings.Descriptors(t)
		t.Cleanup(func() {
			if now := holdings.Descriptors(t); now != open {
				t.Errorf("%s: %d descriptors were open, %d are now", a.request.name, open, now)
			}
		})
		composed := make(chan struct{})
		fd := clienttest.New(t, func(server *clienttest.Server) {
			server.Caps.WriteMultiple = true
			server.Handshake()
			m, ok := server.Next()
			if ok {
				a.compose(s, m)
			}
			close(composed)
			if ok {
				fds, closeAll := eventfds(a.fds)
				defer closeAll()
				for _, part := range a.parts {
					server.Send(part, fds...)
					fds = nil
				}
				if a.whole { // or the client waits for the rest
					server.Next()
				}
			}
		})
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		d, err := AttachFD(ctx, fd, WithReactor(loop))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		err = a.request.do(ctx, d)
		<-composed
		a.judge(t, err)
	})
}

// answer is what a server sends, and what has to come of it.
type answer struct {
	request *request
	parts   [][]byte
	fds     int

	whole  bool       // all of a message is sent
	right  bool       // nothing is changed
	wrong  bool       // it is no answer to the request, whatever is in it
	refuse unix.Errno // the server's error; 0: none
}

// compose makes an answer of the right one.
func (a *answer) compose(s *choice.Source, m wire) {
	r, payload := a.request, append([]byte(nil), a.request.good(m)...)
	a.right = true
	for range s.Intn(4) {
		a.right = false
		switch n := len(payload); s.Intn(4) {
		case 0:
			payload = payload[:s.Intn(n+1)]
		case 1:
			payload = append(payload, s.Bytes(s.Intn(40))...)
		default:
			if n >= 4 {
				binary.NativeEndian.PutUint32(payload[4*s.Intn(n/4):], uint32(s.Edge(uint64(n))))
			}
		}
	}
	a.wrong = len(payload) < r.least || len(payload) > r.most
	if r.command == codec.CmdRegionRead || r.command == codec.CmdRegionWrite { // of a register of four bytes
		a.wrong = a.wrong || binary.NativeEndian.Uint32(payload[12:]) > 4
	}
	b := r.answer(m, func(h *codec.Header) {
		switch s.Intn(16) {
		case 12:
			h.Flags |= codec.FlagError
			h.Errno = choice.Pick(s, 0, uint32(unix.ENOSPC), 4095, 4096)
			a.right, a.wrong, a.refuse = false, false, unix.EINVAL
			if h.Errno != 0 && h.Errno < 4096 {
				a.refuse = unix.Errno(h.Errno)
			}
		case 13:
			h.ID += 1 + s.Uint16()%0xffff
			a.right, a.wrong = false, true
		case 14:
			h.Command = choice.Pick[codec.Command](s, 0, 14, 0xffff, h.Command%18+1)
			a.right, a.wrong = false, true
		case 15:
			h.Size = uint32(s.Edge(uint64(h.Size)))
			a.right, a.wrong = false, h.Size < codec.HeaderSize
			a.whole = a.wrong
		}
	}, payload)
	if size := binary.NativeEndian.Uint32(b[4:]); uint64(size) == uint64(len(b)) {
		a.whole = true
	}
	if s.Odds(8) {
		a.fds, a.right = s.Intn(4), false
	}
	if s.Odds(16) {
		b = b[:s.Intn(len(b))]
		a.right, a.whole = false, false
	}
	for len(b) > 0 && s.Odds(2) {
		n := 1 + s.Intn(len(b))
		a.parts, b = append(a.parts, b[:n]), b[n:]
	}
	if len(b) > 0 {
		a.parts = append(a.parts, b)
	}
	if s.Odds(16) {
		a.parts = append(a.parts, s.Bytes(1+s.Intn(60))) // no message, probably
	}
}

// judge looks at what the call has returned.
func (a *answer) judge(t *testing.T, err error) {
	t.Helper()
	var refused *codec.Error
	var errno unix.Errno
	typed := errors.Is(err, ErrProtocol) || errors.Is(err, ErrDisconnected) || errors.Is(err, ErrShortTransfer) || errors.Is(err, ErrUndo) ||
		errors.Is(err, io.EOF) || // of migration data
		errors.As(err, &refused) && errors.As(err, &errno) && errno != 0
	switch {
	case a.right && a.whole && err != nil,
		a.refuse != 0 && a.whole && !errors.Is(err, a.refuse),
		a.wrong && a.whole && !errors.Is(err, ErrProtocol),
		err != nil && !typed:
		t.Errorf("%s: %v; right: %v, wrong: %v, refused: %v", a.request.name, err, a.right, a.wrong, a.refuse)
	}
}
