package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// sendState answers reads of migration data from state until it was sent and its end was seen. With whole, replies have all
// the bytes that were asked for, as libvfio-user sends them.
func (s *server) sendState(state []byte, whole bool) {
	for {
		m := s.Want(codec.CmdMigDataRead)
		var ask codec.MigData
		if err := ask.DecodeReadRequest(m.Payload); err != nil || ask.Size > 8192 || ask.Size == 0 {
			s.t.Errorf("%+v, %v", ask, err)
		}
		part := state[:min(int(ask.Size), len(state))]
		reply := (&codec.MigData{ArgSz: uint32(8 + len(part)), Size: uint32(len(part)), Data: part}).Append(nil)
		if whole {
			reply = append(reply, make([]byte, int(ask.Size)-len(part))...)
		}
		s.Reply(m, reply)
		state = state[len(part):]
		if len(part) < int(ask.Size) {
			return
		}
	}
}

func TestMigrationReader(t *testing.T) {
	for _, size := range []int{0, 1, 8191, 8192, 8193, 3 * 8192, 50000} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(size, whole), func(t *testing.T) {
				state := make([]byte, size)
				for i := range state {
					state[i] = byte(i * 7 >> 3)
				}
				d := attach(t, func(s *server) {
					s.sendState(state, whole)
					s.sendState(state, whole)
				})
				for range 2 { // the stream goes on after the end of PRE_COPY
					r := d.MigrationReader(testContext(t))
					got, err := io.ReadAll(r)
					if err != nil || !bytes.Equal(got, state) {
						t.Errorf("%d bytes: got %d, %v", size, len(got), err)
					}
					if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
						t.Error("behind the end:", n, err)
					}
				}
			})
		}
	}
}

func TestMigrationDataErrors(t *testing.T) {
	d := attach(t, func(s *server) {
		s.Refuse(s.Want(codec.CmdMigDataRead), unix.EINVAL)
		s.Reply(s.Want(codec.CmdMigDataWrite), nil)
		s.Refuse(s.Want(codec.CmdMigDataWrite), unix.ENOSPC)
	})
	ctx := testContext(t)
	r := d.MigrationReader(ctx)
	if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, unix.EINVAL) {
		t.Error(n, err)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := d.WriteMigrationData(ctx, make([]byte, 10000)); n != 8192 || !errors.Is(err, unix.ENOSPC) {
		t.Error(n, err)
	}
	if n, err := d.WriteMigrationData(ctx, nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestMigrationWriter(t *testing.T) {
	state := bytes.Repeat([]byte("0123456789"), 2000)
	var got []byte
	done := make(chan struct{})
	d := attach(t, func(s *server) {
		for len(got) < len(state) {
			m := s.Want(codec.CmdMigDataWrite)
			var w codec.MigData
			if err := w.DecodeWriteRequest(m.Payload); err != nil || len(w.Data) > 8192 {
				t.Errorf("%d bytes, %v", len(w.Data), err)
				break
			}
			got = append(got, w.Data...)
			s.Reply(m, m.Payload[:8*(len(got)/8192%2)]) // with and without the request's head
		}
		close(done)
	})
	n, err := io.Copy(d.MigrationWriter(testContext(t)), bytes.NewReader(state))
	if err != nil || n != int64(len(state)) {
		t.Error(n, err)
	}
	<-done
	if !bytes.Equal(got, state) {
		t.Error("the state differs")
	}
}

func TestHostileMigrationDataEndsTheSession(t *testing.T) {
	for name, reply := range map[string][]byte{
		"size larger than the data":     (&codec.MigData{ArgSz: 100, Size: 5, Data: []byte("four")}).Append(nil),
		"more data than asked for":      (&codec.MigData{ArgSz: 100, Size: 11, Data: []byte("hello world")}).Append(nil),
		"argsz without room for it":     (&codec.MigData{ArgSz: 8, Size: 4, Data: []byte("four")}).Append(nil),
		"no head":                       {1, 2, 3, 4},
		"nothing":                       nil,
		"size of 4 GiB":                 (&codec.MigData{ArgSz: 1<<32 - 1, Size: 1<<32 - 1, Data: []byte("four")}).Append(nil),
		"size larger than the question": (&codec.MigData{ArgSz: 100, Size: 12, Data: []byte("0123456789")}).Append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			d := attach(t, func(s *server) { s.Reply(s.Want(codec.CmdMigDataRead), reply) })
			if n, err := d.ReadMigrationData(testContext(t), make([]byte, 10)); n != 0 || !errors.Is(err, ErrProtocol) {
				t.Error(n, err)
			}
			ended(t, d, ErrProtocol)
		})
	}
	t.Run("payload in the answer to a write", func(t *testing.T) {
		d := attach(t, func(s *server) { s.Reply(s.Want(codec.CmdMigDataWrite), make([]byte, 9)) })
		if _, err := d.WriteMigrationData(testContext(t), make([]byte, 10)); !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	})
}
