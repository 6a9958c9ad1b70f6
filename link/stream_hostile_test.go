package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// listening returns a unix socket, and a link that connects to it.
func listening(t testing.TB, options string) (link.Link, func() peer) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "net.sock"))
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	l := open(t, newSet(t), "stream:unix="+listener.Addr().String()+options)
	return l, func() peer {
		t.Helper()
		conn, err := listener.Accept()
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return peer{conn, t}
	}
}

func TestStreamLeavesAPeerThatBreaksFraming(t *testing.T) {
	l, accept := listening(t, ",reconnect=100ms")
	g := newGuest(t, l, vnet.OffloadNone)
	for i, length := range []uint32{0, vnet.MaxFrame + 1, 1 << 31, 1<<32 - 1} {
		p := accept()
		good := numbered(60, i)
		p.write(framed(good), binary.BigEndian.AppendUint32(nil, length), make([]byte, 100))
		p.ended()
		if got := g.await(func([]byte) bool { return true }); !bytes.Equal(got.Data, good) {
			t.Errorf("the frame before a length of %d arrived as %x", length, got.Data)
		}
	}
	accept()
	g.Await(func() bool { return g.Announced() > 0 })
}

func TestStreamResumesWhereAPeerPauses(t *testing.T) {
	l, accept := listening(t, "")
	g := newGuest(t, l, vnet.OffloadNone)
	p := accept()
	short := numbered(60, 0)
	for _, b := range append(framed(short), framed(short)...) {
		p.write([]byte{b})
	}
	long := framed(numbered(vnet.MaxFrame, 1))
	for len(long) > 0 {
		n := min(len(long), 9999)
		p.write(long[:n])
		long = long[n:]
	}
	for _, want := range []int{60, 60, vnet.MaxFrame} {
		var got linktest.Frame
		g.Await(func() (ok bool) { got, ok = g.first(); return ok })
		if len(got.Data) != want {
			t.Errorf("a frame of %d bytes arrived with %d", want, len(got.Data))
		}
	}
}

func TestStreamForgetsHalfAFrameOfAPeerThatLeaves(t *testing.T) {
	l, accept := listening(t, ",reconnect=100ms")
	g := newGuest(t, l, vnet.OffloadNone)
	whole := numbered(60, 0)
	for _, cut := range []int{0, 1, 3, 4, 5, 63} {
		p := accept()
		p.write(framed(whole), framed(whole)[:cut])
		must(t, p.Close())
		g.awaitCarrier(true)
	}
	p := accept()
	last := numbered(60, 1)
	p.write(framed(last))
	for {
		var got linktest.Frame
		g.Await(func() (ok bool) { got, ok = g.first(); return ok })
		if bytes.Equal(got.Data, last) {
			break
		}
		if !bytes.Equal(got.Data, whole) {
			t.Fatalf("the card received %x", got.Data)
		}
	}
}

