package link_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/link"
	"vfiouser/link/vnet"
)

// wireEnd is a card that gives what it receives to the port of another: two interfaces of the
// kernel, in two namespaces, are connected by it.
type wireEnd struct {
	port  link.Port
	other *wireEnd
	wake  [link.MaxPairs]chan struct{}

	frames, segmented, unsummed atomic.Int64
	queues                      [link.MaxPairs]atomic.Int64
	longest                     atomic.Int64
	carrier                     chan bool
}

func (e *wireEnd) Receive(q int, frames []vnet.Frame) int {
	for i := range frames {
		f := &frames[i]
		if f.Header.GSOType != vnet.GSONone {
			e.segmented.Add(1)
		}
		if f.Header.Flags&vnet.FlagNeedsChecksum != 0 {
			e.unsummed.Add(1)
		}
		if n := int64(f.Len); n > e.longest.Load() {
			e.longest.Store(n)
		}
	}
	e.frames.Add(int64(len(frames)))
	e.queues[q].Add(int64(len(frames)))
	return e.other.port.Send(q, frames)
}

func (e *wireEnd) Wake(q int) {
	for _, c := range []chan struct{}{e.wake[q], e.other.wake[q]} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (e *wireEnd) SetCarrier(up bool) { e.carrier <- up }
func (e *wireEnd) Announce()          {}

func (e *wireEnd) work(q int, stop chan struct{}) {
	debug.SetPanicOnFault(true)
	for {
		if e.port.Poll(q) > 0 || e.port.Arm(q) {
			continue
		}
		select {
		case <-e.wake[q]:
		case <-stop:
			return
		}
	}
}

// wire connects the taps at and bt, which are 10.9.0.1 in the namespace of the test and
// 10.9.0.2 in another, to which the function that it returns takes the test's thread and back.
func wire(t testing.TB, queues int, o vnet.Offloads) (a, b *wireEnd, inB func(func())) {
	t.Helper()
	return wireWith(t, newSet(t), queues, func(ta, tb link.Link) (a, b *wireEnd) {
		return joined(t, ta, tb, queues, o)
	})
}

// wireWith is wire with something else between the taps. What join returns are the taps'
// cards.
func wireWith(t testing.TB, s *link.Set, queues int, join func(ta, tb link.Link) (a, b *wireEnd)) (a, b *wireEnd, inB func(func())) {
	t.Helper()
	inNamespace(t)
	namespace := func() int {
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(t, err)
		t.Cleanup(func() { must(t, unix.Close(fd)) })
		return fd
	}
	here := namespace()
	ta := open(t, s, fmt.Sprintf("tap:at,queues=%d", queues))
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	there := namespace()
	tb := open(t, s, fmt.Sprintf("tap:bt,queues=%d", queues))
	must(t, unix.Setns(here, unix.CLONE_NEWNET))
	inB = func(fn func()) {
		must(t, unix.Setns(there, unix.CLONE_NEWNET))
		defer func() { must(t, unix.Setns(here, unix.CLONE_NEWNET)) }()
		fn()
	}
	a, b = join(ta, tb)
	address(t, "at", "10.9.0.1")
	awaitRunning(t, "at")
	inB(func() {
		up(t, "lo")
		address(t, "bt", "10.9.0.2")
		awaitRunning(t, "bt")
	})
	a.awaitCarrier()
	b.awaitCarrier()
	return a, b, inB
}

// joined connects two links by two cards whose drivers can do o.
func joined(t testing.TB, la, lb link.Link, queues int, o vnet.Offloads) (a, b *wireEnd) {
	t.Helper()
	a, b = &wireEnd{}, &wireEnd{}
	a.other, b.other = b, a
	for _, end := range []*wireEnd{a, b} {
		end.carrier = make(chan bool, 100)
		for q := range end.wake {
			end.wake[q] = make(chan struct{}, 1)
		}
	}
	var err error
	a.port, err = la.Attach(a)
	must(t, err)
	b.port, err = lb.Attach(b)
	must(t, err)
	stop := make(chan struct{})
	done := make(chan struct{})
	for _, end := range []*wireEnd{a, b} {
		end.port.SetOffloads(o, queues)
		for q := range queues {
			go func() { end.work(q, stop); done <- struct{}{} }()
		}
	}
	t.Cleanup(func() {
		close(stop)
		for range 2 * queues {
			<-done
		}
		must(t, a.port.Close())
		must(t, b.port.Close())
	})
	return a, b
}

// awaitCarrier waits until the card was told of a carrier, as a tap's and a stream's is first
// told that there is none.
func (e *wireEnd) awaitCarrier() {
	for !<-e.carrier {
	}
}

// transfer is exchange over a connection of TCP between the two namespaces.
func transfer(t *testing.T, n int, inB func(func())) {
	t.Helper()
	var listener net.Listener
	var err error
	inB(func() { listener, err = net.Listen("tcp4", "10.9.0.2:7") })
	must(t, err)
	defer listener.Close()
	d := net.Dialer{Timeout: 20 * time.Second}
	client, err := d.Dial("tcp4", "10.9.0.2:7")
	must(t, err)
	defer client.Close()
	server, err := listener.Accept()
	must(t, err)
	defer server.Close()
	exchange(t, client, server, n)
}

// exchange sends n random bytes both ways through a connection and fails the test unless they
// arrive.
func exchange(t *testing.T, client, server net.Conn, n int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	must(t, client.SetDeadline(deadline))
	must(t, server.SetDeadline(deadline))

	errs := make(chan error, 4)
	for i, c := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
		source := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), int64(n)) }
		go func() {
			_, err := io.Copy(c.from, source())
			errs <- err
		}()
		go func() {
			sent, got := sha256.New(), sha256.New()
			_, err := io.Copy(got, io.LimitReader(c.to, int64(n)))
			if _, e := io.Copy(sent, source()); e != nil {
				err = e
			}
			if err == nil && !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				err = fmt.Errorf("direction %d: what arrived is not what was sent", i)
			}
			errs <- err
		}()
	}
	for range 4 {
		must(t, <-errs)
	}
}

