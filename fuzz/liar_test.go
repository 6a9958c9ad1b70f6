package fuzz

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/fuzz/choice"
)

// liar stands between a client and a server, and changes what the server says. What the client
// says passes.
type liar struct {
	client, server *socket
	done           chan struct{}

	mu     sync.Mutex
	lies   []lie // for the next messages of the server
	lied   bool  // the client has been told something that no server may say
	silent func()
	own    map[uint16]int // commands that the server knows nothing of, by their ids
}

// lie is what is done to a message.
type lie struct {
	kind lieKind
	a, b uint16
}

type lieKind uint8

const (
	tellTruth   lieKind = iota
	flipByte            // a: where, b: how
	cutPayload          // a: to how much
	tellHalf            // and hang up
	tellError           // a: errno
	addBytes            // a: how many
	otherID             // a: which
	tellTwice           //
	addFDs              // a: how many
	dropFDs             //
	swapFDs             // a: for what
	hangUp              //
	saySilent           // nothing comes, and the client gives up
	askMemory           // b&1: writes; a: where
	askNonsense         // a: which command
	inPieces            // a: where it is cut
	setWord             // a: where, b: what
	numLies
)

// honest lies are what a server may do.
func (l lie) honest() bool {
	switch l.kind {
	case tellTruth, saySilent, inPieces:
		return true
	case tellError:
		return true
	case askMemory:
		return true
	}
	return false
}

// chooseLie makes most messages true.
func chooseLie(s *choice.Source) lie {
	k := lieKind(s.Uint8())
	if k >= 4*numLies {
		return lie{}
	}
	return lie{kind: k % numLies, a: s.Uint16(), b: s.Uint16()}
}

// newLiar takes two sockets.
func newLiar(client, server int, silent func()) *liar {
	l := &liar{client: &socket{fd: client}, server: &socket{fd: server}, done: make(chan struct{}), silent: silent, own: map[uint16]int{}}
	go l.run()
	return l
}

// next says what is done to the next messages.
func (l *liar) next(lies []lie, silent func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lies, l.silent = lies, silent
}

// honest says whether the server may have said all that it has said.
func (l *liar) honest() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lied
}

// hangUp ends the session.
func (l *liar) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lied = true
	_ = unix.Shutdown(l.server.fd, unix.SHUT_RDWR)
}

func (l *liar) run() {
	defer close(l.done)
	defer l.close()
	for !l.client.over && !l.server.over {
		waitFor(time.Hour, nil, l.client, l.server)
		if !l.pass(l.client, l.toServer) || !l.pass(l.server, l.toClient) {
			return
		}
	}
}

// close closes the sockets, which others may shut down.
func (l *liar) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client.close()
	l.server.close()
}

// pass takes what one side has sent.
func (l *liar) pass(from *socket, say func(m incoming) bool) bool {
	if _, err := from.receive(); err != nil {
		return false
	}
	for {
		m, ok, err := from.next()
		if err != nil {
			return false
		}
		if !ok {
			return true
		}
		goOn := say(m)
		reactor.CloseFDs(m.fds)
		if !goOn {
			return false
		}
	}
}

func bytesOf(m incoming) []byte { return append(m.Append(nil), m.payload...) }

func (l *liar) toServer(m incoming) bool {
	if m.IsReply() && l.own[m.ID] > 0 {
		l.own[m.ID]--
		return true
	}
	return sendAll(l.server, bytesOf(m), m.fds)
}

// sendAll waits until all is sent; false if nobody listens.
func sendAll(to *socket, b []byte, fds []int) bool {
	for len(b) > 0 {
		n, err := to.send(b, fds)
		switch err {
		case nil:
			b, fds = b[n:], nil
		case unix.EAGAIN:
			if !waitFor(engineTimeout, to, to) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// take gives the next lie, for a message with so many descriptors.
func (l *liar) take(fds int) (lie, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lies) == 0 {
		return lie{}, nil
	}
	x := l.lies[0]
	l.lies = l.lies[1:]
	// A twin socket that is not passed on is one that the client has closed.
	l.lied = l.lied || !x.honest() || fds > 0 && (x.kind == saySilent || x.kind == tellError)
	return x, l.silent
}

func (l *liar) toClient(m incoming) bool {
	x, silent := l.take(len(m.fds))
	b, fds := bytesOf(m), m.fds
	size := func(n int) { binary.NativeEndian.PutUint32(b[4:], uint32(n)) }
	switch x.kind {
	case flipByte:
		b[int(x.a)%len(b)] ^= byte(x.b) | 1
	case setWord:
		if at := int(x.a) % (len(b) / 4) * 4; at+4 <= len(b) {
			binary.NativeEndian.PutUint32(b[at:], [...]uint32{0, 1<<32 - 1, 1 << 31, 1 << 16, uint32(x.b)}[x.b%5])
		}
	case cutPayload:
		b = b[:codec.HeaderSize+int(x.a)%(len(b)-codec.HeaderSize+1)]
		size(len(b))
	case tellHalf:
		sendAll(l.client, b[:int(x.a)%len(b)], nil)
		return false
	case tellError:
		if m.IsReply() {
			h := codec.Header{ID: m.ID, Command: m.Command, Size: codec.HeaderSize, Flags: codec.FlagReply | codec.FlagError, Errno: uint32(x.a)}
			b, fds = h.Append(nil), nil
		}
	case addBytes:
		b = append(b, make([]byte, x.a%5000)...)
		size(len(b))
	case otherID:
		binary.NativeEndian.PutUint16(b, x.a)
	case tellTwice:
		sendAll(l.client, b, fds)
	case addFDs, swapFDs:
		strange := strangeFDs(int(x.a))
		defer reactor.CloseFDs(strange)
		if x.kind == swapFDs {
			fds = nil
		}
		fds = append(slices.Clone(fds), strange...)
	case dropFDs:
		fds = nil
	case hangUp:
		return false
	case saySilent:
		silent()
		return true
	case askMemory, askNonsense:
		l.ask(x)
	case inPieces:
		n := int(x.a) % len(b)
		sendAll(l.client, b[:n], fds)
		b = b[n:]
		if n > 0 {
			fds = nil
		}
	}
	return sendAll(l.client, b, fds)
}

// ask sends a command of its own.
func (l *liar) ask(x lie) {
	a := codec.DMAAccess{Addr: uint64(x.a) << 8, Count: uint64(x.b)%5000 + 1}
	h := codec.Header{ID: 0xf000 | x.a&0xfff, Command: codec.CmdDMARead}
	payload := a.AppendHead(nil)
	switch {
	case x.kind == askNonsense:
		h.Command = codec.Command(x.a)
	case x.b&1 == 1:
		h.Command = codec.CmdDMAWrite
		a.Data = make([]byte, a.Count)
		payload = a.Append(nil)
	}
	h.Size = uint32(codec.HeaderSize + len(payload))
	l.own[h.ID]++
	sendAll(l.client, append(h.Append(nil), payload...), nil)
}

// strangeFDs are some that do not belong where they come.
func strangeFDs(how int) (fds []int) {
	for i := range how%4 + 1 {
		var fd int
		var err error
		if (how>>2+i)%2 == 0 {
			fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
		} else if fd, err = unix.MemfdCreate("short", unix.MFD_CLOEXEC); err == nil {
			err = unix.Ftruncate(fd, int64(how))
		}
		if err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}