// A card without room has the peer wait, and loses nothing.
func TestStreamStopsReadingWhileTheCardHasNoRoom(t *testing.T) {
	l, accept := listening(t, "")
	var room atomic.Bool
	g := idleGuest()
	g.OnReceive = func(_ int, f []vnet.Frame) int {
		if room.Load() {
			return len(f)
		}
		return 0
	}
	g.start(t, l, vnet.OffloadNone)
	p := accept()
	var sent int
	must(t, p.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
	for i := 0; ; i++ {
		n, err := p.Write(framed(numbered(1500, i)))
		if err != nil {
			if n > 0 { // the frame that the peer was writing
				room.Store(true)
				g.Wake(0)
				must(t, p.SetWriteDeadline(time.Time{}))
				p.write(framed(numbered(1500, i))[n:])
				i++
			}
			sent = i
			break
		}
		if i > 10000 {
			t.Fatal("the link reads on and on")
		}
	}
	room.Store(true)
	g.Wake(0)
	for i := range sent {
		var got linktest.Frame
		g.Await(func() (ok bool) { got, ok = g.first(); return ok })
		if !bytes.Equal(got.Data, numbered(1500, i)) {
			t.Fatalf("frame %d of %d is not what was sent", i, sent)
		}
	}
}

// A peer that does not read has the card wait. What was taken arrives whole and in order.
func TestStreamWaitsForAPeerThatDoesNotRead(t *testing.T) {
	l, accept := listening(t, "")
	g := newGuest(t, l, vnet.OffloadNone)
	card, port := &g.Card, g.port
	port.SetOffloads(vnet.OffloadNone, 3)
	p := accept()
	awaitCarrier(card, true)
	sizes := []int{60, 1514, 9014, 65000}
	taken := 0
	for refused := false; !refused; {
		var frames []vnet.Frame
		for i := taken; i < taken+20; i++ {
			f := numbered(sizes[i%4], i)
			frames = append(frames, vnet.Frame{Parts: [][]byte{f[:7], f[7:50], f[50:]}, Len: len(f)})
		}
		n := port.Send(2, frames)
		refused = n < len(frames)
		taken += n
	}
	if n := port.Send(1, linktest.Frames(numbered(60, 0))); n != 0 {
		t.Errorf("%d frames were taken without room", n)
	}
	for i := range taken {
		if got := p.read(); !bytes.Equal(got, numbered(sizes[i%4], i)) {
			t.Fatalf("frame %d of %d is not what was sent", i, taken)
		}
	}
	card.Await(func() bool { return card.Wakes(0) > 0 && card.Wakes(1) > 0 && card.Wakes(2) > 0 })
	port.Send(2, linktest.Frames(numbered(60, 99)))
	if got := p.read(); !bytes.Equal(got, numbered(60, 99)) {
		t.Error("the frame after the pause is not what was sent")
	}
	if st := port.(link.Counter).Stats(); st.Sent != uint64(taken+1) || st.SendDropped != 0 {
		t.Errorf("%+v, but %d frames were taken", st, taken+1)
	}
}

func TestStreamServerRefusesASecondPeer(t *testing.T) {
	for _, options := range []string{"", ",reconnect=off"} {
		path := filepath.Join(t.TempDir(), "net.sock")
		dial := func() peer {
			conn, err := net.Dial("unix", path)
			must(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			return peer{conn, t}
		}
		g := newGuest(t, open(t, newSet(t), "stream:unix="+path+",server=on"+options), vnet.OffloadNone)
		first := dial()
		g.awaitCarrier(true)
		dial().ended()
		g.send <- linktest.Frames(numbered(60, 1))
		first.read()
		must(t, first.Close())
		g.awaitCarrier(false)
		second := dial()
		if options == "" {
			g.awaitCarrier(true)
		} else {
			second.ended()
		}
	}
}

// Peers that have left again before they were let in are no reason to let others wait.
func TestStreamServerSkipsPeersThatHaveLeft(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "net.sock")
		}
		l := open(t, newSet(t), "stream:"+network+"="+address+",server=on,reconnect=off")
		dial := func() net.Conn {
			conn, err := net.Dial(network, l.(interface{ Addr() string }).Addr())
			must(t, err)
			return conn
		}
		for i := range 40 {
			conn := dial()
			if tcp, ok := conn.(*net.TCPConn); ok && i%2 == 0 {
				must(t, tcp.SetLinger(0)) // a reset
			}
			must(t, conn.Close())
		}
		good := peer{dial(), t}
		g := newGuest(t, l, vnet.OffloadNone)
		g.awaitCarrier(true)
		g.send <- linktest.Frames(numbered(60, 1))
		must(t, good.SetReadDeadline(time.Now().Add(20*time.Second)))
		good.read()
		must(t, good.Close())
	}
}

