package virtionet

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"vfiouser/client"
	device "vfiouser/devices/virtio-net"
	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

const (
	testTimeout = 20 * time.Second
	testMemory  = 64 << 20
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// machine is this project's card behind an engine, and a client attached to it.
type machine struct {
	card     *device.Card
	endpoint *engine.Endpoint
	dev      *client.Device
	mem      *client.Memory
}

// newMachine serves a card on a loop, unless cfg has another link.
func newMachine(t testing.TB, cfg device.Config) *machine {
	t.Helper()
	if cfg.Link == nil {
		cfg.Link = link.Loop()
	}
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	return serve(t, eng, cfg)
}

func serve(t testing.TB, eng *engine.Engine, cfg device.Config) *machine {
	t.Helper()
	m := &machine{}
	var err error
	if m.card, err = device.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.card.Close() })
	if m.endpoint, err = eng.Register(filepath.Join(t.TempDir(), "net"), m.card); err != nil {
		t.Fatal(err)
	}
	if err := m.endpoint.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.endpoint.Close() })
	if m.dev, err = client.Attach(testContext(t), m.endpoint.Path()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.dev.Close() })
	if m.mem, err = client.NewMemory(testMemory); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.mem.Close() })
	return m
}

func (m *machine) open(t testing.TB, o Options) *NIC {
	t.Helper()
	n, err := Open(testContext(t), m.dev, m.mem, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// checkFreed fails the test if the driver has left something in the memory.
func (m *machine) checkFreed(t testing.TB) {
	t.Helper()
	if whole, err := m.mem.Alloc(m.mem.Size(), 0); err != nil {
		t.Error("memory was not given back:", err)
	} else {
		m.mem.Free(whole)
	}
}

// exchange sends frames of random sizes through a loop and checks that they come back, all of them, in order and intact. Both halves of
// the pair are polled, and waited for if there is nothing.
type exchange struct {
	q       *Queue
	rng     *rand.Rand
	longest int
	frames  int
	batch   int
	gso     vnet.Header // of frames that are longer than the MTU

	sent, received int
	fifo           []int // lengths of the frames under way
	buffers        int   // that they are in
	expected       []byte
}

const leastFrame = 60

func (x *exchange) run(t testing.TB) {
	t.Helper()
	x.expected = make([]byte, vnet.MaxFrame)
	out, in := make([]*Buffer, x.batch), make([]*Buffer, x.batch)
	for x.received < x.frames {
		n := x.send(t, out)
		k, err := x.q.Recv(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range in[:k] {
			x.check(t, b)
		}
		if err := x.q.Release(in[:k]); err != nil {
			t.Fatal(err)
		}
		if n+k == 0 {
			// What has come back may not yet count as sent.
			wait := x.q.WaitRecv
			if len(x.fifo) == 0 {
				wait = x.q.WaitSend
			}
			if err := wait(testContext(t)); err != nil {
				t.Fatalf("%d of %d sent, %d received: %v", x.sent, x.frames, x.received, err)
			}
		}
	}
}

// size is that of the next frame, as often short as long.
func (x *exchange) size() int {
	longest := x.longest
	for range x.rng.IntN(8) {
		longest = max(leastFrame, longest/2)
	}
	return leastFrame + x.rng.IntN(longest-leastFrame+1)
}

func (x *exchange) send(t testing.TB, out []*Buffer) (n int) {
	t.Helper()
	room := x.q.nic.bufferSize - int(x.q.header)
	for n < len(out) && x.sent < x.frames {
		size := x.size()
		parts := make([]*Buffer, (size+room-1)/room)
		if x.q.nic.mergeable && x.buffers+len(parts) > cmp.Or(x.q.nic.options.QueueSize, defaultQueueSize) {
			break // a frame for which there are too few buffers is lost if we take long to give more
		}
		if got, err := x.q.Alloc(parts); err != nil {
			t.Fatal(err)
		} else if got < len(parts) {
			x.q.Discard(parts[:got])
			break
		}
		fill(x.expected[:size], x.sent)
		for i, b := range parts {
			part := x.expected[i*room : min(size, (i+1)*room)]
			copy(b.Room(), part)
			b.SetLen(len(part))
			if i > 0 {
				parts[i-1].Next = b
			}
		}
		if size > 1514 {
			parts[0].Header = x.gso
		}
		x.fifo = append(x.fifo, size)
		x.buffers += len(parts)
		out[n] = parts[0]
		n++
		x.sent++
	}
	for left := out[:n]; len(left) > 0; {
		k, err := x.q.Send(left)
		if left = left[k:]; err == nil && k == 0 {
			err = x.q.WaitSend(testContext(t))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// fill makes the frame of a number: broadcast, of a type that nobody knows, with a content that depends on both.
func fill(p []byte, number int) {
	copy(p, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	binary.LittleEndian.PutUint32(p[14:], uint32(number))
	for i := 18; i < len(p); i++ {
		p[i] = byte(i*7 + number)
	}
}

func (x *exchange) check(t testing.TB, b *Buffer) {
	t.Helper()
	if len(x.fifo) == 0 || b.Len() != x.fifo[0] {
		t.Fatalf("frame %d has %d bytes, want %v", x.received, b.Len(), x.fifo[:min(1, len(x.fifo))])
	}
	want := x.expected[:b.Len()]
	fill(want, x.received)
	for part := b; part != nil; part = part.Next {
		for i, v := range part.Bytes() {
			if v != want[i] {
				t.Fatalf("frame %d of %d bytes: %#x at %d, want %#x", x.received, b.Len(), v, b.Len()-len(want)+i, want[i])
			}
		}
		want = want[len(part.Bytes()):]
	}
	room := x.q.nic.bufferSize - int(x.q.header)
	x.fifo, x.buffers = x.fifo[1:], x.buffers-(b.Len()+room-1)/room
	x.received++
}
