package trace

import (
	"context"
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// bench is a Proxy with a listener in the server's place.
type bench struct {
	t        *testing.T
	a, b     string
	server   *net.UnixListener
	cancel   context.CancelFunc
	finished chan error

	mu     sync.Mutex
	events []Event
	warned []string
}

// newBench starts a Proxy; leaks are found when the test ends.
func newBench(t *testing.T) *bench {
	t.Helper()
	before := holdings.Descriptors(t)
	dir := t.TempDir()
	x := &bench{t: t, a: filepath.Join(dir, "a"), b: filepath.Join(dir, "b"), finished: make(chan error, 1)}
	x.listen()
	p, err := Listen(x.a, x.b, x.show, x.warn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	go func() { x.finished <- p.Serve(ctx) }()
	t.Cleanup(func() {
		x.stop()
		x.server.Close()
		if after := holdings.Descriptors(t); after != before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
	})
	return x
}

func (x *bench) listen() {
	x.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: x.b})
	if err != nil {
		x.t.Fatal(err)
	}
	x.server = l
}

func (x *bench) show(events []Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.events = append(x.events, events...)
}

func (x *bench) warn(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.warned = append(x.warned, err.Error())
}

// stop ends the Proxy and returns all events.
func (x *bench) stop() []Event {
	x.t.Helper()
	x.cancel()
	select {
	case err := <-x.finished:
		if err != nil {
			x.t.Error(err)
		}
		x.finished <- nil
	case <-time.After(patience):
		x.t.Fatal("the proxy does not end")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.events
}

// eventually waits for what another goroutine does.
func (x *bench) eventually(what string, ok func() bool) {
	x.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		x.mu.Lock()
		done := ok()
		x.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("%s: not in %v", what, patience)
		}
	}
}

// end is one end of a connection, for tests. A test that hangs finds it shut down.
type end struct {
	stream
	in *receiver
	t  *testing.T
}

func newEnd(t *testing.T, s stream, err error) end {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { s.shutdown(unix.SHUT_RDWR) })
	t.Cleanup(func() { watchdog.Stop() })
	return end{s, &receiver{stream: s}, t}
}

func (x *bench) dial() end {
	x.t.Helper()
	s, err := dial(context.Background(), x.a)
	return newEnd(x.t, s, err)
}

func (x *bench) accept() end {
	x.t.Helper()
	if err := x.server.SetDeadline(time.Now().Add(patience)); err != nil {
		x.t.Fatal(err)
	}
	conn, err := x.server.AcceptUnix()
	if err != nil {
		x.t.Fatal(err)
	}
	s, err := take(conn)
	return newEnd(x.t, s, err)
}

// pair is a client and the server that it is connected to.
func (x *bench) pair() (client, server end) {
	x.t.Helper()
	client = x.dial()
	return client, x.accept()
}

// says sends bytes, with descriptors that it closes.
func (e end) says(b string, fds ...int) {
	e.t.Helper()
	if err := e.send([]byte(b), fds); err != nil {
		e.t.Errorf("cannot send: %v", err)
	}
	closeAll(fds)
}

// hears receives as many bytes as b has, and all descriptors that come with them.
func (e end) hears(b string) (fds []int) {
	e.t.Helper()
	got := make([]byte, len(b))
	for n := 0; n < len(b); {
		more, passed, err := e.in.receive(got[n:])
		if err != nil {
			e.t.Fatalf("after %q: %v", got[:n], err)
		}
		n += more
		fds = append(fds, passed...)
	}
	if string(got) != b {
		e.t.Errorf("got %.80q, want %.80q", got, b)
	}
	return fds
}

// hearsEnd waits for the end of the stream.
func (e end) hearsEnd() {
	e.t.Helper()
	n, fds, err := e.in.receive(make([]byte, 1))
	if n > 0 {
		e.t.Errorf("%d bytes, %v: want the end", n, err)
	}
	closeAll(fds)
}

func memfd(t *testing.T, size int64) int {
	t.Helper()
	fd, err := Descriptor{kindMemfd, size}.open()
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// inode tells files apart.
func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// wire is a message.
func wire(id uint16, c codec.Command, flags codec.Flags, payload ...byte) string {
	h := codec.Header{ID: id, Command: c, Size: uint32(codec.HeaderSize + len(payload)), Flags: flags}
	return string(append(h.Append(nil), payload...))
}

// failure is an error reply.
func failure(id uint16, c codec.Command, errno unix.Errno) string {
	return string(codec.Header{ID: id, Command: c, Size: codec.HeaderSize, Flags: codec.FlagReply | codec.FlagError, Errno: uint32(errno)}.Append(nil))
}

// region is a REGION_READ or REGION_WRITE, its request or reply, of BAR0.
func region(id uint16, c codec.Command, flags codec.Flags, offset uint64, count int, data ...byte) string {
	a := codec.RegionAccess{Offset: offset, Count: uint32(count), Data: data}
	return wire(id, c, flags, a.Append(nil)...)
}

// version is a VERSION message with this JSON.
func version(flags codec.Flags, json string) string {
	return wire(0, codec.CmdVersion, flags, append(append(binary.NativeEndian.AppendUint32(nil, 0), json...), 0)...)
}

// shown are events as text, without times.
func shown(events []Event) string {
	var out strings.Builder
	p := &Printer{Out: &out}
	v := NewViewer()
	v.Add(p)
	for i := range events {
		e := events[i]
		e.Time = time.Time{}
		v.Show(&e)
	}
	text := strings.ReplaceAll(out.String(), "00:00:00.000000 ", "")
	return strings.ReplaceAll(text, " (0s)", "")
}
