package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// Device is an attached device. All methods may be called from any goroutine, but Close not from the reactor's.
type Device struct {
	conn          conn
	twin          *conn            // for the server's commands; nil: they come on conn
	own           *reactor.Reactor // nil: the reactor is the caller's
	peer          codec.Capabilities
	minor         uint16
	info          codec.DeviceInfo
	dma           dmaTable
	subscriptions subscriptions
	keep          *keeper    // nil: nothing is kept for Reattach
	life          sync.Mutex // held by Close and Reattach
	closed        bool
	maxTransfer   int // data bytes that we take in a message
	chunk         int // data bytes in one region access, which both sides take
}

type options struct {
	reactor     *reactor.Reactor
	maxTransfer int
	spin        time.Duration
	twin        bool
	reattach    bool
	path        string // and all options: for Reattach
	all         []Option
	callTime    time.Duration
}

// Option changes how a device is attached.
type Option func(*options)

// WithReactor shares a reactor between devices; it must not be closed before they are. Default: one of its own.
func WithReactor(r *reactor.Reactor) Option { return func(o *options) { o.reactor = r } }

// WithMaxTransfer sets how many bytes of data one message may carry (max_data_xfer_size), in both directions. The server
// has a say, too. Default: 1 MiB. At least 4,096.
func WithMaxTransfer(bytes int) Option { return func(o *options) { o.maxTransfer = bytes } }

// WithSpin has a call look for its reply for so long before it sleeps. It pays where client and server have a core each and
// waking one costs much, as in a virtual machine; it harms where they share one. Default: 0.
func WithSpin(d time.Duration) Option { return func(o *options) { o.spin = d } }

const minTransfer = 4096

// WithCallTimeout bounds every call that sends a request, beside its context: after d it fails with context.DeadlineExceeded, and
// the late answer is dropped. That goes for Reset and SetMigrationState as well, which may take long. Default: 0, no bound.
func WithCallTimeout(d time.Duration) Option { return func(o *options) { o.callTime = d } }

// Attach connects to the server at path, negotiates, and asks for the device's information. ctx bounds only that.
func Attach(ctx context.Context, path string, opts ...Option) (*Device, error) {
	fd, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("client: attach to %s: %w", path, err)
	}
	d, err := AttachFD(ctx, fd, append(opts[:len(opts):len(opts)], func(o *options) { o.path, o.all = path, opts })...)
	if err != nil {
		return nil, fmt.Errorf("client: attach to %s: %w", path, err)
	}
	return d, nil
}

// dialPause is the time between two attempts to connect to a server whose backlog is full.
const dialPause = 2 * time.Millisecond

func dial(ctx context.Context, path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	for {
		err := ctx.Err()
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
		case unix.EAGAIN:
			select {
			case <-time.After(dialPause):
			case <-ctx.Done():
			}
		default:
			_ = unix.Close(fd)
			return -1, err
		}
	}
}

// AttachFD is Attach on a connected unix stream socket, which then belongs to the device, even if this fails.
func AttachFD(ctx context.Context, fd int, opts ...Option) (*Device, error) {
	o := options{maxTransfer: codec.DefaultMaxDataXferSize}
	for _, opt := range opts {
		opt(&o)
	}
	if o.maxTransfer < minTransfer || o.maxTransfer > maxTransfer {
		_ = unix.Close(fd)
		return nil, invalid("maximum transfer of %d bytes, must be %d to %d", o.maxTransfer, minTransfer, maxTransfer)
	}
	d := &Device{maxTransfer: o.maxTransfer, chunk: o.maxTransfer}
	d.conn.reactor, d.conn.spin, d.conn.serve = o.reactor, o.spin, d.serve
	d.conn.callTime = o.callTime
	d.dma.device, d.dma.undoTime = d, undoTime
	if o.reattach && o.path != "" {
		d.keep = &keeper{path: o.path, opts: o.all, fds: make(map[keptIRQ]int), masked: make(map[keptIRQ]bool)}
	}
	if o.reactor == nil {
		r, err := reactor.New(reactor.Config{})
		if err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
		d.own, d.conn.reactor = r, r
	}
	if err := d.conn.open(fd, maxMessage(o.maxTransfer)); err != nil {
		_ = unix.Close(fd)
		d.closeReactor()
		return nil, err
	}
	if err := d.negotiate(ctx, o.twin); err != nil {
		_ = d.Close()
		return nil, err
	}
	if err := d.queryInfo(ctx); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the session, as a client that goes away: the server unmaps all memory and closes all interrupts. It waits for
// calls that are under way, which fail, and for descriptors to be closed. Mapped regions and Memory stay
// valid until they are closed themselves. Closing again does nothing.
func (d *Device) Close() error {
	d.conn.fail(ErrClosed)
	d.life.Lock()
	defer d.life.Unlock()
	d.close()
	return nil
}

func (d *Device) close() {
	if d.closed {
		return
	}
	d.closed = true
	d.waitGone()
	d.subscriptions.close()
	d.dma.clear()
	if d.keep != nil {
		d.keep.close()
	}
	d.closeReactor()
}

// waitGone waits until the sockets are closed.
func (d *Device) waitGone() {
	<-d.conn.gone
	if d.twin != nil {
		<-d.twin.gone
	}
}

func (d *Device) closeReactor() {
	if d.own != nil {
		_ = d.own.Close()
	}
}

// Done is closed when the session has ended, for whatever reason.
func (d *Device) Done() <-chan struct{} { return d.conn.done }

// Err is nil while the session lasts, then its cause: ErrClosed, ErrDisconnected, a *ProtocolError, or what the kernel said.
func (d *Device) Err() error { return d.conn.Err() }

func (c *conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Info is what GET_INFO told when the device was attached.
func (d *Device) Info() codec.DeviceInfo { return d.info }

// Capabilities is what the server said of itself in VERSION, with the specification's defaults for what it left out.
func (d *Device) Capabilities() codec.Capabilities { return d.peer }

// Version is the protocol version agreed upon; its major number is always 0.
func (d *Device) Version() (major, minor uint16) { return versionMajor, d.minor }

// Reset resets the device. It can take long. errors.ErrUnsupported if it has no reset.
func (d *Device) Reset(ctx context.Context) error {
	if d.info.Flags&codec.DeviceFlagReset == 0 {
		return fmt.Errorf("client: reset: %w", errors.ErrUnsupported)
	}
	k, err := d.conn.begin(ctx, codec.CmdReset)
	if err != nil {
		return err
	}
	if err := d.conn.request(ctx, k, nil); err != nil {
		return err
	}
	d.conn.release(k)
	return nil
}

func (d *Device) queryInfo(ctx context.Context) error {
	k, err := d.conn.begin(ctx, codec.CmdGetInfo)
	if err != nil {
		return err
	}
	ask := codec.DeviceInfo{ArgSz: codec.DeviceInfoSize}
	k.expect(codec.DeviceInfoSize, nil)
	if err := d.conn.request(ctx, k, ask.Append(k.payload())); err != nil {
		return err
	}
	err = d.info.Decode(k.reply())
	d.conn.release(k)
	if err != nil {
		return d.breakOff(codec.CmdGetInfo, err, "bad device information")
	}
	return nil
}

// breakOff ends the session because of what the server sent.
func (d *Device) breakOff(c codec.Command, cause error, format string, args ...any) error {
	d.conn.fail(broken(c, cause, format, args...))
	return d.Err()
}
