package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func newEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// start registers and starts an endpoint for a fresh device.
func start(t testing.TB, e *Engine, path string) (*Endpoint, error) {
	t.Helper()
	ep, err := e.Register(path, &testDevice{gone: make(chan struct{}, 100)})
	if err != nil {
		return nil, err
	}
	return ep, ep.Start()
}

func listenUnix(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestSocketPathThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(dir, "live")
	listenUnix(t, live)
	for _, c := range []struct {
		name, path, says string
		errno            unix.Errno
	}{
		{"a live server's", live, "another server", unix.EADDRINUSE},
		{"a file that is no socket", file, "not a socket", unix.EADDRINUSE},
		{"in a directory that does not exist", filepath.Join(dir, "no", "x"), "does not exist", unix.ENOENT},
		{"too long", filepath.Join(dir, strings.Repeat("x", 120)), "at most 107", unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := start(t, newEngine(t), c.path)
			if !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("error %v, want %q with the path and errno %v", err, c.says, c.errno)
			}
		})
	}
	if b, _ := os.ReadFile(file); string(b) != "keep me" {
		t.Error("the file was touched")
	}
}

func TestStaleSocketIsReplacedAndOwnSocketRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_ = unix.Close(listenUnix(t, path)) // the file stays: its server is dead
	ep, err := start(t, newEngine(t), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ep.Close(); err != nil {
		t.Error("Close is not idempotent:", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("the socket file is still there:", err)
	}
	if err := ep.Start(); !errors.Is(err, ErrClosed) {
		t.Errorf("Start after Close: %v, want ErrClosed", err)
	}
}

func TestSocketOfASuccessorIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ep, err := start(t, newEngine(t), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listenUnix(t, path)
	_ = ep.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error("another server's socket was removed:", err)
	}
}

func TestOnePathOneDevice(t *testing.T) {
	e := newEngine(t)
	path := filepath.Join(t.TempDir(), "s")
	ep, err := start(t, e, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := start(t, e, path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("second device on the path: %v, want EADDRINUSE", err)
	}
	if ep.Path() != path {
		t.Errorf("path %q", ep.Path())
	}
	_ = ep.Close()
	if _, err := start(t, e, path); err != nil {
		t.Error("the path is free again:", err)
	}
}

func TestInheritedDescriptor(t *testing.T) {
	version := codec.VersionMsg{}
	t.Run("listening", func(t *testing.T) {
		e := newEngine(t)
		path := filepath.Join(t.TempDir(), "s")
		fd, err := unix.Dup(listenUnix(t, path))
		if err != nil {
			t.Fatal(err)
		}
		ep, err := e.RegisterFD(fd, &testDevice{gone: make(chan struct{}, 1)})
		if err == nil {
			err = ep.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		b := &bed{t: t, engine: e, ep: ep, path: path}
		b.attach()
	})
	t.Run("connected", func(t *testing.T) {
		e := newEngine(t)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		d := &testDevice{gone: make(chan struct{}, 1)}
		ep, err := e.RegisterFD(pair[0], d)
		if err == nil {
			err = ep.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		c := &raw{t: t, fd: pair[1]}
		c.ok(codec.CmdVersion, version.Append(nil))
		select {
		case <-ep.Done():
			t.Error("done while the client is there")
		default:
		}
		c.close()
		<-d.gone
		<-ep.Done() // nobody else can come
		if err := ep.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("not a unix stream socket", func(t *testing.T) {
		e := newEngine(t)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ep, err := e.RegisterFD(fd, &testDevice{})
		if err != nil {
			t.Fatal(err)
		}
		if err := ep.Start(); err == nil {
			t.Error("a datagram socket is taken")
		}
	})
}
