package netns_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"vfiouser/test/netns"
)

func namespace(t *testing.T) *netns.Namespace {
	t.Helper()
	n, err := netns.New()
	if errors.Is(err, netns.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func interfaces(t *testing.T) []string {
	t.Helper()
	cards, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, card := range cards {
		names = append(names, card.Name)
	}
	return names
}

func TestNamespaceStartsWithLoopbackOnly(t *testing.T) {
	n := namespace(t)
	home := interfaces(t)
	err := n.Do(func() error {
		for _, name := range interfaces(t) {
			card, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			if up := card.Flags&net.FlagUp != 0; up != (name == "lo") {
				t.Errorf("interface %s is up: %t", name, up)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if again := interfaces(t); !slices.Equal(again, home) {
		t.Errorf("interfaces of this process: %v, before %v", again, home)
	}
}

func TestSocketsBelongToTheNamespace(t *testing.T) {
	n := namespace(t)
	l, err := n.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "inside")
			conn.Close()
		}
	}()
	conn, err := n.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if said, err := io.ReadAll(conn); err != nil || string(said) != "inside" {
		t.Errorf("inside: %q, %v", said, err)
	}
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		said, _ := io.ReadAll(conn)
		conn.Close()
		if string(said) == "inside" {
			t.Error("the listener is reached from outside")
		}
	}
}

func TestProgramsRunInTheNamespace(t *testing.T) {
	n := namespace(t)
	inside, err := n.Run("readlink", "/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	outside, err := exec.Command("readlink", "/proc/self/ns/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	if inside == string(outside) {
		t.Errorf("a program runs in %s, as this process does", strings.TrimSpace(inside))
	}
	if _, err := n.Run("ls", "/no such file"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestWire(t *testing.T) {
	const etherType = 0x88b5 // for local experiments
	n := namespace(t)
	w, err := n.Wire("lo", etherType)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for name, head := range map[string][]byte{
		"plain":  {etherType >> 8, etherType & 0xff},
		"tagged": {0x81, 0x00, 0x20, 0x05, etherType >> 8, etherType & 0xff},
	} {
		sent := slices.Concat(make([]byte, 12), head, []byte("hello"))
		if err := w.Send(sent); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		length, err := w.Receive(got, time.Now().Add(5*time.Second))
		if err != nil || string(got[:length]) != string(sent) {
			t.Errorf("%s: received %q (%v), sent %q", name, got[:length], err, sent)
		}
	}
	if _, err := w.Receive(make([]byte, 100), time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing is there: %v", err)
	}
	if _, err := n.Wire("no such", etherType); err == nil {
		t.Error("an interface that does not exist is opened")
	}
}
