package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
)

// dmaRequest reads a DMA command of the server.
func (c *raw) dmaRequest(want codec.Command) (codec.Header, codec.DMAAccess) {
	c.t.Helper()
	h, payload, _ := c.read()
	if h.Command != want || h.IsReply() {
		c.t.Fatalf("message %+v, want %v", h, want)
	}
	a := codec.DMAAccess{Addr: binary.NativeEndian.Uint64(payload), Count: binary.NativeEndian.Uint64(payload[8:]), Data: payload[16:]}
	return h, a
}

// answerDMA replies to it; data is for a DMA_READ.
func (c *raw) answerDMA(h codec.Header, a codec.DMAAccess, data []byte) {
	c.t.Helper()
	a.Data = data
	payload := a.Append(nil)
	reply := codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply, Size: uint32(codec.HeaderSize + len(payload))}
	c.write(append(reply.Append(nil), payload...))
}

func (c *raw) refuseDMA(h codec.Header, errno unix.Errno) {
	c.t.Helper()
	c.write(codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply | codec.FlagError, Errno: uint32(errno), Size: codec.HeaderSize}.Append(nil))
}

// started is a device that begins to read guest memory at every write to BAR0, and leaves
// what it has read there.
type started struct {
	*bed
	device *plainDevice
	s      *Session
	done   chan error
	read   []byte
}

const startedSize = 8

func newStarted(t testing.TB, cfg Config) (*started, *raw) {
	t.Helper()
	d := &started{done: make(chan error, 10000), read: make([]byte, startedSize)}
	bar := Region{
		Size: 4096,
		Read: func(off uint64, p []byte) error { copy(p, d.read[min(off, startedSize):]); return nil },
		Write: func(off uint64, _ []byte) error {
			d.s.StartReadDMA(0x100000+off, d.read, func(err error) { d.done <- err })
			return nil
		},
	}
	d.bed, d.device = newPlainBed(t, cfg, Description{Regions: [NumRegions]Region{0: bar}})
	conn := d.attach()
	s := <-d.device.sessions
	d.do(func() { d.s = s })
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x4000000))
	return d, conn
}

// A region handler begins to read guest memory. Its access is answered first, and further
// ones are answered while the client has not.
func TestHandlerStartsDMA(t *testing.T) {
	d, conn := newStarted(t, Config{})
	conn.ok(codec.CmdRegionWrite, regionWrite(0, 16, 1))
	h, ask := conn.dmaRequest(codec.CmdDMARead)
	if ask.Addr != 0x100010 || ask.Count != startedSize {
		t.Errorf("asked for %#x, %d bytes", ask.Addr, ask.Count)
	}
	for range 100 {
		conn.ok(codec.CmdRegionRead, regionRead(0, 0, 8))
	}
	conn.answerDMA(h, ask, []byte("the data"))
	if err := <-d.done; err != nil {
		t.Fatal(err)
	}
	if got := conn.ok(codec.CmdRegionRead, regionRead(0, 0, 8))[16:]; string(got) != "the data" {
		t.Errorf("the device has read %q", got)
	}
}

func TestStartedDMAEnds(t *testing.T) {
	start := func(d *started, write bool, iova uint64, p []byte) error {
		if write {
			d.s.StartWriteDMA(iova, p, func(err error) { d.done <- err })
		} else {
			d.s.StartReadDMA(iova, p, func(err error) { d.done <- err })
		}
		return nil
	}
	for _, c := range []struct {
		name   string
		iova   uint64
		size   int
		write  bool
		client func(t *testing.T, conn *raw)
		want   error
	}{
		{name: "of nothing", iova: 0x100000},
		{name: "not mapped", iova: 0x10, size: 8, want: dma.ErrNotMapped},
		{name: "over the end of what is mapped", iova: 0x6000000 - 4, size: 8, want: dma.ErrNotMapped},
		{name: "around the address space", iova: ^uint64(3), size: 8, want: dma.ErrNotMapped},
		{name: "in memory that is mapped here", iova: 0x5000000, size: 3*maxDMACopy + 5},
		{name: "the same, written", iova: 0x5000000, size: 3*maxDMACopy + 5, write: true},
		{name: "by several messages", iova: 0x100000, size: 2*maxDMAMessage + 5, client: func(t *testing.T, conn *raw) {
			for i, want := range []int{maxDMAMessage, maxDMAMessage, 5} {
				h, ask := conn.dmaRequest(codec.CmdDMARead)
				if ask.Addr != 0x100000+uint64(i)*maxDMAMessage || ask.Count != uint64(want) {
					t.Errorf("message %d asks for %#x, %d bytes", i, ask.Addr, ask.Count)
				}
				conn.answerDMA(h, ask, make([]byte, ask.Count))
			}
		}},
		{name: "written by message", iova: 0x100000, size: 5, write: true, client: func(t *testing.T, conn *raw) {
			h, ask := conn.dmaRequest(codec.CmdDMAWrite)
			if !bytes.Equal(ask.Data, make([]byte, 5)) {
				t.Errorf("data %v", ask.Data)
			}
			conn.answerDMA(h, ask, nil)
		}},
		{name: "the client refuses", iova: 0x100000, size: 8, want: unix.ENODEV, client: func(_ *testing.T, conn *raw) {
			h, _ := conn.dmaRequest(codec.CmdDMARead)
			conn.refuseDMA(h, unix.ENODEV)
		}},
		{name: "the client refuses the second message", iova: 0x100000, size: maxDMAMessage + 8, want: unix.EPERM, client: func(_ *testing.T, conn *raw) {
			h, ask := conn.dmaRequest(codec.CmdDMARead)
			conn.answerDMA(h, ask, make([]byte, ask.Count))
			h, _ = conn.dmaRequest(codec.CmdDMARead)
			conn.refuseDMA(h, unix.EPERM)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, conn := newStarted(t, Config{})
			conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x5000000, 0x1000000), memfd(t, 0x1000000))
			d.do(func() { _ = start(d, c.write, c.iova, make([]byte, c.size)) })
			if c.client != nil {
				c.client(t, conn)
			}
			if err := <-d.done; !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
			conn.ok(codec.CmdGetInfo, u32(16, 0, 0, 0)) // the session goes on
		})
	}
}

