package link

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vfiouser/engine/reactor"
	"vfiouser/link/vnet"
)

// TapOptions are the choices that Tap offers.
type TapOptions struct {
	// Reactor tells when frames are there. It must outlive the link's ports.
	Reactor *reactor.Reactor
	// Queues is how many queues the card can use, 1 to 256; 0 means 1. Queues beyond the
	// pairs that the driver uses are out of service meanwhile.
	Queues int
	// Up brings the interface up. It takes CAP_NET_ADMIN.
	Up bool
	// Logger is told when the interface is deleted. Default: slog.Default().
	Logger *slog.Logger
}

// tap is a tap device of the kernel.
type tap struct {
	single
	opt    TapOptions
	name   string
	fds    []int // one for each queue
	news   int   // tells of changes to interfaces, or -1
	uso    bool  // the kernel knows OffloadUSO4 and OffloadUSO6
	closed atomic.Bool
}

// Tap returns a link for one card: the tap device of the kernel called name, in the network
// namespace of the calling thread. It is made if it is not there, and then goes with the link;
// one that is there stays (ip tuntap add), and must not be in use: frames would be divided
// among its users (EBUSY). A name with %d in it gets a number from the kernel.
//
// Frames keep the offloads that both sides know. The interface has a carrier as long as the
// card has a driver, and the card has one as long as the interface is up. An interface in
// another namespace is found to be down by the first frame that it refuses.
//
// The link has a method MTU() (int, error), the interface's MTU, and Name() string.
// Errors carry ErrSpec or a syscall.Errno.
func Tap(name string, opt TapOptions) (Link, error) {
	if err := checkTap(name, opt.Queues); err != nil {
		return nil, err
	}
	opt.Queues = max(opt.Queues, 1)
	fds, name, err := openTapQueues(name, opt.Queues)
	if err != nil {
		return nil, err
	}
	t, err := newTap(name, fds, opt)
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	return t, nil
}

// checkTap says what is wrong with an interface's name, or with a number of queues.
func checkTap(name string, queues int) error {
	if !validInterface(name) {
		return because(ErrSpec, "bad name %q: an interface's name has 1 to %d bytes, no slash, colon or space",
			name, unix.IFNAMSIZ-1)
	}
	if queues < 0 || queues > maxTapQueues {
		return because(ErrSpec, "bad number of queues %d: 1 to %d are possible", queues, maxTapQueues)
	}
	return nil
}

// TapFD is Tap for a device that was opened by somebody else: fds are its queues, opened with
// IFF_TAP, IFF_NO_PI and IFF_VNET_HDR. They belong to the link if there is no error.
// opt.Queues is not looked at.
func TapFD(fds []int, opt TapOptions) (Link, error) {
	if len(fds) == 0 || len(fds) > maxTapQueues {
		return nil, because(ErrSpec, "bad number of descriptors %d: 1 to %d are possible", len(fds), maxTapQueues)
	}
	var name string
	for i, fd := range fds {
		if slices.Contains(fds[:i], fd) {
			return nil, because(ErrSpec, "descriptor %d is there twice", fd)
		}
		n, err := adoptTapQueue(fd)
		if err != nil {
			return nil, err
		}
		if i > 0 && n != name {
			return nil, because(ErrSpec, "descriptors %d and %d are of two interfaces, %s and %s", fds[0], fd, name, n)
		}
		name = n
	}
	t, err := newTap(name, slices.Clone(fds), opt)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func newTap(name string, fds []int, opt TapOptions) (*tap, error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	t := &tap{opt: opt, name: name, fds: fds, news: -1}
	return t, t.setUp()
}

// setUp brings the device into the state of one whose card has no driver.
func (t *tap) setUp() error {
	if t.opt.Reactor == nil {
		return because(ErrSpec, "no reactor")
	}
	for _, fd := range t.fds {
		if err := setTapHeader(fd); err != nil {
			return err
		}
	}
	first := t.fds[0]
	if err := unix.IoctlSetPointerInt(first, unix.TUNSETSNDBUF, math.MaxInt32); err != nil {
		return fmt.Errorf("TUNSETSNDBUF: %w", err)
	}
	t.uso = setTapOffloads(first, vnet.OffloadChecksum|vnet.OffloadUSO4|vnet.OffloadUSO6) == nil
	if err := setTapOffloads(first, vnet.OffloadNone); err != nil {
		return err
	}
	if err := setTapCarrier(first, false); err != nil {
		return fmt.Errorf("TUNSETCARRIER: %w", err)
	}
	for _, fd := range t.fds[1:] {
		if err := attachTapQueue(fd, false); err != nil {
			return fmt.Errorf("TUNSETQUEUE: %w", err)
		}
	}
	if t.opt.Up {
		if err := t.bringUp(); err != nil {
			return err
		}
	}
	t.news = openLinkNews()
	return nil
}

// Name is the interface's name.
func (t *tap) Name() string { return t.name }

// MTU is the interface's, in bytes.
func (t *tap) MTU() (int, error) {
	req, err := t.ask(unix.SIOCGIFMTU)
	if err != nil {
		return 0, err
	}
	return int(req.Uint32()), nil
}

// bringUp sets the interface's flag.
func (t *tap) bringUp() error {
	req, err := t.ask(unix.SIOCGIFFLAGS)
	if err != nil {
		return err
	}
	if req.Uint16()&unix.IFF_UP != 0 {
		return nil
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	err = t.control(unix.SIOCSIFFLAGS, req)
	if errors.Is(err, unix.EPERM) {
		return because(err, "%v; bringing an interface up takes CAP_NET_ADMIN", err)
	}
	return err
}

// ask asks for something about the interface, by its present name.
func (t *tap) ask(what uint) (*unix.Ifreq, error) {
	req, err := unix.NewIfreq("")
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlIfreq(t.fds[0], unix.TUNGETIFF, req); err != nil {
		return nil, fmt.Errorf("TUNGETIFF: %w", err)
	}
	if req, err = unix.NewIfreq(req.Name()); err != nil {
		return nil, err
	}
	return req, t.control(what, req)
}

func (t *tap) control(what uint, req *unix.Ifreq) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		s, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.IoctlIfreq(s, what, req)
}

// Attach connects the card.
func (t *tap) Attach(c Card) (Port, error) {
	if t.closed.Load() {
		return nil, ErrClosed
	}
	if err := t.take(); err != nil {
		return nil, err
	}
	p, err := newTapPort(t, c)
	if err != nil {
		t.leave()
		return nil, err
	}
	return p, nil
}

// Close closes the queues: a device that Tap has made goes.
func (t *tap) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	closeAll(t.fds)
	if t.news >= 0 {
		_ = unix.Close(t.news)
	}
	return nil
}
