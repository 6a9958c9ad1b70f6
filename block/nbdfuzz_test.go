package block

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"vfiouser/fuzz/choice"
)

const (
	fuzzExport = 64 << 10
	fuzzSlot   = 8 << 10 // what each request of a burst has for itself
	// fuzzTimeout is that of requests, and fuzzPatience when they must have ended.
	fuzzTimeout  = 100 * time.Millisecond
	fuzzPatience = 30 * time.Second
)

// FuzzNBD has the backend use a server that lies: in the handshake, in the form of answers, by
// what it leaves out and by ending connections. Every request ends, and with the right data if
// it ends well.
//
//fuzz:covers block/nbd.go block/nbdconn.go block/nbdhandshake.go block/nbdreceive.go block/nbdsend.go block/nbdwatch.go block/nbdwire.go
func FuzzNBD(f *testing.F) {
	for seed := range uint64(40) {
		b := choice.FromSeed(seed, 0).Bytes(160)
		f.Add(b[:80], b[80:])
	}
	f.Fuzz(func(t *testing.T, program, lies []byte) {
		src := choice.FromBytes(program)
		l := &liar{src: choice.FromBytes(lies[:min(len(lies), 400)])}
		s := serveNBD(t, fuzzExport, func(s *nbdServer) {
			s.structured, s.oldGo = src.Bool(), src.Odds(4)
			if src.Odds(3) {
				s.min, s.max = choice.Pick[uint32](src, 1, 512, 4096), choice.Pick[uint32](src, 4096, 32<<20)
			}
			s.flags = allNBDFlags &^ uint16(src.Intn(4)<<5)
			s.greet, s.answer = l.greet, l.answer
		})
		b, err := NBD(s.uri, NBDOptions{Timeout: fuzzTimeout, Connections: 1, hello: fuzzTimeout})
		if err != nil {
			if open := (*OpenError)(nil); !errors.As(err, &open) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		m := &nbdModel{t: t, src: src, b: b, l: l, want: make([]byte, fuzzExport), unknown: make([]bool, fuzzExport)}
		for steps := 0; steps < 6 && src.More(); steps++ {
			m.burst()
		}
		closed := make(chan error, 1)
		go func() { closed <- b.Close() }()
		select {
		case err := <-closed:
			must(t, err)
		case <-time.After(fuzzPatience):
			t.Fatal("Close does not return")
		}
	})
}

// nbdModel is what the export is to hold.
type nbdModel struct {
	t       *testing.T
	src     *choice.Source
	b       Backend
	l       *liar
	want    []byte
	unknown []bool // by byte: a write has failed, and may have been done
}

// asked is a request under way.
type asked struct {
	r    *Request
	data []byte
	end  result
}

// burst has up to four requests under way, each in a part of the export of its own.
func (m *nbdModel) burst() {
	var list []*asked
	for slot := range 1 + m.src.Intn(4) {
		a := m.request(int64(slot) * fuzzSlot * 2)
		a.end = make(result, 1)
		a.r.Completer = a.end
		if done, err := m.b.Submit(a.r); done {
			a.end <- err
		}
		list = append(list, a)
	}
	for _, a := range list {
		select {
		case err := <-a.end:
			m.ended(a, err)
		case <-time.After(fuzzPatience):
			m.t.Fatalf("%v of %d bytes at %d does not end", a.r.Op, a.r.Length, a.r.Offset)
		}
	}
}

// request makes one, near an offset.
func (m *nbdModel) request(from int64) *asked {
	src := m.src
	r := &Request{
		Op:     choice.Pick(src, Read, Read, Write, Write, Flush, Discard, WriteZeroes),
		Offset: from + 512*int64(src.Intn(16)), Length: 512 * int64(1+src.Intn(16)),
	}
	if src.Odds(16) {
		r.Offset = choice.Pick(src, fuzzExport-r.Length+512, fuzzExport, -512, 1<<62, 1<<63-512) // refused
	}
	a := &asked{r: r}
	switch r.Op {
	case Read, Write:
		a.data = bytes.Repeat([]byte{src.Uint8()}, int(r.Length))
		cut := src.Intn(int(r.Length) + 1)
		r.Buffers = [][]byte{a.data[:cut], a.data[cut:]}
	case Flush:
		r.Offset, r.Length = 0, 0
	}
	return a
}

// ended compares what has become of a request.
func (m *nbdModel) ended(a *asked, err error) {
	r := a.r
	if r.Op == Flush || r.Offset < 0 || r.Offset > fuzzExport-r.Length {
		if r.Op != Flush && err == nil && m.b.Size() <= fuzzExport {
			m.t.Fatalf("%v of %d bytes at %d goes well", r.Op, r.Length, r.Offset)
		}
		return
	}
	want, unknown := m.want[r.Offset:][:r.Length], m.unknown[r.Offset:][:r.Length]
	switch {
	case r.Op == Read && err == nil:
		for i := range want {
			if a.data[i] != want[i] && !unknown[i] {
				m.t.Fatalf("byte %d is %#x, want %#x", r.Offset+int64(i), a.data[i], want[i])
			}
		}
	case r.Op == Read:
	case err != nil || r.Op == Discard:
		for i := range unknown {
			unknown[i] = true
		}
	default: // a write, or zeroes
		clear(unknown)
		clear(want)
		copy(want, a.data)
	}
	if err != nil && !m.l.lied() && !errors.Is(err, syscall.ETIMEDOUT) && !errors.Is(err, ErrReadOnly) && !errors.Is(err, syscall.EINVAL) {
		m.t.Fatalf("%v ends with %v, and the server has not lied", r.Op, err)
	}
}

// liar is a server's choice of lies.
type liar struct {
	mu  sync.Mutex
	src *choice.Source
	n   int
}

// lies decides, and counts.
func (l *liar) lies(odds int) bool {
	if !l.src.More() || !l.src.Odds(odds) {
		return false
	}
	l.n++
	return true
}

func (l *liar) lied() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n > 0
}

