package unixsocket

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFilesOfSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	fd, file, err := Listen(path, 0o600, 1)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if _, _, err := Listen(path, 0, 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("while somebody listens: %v", err)
	}
	// Somebody removes the file, and another server makes one of its own.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, _, err := Listen(path, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	file.Remove()
	unix.Close(fd)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file of another socket was removed: %v", err)
	}
	// A server that dies closes its socket and leaves the file.
	unix.Close(other)
	last, next, err := Listen(path, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(last)
	next.Remove()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
	File{}.Remove()
}

func TestWhatIsNoSocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Listen(path, 0, 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("on a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
}
