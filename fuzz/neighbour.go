package fuzz

import (
	"encoding/binary"
	"sync/atomic"

	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/pci"
)

// neighbour is another device on the same engine, and its client, which must not notice
// anything of what happens beside it.
type neighbour struct {
	engine.BaseDevice
	register uint64
	asked    atomic.Bool   // of the worker
	answered chan struct{} // by it
	worker   *engine.Worker

	client *socket
	count  uint64 // commands of the client
}

func newNeighbour(e *engine.Engine) (*neighbour, error) {
	n := &neighbour{answered: make(chan struct{}, 1), worker: e.Worker(0)}
	fd, address, err := listen()
	if err != nil {
		return nil, err
	}
	ep, err := e.RegisterFD(fd, n)
	if err != nil {
		return nil, err
	}
	if err := ep.Start(); err != nil {
		return nil, err
	}
	if n.client, err = dial(address); err != nil {
		return nil, err
	}
	n.worker.Attach((*neighbourSource)(n), engine.SourceOptions{})
	n.send(codec.CmdVersion, (&codec.VersionMsg{}).Append(nil))
	return n, nil
}

func (n *neighbour) close() {
	n.worker.Detach((*neighbourSource)(n))
	n.client.close()
}

// Describe says that it has one register.
func (n *neighbour) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x0001, Class: 0xff0000, BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}}})
	d := engine.Description{Config: config}
	d.Regions[engine.RegionBAR0] = engine.Region{
		Size: 4096,
		Read: func(_ uint64, p []byte) error {
			copy(p, binary.LittleEndian.AppendUint64(nil, n.register))
			return nil
		},
		Write: func(_ uint64, p []byte) error {
			if len(p) == 8 {
				n.register = binary.LittleEndian.Uint64(p)
			}
			return nil
		},
	}
	return d, err
}

// neighbourSource is the neighbour's part of the worker.
type neighbourSource neighbour

// Poll answers.
func (n *neighbourSource) Poll() int {
	if n.asked.Swap(false) {
		n.answered <- struct{}{}
		return 1
	}
	return 0
}

// Arm looks once more.
func (n *neighbourSource) Arm() bool { return n.asked.Load() }

// Disarm has nothing to do.
func (n *neighbourSource) Disarm() {}

// Fault cannot come: Poll touches no client's memory.
func (n *neighbourSource) Fault(v any, _ []byte) { panic(v) }

func (n *neighbour) send(command codec.Command, payload []byte) {
	n.count++
	h := codec.Header{ID: uint16(n.count), Command: command, Size: uint32(codec.HeaderSize + len(payload))}
	_, _ = n.client.send(append(h.Append(nil), payload...), nil) // an error shows when the reply is awaited
}

// reply waits for the next reply.
func (n *neighbour) reply(l *life) incoming {
	for {
		_, err := n.client.receive()
		m, ok, cut := n.client.next()
		switch {
		case err != nil || cut != nil || n.client.over:
			l.r.broken = true
			l.fail("the neighbour's session has ended: %v, %v", err, cut)
		case ok && m.IsError():
			l.fail("the neighbour is refused %v: %v", m.Command, m.Err())
		case ok:
			return m
		case !waitFor(l.r.hangAfter, nil, n.client):
			l.hang("the neighbour is not answered")
		}
	}
}

// check has the neighbour's client and its worker do something.
func (n *neighbour) check(l *life) {
	if n.count == 1 {
		n.reply(l) // to VERSION
	}
	want := n.count
	n.send(codec.CmdRegionWrite, (&codec.RegionAccess{Count: 8, Data: binary.LittleEndian.AppendUint64(nil, want)}).Append(nil))
	n.send(codec.CmdRegionRead, (&codec.RegionAccess{Count: 8}).AppendHead(nil))
	n.asked.Store(true)
	n.worker.Wake()
	n.reply(l)
	m := n.reply(l)
	var a codec.RegionAccess
	if err := a.DecodeReadReply(m.payload); err != nil || len(a.Data) != 8 || binary.LittleEndian.Uint64(a.Data) != want {
		l.fail("the neighbour reads %x (%v), has written %#x", a.Data, err, want)
	}
	n.awaitWorker(l)
}

// awaitWorker waits until the worker has answered.
func (n *neighbour) awaitWorker(l *life) {
	if _, ok := await(l.r.hangAfter, n.answered); !ok {
		l.hang("the worker does not look at the neighbour")
	}
}
