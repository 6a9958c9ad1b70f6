package virtionet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"vfiouser/client"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/drivers/virtio"
)

// control is the control queue. Memory holds one command: what the device reads, then what it writes.
type control struct {
	mu      sync.Mutex
	vq      *virtio.Queue
	memory  client.Chunk
	addr    uint64
	timeout time.Duration
}

const (
	controlEntries = 16
	// maxCommand is the largest command in bytes: class, command and data.
	maxCommand = 256 << 10
	// maxReply is how much the device writes, the acknowledgement included.
	maxReply     = 64
	controlPause = time.Millisecond
)

func (n *NIC) openControl(ctx context.Context) error {
	index := spec.ControlQueue(n.features, int(n.config.Pairs))
	size, err := n.d.MaxQueueSize(ctx, index)
	if err != nil {
		return err
	}
	n.control = &control{timeout: n.options.Timeout}
	if n.control.memory, err = n.mem.Alloc(maxCommand+maxReply, 0); err != nil {
		return fmt.Errorf("virtio-net: allocate: %w", err)
	}
	n.control.addr = n.d.Addr(n.control.memory)
	n.control.vq, err = n.d.NewQueue(ctx, index, virtio.QueueConfig{Size: min(size, controlEntries), Segments: 2,
		Interrupts: index+1 < n.d.Vectors()})
	return err
}

// do executes a command (5.1.6.5). data follows class and command, answer is what the device writes before the
// acknowledgement.
func (c *control) do(ctx context.Context, class, command uint8, data, answer []byte) error {
	if len(data)+2 > maxCommand || len(answer)+1 > maxReply {
		return fmt.Errorf("%w: %d bytes of data in a command", ErrInvalid, len(data))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, ErrTimeout)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.settle(ctx) // of a command that was given up
	if err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	request, reply := c.memory.Bytes[:2+len(data)], c.memory.Bytes[maxCommand:][:len(answer)+1]
	request[0], request[1] = class, command
	copy(request[2:], data)
	clear(reply)
	reply[len(answer)] = ^spec.AckOK
	readable := [1]virtio.Segment{{Addr: c.addr, Len: uint32(len(request))}}
	writable := [1]virtio.Segment{{Addr: c.addr + maxCommand, Len: uint32(len(reply))}}
	if err := c.vq.Add(0, readable[:], writable[:]); err != nil {
		return err
	}
	if err := c.vq.Kick(); err != nil {
		return err
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	if ack := reply[len(answer)]; ack != spec.AckOK {
		return fmt.Errorf("%w: class %d, command %d: %d", ErrRefused, class, command, ack)
	}
	copy(answer, reply)
	return nil
}

// settle waits until no command is under way.
func (c *control) settle(ctx context.Context) error {
	for {
		var used [1]virtio.Used
		n, err := c.vq.Reap(used[:])
		switch {
		case err != nil:
			return err
		case n > 0:
			continue
		case c.vq.InFlight() == 0:
			return nil
		case c.vq.Interrupts():
			err = c.vq.Wait(ctx)
		default:
			err = c.pause(ctx)
		}
		if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, ctx.Err()) {
			err = cause
		}
		if err != nil {
			return err
		}
	}
}

