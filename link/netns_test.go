package link_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace moves the rest of the test, and the sockets and interfaces that its own
// goroutine makes, into a new network namespace. It goes with the test's thread, which stays
// locked and so ends with the test. A subtest has a thread of its own, and would be outside.
func inNamespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		unavailable(t, "a network namespace", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unavailable(t, "/dev/net/tun", err)
	}
	must(t, unix.Close(fd))
	up(t, "lo")
}

// unavailable skips the test, but not where it has to run.
func unavailable(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v; run as root with the module tun loaded", what, err)
}

// configure does what "ip" would: an ioctl on an interface of the thread's namespace.
func configure(t testing.TB, name string, what uint, set func(*unix.Ifreq)) *unix.Ifreq {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	must(t, err)
	if set != nil {
		set(req)
	}
	if err := unix.IoctlIfreq(s, what, req); err != nil {
		t.Fatalf("interface %s: ioctl %#x: %v", name, what, err)
	}
	return req
}

func up(t testing.TB, name string) { setFlag(t, name, unix.IFF_UP, true) }

func setFlag(t testing.TB, name string, flag uint16, on bool) {
	t.Helper()
	flags := flagsOf(t, name) &^ flag
	if on {
		flags |= flag
	}
	configure(t, name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(flags) })
}

func flagsOf(t testing.TB, name string) uint16 {
	t.Helper()
	return configure(t, name, unix.SIOCGIFFLAGS, nil).Uint16()
}

// address gives an interface an address of a /24, and brings it up.
func address(t testing.TB, name, addr string) {
	t.Helper()
	must4 := func(s string) []byte { a := netip.MustParseAddr(s).As4(); return a[:] }
	configure(t, name, unix.SIOCSIFADDR, func(r *unix.Ifreq) { must(t, r.SetInet4Addr(must4(addr))) })
	configure(t, name, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { must(t, r.SetInet4Addr(must4("255.255.255.0"))) })
	up(t, name)
}

func down(t testing.TB, name string) { setFlag(t, name, unix.IFF_UP, false) }

// rawSocket returns a socket that sends whole frames through an interface.
func rawSocket(t testing.TB, name string) int {
	t.Helper()
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(s)) })
	i, err := net.InterfaceByName(name)
	must(t, err)
	must(t, unix.Bind(s, &unix.SockaddrLinklayer{Ifindex: i.Index}))
	return s
}

// withoutNetAdmin takes a capability away from the test's thread, for good.
func withoutNetAdmin(t testing.TB) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&header, &data[0]))
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	must(t, unix.Capset(&header, &data[0]))
}

// awaitRunning waits until the kernel sends through an interface whose carrier has come.
// Whoever puts it into service holds a lock meanwhile, that up takes, too.
func awaitRunning(t testing.TB, name string) {
	t.Helper()
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	must(t, err)
	defer unix.Close(s)
	must(t, unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	must(t, unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}))
	for rounds := 0; rounds < 2; {
		up(t, name)
		if _, state := interfaceState(t, name); state == operUp {
			rounds++
			continue
		}
		rounds = 0
		_, _, err := unix.Recvfrom(s, make([]byte, 8192), 0)
		must(t, err)
	}
}

const operUp = 6 // IF_OPER_UP

// interfaceState returns an interface's flags, all 32 of them, and its operational state.
func interfaceState(t testing.TB, name string) (flags uint32, state byte) {
	t.Helper()
	table, err := syscall.NetlinkRIB(syscall.RTM_GETLINK, syscall.AF_UNSPEC)
	must(t, err)
	messages, err := syscall.ParseNetlinkMessage(table)
	must(t, err)
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != syscall.RTM_NEWLINK {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		must(t, err)
		found := false
		for _, a := range attrs {
			switch a.Attr.Type {
			case syscall.IFLA_IFNAME:
				found = strings.TrimRight(string(a.Value), "\x00") == name
			case unix.IFLA_OPERSTATE:
				state = a.Value[0]
			}
		}
		if found {
			return binary.NativeEndian.Uint32(m.Data[8:]), state
		}
	}
	t.Fatalf("there is no interface %s", name)
	return 0, 0
}
