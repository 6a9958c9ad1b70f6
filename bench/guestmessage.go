package bench

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"vfiouser/codec"
	"vfiouser/engine"
)

// guestMessage is an access of a device to guest memory by message: size bytes, depth of them
// under way.
type guestMessage struct {
	write       bool
	size, depth int
	quick, full bool
}

var guestMessages = []guestMessage{
	{size: 4, depth: 1},
	{size: 4096, depth: 1, quick: true},
	{size: 64 << 10, depth: 1},
	{size: 1 << 20, depth: 1},
	{size: 4096, depth: 4, full: true},
	{size: 4096, depth: 16},
	{write: true, size: 4, depth: 1, full: true},
	{write: true, size: 4096, depth: 1},
	{write: true, size: 64 << 10, depth: 1, full: true},
	{write: true, size: 1 << 20, depth: 1, full: true},
	{write: true, size: 4096, depth: 16, full: true},
}

const guestHead = codec.HeaderSize + codec.DMAAccessSize // bytes around data

func (m guestMessage) echo() echo {
	if m.write {
		return echo{guestHead + m.size, guestHead, m.depth}
	}
	return echo{guestHead, guestHead + m.size, m.depth}
}

// What the device of a peer is told to do: a write of so many bytes at the start of BAR0, which
// is three numbers.
const (
	orderSize     = 24
	orderMaxSize  = 1 << 20
	orderMaxDepth = 64
)

const guestIOVA = 0x10_0000 // where the memory is that is read and written

// guestMessageCases have a device in a process of its own, on the same core, read and write
// memory that it can reach by message only. The client answers at once.
func guestMessageCases() (cases []Case) {
	for _, m := range guestMessages {
		op := "read"
		if m.write {
			op = "write"
		}
		cases = append(cases, Case{
			Name:  fmt.Sprintf("dma-message/%s/size=%d/depth=%d", op, m.size, m.depth),
			Quick: m.quick, Full: m.full, Bytes: m.size, Limit: m.echo().limit(),
			Setup: func(env *Env) (Subject, error) {
				fd, err := spawn(env, "askguest")
				if err != nil {
					return Subject{}, err
				}
				return guestMessageSubject(fd, m)
			},
		})
	}
	return cases
}

// guest answers the requests of a device.
type guest struct {
	guestMessage
	fd      int
	command codec.Command // that the device sends
	order   []byte
	in      []byte // requests
	out     []byte // their replies
}

func guestMessageSubject(fd int, m guestMessage) (Subject, error) {
	if err := negotiate(fd); err != nil {
		return Subject{}, err
	}
	dmaMap := codec.DMAMap{ArgSz: codec.DMAMapSize, Flags: codec.DMAFlagRead | codec.DMAFlagWrite, Addr: guestIOVA,
		Size: uint64((m.size*m.depth + 4095) &^ 4095)}
	request := dmaMap.Append(codec.Header{Command: codec.CmdDMAMap, Size: codec.HeaderSize + codec.DMAMapSize}.Append(nil))
	if err := exchange(fd, request, make([]byte, codec.HeaderSize)); err != nil {
		return Subject{}, err
	}
	order := codec.RegionAccess{Region: codec.RegionBAR0, Count: orderSize, Data: make([]byte, orderSize)}
	e := m.echo()
	g := &guest{guestMessage: m, fd: fd, command: codec.CmdDMARead,
		in: make([]byte, (e.request+guestHead)*m.depth), out: make([]byte, (e.reply+guestHead)*m.depth)}
	if m.write {
		g.command = codec.CmdDMAWrite
	}
	g.order = order.Append(codec.Header{Command: codec.CmdRegionWrite, Flags: codec.FlagNoReply, Size: messageHead + orderSize}.Append(nil))
	return Subject{Run: g.run, UnderWay: m.depth}, g.run(1)
}