// What a client must not answer ends its session, and with it what was begun.
func TestBadAnswersToStartedDMA(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(conn *raw, h codec.Header, a codec.DMAAccess)
	}{
		{"too little data", func(conn *raw, h codec.Header, a codec.DMAAccess) { conn.answerDMA(h, a, make([]byte, 7)) }},
		{"too much data", func(conn *raw, h codec.Header, a codec.DMAAccess) { conn.answerDMA(h, a, make([]byte, 9)) }},
		{"no data", func(conn *raw, h codec.Header, a codec.DMAAccess) { conn.answerDMA(h, a, nil) }},
		{"a smaller count", func(conn *raw, h codec.Header, a codec.DMAAccess) {
			a.Count = 7
			conn.answerDMA(h, a, make([]byte, 7))
		}},
		{"another address", func(conn *raw, h codec.Header, a codec.DMAAccess) {
			a.Addr++
			conn.answerDMA(h, a, make([]byte, 8))
		}},
		{"another id", func(conn *raw, h codec.Header, a codec.DMAAccess) {
			h.ID++
			conn.answerDMA(h, a, make([]byte, 8))
		}},
		{"another command", func(conn *raw, h codec.Header, a codec.DMAAccess) {
			h.Command = codec.CmdDMAWrite
			conn.answerDMA(h, a, nil)
		}},
		{"hang-up", func(conn *raw, _ codec.Header, _ codec.DMAAccess) { conn.close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, conn := newStarted(t, Config{})
			conn.ok(codec.CmdRegionWrite, regionWrite(0, 0, 1))
			h, ask := conn.dmaRequest(codec.CmdDMARead)
			c.answer(conn, h, ask)
			if err := <-d.done; !errors.Is(err, ErrClosed) {
				t.Errorf("ended with %v, want ErrClosed", err)
			}
			d.settled()
			d.attach()
		})
	}
}

// A client that never answers loses its session at the deadline, whatever else it asks for
// in the meantime.
func TestStartedDMAIsBounded(t *testing.T) {
	d, conn := newStarted(t, Config{DMATimeout: 50 * time.Millisecond})
	for range 20 {
		conn.write(conn.frame(codec.CmdRegionWrite, codec.FlagNoReply, regionWrite(0, 0, 1)))
	}
	conn.ends()
	for range 20 {
		if err := <-d.done; !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v, want ErrClosed", err)
		}
	}
	d.settled()
	d.s.StartReadDMA(0x100000, make([]byte, 8), func(err error) { d.done <- err })
	if err := <-d.done; !errors.Is(err, ErrClosed) {
		t.Errorf("after the session: %v, want ErrClosed", err)
	}
	d.attach()
}

