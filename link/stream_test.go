package link_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// peer is the other end of a stream, as a test wants it to be.
type peer struct {
	net.Conn
	t testing.TB
}

// write sends bytes as they are.
func (p peer) write(parts ...[]byte) {
	p.t.Helper()
	_, err := p.Write(bytes.Join(parts, nil))
	must(p.t, err)
}

// framed is a frame behind its length.
func framed(f []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)
}

// read returns the next frame.
func (p peer) read() []byte {
	p.t.Helper()
	var length [4]byte
	_, err := io.ReadFull(p, length[:])
	must(p.t, err)
	f := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err = io.ReadFull(p, f)
	must(p.t, err)
	return f
}

// ended fails the test unless the link has closed the connection.
func (p peer) ended() {
	p.t.Helper()
	must(p.t, p.SetReadDeadline(time.Now().Add(20*time.Second)))
	n, err := io.Copy(io.Discard, p)
	if n > 0 || isTimeout(err) {
		p.t.Errorf("the link goes on: %d bytes, %v", n, err)
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// numbered is a frame of n bytes that is unlike others.
func numbered(n, i int) []byte {
	f := make([]byte, n)
	for k := range f {
		f[k] = byte(i + k)
	}
	binary.BigEndian.PutUint32(f[4:], uint32(i))
	return f
}

// streams runs a test with a link that connects and one that listens, over both kinds of
// sockets. connect returns the next peer of the link.
func streams(t *testing.T, test func(t *testing.T, l link.Link, connect func() peer)) {
	for _, network := range []string{"unix", "tcp"} {
		address := func(t *testing.T) string {
			if network == "unix" {
				return filepath.Join(t.TempDir(), "net.sock")
			}
			return "127.0.0.1:0"
		}
		t.Run(network+" client", func(t *testing.T) {
			listener, err := net.Listen(network, address(t))
			must(t, err)
			t.Cleanup(func() { _ = listener.Close() })
			l := open(t, newSet(t), fmt.Sprintf("stream:%s=%s", network, listener.Addr()))
			test(t, l, func() peer {
				conn, err := listener.Accept()
				must(t, err)
				t.Cleanup(func() { _ = conn.Close() })
				return peer{conn, t}
			})
		})
		t.Run(network+" server", func(t *testing.T) {
			l := open(t, newSet(t), fmt.Sprintf("stream:%s=%s,server=on", network, address(t)))
			test(t, l, func() peer {
				conn, err := net.Dial(network, l.(interface{ Addr() string }).Addr())
				must(t, err)
				t.Cleanup(func() { _ = conn.Close() })
				return peer{conn, t}
			})
		})
	}
}

func TestStreamPassesFrames(t *testing.T) {
	streams(t, func(t *testing.T, l link.Link, connect func() peer) {
		g := newGuest(t, l, vnet.OffloadNone)
		p := connect()
		g.awaitCarrier(true)
		for i, n := range []int{14, 60, 1514, 9014, vnet.MaxFrame} {
			f := numbered(n, i)
			g.send <- linktest.Frames(f)
			if got := p.read(); !bytes.Equal(got, f) {
				t.Errorf("the peer got %d bytes, which are not the %d that were sent", len(got), n)
			}
			p.write(framed(f))
			if got := g.await(func([]byte) bool { return true }); !bytes.Equal(got.Data, f) {
				t.Errorf("the card got %d bytes, which are not the %d that were sent", len(got.Data), n)
			}
		}
		g.send <- []vnet.Frame{{Parts: [][]byte{numbered(10, 0), nil, numbered(100, 1)}, Len: 110}}
		if want, got := append(numbered(10, 0), numbered(100, 1)...), p.read(); !bytes.Equal(got, want) {
			t.Errorf("a frame of three parts arrived as %x", got)
		}
	})
}
