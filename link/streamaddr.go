package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// place is where a stream's peer is, or where it is waited for.
type place struct {
	network string // "unix" or "tcp"
	address string // a path, or HOST:PORT
	host    string // of tcp
	port    uint16
}

func newPlace(network, address string) (place, error) {
	p := place{network: network, address: address}
	switch network {
	case "unix":
		// A path ends with a zero byte; an abstract name, which begins with an @, does not.
		if longest := len(unix.RawSockaddrUnix{}.Path) - 1; address == "" || len(address) > longest {
			return p, because(ErrSpec, "bad path %q: a socket's has 1 to %d bytes", address, longest)
		}
		return p, nil
	case "tcp":
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return p, because(ErrSpec, "bad address %q: write HOST:PORT, for example 127.0.0.1:5555", address)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return p, because(ErrSpec, "bad port %q: write a number up to 65535", port)
		}
		p.host, p.port = host, uint16(n)
		return p, nil
	}
	return p, because(ErrSpec, "unknown kind of stream %q: write unix=PATH or tcp=HOST:PORT", network)
}

func (p place) String() string { return p.network + "=" + p.address }

// known returns the addresses if they need not be asked for.
func (p place) known() []unix.Sockaddr {
	if p.network == "unix" {
		return []unix.Sockaddr{&unix.SockaddrUnix{Name: p.address}}
	}
	if ip, err := netip.ParseAddr(p.host); err == nil {
		return []unix.Sockaddr{p.sockaddr(ip)}
	}
	return nil
}

// resolve asks for the addresses of a name. It blocks.
func (p place) resolve(ctx context.Context) ([]unix.Sockaddr, error) {
	resolver := net.Resolver{PreferGo: true} // no thread is left behind in the C library
	ips, err := resolver.LookupNetIP(ctx, "ip", p.host)
	if err != nil {
		return nil, err
	}
	var found []unix.Sockaddr
	for _, ip := range ips {
		found = append(found, p.sockaddr(ip))
	}
	return found, nil
}

func (p place) sockaddr(ip netip.Addr) unix.Sockaddr {
	if ip = ip.Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Port: int(p.port), Addr: ip.As4()}
	}
	a := &unix.SockaddrInet6{Port: int(p.port), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			a.ZoneId = uint32(n)
		} else if i, err := net.InterfaceByName(zone); err == nil {
			a.ZoneId = uint32(i.Index)
		}
	}
	return a
}

// dial begins to connect. The error is EINPROGRESS if that is not decided yet.
func dial(to unix.Sockaddr) (int, error) {
	family := unix.AF_UNIX
	switch to.(type) {
	case *unix.SockaddrInet4:
		family = unix.AF_INET
	case *unix.SockaddrInet6:
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, err
}

// tune sets what a connection of TCP wants: frames are not held back, and a peer that has
// gone without a word is found out within a minute, or, while something is on its way to it, by
// the kernel's own patience (tcp_retries2, some 15 minutes). TCP_USER_TIMEOUT would be shorter,
// but ends a connection to a peer that only does not read, too.
func tune(fd int) {
	for _, o := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 20},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
	} {
		_ = unix.SetsockoptInt(fd, o.level, o.name, o.value)
	}
}

// listen returns a socket that listens, and the address, which differs if the port was 0.
func (p place) listen() (fd int, address string, err error) {
	if p.network == "unix" {
		removeStale(p.address)
	}
	l, err := net.Listen(p.network, p.address)
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return -1, "", because(unix.EADDRINUSE, "somebody listens on %s already", p.address)
		}
		return -1, "", err
	}
	defer l.Close()
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	conn, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, "", err
	}
	ctlErr := conn.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(ctlErr, err); err != nil {
		return -1, "", fmt.Errorf("dup: %w", err)
	}
	return fd, l.Addr().String(), nil
}

// removeStale removes a socket on which nobody listens.
func removeStale(path string) {
	if st, err := os.Stat(path); err != nil || st.Mode()&os.ModeSocket == 0 {
		return
	}
	fd, err := dial(&unix.SockaddrUnix{Name: path})
	if err == nil {
		_ = unix.Close(fd)
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		_ = os.Remove(path)
	}
}