// greet lies in the handshake: one that is honest, of which something is lost, changed or put
// between.
func (l *liar) greet(_ int, c net.Conn) bool {
	talk := l.talk()
	if talk == nil {
		return false
	}
	_, _ = c.Write(talk)
	_ = c.(*net.UnixConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(fuzzTimeout))
	for b := make([]byte, 512); ; { // until the client goes
		if _, err := c.Read(b); err != nil {
			return true
		}
	}
}

// talk is all that the server says in a handshake, nil for an honest one.
func (l *liar) talk() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lies(4) {
		return nil
	}
	export := pack(uint64(fuzzExport), uint16(allNBDFlags))
	opt := choice.Pick[uint32](l.src, nbdOptStructuredReply, nbdOptGo)
	talk := pack(nbdHelloFixed, optionReply(nbdOptStructuredReply, nbdRepAck), optionReply(nbdOptGo, nbdRepInfo, uint16(nbdInfoExport), export),
		optionReply(nbdOptGo, nbdRepInfo, uint16(nbdInfoBlockSize), l.src.Uint32(), l.src.Uint32(), l.src.Uint32()),
		optionReply(opt, choice.Pick[uint32](l.src, nbdRepAck, nbdRepErrUnsup, nbdRepErr+l.src.Uint32()%20, l.src.Uint32()), l.src.Bytes(l.src.Intn(30))),
		optionReply(nbdOptGo, nbdRepAck))
	at := l.src.Intn(len(talk))
	switch l.src.Intn(4) {
	case 0:
		talk = talk[:at]
	case 1:
		talk[at] ^= 1 << l.src.Intn(8)
	case 2:
		talk = pack(talk[:at], l.src.Bytes(l.src.Intn(40)), talk[at:])
	default:
		talk[at] = l.src.Uint8()
	}
	return talk
}
