package engine

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/irq"
	"vfiouser/pci"
	"vfiouser/test/holdings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testDevice is a device with a little of everything: BAR0 is memory behind
// handlers, BAR2 has two mappable areas, BAR4 refuses.
type testDevice struct {
	BaseDevice
	mem     [4096]byte
	shared  int // memfd behind BAR2
	express int // offset of the PCI Express capability

	mu    sync.Mutex
	calls []string
	s     *Session
	hold  func(done func()) // replaces the answer to LockDataPath(true)
	gone  chan struct{}     // receives for every DestroyDevice
}

const (
	irqINTx = 1
	irqMSIX = 4
)

func (d *testDevice) Describe() (Description, error) {
	config, err := pci.NewSpace(pci.Config{
		Vendor: 0x1b36, Device: 0x0001, Class: 0xff0000, Express: true,
		BARs: [6]pci.BAR{
			{Size: 4096, Type: pci.Mem32}, {}, {Size: 16384, Type: pci.Mem32}, {}, {Size: 4096, Type: pci.Mem32},
		},
	})
	if err == nil {
		d.express, err = config.AddExpress(pci.Express{FLR: true})
	}
	desc := Description{Config: config}
	desc.Regions[RegionBAR0] = Region{
		Size:       4096,
		Read:       func(off uint64, p []byte) error { copy(p, d.mem[off:]); return nil },
		Write:      func(off uint64, p []byte) error { copy(d.mem[off:], p); return nil },
		IOEventfds: []IOEventfd{{Event: &IOEvent{Handler: func(*Session) { d.note("bell") }}}},
	}
	desc.Regions[RegionBAR2] = Region{
		Size:  16384,
		Read:  func(uint64, []byte) error { return nil },
		FD:    d.shared,
		Areas: []Area{{Offset: 4096, Size: 4096}, {Offset: 12288, Size: 4096}},
	}
	desc.Regions[RegionBAR4] = Region{
		Size:  4096,
		Read:  func(uint64, []byte) error { return unix.EPERM },
		Write: func(uint64, []byte) error { return io.ErrUnexpectedEOF },
	}
	desc.IRQs[irq.INTx], desc.IRQs[irq.MSIX] = irqINTx, irqMSIX
	return desc, err
}

func (d *testDevice) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, s)
}

func (d *testDevice) noted() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

func (d *testDevice) NewDevice(s *Session) error {
	d.note("new")
	d.mu.Lock()
	d.s = s
	d.mu.Unlock()
	return nil
}

func (d *testDevice) DestroyDevice(*Session) { d.note("destroy"); d.gone <- struct{}{} }

func (d *testDevice) ResetDevice(*Session) { d.note("reset"); clear(d.mem[:]) }

func (d *testDevice) UpdateStatus(_ *Session, u Update) {
	d.note(map[Update]string{UpdateMemory: "memory", UpdateInterrupts: "interrupts"}[u])
}

func (d *testDevice) LockDataPath(_ *Session, hold bool, done func()) {
	if !hold {
		d.note("go on")
		done()
		return
	}
	d.note("hold")
	d.mu.Lock()
	answer := d.hold
	d.mu.Unlock()
	if answer != nil {
		answer(done)
		return
	}
	done()
}

// onHold replaces the answer to LockDataPath(true); nil is the default.
func (d *testDevice) onHold(answer func(done func())) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = answer
}

// session returns the session of the last client that negotiated.
func (d *testDevice) session() *Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.s
}

// bed is an engine with one test device, listening.
type bed struct {
	t      testing.TB
	engine *Engine
	device *testDevice
	ep     *Endpoint
	path   string
	// fenced: what the device and the test do to each other's variables between messages
	// is ordered for the race detector, which knows nothing of sockets.
	fenced bool
}

func newBed(t testing.TB, cfg Config) *bed {
	t.Helper()
	before := holdings.Descriptors(t)
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := &testDevice{gone: make(chan struct{}, 1000)}
	if d.shared, err = unix.MemfdCreate("bar2", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, engine: e, device: d, path: filepath.Join(t.TempDir(), "dev.sock")}
	if b.ep, err = e.Register(b.path, d); err != nil {
		t.Fatal(err)
	}
	if err = b.ep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		_ = unix.Close(d.shared)
		if after := holdings.Descriptors(t); after != before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
	})
	return b
}