// pause waits a little for a device without interrupts, or until it is gone.
func (c *control) pause(ctx context.Context) error {
	t := time.NewTimer(controlPause)
	defer t.Stop()
	select {
	case <-t.C:
		return c.vq.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func appendBool(b []byte, on bool) []byte {
	if on {
		return append(b, 1)
	}
	return append(b, 0)
}

// SetPromiscuous has the card receive all frames, or not (CTRL_RX).
func (n *NIC) SetPromiscuous(ctx context.Context, on bool) error {
	return n.receiveMode(ctx, spec.FeatureCtrlRx, spec.RxPromisc, on)
}

// SetAllMulticast has the card receive all multicast frames, or not (CTRL_RX).
func (n *NIC) SetAllMulticast(ctx context.Context, on bool) error {
	return n.receiveMode(ctx, spec.FeatureCtrlRx, spec.RxAllMulti, on)
}

// SetReceiveMode sets another mode, one of spec.RxAllUni to spec.RxNoBcast (CTRL_RX_EXTRA).
func (n *NIC) SetReceiveMode(ctx context.Context, mode uint8, on bool) error {
	return n.receiveMode(ctx, spec.FeatureCtrlRxExtra, mode, on)
}

func (n *NIC) receiveMode(ctx context.Context, feature uint64, mode uint8, on bool) error {
	if err := n.need(feature, "receive modes"); err != nil {
		return err
	}
	return n.control.do(ctx, spec.ClassRx, mode, appendBool(nil, on), nil)
}

// SetMACTable sets the addresses of which frames are received beside the card's own (CTRL_RX).
func (n *NIC) SetMACTable(ctx context.Context, table spec.MACTable) error {
	if err := n.need(spec.FeatureCtrlRx, "table of addresses"); err != nil {
		return err
	}
	return n.control.do(ctx, spec.ClassMAC, spec.MACTableSet, table.Append(nil), nil)
}

// SetMAC sets the card's address (CTRL_MAC_ADDR).
func (n *NIC) SetMAC(ctx context.Context, mac [6]byte) error {
	if err := n.need(spec.FeatureCtrlMACAddr, "address"); err != nil {
		return err
	}
	return n.control.do(ctx, spec.ClassMAC, spec.MACAddrSet, mac[:], nil)
}

// AddVLAN has the card receive frames of a VLAN (CTRL_VLAN).
func (n *NIC) AddVLAN(ctx context.Context, id uint16) error { return n.vlan(ctx, spec.VLANAdd, id) }

// RemoveVLAN ends AddVLAN.
func (n *NIC) RemoveVLAN(ctx context.Context, id uint16) error { return n.vlan(ctx, spec.VLANDel, id) }

func (n *NIC) vlan(ctx context.Context, command uint8, id uint16) error {
	if err := n.need(spec.FeatureCtrlVLAN, "filter of VLANs"); err != nil {
		return err
	}
	return n.control.do(ctx, spec.ClassVLAN, command, binary.LittleEndian.AppendUint16(nil, id), nil)
}

// AnnounceAck says that the program has made itself known: see AnnounceWanted.
func (n *NIC) AnnounceAck(ctx context.Context) error {
	if err := n.need(spec.FeatureGuestAnnounce, "announcements"); err != nil {
		return err
	}
	if err := n.control.do(ctx, spec.ClassAnnounce, spec.AnnounceAck, nil, nil); err != nil {
		return err
	}
	n.look(ctx, n.d) // of this change the card need not tell
	return nil
}

// SetPairs has the card use the first pairs queue pairs for what it receives, up to Pairs (MQ). Open does so with all of them.
func (n *NIC) SetPairs(ctx context.Context, pairs int) error {
	if err := n.need(spec.FeatureMQ, "several queue pairs"); err != nil {
		return err
	}
	if pairs < 1 || pairs > n.Pairs() {
		return fmt.Errorf("%w: %d queue pairs of %d", ErrInvalid, pairs, n.Pairs())
	}
	return n.control.do(ctx, spec.ClassMQ, spec.MQPairsSet, binary.LittleEndian.AppendUint16(nil, uint16(pairs)), nil)
}

// SetRSS configures receive-side scaling (RSS). What the card supports is in Config.
func (n *NIC) SetRSS(ctx context.Context, c spec.RSSConfig) error {
	if err := n.need(spec.FeatureRSS, "receive-side scaling"); err != nil {
		return err
	}
	return n.control.do(ctx, spec.ClassMQ, spec.MQRSSConfig, c.Append(nil), nil)
}

// SetHash configures the hash that is reported with frames (HASH_REPORT).
func (n *NIC) SetHash(ctx context.Context, c spec.HashConfig) error {
	if err := n.need(spec.FeatureHashReport, "hash reports"); err != nil {
		return err
	}
	return n.control.do(ctx, spec.ClassMQ, spec.MQHashConfig, c.Append(nil), nil)
}

// SetOffloads chooses among the negotiated receive offloads, spec.GuestOffloads, those that are in force (CTRL_GUEST_OFFLOADS).
func (n *NIC) SetOffloads(ctx context.Context, offloads uint64) error {
	if err := n.need(spec.FeatureCtrlGuestOffloads, "offloads at run time"); err != nil {
		return err
	}
	return n.control.do(ctx, spec.ClassGuestOffloads, spec.GuestOffloadsSet, binary.LittleEndian.AppendUint64(nil, offloads), nil)
}

// SetCoalescing says how long interrupts of all receive or all transmit queues may be put off (NOTF_COAL).
func (n *NIC) SetCoalescing(ctx context.Context, receive bool, c spec.Coalesce) error {
	if err := n.need(spec.FeatureNotfCoal, "coalescing"); err != nil {
		return err
	}
	command := spec.CoalTxSet
	if receive {
		command = spec.CoalRxSet
	}
	var b [spec.CoalesceSize]byte
	c.Put(b[:])
	return n.control.do(ctx, spec.ClassNotfCoal, command, b[:], nil)
}

// SetQueueCoalescing is SetCoalescing for one virtqueue (VQ_NOTF_COAL).
func (n *NIC) SetQueueCoalescing(ctx context.Context, c spec.CoalesceVQ) error {
	if err := n.need(spec.FeatureVQNotfCoal, "coalescing by queue"); err != nil {
		return err
	}
	var b [spec.CoalesceVQSize]byte
	c.Put(b[:])
	return n.control.do(ctx, spec.ClassNotfCoal, spec.CoalVQSet, b[:], nil)
}

// QueueCoalescing tells what SetQueueCoalescing has set.
func (n *NIC) QueueCoalescing(ctx context.Context, queue uint16) (spec.Coalesce, error) {
	var c spec.Coalesce
	if err := n.need(spec.FeatureVQNotfCoal, "coalescing by queue"); err != nil {
		return c, err
	}
	ask := spec.CoalesceVQ{Queue: queue}
	var b [spec.CoalesceVQSize]byte
	ask.Put(b[:])
	var answer [spec.CoalesceSize]byte
	if err := n.control.do(ctx, spec.ClassNotfCoal, spec.CoalVQGet, b[:4], answer[:]); err != nil {
		return c, err
	}
	c.Get(answer[:])
	return c, nil
}

// Config is the card's configuration as of now. Its fields mean something with the features that go with them.
func (n *NIC) Config() spec.Config { return *n.link.Load() }
