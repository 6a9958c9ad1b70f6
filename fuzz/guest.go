package fuzz

import (
	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// fileSizes are the sizes of a client's files in bytes.
var fileSizes = [...]uint64{2 << 20, 64 << 10, 10000, 4096}

// memory is the files that hold a client's memory, made when they are first used.
type memory struct {
	fds [len(fileSizes)]int // 0: not made yet
}

// file is a descriptor of a file.
func (g *memory) file(l *life, i int) int {
	if g.fds[i] == 0 {
		fd, err := unix.MemfdCreate("fuzz-guest", unix.MFD_CLOEXEC)
		if err == nil {
			g.fds[i] = fd
			err = unix.Ftruncate(fd, int64(fileSizes[i]))
		}
		if err != nil {
			l.t.Fatalf("memory: %v", err)
		}
	}
	return g.fds[i]
}

func (g *memory) close() {
	for i, fd := range g.fds {
		if fd != 0 {
			_ = unix.Close(fd)
			g.fds[i] = 0
		}
	}
}

// mapping is memory that a client has mapped, or has asked for.
type mapping struct {
	iova, size uint64
	flags      codec.DMAFlags
	seq        uint64 // of the command
	fd         int    // what it is made of; 0: nothing
	offset     uint64 // in the file
}

func (g *mapping) contains(addr, n uint64) bool {
	return addr >= g.iova && addr-g.iova <= g.size && n <= g.size-(addr-g.iova)
}

// find is the mapping with an address, the last one if there are several.
func (c *conn) find(addr, n uint64) *mapping {
	for i := len(c.maps) - 1; i >= 0; i-- {
		if c.maps[i].contains(addr, n) {
			return c.maps[i]
		}
	}
	return nil
}

// forget takes mappings off the list.
func (c *conn) forget(which func(*mapping) bool) {
	n := 0
	for _, g := range c.maps {
		if !which(g) {
			c.maps[n] = g
			n++
		}
	}
	clear(c.maps[n:])
	c.maps = c.maps[:n]
}

// unmapped follows a DMA_UNMAP that was done.
func (c *conn) unmapped(r *request) {
	var m codec.DMAUnmap
	if m.DecodeRequest(r.payload) != nil {
		return
	}
	all := m.Flags&codec.UnmapFlagAll != 0
	c.forget(func(g *mapping) bool { return g.seq < r.seq && (all || g.iova == m.Addr && g.size == m.Size) })
}

// ask is a command of the server that is not answered.
type ask struct {
	codec.Header
	codec.DMAAccess // of a write with its data
}

// asked takes a command of the server.
func (c *conn) asked(m incoming) {
	a := ask{Header: m.Header}
	write := m.Command == codec.CmdDMAWrite
	var err error
	switch {
	case write:
		err = a.DecodeWriteRequest(m.payload)
	case m.Command == codec.CmdDMARead:
		err = a.DecodeReadRequest(m.payload)
	default:
		c.l.fail("the server sends %v", m.Command)
	}
	need := codec.DMAFlagRead
	if write {
		need = codec.DMAFlagWrite
	}
	g := c.find(a.Addr, a.Count)
	switch {
	case err != nil || len(m.fds) > 0 || m.NoReply() || a.Count == 0:
		c.l.fail("the server sends %s with %d descriptors: %v", codec.Message{Header: m.Header, Payload: m.payload}, len(m.fds), err)
	case g == nil && c.twin == nil, g != nil && g.flags&need == 0 && c.only(g):
		c.l.fail("the server asks with %v for %d bytes at %#x, which the client has not mapped so", m.Command, a.Count, a.Addr)
	}
	for _, other := range c.asks {
		if other.ID == a.ID {
			c.l.fail("the server uses the id %d for two commands at a time", a.ID)
		}
	}
	if write {
		a.Data = append([]byte(nil), a.Data...)
	}
	c.asks = append(c.asks, a)
	c.l.trace.note("the server asks: %v of %d bytes at %#x", m.Command, a.Count, a.Addr)
	if c.l.prompt {
		c.answerAll()
	}
}

// only says whether no other mapping has a part of one.
func (c *conn) only(g *mapping) bool {
	for _, other := range c.maps {
		if other != g && other.iova < g.iova+g.size && g.iova < other.iova+other.size {
			return false
		}
	}
	return true
}

// answered says whether a reply fits a command of the server, which is answered with it.
func (c *conn) answered(h codec.Header, payload []byte) bool {
	for i := range c.asks {
		a := &c.asks[i]
		if a.ID != h.ID {
			continue
		}
		if a.Command != h.Command || !h.IsError() && !a.fits(payload) {
			return false
		}
		c.asks = append(c.asks[:i], c.asks[i+1:]...)
		return true
	}
	return false
}

// fits says whether a reply without error is to this command.
func (a *ask) fits(payload []byte) bool {
	var reply codec.DMAAccess
	var err error
	if a.Command == codec.CmdDMAWrite {
		err = reply.DecodeWriteReply(payload)
	} else {
		err = reply.DecodeReadReply(payload)
	}
	return err == nil && reply.Addr == a.Addr && reply.Count == a.Count
}

// answerAll answers what the server has asked, truly.
func (c *conn) answerAll() {
	for n := len(c.asks); n > 0 && !c.must && !c.main.over; n-- {
		a := c.asks[0]
		c.answer(a, c.truth(a))
		if len(c.asks) >= n {
			return // it has become a part of a message that was begun
		}
	}
}

// truth is the payload of the reply to a command, after it is done.
func (c *conn) truth(a ask) []byte {
	g := c.find(a.Addr, a.Count)
	reply := codec.DMAAccess{Addr: a.Addr, Count: a.Count}
	if a.Command == codec.CmdDMAWrite {
		if g != nil && g.fd != 0 {
			_, _ = unix.Pwrite(g.fd, a.Data, int64(g.offset+a.Addr-g.iova))
		}
		return reply.AppendHead(nil)
	}
	reply.Data = make([]byte, a.Count)
	if g != nil && g.fd != 0 {
		_, _ = unix.Pread(g.fd, reply.Data, int64(g.offset+a.Addr-g.iova)) // what is not there is 0
	}
	return reply.Append(nil)
}

// answer replies to a command of the server.
func (c *conn) answer(a ask, payload []byte) {
	h := codec.Header{ID: a.ID, Command: a.Command, Flags: codec.FlagReply, Size: uint32(codec.HeaderSize + len(payload))}
	c.say(append(h.Append(nil), payload...))
}

// refuse replies with an error.
func (c *conn) refuse(a ask, errno uint32) {
	h := codec.Header{ID: a.ID, Command: a.Command, Flags: codec.FlagReply | codec.FlagError, Size: codec.HeaderSize, Errno: errno}
	c.say(h.Append(nil))
}

// say sends a reply, where replies go.
func (c *conn) say(b []byte) {
	if c.twin == nil {
		c.write(b)
		return
	}
	h, err := codec.DecodeHeader(b)
	if err != nil || !h.IsReply() || !c.answered(h, b[codec.HeaderSize:]) {
		c.may, c.must = "nonsense is on the twin socket", true
	}
	c.l.trace.add(b, 0)
	for len(b) > 0 && !c.twin.over {
		n, err := c.twin.send(b, nil)
		switch err {
		case nil:
			b = b[n:]
		case unix.EAGAIN:
			if !waitFor(c.l.r.hangAfter, c.twin, c.twin) {
				c.l.hang("the server does not read the twin socket")
			}
		default: // it has hung up, which shows on the other socket
			return
		}
	}
}