// settled waits until the endpoint has released its last client.
func (b *bed) settled() {
	b.t.Helper()
	eventually(b.t, "session released", func() bool {
		free := false
		_ = b.engine.reactor.Do(func() { free = b.ep.session == nil })
		return free
	})
}

// raw is a client that speaks bytes.
type raw struct {
	t     testing.TB
	fd    int
	next  uint16
	fence func() // may be nil
}

func (b *bed) dial() *raw {
	b.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: b.path}); err != nil {
		b.t.Fatal(err)
	}
	limit := unix.NsecToTimeval(int64(20 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		b.t.Fatal(err)
	}
	c := &raw{t: b.t, fd: fd}
	if b.fenced {
		c.fence = func() { b.do(func() {}) }
	}
	b.t.Cleanup(c.close)
	return c
}

// attach is dial and VERSION.
func (b *bed) attach() *raw {
	b.t.Helper()
	c := b.dial()
	version := codec.VersionMsg{Minor: 1}
	version.Caps.MaxMsgFDs = 8
	c.ok(codec.CmdVersion, version.Append(nil))
	return c
}

func (c *raw) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}

// frame is a command with its header.
func (c *raw) frame(cmd codec.Command, flags codec.Flags, payload []byte) []byte {
	c.next++
	h := codec.Header{ID: c.next, Command: cmd, Flags: flags, Size: uint32(codec.HeaderSize + len(payload))}
	return append(h.Append(nil), payload...)
}

func (c *raw) write(b []byte, fds ...int) {
	c.t.Helper()
	if c.fence != nil {
		c.fence()
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			c.t.Fatal("send:", err)
		}
		b, oob = b[n:], nil
	}
}

// read returns the next message with its descriptors.
func (c *raw) read() (codec.Header, []byte, []int) {
	c.t.Helper()
	b := make([]byte, codec.HeaderSize)
	fds := c.fill(b)
	h, err := codec.DecodeHeader(b)
	if err != nil {
		c.t.Fatal("reply:", err)
	}
	payload := make([]byte, int(h.Size)-len(b))
	fds = append(fds, c.fill(payload)...)
	if c.fence != nil {
		c.fence()
	}
	return h, payload, fds
}

func (c *raw) fill(b []byte) (fds []int) {
	c.t.Helper()
	for len(b) > 0 {
		var got [reactor.MaxFDs]int
		n, nfds, err := reactor.RecvMsg(c.fd, got[:], b)
		if err == unix.EAGAIN {
			p := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
			if k, _ := unix.Poll(p, 20000); k == 0 {
				c.t.Fatal("no reply in 20 s")
			}
			continue
		}
		if err != nil {
			c.t.Fatal("receive:", err)
		}
		b, fds = b[n:], append(fds, got[:nfds]...)
	}
	return fds
}

// call sends a command and returns its reply.
func (c *raw) call(cmd codec.Command, payload []byte, fds ...int) (codec.Header, []byte, []int) {
	c.t.Helper()
	c.write(c.frame(cmd, 0, payload), fds...)
	h, reply, got := c.read()
	if h.ID != c.next || h.Command != cmd || !h.IsReply() {
		c.t.Fatalf("reply %+v to %v with id %d", h, cmd, c.next)
	}
	return h, reply, got
}

// ok is call for a command that must succeed.
func (c *raw) ok(cmd codec.Command, payload []byte, fds ...int) []byte {
	c.t.Helper()
	h, reply, got := c.call(cmd, payload, fds...)
	reactor.CloseFDs(got)
	if err := h.Err(); err != nil {
		c.t.Fatal(err)
	}
	return reply
}

// fails is call for a command that must be refused, with the header alone.
func (c *raw) fails(want unix.Errno, cmd codec.Command, payload []byte, fds ...int) {
	c.t.Helper()
	h, reply, got := c.call(cmd, payload, fds...)
	if h.Err() == nil || unix.Errno(h.Errno) != want || len(reply) != 0 || len(got) != 0 {
		c.t.Fatalf("reply %+v with %d bytes and %d descriptors, want errno %d alone", h, len(reply), len(got), want)
	}
}

// ends waits for the server to hang up, discarding what it still sends.
func (c *raw) ends() {
	c.t.Helper()
	var b [4096]byte
	for {
		n, err := unix.Read(c.fd, b[:])
		switch {
		case err == unix.EINTR:
		case n == 0 || err == unix.ECONNRESET:
			return
		case err != nil:
			c.t.Fatal("the server has not hung up:", err)
		}
	}
}

func memfd(t testing.TB, size int64) int {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd
}
