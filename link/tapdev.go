package link

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"vfiouser/link/vnet"
)

// tunPath is where the kernel hands out tap devices.
const tunPath = "/dev/net/tun"

// maxTapQueues is the kernel's bound.
const maxTapQueues = 256

// openTapQueue opens one queue of the tap device called name, makes the device if there is
// none, and returns the descriptor and the device's name, which differs if name has a %d.
func openTapQueue(name string, many bool) (int, string, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, "", tunOpenError(err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if many {
			flags |= unix.IFF_MULTI_QUEUE
		}
		req.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, "", err
	}
	return fd, req.Name(), nil
}

// openTapQueues opens n queues of a device that nobody else uses. A single queue is of a device
// that can have no more, unless "ip tuntap add" has made it with multi_queue.
func openTapQueues(name string, n int) (fds []int, got string, err error) {
	if openQueues(name) > 0 { // before the kernel gives us some of its frames
		return nil, "", tapError(unix.EBUSY, name, n)
	}
	many := n > 1
	got = name
	for range n {
		fd, g, err := openTapQueue(got, many)
		if errors.Is(err, unix.EINVAL) && !many {
			fd, g, err = openTapQueue(got, true)
		}
		if err != nil {
			closeAll(fds)
			return nil, "", tapError(err, got, n)
		}
		fds, got = append(fds, fd), g
	}
	if openQueues(got) > n { // somebody has come at the same time
		closeAll(fds)
		return nil, "", tapError(unix.EBUSY, got, n)
	}
	return fds, got, nil
}

// tunOpenError says what to do if there is no /dev/net/tun.
func tunOpenError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return because(err, "%s: %v; load the module (modprobe tun), or give the container the device", tunPath, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return because(err, "%s: %v; this user may not open it", tunPath, err)
	}
	return fmt.Errorf("%s: %w", tunPath, err)
}

// tapError says what to do about an error of TUNSETIFF.
func tapError(err error, name string, queues int) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return because(err, "%v; making an interface, or using one that belongs to somebody else, takes CAP_NET_ADMIN: "+
			"run as root, or have root do \"ip tuntap add dev %s mode tap multi_queue user %d\" first", err, name, unix.Geteuid())
	case errors.Is(err, unix.EBUSY):
		return because(err, "%v; another card or another program uses the interface", err)
	case errors.Is(err, unix.E2BIG):
		return because(err, "%v; the interface has no room for %d queues", err, queues)
	case errors.Is(err, unix.EINVAL) && queues > 1:
		return because(err, "%v; the interface is no tap device, or was made for one queue: "+
			"use queues=1, or make it with \"ip tuntap add dev %s mode tap multi_queue\"", err, name)
	case errors.Is(err, unix.EINVAL):
		return because(err, "%v; there is an interface of that name that is no tap device, or the name is not allowed", err)
	}
	return err
}

// adoptTapQueue looks at a descriptor of a tap device that somebody else has opened.
func adoptTapQueue(fd int) (name string, err error) {
	req, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, req); err != nil {
		return "", because(err, "descriptor %d: %v; it is no tap device with an interface", fd, err)
	}
	const want = unix.IFF_TAP | unix.IFF_VNET_HDR // IFF_NO_PI is reported in any case
	if flags := req.Uint16(); flags&(want|unix.IFF_TUN) != want {
		return "", because(ErrSpec, "descriptor %d: open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR", fd)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return "", err
	}
	unix.CloseOnExec(fd)
	return req.Name(), nil
}

// setTapHeader has frames begin with vnet's header, in little-endian.
func setTapHeader(fd int) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnet.HeaderSize); err != nil {
		return fmt.Errorf("TUNSETVNETHDRSZ: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
		return fmt.Errorf("TUNSETVNETLE: %w", err)
	}
	return nil
}

// tapOffloads are vnet's offloads in the kernel's words.
func tapOffloads(o vnet.Offloads) int {
	if o&vnet.OffloadChecksum == 0 {
		return 0
	}
	bits := unix.TUN_F_CSUM
	if o&vnet.OffloadTSO4 != 0 {
		bits |= unix.TUN_F_TSO4
	}
	if o&vnet.OffloadTSO6 != 0 {
		bits |= unix.TUN_F_TSO6
	}
	if o&vnet.OffloadECN != 0 && o&(vnet.OffloadTSO4|vnet.OffloadTSO6) != 0 {
		bits |= unix.TUN_F_TSO_ECN
	}
	// The kernel has one feature for both.
	if both := vnet.OffloadUSO4 | vnet.OffloadUSO6; o&both == both {
		bits |= unix.TUN_F_USO4 | unix.TUN_F_USO6
	}
	return bits
}

// setTapOffloads tells the kernel what may be left undone in the frames that are read.
func setTapOffloads(fd int, o vnet.Offloads) error {
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tapOffloads(o)); err != nil {
		return fmt.Errorf("TUNSETOFFLOAD: %w", err)
	}
	return nil
}

// setTapCarrier tells the kernel's side whether anybody is at ours.
func setTapCarrier(fd int, up bool) error {
	on := 0
	if up {
		on = 1
	}
	return unix.IoctlSetPointerInt(fd, unix.TUNSETCARRIER, on)
}

// attachTapQueue puts a queue of a device with many into service, or takes it out; what
// waits in it then is dropped.
func attachTapQueue(fd int, on bool) error {
	req, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_DETACH_QUEUE)
	if on {
		req.SetUint16(unix.IFF_ATTACH_QUEUE)
	}
	return unix.IoctlIfreq(fd, unix.TUNSETQUEUE, req)
}

// tapState tells whether the interface is up, and whether it is gone. The kernel takes frames
// if it is up, as the queue's socket buffer has no bound.
func tapState(fd int) (up, gone bool) {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if _, err := unix.Poll(p[:], 0); err != nil {
		return false, false
	}
	return p[0].Revents&unix.POLLOUT != 0, p[0].Revents&unix.POLLERR != 0
}

// validInterface tells whether name can be that of an interface.
func validInterface(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "/: \t\n\v\f\r")
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
