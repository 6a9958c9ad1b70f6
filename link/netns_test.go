package link_test

import (
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace moves the rest of the test, and the sockets and interfaces that its own
// goroutine makes, into a new network namespace. It goes with the test's thread, which stays
// locked and so ends with the test.
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
