package block

import (
	"io"
	"net"

	"vfiouser/fuzz/choice"
)

// answer answers a command, also in a way that is unusual, or wrong. Data is always true where
// its place is right: no client can know better.
func (l *liar) answer(c *nbdServed, q nbdQuery) bool {
	l.choose(c, q)() // nobody waits for this one
	return true
}

// choose decides what to do about a command.
func (l *liar) choose(c *nbdServed, q nbdQuery) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.off < 0 || q.n < 0 || q.off > fuzzExport-q.n {
		l.n++ // it was told another size, or takes data for a command
		return func() { _ = c.Close() }
	}
	switch k := l.src.Intn(8); {
	case k < 4:
		return l.finish(c, q, l.honest(c.s, q))
	case k == 4 && c.s.structured && q.cmd == nbdCmdRead:
		return l.finish(c, q, l.pieces(c.s, q, q.off, q.n, true))
	case k < 6:
		return l.wrong(c, q)
	default:
		return l.cutShort(c, q)
	}
}

// finish does a command, if it is one of the newest connection, and answers: what is left of
// one that the client has given up changes nothing.
func (l *liar) finish(c *nbdServed, q nbdQuery, answer []byte) func() {
	return func() {
		data := make([]byte, q.n)
		if q.cmd == nbdCmdWrite {
			if _, err := io.ReadFull(c, data); err != nil {
				return
			}
		}
		c.s.mu.Lock()
		old := c.nr != c.s.accepted-1
		if !old && (q.cmd == nbdCmdWrite || q.cmd == nbdCmdWriteZeroes || q.cmd == nbdCmdTrim) {
			copy(c.s.data[q.off:], data)
		}
		c.s.mu.Unlock()
		if old {
			_ = c.Close()
			return
		}
		_, _ = c.Write(answer)
	}
}

// honest is the plainest answer.
func (l *liar) honest(s *nbdServer, q nbdQuery) []byte {
	b := simpleReply(q.cookie, 0)
	if q.cmd != nbdCmdRead {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data := s.data[q.off : q.off+q.n]
	if s.structured {
		return chunk(nbdChunkDone, nbdChunkOffsetData, q.cookie, uint64(q.off), data)
	}
	return append(b, data...)
}

// pieces are chunks that answer a read, in any order, holes where there are zeroes.
func (l *liar) pieces(s *nbdServer, q nbdQuery, off, n int64, done bool) (b []byte) {
	if n > 1 && l.src.Odds(2) {
		k := 1 + int64(l.src.Intn(int(n-1)))
		first, second := l.pieces(s, q, off, k, false), l.pieces(s, q, off+k, n-k, false)
		if l.src.Bool() {
			first, second = second, first
		}
		b = append(first, second...)
	} else {
		s.mu.Lock()
		data := append([]byte(nil), s.data[off:off+n]...)
		s.mu.Unlock()
		b = chunk(0, nbdChunkOffsetData, q.cookie, uint64(off), data)
		if string(data) == string(make([]byte, n)) && l.src.Bool() {
			b = chunk(0, nbdChunkOffsetHole, q.cookie, uint64(off), uint32(n))
		}
	}
	if done {
		b = append(b, chunk(nbdChunkDone, nbdChunkNone, q.cookie)...)
	}
	return b
}

// wrong is an answer of a wrong form, or an error.
func (l *liar) wrong(c *nbdServed, q nbdQuery) func() {
	l.n++
	src := l.src
	flags := uint16(src.Intn(3))
	data := src.Bytes(src.Intn(40))
	errno := uint32(choice.Pick(src, 1, 5, 12, 22, 28, 75, 95, 108, src.Intn(200)))
	lie := l.finish(c, q, choice.Pick(src,
		simpleReply(q.cookie, errno),
		simpleReply(q.cookie, errno),
		chunk(flags, nbdChunkError|1, q.cookie, errno, uint16(len(data)), data),
		chunk(nbdChunkDone, nbdChunkError|1, q.cookie, errno, uint16(0)),
		chunk(nbdChunkDone, nbdChunkError|2, q.cookie, errno, uint16(0), uint64(q.off)),
		chunk(flags, src.Uint16(), q.cookie, data),
		chunk(flags, nbdChunkOffsetData, q.cookie, uint64(q.off)+uint64(q.n)-src.Edge(64), data),
		chunk(flags, nbdChunkOffsetHole, q.cookie, uint64(q.off)+uint64(q.n)-src.Edge(64), uint32(src.Edge(fuzzExport))),
		pack(uint32(nbdChunkMagic), flags, uint16(src.Intn(4)), q.cookie, src.Uint32()),
		simpleReply(src.Uint64(), 0),
		l.incomplete(c.s, q),
		l.incomplete(c.s, q),
		append(l.honest(c.s, nbdQuery{cmd: q.cmd, cookie: q.cookie - 1<<16, off: q.off, n: q.n}), l.honest(c.s, q)...),
		simpleReply(q.cookie+src.Edge(1<<16), 0),
		chunk(nbdChunkDone, nbdChunkNone, q.cookie^1<<src.Intn(64)),
		data,
		chunk(nbdChunkDone, nbdChunkNone, q.cookie, data),
		append(simpleReply(q.cookie, errno|1), simpleReply(q.cookie, 0)...),
	))
	silent := src.Odds(8) // and the client waits for more
	return func() {
		lie()
		if !silent {
			_ = c.Conn.(*net.UnixConn).CloseWrite()
		}
	}
}

// incomplete is an answer to a read that says that it is whole, and is not.
func (l *liar) incomplete(s *nbdServer, q nbdQuery) []byte {
	var b []byte
	if q.cmd == nbdCmdRead && q.n > 1 {
		b = l.pieces(s, q, q.off, q.n-1-int64(l.src.Intn(int(q.n-1))), false)
	}
	return append(b, chunk(nbdChunkDone, nbdChunkNone, q.cookie)...)
}

// cutShort ends the connection somewhere in an answer that is true.
func (l *liar) cutShort(c *nbdServed, q nbdQuery) func() {
	l.n++
	b := l.honest(c.s, q)
	if q.cmd == nbdCmdRead && c.s.structured {
		b = l.pieces(c.s, q, q.off, q.n, true)
	}
	b, hard := b[:l.src.Intn(len(b))], l.src.Bool()
	return func() {
		_, _ = c.Write(b)
		_ = c.Conn.(*net.UnixConn).CloseWrite()
		if hard {
			_ = c.Close()
		}
	}
}
