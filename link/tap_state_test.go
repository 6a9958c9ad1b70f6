package link_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// openTun opens a queue of a tap device without the package.
func openTun(t testing.TB, name string, flags uint16) int {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	req, err := unix.NewIfreq(name)
	must(t, err)
	req.SetUint16(flags)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
	return fd
}

// persistent makes a device that stays, as "ip tuntap add" does.
func persistent(t testing.TB, name string, flags uint16) {
	t.Helper()
	fd := openTun(t, name, flags)
	must(t, unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
	must(t, unix.Close(fd))
}

// The interface has a carrier while there is a driver, and the card has one while the
// interface is up.
func TestTapCarrierGoesBothWays(t *testing.T) {
	inNamespace(t)
	l := open(t, newSet(t), "tap:vt0,queues=2")
	card, port := attach(t, l)
	carrier := func(when string, want bool) {
		t.Helper()
		if flags, _ := interfaceState(t, "vt0"); flags&unix.IFF_LOWER_UP != 0 != want {
			t.Errorf("%s: the interface's carrier is %v", when, !want)
		}
	}
	awaitCarrier(card, false)
	up(t, "vt0")
	awaitCarrier(card, true)
	carrier("without a driver", false)
	port.SetOffloads(vnet.OffloadNone, 2)
	carrier("with a driver", true)
	down(t, "vt0")
	awaitCarrier(card, false)
	if n := port.Send(0, linktest.Frames(numbered(60, 0), numbered(60, 1))); n != 2 {
		t.Errorf("%d of two frames for an interface that is down were taken", n)
	}
	if st := port.(link.Counter).Stats(); st.Sent != 2 || st.SendDropped != 2 {
		t.Errorf("%+v, but two frames were dropped", st)
	}
	up(t, "vt0")
	awaitCarrier(card, true)
	port.SetOffloads(vnet.OffloadNone, 0)
	carrier("the driver has gone", false)
	port.SetOffloads(vnet.OffloadNone, 1)
	must(t, port.Close())
	carrier("the card has gone", false)
}

// An interface of another namespace sends no news to this one. That it is down is found out
// by a frame, and that it is up again by its queue.
func TestTapInAnotherNamespace(t *testing.T) {
	inNamespace(t)
	fd := openTun(t, "vt0", unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	up(t, "vt0")
	there, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(there)
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	l, err := link.TapFD([]int{fd}, link.TapOptions{Reactor: newSet(t).Reactor})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	card, port := attach(t, l)
	port.SetOffloads(vnet.OffloadNone, 1)
	awaitCarrier(card, true)
	must(t, unix.Setns(there, unix.CLONE_NEWNET))
	down(t, "vt0")
	port.Send(0, linktest.Frames(numbered(60, 0)))
	awaitCarrier(card, false)
	up(t, "vt0")
	awaitCarrier(card, true)
}

// A tap whose interface is deleted has no carrier any more, takes frames for nobody, and is
// of no concern to the reactor.
func TestTapThatIsDeleted(t *testing.T) {
	for _, withDriver := range []bool{true, false} {
		for _, wasUp := range []bool{true, false} {
			t.Run(fmt.Sprintf("driver %v, up %v", withDriver, wasUp), func(t *testing.T) {
				inNamespace(t)
				persistent(t, "vt0", unix.IFF_TAP|unix.IFF_MULTI_QUEUE)
				s := newSet(t)
				l := open(t, s, "tap:vt0,queues=2")
				g := idleGuest()
				if withDriver {
					g.start(t, l, vnet.OffloadNone)
				} else {
					port, err := l.Attach(g)
					must(t, err)
					t.Cleanup(func() { must(t, port.Close()) })
					g.port = port
				}
				if wasUp {
					up(t, "vt0")
					g.awaitCarrier(true)
				}
				i, err := net.InterfaceByName("vt0")
				must(t, err)
				deleteLink(t, i.Index)
				g.awaitCarrier(false)
				g.port.SetOffloads(vnet.OffloadAll, 2)
				if g.port.Send(1, linktest.Frames(numbered(60, 0))) != 1 {
					t.Error("a frame for nobody was not taken")
				}
				before := eventsOf(t, s)
				for range 100 {
					must(t, s.Reactor.Do(func() {}))
				}
				if n := eventsOf(t, s) - before; n > 20 {
					t.Errorf("%d events in 100 turns of the loop", n)
				}
			})
		}
	}
}

// eventsOf is how many events of descriptors the set's reactor has seen.
func eventsOf(t testing.TB, s *link.Set) (n uint64) {
	t.Helper()
	must(t, s.Reactor.Do(func() { st := s.Reactor.Stats(); n = st.Events - st.Wakeups }))
	return n
}

// deleteLink does what "ip link delete" does.
func deleteLink(t testing.TB, index int) {
	t.Helper()
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	must(t, err)
	defer unix.Close(s)
	m := make([]byte, 32)
	binary.NativeEndian.PutUint32(m, 32)
	binary.NativeEndian.PutUint16(m[4:], unix.RTM_DELLINK)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	binary.NativeEndian.PutUint32(m[20:], uint32(index))
	must(t, unix.Sendto(s, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	must(t, err)
	if n < 20 || binary.NativeEndian.Uint32(answer[16:]) != 0 {
		t.Fatalf("the interface cannot be deleted: %x", answer[:n])
	}
}

func TestTapThatWasMadeGoes(t *testing.T) {
	inNamespace(t)
	must(t, open(t, newSet(t), "tap:vt0").Close())
	if _, err := net.InterfaceByName("vt0"); err == nil {
		t.Error("the interface is still there")
	}
}

func TestTapThatWasThereStays(t *testing.T) {
	inNamespace(t)
	for name, flags := range map[string]uint16{"one0": 0, "many0": unix.IFF_MULTI_QUEUE} {
		persistent(t, name, unix.IFF_TAP|flags)
		must(t, open(t, newSet(t), "tap:"+name).Close())
		_, err := net.InterfaceByName(name)
		must(t, err)
	}
}

func TestTapNameAndMTU(t *testing.T) {
	inNamespace(t)
	l := open(t, newSet(t), "tap:auto%d,queues=3").(interface {
		Name() string
		MTU() (int, error)
	})
	if name := l.Name(); name != "auto0" {
		t.Fatalf("the interface is %q", name)
	}
	configure(t, "auto0", unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(9000) })
	if mtu, err := l.MTU(); mtu != 9000 || err != nil {
		t.Errorf("the MTU is %d, %v", mtu, err)
	}
}

func TestTapByDescriptor(t *testing.T) {
	inNamespace(t)
	s := newSet(t)
	spec := func(fd int) string { return "tap:fd=" + strconv.Itoa(fd) }
	fd := openTun(t, "vt0", unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	must(t, open(t, s, spec(fd)).Close())
	twice := openTun(t, "vt0", unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR)
	checkSpec(t, s, spec(twice)+",fd="+strconv.Itoa(twice), "twice")
	must(t, unix.Close(twice))
	for _, flags := range []uint16{unix.IFF_TAP | unix.IFF_NO_PI, unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR} {
		fd := openTun(t, "vt0", flags)
		checkSpec(t, s, spec(fd), "open it with")
		must(t, unix.Close(fd)) // it is still the test's
	}
	if _, err := s.Open("tap:fd=0"); !errors.As(err, new(syscall.Errno)) {
		t.Errorf("a descriptor of something else: %v", err)
	}
}

func TestTapRefusals(t *testing.T) {
	inNamespace(t)
	s := newSet(t)
	persistent(t, "one0", unix.IFF_TAP)
	busy := open(t, s, "tap:busy0")
	persistent(t, "used0", unix.IFF_TAP)
	open(t, s, "tap:used0")
	persistent(t, "many0", unix.IFF_TAP|unix.IFF_MULTI_QUEUE)
	open(t, s, "tap:many0,queues=2")
	for _, c := range []struct {
		spec string
		says string
		is   error
	}{
		{"tap:lo", "no tap device", unix.EINVAL},
		{"tap:one0,queues=2", "multi_queue", unix.EINVAL},
		{"tap:used0", "another card", unix.EBUSY},
		{"tap:busy0", "another card", unix.EBUSY},
		{"tap:many0", "another card", unix.EBUSY},
		{"tap:many0,queues=2", "another card", unix.EBUSY},
		{"tap:", "write tap:NAME", link.ErrSpec},
		{"tap:a/b", "bad name", link.ErrSpec},
		{"tap:a-name-too-long-for-it", "bad name", link.ErrSpec},
		{"tap:vt0,queues=0", "bad number of queues", link.ErrSpec},
		{"tap:vt0,queues=257", "bad number of queues", link.ErrSpec},
		{"tap:vt0,up=1", "up=on", link.ErrSpec},
		{"tap:vt0,fd=3", "cannot read", link.ErrSpec},
		{"tap:fd=x", "bad descriptor", link.ErrSpec},
	} {
		if _, err := s.Open(c.spec); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %v with %q", c.spec, err, c.is, c.says)
		}
	}
	must(t, busy.Close())
	if _, err := busy.Attach(&linktest.Card{}); !errors.Is(err, link.ErrClosed) {
		t.Errorf("a card attached to a closed link: %v", err)
	}
	withoutNetAdmin(t) // this thread, which ends with the test
	if _, err := s.Open("tap:vt0"); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "ip tuntap add") {
		t.Errorf("without CAP_NET_ADMIN: %v", err)
	}
}

// A tap is not read while the card has no room: the kernel keeps the frames, and they come in
// their order.
func TestTapKeepsFramesForACardWithoutRoom(t *testing.T) {
	inNamespace(t)
	var room atomic.Bool
	g := idleGuest()
	g.OnReceive = func(_ int, f []vnet.Frame) int {
		if room.Load() {
			return len(f)
		}
		return 0
	}
	g.start(t, open(t, newSet(t), "tap:vt0,up=on"), vnet.OffloadNone)
	awaitRunning(t, "vt0")
	s := rawSocket(t, "vt0")
	for i := range 200 {
		_, err := unix.Write(s, numbered(60, i))
		must(t, err)
	}
	room.Store(true)
	g.Wake(0)
	for i := range 200 {
		want := uint32(i)
		if got := g.await(isNumbered); binary.BigEndian.Uint32(got.Data[4:]) != want {
			t.Fatalf("frame %d arrived in place of %d", binary.BigEndian.Uint32(got.Data[4:]), want)
		}
	}
}

// isNumbered tells a frame of numbered(60, …) from what the kernel says by itself.
func isNumbered(f []byte) bool { return len(f) == 60 && f[59] == f[58]+1 && f[58] == f[57]+1 }

// What a driver has not taken is not for the next one.
func TestTapForgetsWhatWasForADriverThatIsGone(t *testing.T) {
	inNamespace(t)
	l := open(t, newSet(t), "tap:vt0,up=on")
	card, port := attach(t, l)
	card.OnReceive = func(int, []vnet.Frame) int { return 0 }
	port.SetOffloads(vnet.OffloadNone, 1)
	awaitRunning(t, "vt0")
	s := rawSocket(t, "vt0")
	for i := range 100 {
		_, err := unix.Write(s, numbered(60, i))
		must(t, err)
	}
	port.Poll(0) // some are kept by the port, some by the kernel
	port.SetOffloads(vnet.OffloadNone, 0)
	card.OnReceive = nil
	port.SetOffloads(vnet.OffloadNone, 1)
	awaitRunning(t, "vt0")
	_, err := unix.Write(s, numbered(60, 1000))
	must(t, err)
	for range 100 { // it is there already, and some polls do not look
		port.Poll(0)
	}
	var got []uint32
	for _, f := range card.Take() {
		if isNumbered(f.Data) {
			got = append(got, binary.BigEndian.Uint32(f.Data[4:]))
		}
	}
	if !slices.Equal(got, []uint32{1000}) {
		t.Errorf("the next driver got %d", got)
	}
}
