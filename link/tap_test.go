package link_test

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"testing"

	"vfiouser/engine/reactor"
	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// newSet returns a set with a reactor of its own.
func newSet(t testing.TB) *link.Set {
	t.Helper()
	r, err := reactor.New(reactor.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return &link.Set{Reactor: r, Logger: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, s *link.Set, spec string) link.Link {
	t.Helper()
	l, err := s.Open(spec)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// guest is a card with a worker that does what the engine's does: it polls while frames
// come, and then sleeps until it is woken.
type guest struct {
	linktest.Card
	port link.Port
	wake chan struct{}
	send chan []vnet.Frame
	stop chan struct{}
	done chan struct{}

	backlog []linktest.Frame // received, and not looked at by the test yet
}

func (s *guest) Wake(q int) {
	s.Card.Wake(q)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// idleGuest returns one that is to be started.
func idleGuest() *guest {
	return &guest{wake: make(chan struct{}, 1), send: make(chan []vnet.Frame), stop: make(chan struct{}), done: make(chan struct{})}
}

// newGuest attaches a guest whose driver can do o.
func newGuest(t testing.TB, l link.Link, o vnet.Offloads) *guest {
	t.Helper()
	s := idleGuest()
	s.start(t, l, o)
	return s
}

// start attaches the guest, and returns what stops its worker.
func (s *guest) start(t testing.TB, l link.Link, o vnet.Offloads) (stop func()) {
	t.Helper()
	port, err := l.Attach(s)
	must(t, err)
	s.port = port
	port.SetOffloads(o, 1)
	go s.work()
	stop = sync.OnceFunc(func() {
		close(s.stop)
		<-s.done
	})
	t.Cleanup(func() {
		stop()
		must(t, port.Close())
	})
	return stop
}

func (s *guest) work() {
	defer close(s.done)
	debug.SetPanicOnFault(true)
	var waiting []vnet.Frame
	for {
		if len(waiting) > 0 {
			waiting = waiting[s.port.Send(0, waiting):]
		}
		if s.port.Poll(0) > 0 || s.port.Arm(0) {
			continue
		}
		send := s.send
		if len(waiting) > 0 {
			send = nil
		}
		select {
		case waiting = <-send:
		case <-s.wake:
		case <-s.stop:
			return
		}
	}
}

// awaitCarrier waits until the card was told that its carrier is so.
func (s *guest) awaitCarrier(up bool) { awaitCarrier(&s.Card, up) }

func awaitCarrier(c *linktest.Card, up bool) {
	c.Await(func() bool {
		told := c.Carrier()
		return len(told) == 0 && up || len(told) > 0 && told[len(told)-1] == up
	})
}

// first takes the next frame out of what was received.
func (s *guest) first() (linktest.Frame, bool) {
	s.backlog = append(s.backlog, s.Take()...)
	if len(s.backlog) == 0 {
		return linktest.Frame{}, false
	}
	f := s.backlog[0]
	s.backlog = s.backlog[1:]
	return f, true
}

// await returns the first frame that is what is looked for.
func (s *guest) await(ok func(f []byte) bool) (found linktest.Frame) {
	s.Await(func() bool {
		for {
			f, more := s.first()
			if !more || ok(f.Data) {
				found = f
				return more
			}
		}
	})
	return found
}

var (
	guestMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	guestIP  = netip.MustParseAddr("10.9.0.2")
	hostIP   = netip.MustParseAddr("10.9.0.1")
)

// answerARP waits until somebody asks for the guest's hardware address, answers and returns
// the hardware address of who asked.
func (s *guest) answerARP() net.HardwareAddr {
	request := s.await(func(f []byte) bool {
		return len(f) >= 42 && binary.BigEndian.Uint16(f[12:]) == 0x0806 && f[21] == 1
	}).Data
	asker := net.HardwareAddr(request[22:28])
	reply := bytes.Join([][]byte{
		asker, guestMAC, {8, 6, 0, 1, 8, 0, 6, 4, 0, 2},
		guestMAC, request[38:42], asker, request[28:32],
	}, nil)
	s.send <- linktest.Frames(reply)
	return asker
}

func TestTapPassesFrames(t *testing.T) {
	inNamespace(t)
	s := newGuest(t, open(t, newSet(t), "tap:vt0"), vnet.OffloadNone)
	address(t, "vt0", hostIP.String())
	s.awaitCarrier(true)

	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: hostIP.AsSlice(), Port: 7})
	must(t, err)
	defer conn.Close()
	_, err = conn.WriteTo([]byte("to the card"), &net.UDPAddr{IP: guestIP.AsSlice(), Port: 9})
	must(t, err)
	host := s.answerARP()
	got := s.await(func(f []byte) bool { return len(f) >= 42 && f[23] == 17 && f[37] == 9 })
	if !bytes.HasSuffix(got.Data, []byte("to the card")) || got.Header != (vnet.Header{}) {
		t.Errorf("the card received %+v", got)
	}

	s.send <- linktest.Frames(udp4(host, guestIP, hostIP, 9, 7, []byte("to the host")))
	buf := make([]byte, 100)
	n, from, err := conn.ReadFrom(buf)
	must(t, err)
	if string(buf[:n]) != "to the host" || from.String() != "10.9.0.2:9" {
		t.Errorf("the host received %q from %v", buf[:n], from)
	}
}

// udp4 builds a frame from the guest; the UDP checksum is left out, which IPv4 allows.
func udp4(to net.HardwareAddr, src, dst netip.Addr, sport, dport uint16, payload []byte) []byte {
	ip := make([]byte, 20, 28+len(payload))
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(payload)))
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip, 0))
	ip = binary.BigEndian.AppendUint16(ip, sport)
	ip = binary.BigEndian.AppendUint16(ip, dport)
	ip = binary.BigEndian.AppendUint16(ip, uint16(8+len(payload)))
	ip = append(ip, 0, 0)
	ip = append(ip, payload...)
	return bytes.Join([][]byte{to, guestMAC, {8, 0}, ip}, nil)
}

// sum is the ones' complement sum of b and start.
func sum(b []byte, start uint32) uint16 {
	s := start
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
