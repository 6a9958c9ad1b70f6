package client

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/client/clienttest"
	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// FuzzReply answers a request with arbitrary bytes. The first byte says which request, the second how many descriptors come
// with the answer; a message id of 0 stands for the right one. The call must end when the server hangs up at the latest, with a
// result or with an error that has a type.
func FuzzReply(f *testing.F) {
	for i := range requests {
		r := &requests[i]
		m := wire{Header: codec.Header{Command: r.command}, Payload: make([]byte, 64)}
		f.Add(append([]byte{byte(i), byte(r.fds)}, r.answer(m, nil, r.good(m))...))
	}
	loop, err := reactor.New(reactor.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { loop.Close() })
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) < 2+codec.HeaderSize {
			return
		}
		r, n, answer := &requests[int(input[0])%len(requests)], int(input[1])%4, append([]byte(nil), input[2:]...)
		fd := clienttest.New(t, func(s *clienttest.Server) {
			s.Caps.WriteMultiple = true
			s.Handshake()
			m, ok := s.Next()
			if !ok {
				return
			}
			if binary.NativeEndian.Uint16(answer) == 0 {
				binary.NativeEndian.PutUint16(answer, m.ID)
			}
			fds, closeAll := eventfds(n)
			defer closeAll()
			s.Send(answer, fds...)
		})
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		d, err := AttachFD(ctx, fd, WithReactor(loop))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		begin := time.Now()
		err = r.do(ctx, d)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s hangs for %v", r.name, time.Since(begin))
		}
		var refused *codec.Error
		var errno unix.Errno
		switch {
		case err == nil, errors.Is(err, ErrProtocol), errors.Is(err, ErrDisconnected), errors.Is(err, ErrShortTransfer), errors.Is(err, ErrUndo),
			errors.Is(err, io.EOF): // (of migration data)
		case errors.As(err, &refused) && errors.As(err, &errno) && errno != 0:
		default:
			t.Errorf("%s: %T %v", r.name, err, err)
		}
	})
}