// run orders n accesses and answers them.
func (g *guest) run(n int) error {
	mode := uint64(g.depth) << 1
	if g.write {
		mode |= 1
	}
	order := g.order[messageHead:]
	binary.NativeEndian.PutUint64(order, uint64(n))
	binary.NativeEndian.PutUint64(order[8:], uint64(g.size))
	binary.NativeEndian.PutUint64(order[16:], mode)
	if err := sendAll(g.fd, g.order); err != nil {
		return err
	}
	have := 0
	for left := n * g.size; left > 0; {
		m, err := recvSome(g.fd, g.in[have:])
		if err != nil {
			return err
		}
		have += m
		taken, reply, bytes, err := g.answer(g.in[:have])
		if err != nil {
			return err
		}
		have = copy(g.in, g.in[taken:have])
		if err := sendAll(g.fd, g.out[:reply]); err != nil {
			return err
		}
		left -= bytes
	}
	return nil
}

// answer makes the replies to all complete requests in p. It returns the lengths of those and
// of the replies, and how many bytes they are about. The device may ask for less at a time
// than its operation is about.
func (g *guest) answer(p []byte) (taken, reply, bytes int, err error) {
	for len(p)-taken >= guestHead {
		request, out := p[taken:], g.out[reply:]
		count := int(min(binary.NativeEndian.Uint64(request[codec.HeaderSize+8:]), orderMaxSize))
		if codec.Command(binary.NativeEndian.Uint16(request[2:])) != g.command || count == 0 || reply+guestHead > len(g.out) {
			return 0, 0, 0, fmt.Errorf("bench: the device sends what it was not ordered to: % x", request[:guestHead])
		}
		ask, tell := guestHead, guestHead+count
		if g.write {
			ask, tell = guestHead+count, guestHead
		}
		if len(request) < ask {
			break
		}
		if tell > len(out) {
			return 0, 0, 0, fmt.Errorf("bench: the device asks for %d bytes too much", tell-len(out))
		}
		// The message's number, the address and the count come back, and whatever lies in out.
		codec.Header{ID: binary.NativeEndian.Uint16(request), Command: g.command, Flags: codec.FlagReply, Size: uint32(tell)}.Put(out)
		copy(out[codec.HeaderSize:guestHead], request[codec.HeaderSize:])
		taken, reply, bytes = taken+ask, reply+tell, bytes+count
	}
	return taken, reply, bytes, nil
}

// guestReader is a device that accesses guest memory as it is ordered to.
type guestReader struct {
	*registers
	session *engine.Session
	left    int
	begin   func(i int)
	done    []func(error)
}

func (d *guestReader) NewDevice(s *engine.Session) error {
	d.session = s
	return nil
}

func (d *guestReader) Describe() (engine.Description, error) {
	desc, err := d.registers.Describe()
	desc.Regions[engine.RegionBAR0].Write = d.take
	return desc, err
}

// take is called on the reactor, as all that follows from it is.
func (d *guestReader) take(_ uint64, p []byte) error {
	if len(p) != orderSize {
		return syscall.EINVAL
	}
	count, size, mode := binary.NativeEndian.Uint64(p), binary.NativeEndian.Uint64(p[8:]), binary.NativeEndian.Uint64(p[16:])
	depth, write := int(min(mode>>1, orderMaxDepth)), mode&1 != 0
	if size == 0 || size > orderMaxSize || depth == 0 || d.left != 0 {
		return syscall.EINVAL
	}
	for len(d.done) < depth {
		i := len(d.done)
		d.done = append(d.done, func(err error) {
			if err != nil {
				d.left = 0
				d.session.Fail(err)
			} else if d.left > 0 {
				d.begin(i)
			}
		})
	}
	buf := d.memory[:size]
	d.left = int(count)
	d.begin = func(i int) {
		d.left--
		iova := guestIOVA + uint64(i)*size
		if write {
			d.session.StartWriteDMA(iova, buf, d.done[i])
		} else {
			d.session.StartReadDMA(iova, buf, d.done[i])
		}
	}
	for i := range min(depth, d.left) {
		d.begin(i)
	}
	return nil
}

// playAskGuest serves such a device on the connection.
func playAskGuest(fd int, _ []int) error {
	return serveOne(fd, &guestReader{registers: newRegisters(orderMaxSize)})
}
