package link

import "golang.org/x/sys/unix"

// openLinkNews opens a socket that becomes readable when something about an interface of this
// network namespace has changed. What that is has to be looked at. It returns -1 if there is
// no such socket.
func openLinkNews() int {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return -1
	}
	if unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}) != nil {
		_ = unix.Close(fd)
		return -1
	}
	return fd
}

// drainLinkNews drops what waits, a bounded amount of it. That news were lost is news, too.
func drainLinkNews(fd int) {
	var p [64]byte
	for range 64 {
		if _, errno := readNow(fd, p[:]); errno != 0 && errno != unix.ENOBUFS {
			return
		}
	}
}
