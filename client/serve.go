package client

import (
	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// serve answers a command of the server. It runs on whoever reads the socket and never waits.
func (d *Device) serve(c *conn, m *message) {
	var errno unix.Errno
	switch m.Command {
	case codec.CmdDMARead:
		errno = d.serveRead(c, m)
	case codec.CmdDMAWrite:
		errno = d.serveWrite(c, m)
	default:
		errno = unix.ENOTSUP
	}
	if errno != 0 {
		c.answer(m, errno, nil, nil)
	}
}

// answer replies to m, unless it wants no reply.
func (c *conn) answer(m *message, errno unix.Errno, payload, data []byte) {
	if m.NoReply() {
		return
	}
	var b [codec.HeaderSize + codec.DMAAccessSize]byte
	h := codec.Header{ID: m.ID, Command: m.Command, Flags: codec.FlagReply, Errno: uint32(errno)}
	if errno != 0 {
		h.Flags |= codec.FlagError
	}
	head := b[:codec.HeaderSize+copy(b[codec.HeaderSize:], payload)]
	h.Size = uint32(len(head) + len(data))
	h.Put(head)
	c.respond(head, data)
}

func (d *Device) serveRead(c *conn, m *message) unix.Errno {
	var ask codec.DMAAccess
	if ask.DecodeReadRequest(m.payload) != nil {
		return unix.EINVAL
	}
	d.dma.mu.Lock()
	defer d.dma.mu.Unlock()
	b, errno := d.locate(&ask, ProtRead)
	if errno == 0 {
		// Straight from the memory; what does not fit into the socket is copied before the lock is released.
		c.answer(m, 0, ask.AppendHead(nil), b)
	}
	return errno
}

func (d *Device) serveWrite(c *conn, m *message) unix.Errno {
	var ask codec.DMAAccess
	if ask.DecodeWriteRequest(m.payload) != nil {
		return unix.EINVAL
	}
	d.dma.mu.Lock()
	b, errno := d.locate(&ask, ProtWrite)
	if errno == 0 {
		copy(b, ask.Data)
	}
	d.dma.mu.Unlock()
	if errno == 0 {
		c.answer(m, 0, ask.AppendHead(nil), nil)
	}
	return errno
}

// locate finds the memory that the server asks for: inside of one mapping, with the right to it. The table is locked.
func (d *Device) locate(ask *codec.DMAAccess, right Prot) ([]byte, unix.Errno) {
	if ask.Count == 0 || ask.Count > uint64(d.maxTransfer) || ask.Addr+ask.Count-1 < ask.Addr {
		return nil, unix.EINVAL
	}
	i := d.dma.find(ask.Addr)
	if i == len(d.dma.maps) || d.dma.maps[i].IOVA > ask.Addr {
		return nil, unix.ENOENT
	}
	m := &d.dma.maps[i]
	off := ask.Addr - m.IOVA
	switch {
	case ask.Count > m.Size-off || m.Local == nil:
		return nil, unix.EINVAL
	case m.Prot&right == 0:
		return nil, unix.EACCES
	}
	return m.Local[off : off+ask.Count], 0
}
