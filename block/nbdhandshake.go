package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"syscall"
)

const (
	// nbdMaxReply is the longest reply to an option that is read, in bytes.
	nbdMaxReply = 8 << 10
	// nbdMaxInfos is how many replies a server may give to one option.
	nbdMaxInfos = 64
)

// errProtocol is found by errors.Is where a server does what the protocol forbids.
var errProtocol = fmt.Errorf("broken NBD protocol: %w", syscall.EPROTO)

func broken(format string, args ...any) error {
	return because(errProtocol, "the server breaks the protocol: "+format, args...)
}

// nbdExport is what a server says of an export.
type nbdExport struct {
	size       int64
	flags      uint16
	structured bool  // replies
	minBlock   int64 // bytes, to which offsets and lengths are aligned
	maxPayload int64 // bytes of data of a command
}

// greeting is a connection while the two sides make out what is served.
type greeting struct {
	net.Conn
	name  string
	fixed bool // options may be tried
	buf   []byte
}

// handshake brings a connection to the point where commands can be sent.
func handshake(conn net.Conn, name string) (nbdExport, error) {
	g := greeting{Conn: conn, name: name, buf: make([]byte, nbdMaxReply)}
	e := nbdExport{minBlock: 1, maxPayload: nbdMaxPayload}
	flags, err := g.hello()
	if err != nil {
		return e, err
	}
	if g.fixed {
		if e.structured, err = g.structured(); err != nil {
			return e, err
		}
		switch err := g.enter(&e); {
		case err == nil:
			return e, e.check()
		case !errors.Is(err, errUnsupported):
			return e, err
		}
	}
	if err := g.exportName(&e, flags&nbdNoZeroes == 0); err != nil {
		return e, err
	}
	return e, e.check()
}

// errUnsupported: the server does not know the option.
var errUnsupported = errors.New("option not supported")

func (g *greeting) read(n int) ([]byte, error) {
	if _, err := io.ReadFull(g, g.buf[:n]); err != nil {
		return nil, hungUp(err)
	}
	return g.buf[:n], nil
}

func (g *greeting) hello() (flags uint16, err error) {
	b, err := g.read(18)
	if err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint64(b) != nbdMagic {
		return 0, because(errProtocol, "what answers there is no NBD server")
	}
	switch binary.BigEndian.Uint64(b[8:]) {
	case nbdOptionMagic:
	case nbdOldMagic:
		return 0, because(errProtocol, "the server speaks the oldstyle protocol, which has no options; it is too old")
	default:
		return 0, because(errProtocol, "what answers there is no NBD server")
	}
	flags = binary.BigEndian.Uint16(b[16:])
	g.fixed = flags&nbdFixedNewstyle != 0
	var reply [4]byte
	binary.BigEndian.PutUint32(reply[:], uint32(flags&(nbdFixedNewstyle|nbdNoZeroes)))
	_, err = g.Write(reply[:])
	return flags, hungUp(err)
}

// option sends an option with its data.
func (g *greeting) option(opt uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, nbdOptionMagic)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := g.Write(append(b, data...))
	return hungUp(err)
}

// hungUp says in words that the server has closed the connection.
func hungUp(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return because(syscall.ECONNRESET, "the server closed the connection during the handshake")
	}
	return fmt.Errorf("handshake: %w", err)
}

// answer reads one reply to an option. An error reply is an error.
func (g *greeting) answer(opt uint32) (kind uint32, data []byte, err error) {
	b, err := g.read(20)
	if err != nil {
		return 0, nil, err
	}
	if binary.BigEndian.Uint64(b) != nbdReplyMagic || binary.BigEndian.Uint32(b[8:]) != opt {
		return 0, nil, broken("its reply is not one to option %d", opt)
	}
	kind = binary.BigEndian.Uint32(b[12:])
	n := binary.BigEndian.Uint32(b[16:])
	if n > nbdMaxReply {
		return 0, nil, broken("a reply of %d bytes to option %d", n, opt)
	}
	if data, err = g.read(int(n)); err != nil {
		return 0, nil, err
	}
	if kind&nbdRepErr != 0 {
		return kind, nil, g.refusal(kind, data)
	}
	return kind, data, nil
}

