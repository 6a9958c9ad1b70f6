package client

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// multi receives a REGION_WRITE_MULTI and answers that it did so many of its writes.
func (s *server) multi(done uint64) codec.WriteMulti {
	m := s.Want(codec.CmdRegionWriteMulti)
	var w codec.WriteMulti
	if err := w.DecodeRequest(m.Payload); err != nil {
		s.t.Error(err)
	}
	s.Reply(m, (&codec.WriteMulti{Count: done}).AppendHead(nil))
	return w
}

func attachMulti(t *testing.T, script func(*server)) *Device {
	d := attach(t, script)
	d.peer.WriteMultiple = true
	return d
}

func TestWriteMultiKeepsOrder(t *testing.T) {
	var writes []Write
	for i := range 450 {
		writes = append(writes, Write{Region: i % 3, Offset: uint64(i), Data: []byte("abcdefgh")[:1+i%8]})
	}
	d := attachMulti(t, func(s *server) {
		i := 0
		for _, n := range []int{200, 200, 50} {
			w := s.multi(uint64(n))
			for k := range int(w.Count) {
				a, want := w.Write(k), writes[i]
				if int(a.Region) != want.Region || a.Offset != want.Offset || string(a.Data) != string(want.Data) {
					t.Errorf("write %d is %+v", i, a)
				}
				i++
			}
		}
	})
	if done, err := d.WriteMulti(testContext(t), writes...); err != nil || done != len(writes) {
		t.Error(done, err)
	}
	if done, err := d.WriteMulti(testContext(t)); err != nil || done != 0 {
		t.Error("no writes:", done, err)
	}
}

func TestWriteMultiKeepsToTheTransferSize(t *testing.T) {
	d := attachMulti(t, func(s *server) {
		for range 2 {
			if w := s.multi(4); w.Count != 4 {
				t.Errorf("%d writes in a message", w.Count)
			}
		}
	})
	d.chunk = 8 + 4*24 + 23
	writes := make([]Write, 8)
	for i := range writes {
		writes[i].Data = []byte{1}
	}
	if done, err := d.WriteMulti(testContext(t), writes...); err != nil || done != 8 {
		t.Error(done, err)
	}
}

func TestWriteMultiAsksForTheErrorOfTheWriteThatWasRefused(t *testing.T) {
	writes := []Write{{0, 0, []byte{1}}, {0, 1, []byte{2}}, {0, 2, []byte{3}}, {0, 3, []byte{4}}}
	single := func(s *server, off uint64) wire {
		m := s.Want(codec.CmdRegionWrite)
		var a codec.RegionAccess
		if err := a.DecodeWriteRequest(m.Payload); err != nil || a.Offset != off {
			s.t.Errorf("%+v, %v", a, err)
		}
		return m
	}
	t.Run("refused again", func(t *testing.T) {
		d := attachMulti(t, func(s *server) {
			s.multi(2)
			s.Refuse(single(s, 2), unix.EACCES)
		})
		if done, err := d.WriteMulti(testContext(t), writes...); done != 2 || !errors.Is(err, unix.EACCES) {
			t.Error(done, err)
		}
	})
	t.Run("done now", func(t *testing.T) {
		d := attachMulti(t, func(s *server) {
			s.multi(0)
			s.Access(single(s, 0))
			if w := s.multi(3); w.Count != 3 {
				t.Errorf("%d writes are left", w.Count)
			}
		})
		if done, err := d.WriteMulti(testContext(t), writes...); done != 4 || err != nil {
			t.Error(done, err)
		}
	})
	t.Run("the first one", func(t *testing.T) {
		d := attachMulti(t, func(s *server) { s.Refuse(s.Want(codec.CmdRegionWriteMulti), unix.EINVAL) })
		if done, err := d.WriteMulti(testContext(t), writes...); done != 0 || !errors.Is(err, unix.EINVAL) {
			t.Error(done, err)
		}
	})
}

func TestWriteMultiIsChecked(t *testing.T) {
	d := attachMulti(t, func(*server) {})
	good := Write{Data: []byte{1}}
	for _, bad := range []Write{{}, {Data: make([]byte, 9)}, {Region: -1, Data: []byte{1}}, {Region: 1 << 32, Data: []byte{1}}} {
		if done, err := d.WriteMulti(testContext(t), good, bad); done != 0 || !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %d, %v", bad, done, err)
		}
	}
	d.peer.WriteMultiple = false
	if _, err := d.WriteMulti(testContext(t), good); !errors.Is(err, errors.ErrUnsupported) {
		t.Error("not negotiated:", err)
	}
}

func TestHostileReplyToWriteMultiEndsTheSession(t *testing.T) {
	for _, reply := range [][]byte{
		(&codec.WriteMulti{Count: 2}).AppendHead(nil),
		(&codec.WriteMulti{Count: ^uint64(0)}).AppendHead(nil),
		make([]byte, 7), make([]byte, 9), nil,
	} {
		t.Run(fmt.Sprint(reply), func(t *testing.T) {
			d := attachMulti(t, func(s *server) { s.Reply(s.Want(codec.CmdRegionWriteMulti), reply) })
			if _, err := d.WriteMulti(testContext(t), Write{Data: []byte{1}}); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			ended(t, d, ErrProtocol)
		})
	}
}
