package bench

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/pci"
)

// message is an access to a region: size bytes, depth requests under way.
type message struct {
	write       bool
	size, depth int
	quick, full bool
}

// messages vary one thing at a time.
var messages = []message{
	{size: 4, depth: 1, quick: true},
	{size: 64, depth: 1, full: true},
	{size: 1024, depth: 1, full: true},
	{size: 4096, depth: 1, quick: true},
	{size: 64 << 10, depth: 1},
	{size: 1 << 20, depth: 1},
	{size: 4, depth: 2, full: true},
	{size: 4, depth: 4},
	{size: 4, depth: 8, full: true},
	{size: 4, depth: 16},
	{size: 4, depth: 32, full: true},
	{size: 4, depth: 64, quick: true},
	{size: 4096, depth: 16},
	{write: true, size: 4, depth: 1},
	{write: true, size: 1024, depth: 1, full: true},
	{write: true, size: 4096, depth: 1},
	{write: true, size: 64 << 10, depth: 1, full: true},
	{write: true, size: 1 << 20, depth: 1, full: true},
	{write: true, size: 4, depth: 16, full: true},
}

const messageHead = codec.HeaderSize + codec.RegionAccessSize // bytes around data

func (m message) echo() echo {
	if m.write {
		return echo{messageHead + m.size, messageHead, m.depth}
	}
	return echo{messageHead, messageHead + m.size, m.depth}
}

func (m message) String() string {
	op := "read"
	if m.write {
		op = "write"
	}
	return fmt.Sprintf("%s/size=%d/depth=%d", op, m.size, m.depth)
}

// bytes is the request.
func (m message) bytes() []byte {
	access := codec.RegionAccess{Region: codec.RegionBAR0, Count: uint32(m.size)}
	e := m.echo()
	if m.write {
		access.Data = make([]byte, m.size)
		return access.Append(codec.Header{Command: codec.CmdRegionWrite, Size: uint32(e.request)}.Append(nil))
	}
	return access.AppendHead(codec.Header{Command: codec.CmdRegionRead, Size: uint32(e.request)}.Append(nil))
}

// messageCases are round trips with a device in a process of its own, on the same core: from a
// client that writes and reads the socket by itself ("message"), and through package client.
func messageCases() (cases []Case) {
	for _, m := range messages {
		cases = append(cases, Case{
			Name: "message/" + m.String(), Quick: m.quick, Full: m.full, Bytes: m.size, Limit: m.echo().limit(),
			Setup: func(env *Env) (Subject, error) {
				fd, err := spawn(env, "device")
				if err != nil {
					return Subject{}, err
				}
				return messageSubject(fd, m)
			},
		})
	}
	for _, size := range []int{4, 4096} {
		m := message{size: size, depth: 1}
		cases = append(cases, Case{
			Name: fmt.Sprintf("client/read/size=%d", size), Quick: size == 4, Bytes: size, Limit: m.echo().limit(),
			Setup: func(env *Env) (Subject, error) {
				dev, err := attach(env)
				if err != nil {
					return Subject{}, err
				}
				ctx, p := context.Background(), make([]byte, size)
				read := func() error { return dev.ReadRegion(ctx, codec.RegionBAR0, 0, p) }
				return Subject{Run: repeat(read)}, read()
			},
		})
	}
	return append(cases, Case{
		Name: "client/post/size=4", Bytes: 4, Limit: fmt.Sprintf("socket-send/size=%d", messageHead+4),
		Setup: func(env *Env) (Subject, error) {
			dev, err := attach(env)
			if err != nil {
				return Subject{}, err
			}
			ctx := context.Background()
			return Subject{Run: func(n int) error {
				for range n {
					if err := dev.PostRegion32(ctx, codec.RegionBAR0, 0, 1); err != nil {
						return err
					}
				}
				_, err := dev.ReadRegion32(ctx, codec.RegionBAR0, 0) // all are done
				return err
			}}, nil
		},
	})
}

func messageLimits() []Limit {
	return append(echoLimits(), Limit{Name: fmt.Sprintf("socket-send/size=%d", messageHead+4), Bytes: messageHead + 4,
		Setup: func(env *Env) (Subject, error) {
			fd, err := spawn(env, "sink")
			if err != nil {
				return Subject{}, err
			}
			request := make([]byte, messageHead+4)
			post := func() error { return sendAll(fd, request) }
			return Subject{Run: repeat(post)}, post()
		}})
}

// repeat does an operation n times.
func repeat(op func() error) func(n int) error {
	return func(n int) error {
		for range n {
			if err := op(); err != nil {
				return err
			}
		}
		return nil
	}
}

// messageSubject measures on a connection to a device.
func messageSubject(fd int, m message) (Subject, error) {
	if err := negotiate(fd); err != nil {
		return Subject{}, err
	}
	request := m.bytes()
	reply := make([]byte, m.echo().reply)
	if err := exchange(fd, request, reply); err != nil {
		return Subject{}, err
	}
	return newAsker(fd, request, len(reply), m.depth).subject()
}

// attach is package client on a device in a process of its own.
func attach(env *Env) (*client.Device, error) {
	fd, err := spawn(env, "device")
	if err != nil {
		return nil, err
	}
	// The descriptor that is env's is closed by env.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dev, err := client.AttachFD(context.Background(), own)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { dev.Close() })
	return dev, nil
}

// negotiate opens a session.
func negotiate(fd int) error {
	request := make([]byte, codec.HeaderSize)
	request = (&codec.VersionMsg{Minor: 1}).Append(request)
	codec.Header{Command: codec.CmdVersion, Size: uint32(len(request))}.Put(request)
	if err := sendAll(fd, request); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, err := recvSome(fd, reply)
	if err != nil {
		return err
	}
	return checkReply(reply[:n])
}

// exchange makes one exchange and looks at the reply, which fills reply.
func exchange(fd int, request, reply []byte) error {
	if err := sendAll(fd, request); err != nil {
		return err
	}
	for got := 0; got < len(reply); {
		n, err := recvSome(fd, reply[got:])
		if err != nil {
			return err
		}
		if got += n; got >= codec.HeaderSize {
			if err := checkReply(reply[:got]); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkReply(p []byte) error {
	h, err := codec.DecodeHeader(p)
	if err != nil {
		return err
	}
	return h.Err()
}

// registers is a device with some memory in BAR0.
type registers struct {
	engine.BaseDevice
	memory []byte
}

// The memory of a device, bytes: of one that is alone, and of one of many.
const (
	largeBAR = 1 << 20
	smallBAR = 4096
)

func newRegisters(size int) *registers { return &registers{memory: make([]byte, size)} }

func (d *registers) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x11e8, Class: 0xff0000,
		BARs: [6]pci.BAR{{Size: uint64(len(d.memory)), Type: pci.Mem32}},
	})
	desc := engine.Description{Config: config}
	desc.Regions[engine.RegionBAR0] = engine.Region{
		Size:  uint64(len(d.memory)),
		Read:  func(off uint64, p []byte) error { copy(p, d.memory[off:]); return nil },
		Write: func(off uint64, p []byte) error { copy(d.memory[off:], p); return nil },
	}
	return desc, err
}

// playDevice serves one device on the connection.
func playDevice(fd int, _ []int) error { return serveOne(fd, newRegisters(largeBAR)) }

func serveOne(fd int, d engine.Device) error {
	e, err := engine.New(engine.Config{})
	if err != nil {
		return err
	}
	ep, err := e.RegisterFD(fd, d)
	if err != nil {
		return err
	}
	if err := ep.Start(); err != nil {
		return err
	}
	<-ep.Done()
	return e.Close()
}