// What was begun has ended when the device hears of its client's end, also if the data
// path stands still already and nothing has to be waited for.
func TestStartedDMAEndsBeforeDestroyDevice(t *testing.T) {
	b := newBed(t, Config{})
	b.attach()
	s := b.device.session()
	held := make(chan bool)
	b.do(func() { s.path.hold(func() { close(held) }) })
	<-held
	b.do(func() {
		s.StartReadDMA(0x100000, make([]byte, 8), func(error) { b.device.note("DMA") })
		s.drop(errHungUp)
	})
	<-b.device.gone
	if got, want := b.device.noted(), []string{"new", "hold", "DMA", "destroy"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

// A bounded number of messages is under way; the others follow in order. Answers may come
// in any order.
func TestManyStartedDMAs(t *testing.T) {
	d, conn := newStarted(t, Config{})
	const n = 3 * maxDMACalls
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, 4)
		d.s.StartReadDMA(0x100000+uint64(4*i), bufs[i], func(err error) { d.done <- err })
	}
	next := 0
	for next < n {
		var headers []codec.Header
		var asks []codec.DMAAccess
		for range maxDMACalls {
			h, ask := conn.dmaRequest(codec.CmdDMARead)
			if want := 0x100000 + uint64(4*next); ask.Addr != want {
				t.Fatalf("message %d asks for %#x, want %#x", next, ask.Addr, want)
			}
			next++
			headers, asks = append(headers, h), append(asks, ask)
		}
		conn.ok(codec.CmdGetInfo, u32(16, 0, 0, 0)) // nothing else comes before an answer
		for i := range slices.Backward(headers) {
			conn.answerDMA(headers[i], asks[i], u32(uint32(asks[i].Addr)))
		}
	}
	for range n {
		if err := <-d.done; err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range bufs {
		if got := binary.NativeEndian.Uint32(b); got != uint32(0x100000+4*i) {
			t.Fatalf("operation %d got %#x", i, got)
		}
	}
}

// A client that does not read holds messages back: they take no memory of the output's.
func TestStartedDMAWaitsForTheClientToRead(t *testing.T) {
	d, conn := newStarted(t, Config{})
	const n = 512
	data := make([]byte, maxDMAMessage)
	for range n {
		d.s.StartWriteDMA(0x100000, data, func(err error) { d.done <- err })
	}
	d.do(func() {
		if got := d.s.out.unsent(); got > maxUnsent+maxDMAMessage+64 {
			t.Errorf("%d bytes wait to be sent", got)
		}
	})
	for range n {
		h, ask := conn.dmaRequest(codec.CmdDMAWrite)
		conn.answerDMA(h, ask, nil)
	}
	for range n {
		if err := <-d.done; err != nil {
			t.Fatal(err)
		}
	}
}

// The reactor is what takes messages: who waits for one there waits for ever.
func TestBlockingDMAOnTheReactorIsRefused(t *testing.T) {
	d, conn := newStarted(t, Config{})
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x5000000, 0x1000), memfd(t, 0x1000))
	d.do(func() {
		err := d.s.ReadDMA(context.Background(), 0x100000, make([]byte, 8))
		if !errors.Is(err, ErrOnReactor) || !errors.Is(err, unix.EDEADLK) {
			t.Errorf("read: %v, want ErrOnReactor", err)
		}
		if err := d.s.WriteDMA(context.Background(), 0x100000, make([]byte, 8)); !errors.Is(err, ErrOnReactor) {
			t.Errorf("write: %v, want ErrOnReactor", err)
		}
		if err := d.s.WriteDMA(context.Background(), 0x5000000, make([]byte, 8)); err != nil {
			t.Errorf("memory that is mapped here takes no message: %v", err)
		}
	})
	conn.ok(codec.CmdGetInfo, u32(16, 0, 0, 0)) // and no DMA_READ comes
}

func TestPanicAfterStartedDMACostsTheSessionOnly(t *testing.T) {
	d, conn := newStarted(t, Config{})
	d.s.StartReadDMA(0x100000, make([]byte, 8), func(error) { panic("done") })
	h, ask := conn.dmaRequest(codec.CmdDMARead)
	conn.answerDMA(h, ask, make([]byte, 8))
	conn.ends()
	d.settled()
	d.attach()
}

// The client has the reply to its DMA_UNMAP, or will have it before a message that was asked for
// by then: none may follow.
func TestNothingIsAskedOfMemoryThatIsUnmapped(t *testing.T) {
	d, conn := newStarted(t, Config{})
	for _, command := range []codec.Command{codec.CmdDMARead, codec.CmdDMAWrite} {
		d.do(func() {
			call := &dmaCall{command: command, addr: 0x100000, data: make([]byte, 8), finish: func(err error) { d.done <- err }}
			if err := d.s.memory.Unmap(0x100000, 0x4000000, nil); err != nil {
				t.Error(err)
			}
			d.s.calls.send(call)
		})
		if err := <-d.done; !errors.Is(err, dma.ErrNotMapped) {
			t.Errorf("%v: %v, want dma.ErrNotMapped", command, err)
		}
		conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x4000000)) // nothing else comes before the reply
	}
}
