package link_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// hostSees returns a socket that receives every frame of numbered that comes in through an
// interface.
func hostSees(t testing.TB, name string) (next func() []byte) {
	t.Helper()
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(s)) })
	i, err := net.InterfaceByName(name)
	must(t, err)
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	must(t, unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	must(t, unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	return func() []byte {
		t.Helper()
		for {
			p := make([]byte, 70000)
			n, from, err := unix.Recvfrom(s, p, 0)
			must(t, err)
			if a := from.(*unix.SockaddrLinklayer); a.Pkttype != unix.PACKET_OUTGOING {
				return p[:n]
			}
		}
	}
}

// What the kernel or vnet refuses is dropped and counted; the frames around it arrive.
func TestTapSendsWhatItCan(t *testing.T) {
	inNamespace(t)
	l := open(t, newSet(t), "tap:vt0,up=on")
	card, port := attach(t, l)
	port.SetOffloads(vnet.OffloadNone, 1)
	awaitCarrier(card, true)
	configure(t, "vt0", unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(65000) })
	next := hostSees(t, "vt0")
	lies := []vnet.Header{
		{GSOType: 77, GSOSize: 1000, Flags: vnet.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16},
		{GSOType: vnet.GSOTCP4, GSOSize: 0, Flags: vnet.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16},
		{GSOType: vnet.GSOTCP4, GSOSize: 100, Flags: vnet.FlagNeedsChecksum, ChecksumStart: 65535, ChecksumOffset: 65535},
		{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 59, ChecksumOffset: 1},
	}
	var frames []vnet.Frame
	for i, h := range lies {
		f := inParts(numbered(60, 1000+i), 3)
		f.Header = h
		frames = append(frames, f, inParts(numbered(60, i), 2))
	}
	parts := []int{1, 64, 65, 1000}
	for i, n := range parts {
		frames = append(frames, inParts(numbered(2000, 100+i), n))
	}
	frames = append(frames, linktest.Frames(make([]byte, 5), make([]byte, vnet.MaxFrame+1))...)
	if n := port.Send(0, frames); n != len(frames) {
		t.Fatalf("%d of %d frames were taken", n, len(frames))
	}
	for i := range lies {
		if got := next(); !bytes.Equal(got, numbered(60, i)) {
			t.Errorf("the host got %x", got)
		}
	}
	for i := range parts {
		if got := next(); !bytes.Equal(got, numbered(2000, 100+i)) {
			t.Errorf("a frame in %d parts arrived with %d bytes", parts[i], len(got))
		}
	}
	if st := port.(link.Counter).Stats(); st.Sent != uint64(len(frames)) || st.SendDropped != uint64(len(lies)+2) {
		t.Errorf("%+v; %d were wrong", st, len(lies)+2)
	}
}

// A kernel that cannot cut datagrams gets them cut.
func TestTapCutsDatagramsForAKernelThatCannot(t *testing.T) {
	inNamespace(t)
	l := open(t, newSet(t), "tap:vt0")
	link.WithoutUSO(l)
	g := newGuest(t, l, vnet.OffloadAll)
	address(t, "vt0", hostIP.String())
	g.awaitCarrier(true)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: hostIP.AsSlice(), Port: 7})
	must(t, err)
	defer conn.Close()
	i, err := net.InterfaceByName("vt0")
	must(t, err)
	f := linktest.Frame{
		Header: vnet.Header{Flags: vnet.FlagNeedsChecksum, GSOType: vnet.GSOUDPL4, GSOSize: 100, HeaderLen: 42, ChecksumStart: 34, ChecksumOffset: 6},
		Data:   udp4(i.HardwareAddr, guestIP, hostIP, 9, 7, numbered(350, 0)),
	}
	// The driver leaves the sum of the pseudo header where the checksum goes.
	pseudo := append(append(guestIP.AsSlice(), hostIP.AsSlice()...), 0, 17, f.Data[38], f.Data[39])
	binary.BigEndian.PutUint16(f.Data[40:], sum(pseudo, 0))
	g.send <- []vnet.Frame{f.Frame()}
	must(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	var got []byte
	for _, want := range []int{100, 100, 100, 50} {
		var p [1000]byte
		n, _, err := conn.ReadFrom(p[:])
		must(t, err)
		if n != want {
			t.Errorf("a datagram of %d bytes, not of %d", n, want)
		}
		got = append(got, p[:n]...)
	}
	if !bytes.Equal(got, numbered(350, 0)) {
		t.Error("what arrived is not what was sent")
	}
}

// Neither direction of either link allocates.
func TestAllocsOfTapAndStream(t *testing.T) {
	counting := func(t *testing.T, what string, fn func()) {
		t.Helper()
		if n := testing.AllocsPerRun(200, fn); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	frames := linktest.Frames(numbered(60, 0), numbered(1514, 1), numbered(9000, 2))
	t.Run("tap", func(t *testing.T) {
		inNamespace(t)
		l := open(t, newSet(t), "tap:vt0,up=on")
		card := &sink{wake: make(chan struct{}, 1)}
		port, err := l.Attach(card)
		must(t, err)
		t.Cleanup(func() { must(t, port.Close()) })
		port.SetOffloads(vnet.OffloadAll, 1)
		awaitRunning(t, "vt0")
		s := rawSocket(t, "vt0")
		in := numbered(60, 0)
		counting(t, "Send", func() { port.Send(0, frames) })
		counting(t, "Poll and Arm", func() {
			port.Arm(0)
			_, _ = unix.Write(s, in)
			<-card.wake
			port.Poll(0)
		})
		if card.n < 200 || port.(link.Counter).Stats().Sent == 0 {
			t.Error("nothing went through")
		}
	})
	t.Run("stream", func(t *testing.T) {
		l, accept := listening(t, "")
		card := &sink{wake: make(chan struct{}, 1)}
		port, err := l.Attach(card)
		must(t, err)
		t.Cleanup(func() { must(t, port.Close()) })
		port.SetOffloads(vnet.OffloadAll, 1)
		p := accept()
		in, out := framed(numbered(60, 0)), make([]byte, 1<<20)
		summed := inParts(numbered(1514, 1), 2)
		summed.Header = vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16}
		frames := append(frames, inParts(numbered(300, 4), 300), summed)
		counting(t, "Send", func() {
			port.Send(0, frames)
			_, _ = p.Read(out)
		})
		counting(t, "Poll and Arm", func() {
			port.Arm(0)
			_, _ = p.Write(in)
			<-card.wake
			port.Poll(0)
		})
		if st := port.(link.Counter).Stats(); card.n < 200 || st.Sent == 0 || st.SendDropped > 5 {
			t.Errorf("%+v", st)
		}
	})
}

// sink is a card that takes everything.
type sink struct {
	n       int
	wake    chan struct{}
	carrier chan bool
}

func (s *sink) Receive(_ int, f []vnet.Frame) int { s.n += len(f); return len(f) }
func (s *sink) Announce()                         {}

func (s *sink) SetCarrier(up bool) {
	select {
	case s.carrier <- up:
	default:
	}
}

func (s *sink) Wake(int) {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
