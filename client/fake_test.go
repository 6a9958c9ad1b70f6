package client

import (
	"context"
	"testing"
	"time"

	"vfiouser/client/clienttest"
	"vfiouser/codec"
	"vfiouser/test/holdings"
)

// testTimeout ends a test that hangs; nothing waits for it otherwise.
const testTimeout = 10 * time.Second

// server is the other end of a session, driven by a script.
type server struct {
	*clienttest.Server
	t testing.TB
}

// wire is a message as the script sees it.
type wire = clienttest.Message

// fakeCaps are the capabilities of a server that is told nothing else.
var fakeCaps = codec.Capabilities{MaxMsgFDs: 8, MaxDataXferSize: 8192}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// newServer returns the client's end of a server's socket. script runs in a goroutine that is waited for.
func newServer(t testing.TB, script func(*server)) (clientFD int) {
	t.Helper()
	return clienttest.New(t, func(s *clienttest.Server) { script(&server{s, t}) })
}

// serverOn is a server on a socket.
func serverOn(t testing.TB, fd int) *server { return &server{clienttest.On(t, fd), t} }

// attach attaches to a server that negotiates and then follows the script until the client hangs up.
func attach(t *testing.T, script func(*server), opts ...Option) *Device {
	t.Helper()
	holdings.CheckLeaks(t)
	attached := make(chan struct{})
	fd := newServer(t, func(s *server) {
		s.Handshake()
		<-attached
		script(s)
		if !s.Closed() {
			s.UntilEOF()
		}
	})
	d, err := AttachFD(testContext(t), fd, opts...)
	close(attached)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