// refusal says why a server refuses an option.
func (g *greeting) refusal(kind uint32, data []byte) error {
	said := ""
	if len(data) > 0 {
		said = fmt.Sprintf(" (%.200q)", strings.TrimSpace(string(data)))
	}
	switch kind {
	case nbdRepErrUnsup:
		return errUnsupported
	case nbdRepErrTLS:
		return because(syscall.EACCES, "the server wants TLS, which is not known here; serve without it, or through a tunnel%s", said)
	case nbdRepErrUnknown:
		return because(syscall.ENOENT, "the server has no export %q%s", g.name, said)
	case nbdRepErrPolicy:
		return because(syscall.EACCES, "the server refuses export %q by its policy%s", g.name, said)
	case nbdRepErrShutdown:
		return because(syscall.ESHUTDOWN, "the server is shutting down%s", said)
	case nbdRepErrBlockSizes:
		return because(syscall.EINVAL, "the server does not believe that its block sizes are kept to%s", said)
	}
	return because(syscall.EINVAL, "the server refuses export %q with error %#x%s", g.name, kind, said)
}

// structured asks for structured replies.
func (g *greeting) structured() (bool, error) {
	if err := g.option(nbdOptStructuredReply, nil); err != nil {
		return false, err
	}
	kind, _, err := g.answer(nbdOptStructuredReply)
	switch {
	case kind&nbdRepErr != 0 && kind != nbdRepErrTLS:
		return false, nil
	case err != nil:
		return false, err
	case kind != nbdRepAck:
		return false, broken("reply %#x to the option for structured replies", kind)
	}
	return true, nil
}

// enter asks for the export and, if it is granted, is done.
func (g *greeting) enter(e *nbdExport) error {
	data := binary.BigEndian.AppendUint32(nil, uint32(len(g.name)))
	data = append(data, g.name...)
	data = binary.BigEndian.AppendUint16(data, 1)
	data = binary.BigEndian.AppendUint16(data, nbdInfoBlockSize)
	if err := g.option(nbdOptGo, data); err != nil {
		return err
	}
	known := false
	for range nbdMaxInfos {
		kind, info, err := g.answer(nbdOptGo)
		switch {
		case err != nil:
			return err
		case kind == nbdRepAck && known:
			return nil
		case kind == nbdRepAck:
			return broken("it says nothing of the export")
		case kind != nbdRepInfo || len(info) < 2:
			return broken("reply %#x of %d bytes to the option for the export", kind, len(info))
		}
		switch what := binary.BigEndian.Uint16(info); {
		case what == nbdInfoExport && len(info) == 12:
			known = true
			if err := e.described(info[2:]); err != nil {
				return err
			}
		case what == nbdInfoBlockSize && len(info) == 14:
			e.minBlock = int64(binary.BigEndian.Uint32(info[2:]))
			e.maxPayload = int64(binary.BigEndian.Uint32(info[10:]))
		case what == nbdInfoExport || what == nbdInfoBlockSize:
			return broken("information %d of %d bytes", what, len(info))
		}
	}
	return broken("more than %d replies to one option", nbdMaxInfos)
}

// exportName asks for the export in the way of servers that know no better; one that does not
// have it can only close the connection.
func (g *greeting) exportName(e *nbdExport, zeroes bool) error {
	e.structured = e.structured && g.fixed
	n := 10
	if zeroes {
		n += 124
	}
	err := g.option(nbdOptExportName, []byte(g.name))
	if err == nil {
		_, err = g.read(n)
	}
	if err != nil {
		return because(err, "%v; it may not have an export %q", err, g.name)
	}
	return e.described(g.buf)
}

// described takes an export's size and flags.
func (e *nbdExport) described(b []byte) error {
	size := binary.BigEndian.Uint64(b)
	if size > math.MaxInt64 {
		return broken("an export of %d bytes", size)
	}
	e.size = int64(size)
	e.flags = binary.BigEndian.Uint16(b[8:])
	if e.flags&nbdHasFlags == 0 {
		e.flags = 0
	}
	return nil
}

// check says whether the export can stand behind a device.
func (e *nbdExport) check() error {
	switch {
	case e.size < SectorSize || e.size%SectorSize != 0:
		return because(ErrSpec, "the export's size, %d bytes, is not a multiple of %d; serve one that is", e.size, SectorSize)
	case e.minBlock <= 0 || e.minBlock > 64<<10 || e.minBlock&(e.minBlock-1) != 0 || e.size%e.minBlock != 0:
		return broken("a minimum block size of %d bytes for an export of %d", e.minBlock, e.size)
	case e.maxPayload < e.minBlock || e.maxPayload < SectorSize:
		return broken("a maximum block size of %d bytes", e.maxPayload)
	}
	e.maxPayload = min(e.maxPayload, nbdMaxPayload) &^ (e.minBlock - 1)
	return nil
}
