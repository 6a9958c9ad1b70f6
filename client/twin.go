package client

import "vfiouser/codec"

// WithTwinSocket offers the server a second socket for its commands (DMA_READ, DMA_WRITE), so that they do not queue behind
// replies. Whether it takes the offer is up to the server: see Device.TwinSocket.
func WithTwinSocket() Option { return func(o *options) { o.twin = true } }

// TwinSocket says whether the server's commands come on a socket of their own.
func (d *Device) TwinSocket() bool { return d.twin != nil }

// openTwin takes what VERSION's reply says of a twin socket, and the descriptor it means, out of fds.
//
// "Otherwise, the reply from the server is inconsistent. The client must abort" (specification, VFIO_USER_VERSION).
func (d *Device) openTwin(twin *codec.TwinSocket, offered bool, fds []int) error {
	if twin == nil || !twin.Supported {
		return nil
	}
	switch {
	case !offered:
		return d.breakOff(codec.CmdVersion, nil, "a twin socket that we did not offer")
	case twin.FDIndex == nil:
		return d.breakOff(codec.CmdVersion, nil, "a twin socket without fd_index")
	case *twin.FDIndex >= uint64(len(fds)):
		return d.breakOff(codec.CmdVersion, nil, "twin socket is descriptor %d of %d", *twin.FDIndex, len(fds))
	case !isStreamSocket(fds[*twin.FDIndex]):
		return d.breakOff(codec.CmdVersion, nil, "twin socket: descriptor %d is no connected unix stream socket", *twin.FDIndex)
	}
	fd := &fds[*twin.FDIndex]
	c := &conn{reactor: d.conn.reactor, serve: d.serve, eager: true, partner: &d.conn}
	if err := c.open(*fd, maxMessage(d.maxTransfer)); err != nil {
		return err
	}
	*fd = -1
	d.twin = c
	d.conn.mu.Lock()
	d.conn.partner = c
	ended := d.conn.err
	d.conn.mu.Unlock()
	if ended != nil {
		c.fail(ended)
	}
	return nil
}