// A socket that was left behind is no reason not to start; one that is in use is.
func TestStreamServerTakesTheAddressOfOneThatIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "net.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	s := newSet(t)
	_, err = s.Open("stream:unix=" + path + ",server=on")
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("opened beside another: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close())
	own, err := s.Open("stream:unix=" + path + ",server=on")
	must(t, err)
	must(t, own.Close())
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A peer that leaves as soon as it has come is not gone to, nor let in, more and more often.
func TestStreamPausesForPeersThatDoNotStay(t *testing.T) {
	streams(t, func(t *testing.T, l link.Link, connect func() peer) {
		t.Parallel() // it waits most of the time
		g := newGuest(t, l, vnet.OffloadNone)
		var took time.Duration
		for range 5 { // on a slow machine peers stay for longer than they mean to
			start := time.Now()
			for range 4 {
				p := connect()
				g.awaitCarrier(true)
				must(t, p.Close())
				g.awaitCarrier(false)
			}
			if took = time.Since(start); took >= 700*time.Millisecond { // 100 + 200 + 400
				return
			}
		}
		t.Errorf("the fourth peer was taken after %v", took)
	})
}

// Without a driver nobody polls: what comes is not kept for the next one, and the end is seen.
func TestStreamWithoutADriver(t *testing.T) {
	l, accept := listening(t, "")
	card, port := attach(t, l)
	for range 2 {
		port.SetOffloads(vnet.OffloadNone, 1)
		port.SetOffloads(vnet.OffloadNone, 0)
		p := accept()
		awaitCarrier(card, true)
		for i := range 5000 {
			p.write(framed(numbered(1500, i)))
		}
		must(t, p.Close())
		awaitCarrier(card, false)
		if n := len(card.Take()); n != 5000 {
			t.Errorf("the card was offered %d of 5,000 frames", n)
		}
	}
}

func TestStreamConnectsByName(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	l := open(t, newSet(t), "stream:tcp=localhost:"+port)
	newGuest(t, l, vnet.OffloadNone)
	conn, err := listener.Accept()
	must(t, err)
	must(t, conn.Close())
}

func TestStreamClosesWhileItConnects(t *testing.T) {
	s := newSet(t)
	// 192.0.2.0/24 is for documentation, and names below .invalid are never found.
	for _, spec := range []string{"stream:tcp=192.0.2.1:9", "stream:tcp=nobody.invalid:9", "stream:unix=/nowhere"} {
		l := open(t, s, spec)
		_, port := attach(t, l)
		must(t, port.Close())
		must(t, port.Close())
		_, again := attach(t, l)
		must(t, again.Close())
	}
}

// No method of the card is called when Close has returned, whatever the peer does.
func TestStreamClosesWhileFramesAreOnTheirWay(t *testing.T) {
	for range 20 {
		l, accept := listening(t, "")
		var closed atomic.Bool
		g := idleGuest()
		g.OnReceive = func(_ int, f []vnet.Frame) int {
			if closed.Load() {
				t.Error("Receive after Close")
			}
			return len(f)
		}
		stop := g.start(t, l, vnet.OffloadNone)
		p := accept()
		flood := make(chan struct{})
		go func() {
			defer close(flood)
			for i := 0; ; i++ {
				if _, err := p.Write(framed(numbered(1500, i))); err != nil {
					return
				}
			}
		}()
		g.Await(func() bool { return len(g.Take()) > 10 })
		stop()
		must(t, g.port.Close())
		closed.Store(true)
		<-flood
	}
}

func TestOpenTellsWhatIsWrongWithAStream(t *testing.T) {
	s := newSet(t)
	for spec, says := range map[string]string{
		"stream":                              "write stream:unix=",
		"stream:udp=1.2.3.4:5":                "write stream:unix=",
		"stream:unix=":                        "bad path",
		"stream:tcp=host":                     "HOST:PORT",
		"stream:tcp=host:http":                "bad port",
		"stream:unix=/x,server=yes":           "server=on",
		"stream:unix=/x,reconnect=1ms":        "bad pause",
		"stream:unix=/x,unix=/y":              "cannot read",
		fmt.Sprintf("stream:unix=/%0200d", 0): "bad path",
	} {
		checkSpec(t, s, spec, says)
	}
}
