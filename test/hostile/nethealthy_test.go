package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	driver "vfiouser/drivers/virtio-net"
)

// neighbours are the cards that nobody attacks. All frames that they get are checked.
type neighbours struct {
	*healthy
	cards [3]*driver.Queue // the first is on a loop, the others on the victim's switch
	macs  [3][6]byte
	probe atomic.Uint64 // number of the last frame that the victim has sent to the last card

	// flooded: the victim sends as much as it can, or takes others' addresses, which may
	// cost frames, but must not stop them.
	flooded   atomic.Bool
	exchanges atomic.Int64 // of frames on the switch in which all arrived
}

// Kinds of frames.
const (
	foreignFrame = iota // not one of the neighbours'
	loopFrame
	askFrame   // from card 1 to card 2
	groupFrame // from card 1 to all
	replyFrame // from card 2 to card 1
	floodFrame // from card 1 to the victim
	probeFrame // from the victim to card 2
	helloFrame // from card 2 to card 1, who does not wait for it
)

const (
	etherType  = 0x88b5 // local experiments
	frameMagic = 0x746c6968_6e65656e
	frameHead  = 14 + 8 + 1 + 8
	// maxBytes is room for every frame that there is.
	maxBytes = 1 << 17
	// loops is how many frames are on the loop at once, and bursts how many the victim gets.
	loops, bursts = 4, 8
	// unanswered is after what time a frame is lost, if it may be.
	unanswered = 50 * time.Millisecond
)

var broadcastMAC = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// newFrame makes a frame whose content follows from its kind, number and size.
func newFrame(to, from [6]byte, kind byte, number uint64, size int) []byte {
	f := make([]byte, 0, size)
	f = append(append(f, to[:]...), from[:]...)
	f = binary.BigEndian.AppendUint16(f, etherType)
	f = binary.LittleEndian.AppendUint64(f, frameMagic)
	f = append(f, kind)
	f = binary.LittleEndian.AppendUint64(f, number)
	for x := number ^ uint64(kind)<<56; len(f) < size; {
		x = x*0x9e3779b97f4a7c15 + 1
		f = append(f, byte(x>>56))
	}
	return f
}

// checkFrame says what a frame is, and what is wrong with it if it is one of newFrame.
func checkFrame(f []byte) (kind byte, number uint64, err error) {
	if len(f) < frameHead || binary.BigEndian.Uint16(f[12:]) != etherType || binary.LittleEndian.Uint64(f[14:]) != frameMagic {
		return foreignFrame, 0, nil
	}
	kind, number = f[22], binary.LittleEndian.Uint64(f[23:])
	want := newFrame([6]byte(f), [6]byte(f[6:]), kind, number, len(f))
	if !bytes.Equal(f, want) {
		return kind, number, fmt.Errorf("frame %d of kind %d is corrupt", number, kind)
	}
	return kind, number, nil
}

// talk is a round: frames around the loop, then between the two cards on the switch and to
// the victim.
func (n *neighbours) talk(i uint64) error {
	if err := n.timed(func() error { return n.loop(i) }); err != nil {
		return fmt.Errorf("on the loop: %w", err)
	}
	flooded := n.flooded.Load()
	err := n.timed(func() error { return n.exchange(i, flooded) })
	if flooded && errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("on the switch: %w", err)
	}
	n.exchanges.Add(1)
	return nil
}

func (n *neighbours) loop(i uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	q := n.cards[0]
	var sent [loops][]byte
	for k := range sent {
		sent[k] = newFrame(broadcastMAC, n.macs[0], loopFrame, i*loops+uint64(k), 60+int(i*977+uint64(k)*3001)%6000)
		if err := q.WriteFrame(ctx, sent[k]); err != nil {
			return err
		}
	}
	buf := make([]byte, maxBytes)
	for k := range sent {
		size, err := q.ReadFrame(ctx, buf)
		if err != nil {
			return err
		}
		if !bytes.Equal(buf[:size], sent[k]) {
			return fmt.Errorf("frame %d of %d bytes comes back as %d others", k, len(sent[k]), size)
		}
	}
	return nil
}

func (n *neighbours) exchange(i uint64, flooded bool) error {
	limit := patience
	if flooded {
		limit = unanswered
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	a, b := n.cards[1], n.cards[2]
	if flooded {
		// Somebody may have taken its address.
		if err := b.WriteFrame(ctx, newFrame(n.macs[1], n.macs[2], helloFrame, i, 60)); err != nil {
			return err
		}
	}
	for range bursts {
		if err := a.WriteFrame(ctx, newFrame(victimMAC, n.macs[1], floodFrame, i, 60+int(i*311)%3000)); err != nil {
			return err
		}
	}
	for _, f := range [][]byte{
		newFrame(n.macs[2], n.macs[1], askFrame, i, 60+int(i*577)%1400),
		newFrame(broadcastMAC, n.macs[1], groupFrame, i, 60+int(i*131)%5000),
	} {
		if err := a.WriteFrame(ctx, f); err != nil {
			return err
		}
	}
	if err := n.await(ctx, b, i, askFrame, groupFrame); err != nil {
		return err
	}
	if err := b.WriteFrame(ctx, newFrame(n.macs[1], n.macs[2], replyFrame, i, 600)); err != nil {
		return err
	}
	return n.await(ctx, a, i, replyFrame)
}

// await receives until frames of the kinds given have come, each once.
func (n *neighbours) await(ctx context.Context, q *driver.Queue, number uint64, kinds ...byte) error {
	buf := make([]byte, maxBytes)
	for left := len(kinds); left > 0; {
		size, err := q.ReadFrame(ctx, buf)
		if err == nil {
			err = ctx.Err() // there may always be frames
		}
		if err != nil {
			return fmt.Errorf("frame %d, kinds %d, %d of them missing: %w", number, kinds, left, err)
		}
		kind, got, err := checkFrame(buf[:size])
		switch {
		case err != nil:
			return err
		case kind == probeFrame:
			n.probe.Store(got)
		case got == number && bytes.IndexByte(kinds, kind) >= 0:
			left--
		}
	}
	return nil
}

// underFlood allows frames on the switch to be lost until the function that it returns is
// called. Those on the loop never are.
func (n *neighbours) underFlood() (over func()) {
	n.flooded.Store(true)
	return func() {
		// Rings are full of the flood. Whoever has received a frame that was sent after it has
		// received all of it; the first exchange may have begun before.
		n.arrived(2)
		n.flooded.Store(false)
		n.arrived(2)
	}
}

// arrived waits for so many exchanges, for as long as they may take.
func (n *neighbours) arrived(exchanges int64) {
	mark, begin := n.exchanges.Load(), time.Now()
	for n.exchanges.Load() < mark+exchanges && n.err() == nil && time.Since(begin) < patience {
		time.Sleep(pace) // polls
	}
}
