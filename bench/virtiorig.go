package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	device "vfiouser/devices/virtio-net"
	"vfiouser/devices/virtio-net/spec"
	common "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio-net"
	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

const segment = 64 << 10 // bytes of a frame that is to be cut into segments

// The buffers of a queue, and of one for frames of 64 KiB.
const (
	frameBuffers   = 256
	frameRoom      = 2048 // bytes
	segmentBuffers = 64
	segmentRoom    = segment + 128 // bytes
)

const cardMemory = 64 << 20 // bytes, for queues and buffers

// card is a network card attached by the driver of the measuring thread. The worker has a CPU of
// its own.
type card struct {
	nic *driver.NIC
	q   *driver.Queue
	mem *client.Memory
}

// newCards puts cards on one worker, one on each link.
func newCards(env *Env, links []link.Link, packed bool, size int) ([]*card, error) {
	e, err := engine.New(engine.Config{Workers: 1, WorkerCPUs: env.DeviceCPUs})
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { e.Close() })
	cards := make([]*card, len(links))
	for i, l := range links {
		cfg := device.Config{Link: l, Doorbells: virtio.Mmap, MAC: address(i)}
		if cards[i], err = newCard(env, e, cfg, fmt.Sprintf("net%d", i), packed, size); err != nil {
			return nil, err
		}
	}
	return cards, nil
}

func newCard(env *Env, e *engine.Engine, cfg device.Config, name string, packed bool, size int) (*card, error) {
	served, err := device.New(cfg)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { served.Close() })
	dev, err := serve(env, e, served, name)
	if err != nil {
		return nil, err
	}
	c := &card{}
	if c.mem, err = client.NewMemory(cardMemory); err != nil {
		return nil, err
	}
	env.Cleanup(func() { c.mem.Close() })
	o := driver.Options{Features: driver.DefaultFeatures}
	if !packed {
		o.Features &^= common.FeatureRingPacked
	}
	if size == segment {
		// Such frames are received in one piece.
		o.Features |= spec.FeatureGuestCSUM | spec.FeatureGuestTSO4
		o.Features &^= spec.FeatureMrgRxBuf
		o.QueueSize, o.BufferSize = segmentBuffers, segmentRoom
	}
	if c.nic, err = driver.Open(context.Background(), dev, c.mem, o); err != nil {
		return nil, err
	}
	env.Cleanup(func() { c.nic.Close() })
	c.q = c.nic.Queue(0)
	return c, nil
}

// address is that of card i.
func address(i int) []byte { return []byte{2, 0, 0, 0, 0, byte(i)} }

// prepare makes every transmit buffer of a card a frame of size bytes to card to, so that nothing
// but its length has to be set to send one.
func (c *card) prepare(size, from, to int) (vnet.Header, error) {
	frame, header := frameOf(size, from, to)
	buffers := make([]*driver.Buffer, 1024)
	n, err := c.q.Alloc(buffers)
	if err == nil && n == len(buffers) {
		err = errors.New("bench: a queue has more buffers than it was asked for")
	}
	for _, b := range buffers[:n] {
		copy(b.Room(), frame)
	}
	c.q.Discard(buffers[:n])
	return header, err
}

// frameOf is a TCP segment of size bytes with its Ethernet header.
func frameOf(size, from, to int) ([]byte, vnet.Header) {
	const ethernet, ip, tcp, mss = 14, 20, 20, 1448
	f := make([]byte, size)
	copy(f, address(to))
	copy(f[6:], address(from))
	f[12], f[13] = 8, 0
	p := f[ethernet:]
	p[0], p[8], p[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 0, 0, byte(from), 10, 0, 0, byte(to)})
	p[ip+12] = tcp / 4 << 4
	if size < segment {
		return f, vnet.Header{}
	}
	return f, vnet.Header{Flags: vnet.FlagNeedsChecksum, GSOType: vnet.GSOTCP4, HeaderLen: ethernet + ip + tcp, GSOSize: mss,
		ChecksumStart: ethernet + ip, ChecksumOffset: 16}
}

// send sends up to len(frames) frames that prepare has made.
func (c *card) send(frames []*driver.Buffer, size int, h vnet.Header) (int, error) {
	n, err := c.q.Alloc(frames)
	if n == 0 || err != nil {
		return 0, err
	}
	for _, b := range frames[:n] {
		b.SetLen(size)
		b.Header = h
	}
	sent, err := c.q.Send(frames[:n])
	c.q.Discard(frames[sent:n])
	return sent, err
}

// receive takes up to len(frames) frames and gives their buffers back.
func (c *card) receive(frames []*driver.Buffer, size int) (int, error) {
	n, err := c.q.Recv(frames)
	if n == 0 || err != nil {
		return 0, err
	}
	for _, b := range frames[:n] {
		if b.Next != nil || len(b.Bytes()) != size {
			return 0, fmt.Errorf("bench: a frame of %d bytes, not %d", b.Len(), size)
		}
	}
	return n, c.q.Release(frames[:n])
}

// introduce has the last card of a switch send a frame to the first one, so that it is known
// where it is.
func introduce(cards []*card) error {
	last := len(cards) - 1
	frame, _ := frameOf(64, last, 0)
	if err := cards[last].q.WriteFrame(context.Background(), frame); err != nil {
		return err
	}
	for in := make([]*driver.Buffer, 1); ; runtime.Gosched() {
		if n, err := cards[0].receive(in, len(frame)); n > 0 || err != nil {
			return err
		}
	}
}

// source is a link that has always a frame for its card.
type source struct {
	card   link.Card
	frames []vnet.Frame
}

func newSource(size int) *source {
	data, h := frameOf(size, 1, 0)
	s := &source{frames: make([]vnet.Frame, 32)}
	for i := range s.frames {
		own := append([]byte(nil), data...)
		s.frames[i] = vnet.Frame{Header: h, Parts: [][]byte{own}, Len: size}
	}
	return s
}

func (s *source) Attach(c link.Card) (link.Port, error)  { s.card = c; return s, nil }
func (s *source) Close() error                           { return nil }
func (s *source) Send(_ int, frames []vnet.Frame) int    { return len(frames) }
func (s *source) Poll(q int) int                         { return s.card.Receive(q, s.frames) }
func (s *source) Arm(int) bool                           { return true }
func (s *source) SetOffloads(o vnet.Offloads, pairs int) {}