// With all offloads the kernel's segments of up to 64 KiB pass through both taps, without a
// checksum; without any, only finished frames do. Drivers come and go, and frames with them.
func TestTapOffloadsBothWays(t *testing.T) {
	const tcp = vnet.OffloadChecksum | vnet.OffloadTSO4 | vnet.OffloadTSO6 | vnet.OffloadECN
	a, b, inB := wire(t, 4, vnet.OffloadNone)
	set := func(o vnet.Offloads, pairs int) {
		a.port.SetOffloads(o, pairs)
		b.port.SetOffloads(o, pairs)
	}
	for _, c := range []struct {
		offloads            vnet.Offloads
		segmented, unsummed bool
	}{
		// The last frames of a connection come after the next one has begun: so they ask for
		// less, not for more.
		{vnet.OffloadNone, false, false},
		{vnet.OffloadChecksum, false, true},
		{tcp, true, true},
		{vnet.OffloadAll, true, true},
	} {
		set(c.offloads, 1)
		for _, e := range []*wireEnd{a, b} {
			e.segmented.Store(0)
			e.unsummed.Store(0)
			e.longest.Store(0)
		}
		transfer(t, 1<<20, inB)
		for _, e := range []*wireEnd{a, b} {
			if e.segmented.Load() > 0 != c.segmented || e.unsummed.Load() > 0 != c.unsummed || e.longest.Load() > 1514 != c.segmented {
				t.Errorf("with offloads %#x %d frames were to be segmented and %d to be summed; the longest had %d bytes",
					c.offloads, e.segmented.Load(), e.unsummed.Load(), e.longest.Load())
			}
		}
	}

	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			set([]vnet.Offloads{vnet.OffloadNone, tcp, vnet.OffloadAll}[i%3], 1+i%4)
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	transfer(t, 4<<20, inB)
	close(stop)
	<-done
}

// A datagram that is to be cut goes through both taps in one piece, and arrives in several.
func TestTapPassesDatagramsThatAreToBeCut(t *testing.T) {
	a, _, inB := wire(t, 1, vnet.OffloadAll)
	var server net.PacketConn
	var err error
	inB(func() { server, err = net.ListenPacket("udp4", "10.9.0.2:7") })
	must(t, err)
	defer server.Close()
	client, err := net.Dial("udp4", "10.9.0.2:7")
	must(t, err)
	defer client.Close()
	raw, err := client.(*net.UDPConn).SyscallConn()
	must(t, err)
	var set error
	must(t, raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000) }))
	must(t, set)
	_, err = client.Write(numbered(10500, 3))
	must(t, err)
	must(t, server.SetReadDeadline(time.Now().Add(20*time.Second)))
	var got []byte
	for len(got) < 10500 {
		var p [2000]byte
		n, _, err := server.ReadFrom(p[:])
		must(t, err)
		if n > 1000 {
			t.Fatalf("a datagram of %d bytes", n)
		}
		got = append(got, p[:n]...)
	}
	if !bytes.Equal(got, numbered(10500, 3)) {
		t.Error("what arrived is not what was sent")
	}
	if a.segmented.Load() == 0 {
		t.Log("this kernel cuts datagrams itself")
	}
}

// Flows spread over the queues that the driver uses, and only over those.
func TestTapQueuesFollowTheDriver(t *testing.T) {
	a, b, inB := wire(t, 4, vnet.OffloadAll)
	var server net.PacketConn
	var err error
	inB(func() { server, err = net.ListenPacket("udp4", "10.9.0.2:7") })
	must(t, err)
	defer server.Close()
	used := func() (queues int) {
		for q := range a.queues {
			a.queues[q].Store(0)
		}
		for range 64 {
			client, err := net.Dial("udp4", "10.9.0.2:7")
			must(t, err)
			_, err = client.Write([]byte("from a flow of its own"))
			must(t, err)
			must(t, server.SetReadDeadline(time.Now().Add(20*time.Second)))
			_, _, err = server.ReadFrom(make([]byte, 100))
			must(t, err)
			must(t, client.Close())
		}
		for q := range a.queues {
			if a.queues[q].Load() > 0 {
				queues++
			}
		}
		return queues
	}
	for _, pairs := range []int{4, 1, 2, 4} {
		a.port.SetOffloads(vnet.OffloadAll, pairs)
		b.port.SetOffloads(vnet.OffloadAll, pairs)
		if n := used(); pairs == 1 && n != 1 || pairs > 1 && (n < 2 || n > pairs) {
			t.Errorf("with %d pairs, %d queues were used", pairs, n)
		}
	}
}
