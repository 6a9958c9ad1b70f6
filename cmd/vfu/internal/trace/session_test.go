package trace

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func TestHangUps(t *testing.T) {
	for _, c := range []struct {
		name string
		play func(client, server end)
		want string // lines of the trace
	}{
		{"client closes", func(client, server end) {
			client.says("x")
			client.close()
			server.hears("x")
			server.hearsEnd()
			server.close()
		}, "> client hangs up: session 1\n"},
		{"server closes, its last words arrive", func(client, server end) {
			server.says(failure(1, codec.CmdReset, unix.EIO))
			server.close()
			client.hears(failure(1, codec.CmdReset, unix.EIO))
			client.hearsEnd()
			client.close()
		}, "< server hangs up: session 1\n"},
		{"server closes with unread data", func(client, server end) {
			client.says(strings.Repeat("x", 1000))
			server.hears("x")
			server.says("y")
			server.close()
			client.hears("y")
			client.hearsEnd()
			client.close()
		}, "< server hangs up: session 1\n"},
		{"client sends no more but listens", func(client, server end) {
			client.shutdown(unix.SHUT_WR)
			server.hearsEnd()
			server.says("answer")
			client.hears("answer")
			server.close()
			client.hearsEnd()
			client.close()
		}, "> client hangs up: session 1\n< server hangs up: session 1\n"},
		{"server sends no more but listens", func(client, server end) {
			server.shutdown(unix.SHUT_WR)
			client.hearsEnd()
			client.says("question")
			server.hears("question")
			client.close()
			server.hearsEnd()
			server.close()
		}, "< server hangs up: session 1\n> client hangs up: session 1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newBench(t)
			client, server := x.pair()
			c.play(client, server)
			var lines strings.Builder
			for line := range strings.Lines(shown(x.stop())) {
				if strings.Contains(line, "hangs up") && !strings.Contains(line, "broken") {
					lines.WriteString(line)
				}
			}
			if lines.String() != c.want {
				t.Errorf("got\n%swant\n%s", &lines, c.want)
			}
		})
	}
}

// A client that writes to a server that has gone learns of it.
func TestClientLearnsThatNobodyReads(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	defer client.close()
	server.close()
	client.hearsEnd()
	x.eventually("EPIPE", func() bool { return client.send([]byte("x"), nil) == unix.EPIPE })
}

func TestNoServer(t *testing.T) {
	x := newBench(t)
	x.server.Close()
	client := x.dial()
	client.hearsEnd()
	client.close()
	x.eventually("warning", func() bool { return len(x.warned) > 0 })
	want := "a client came, but no server answers at " + x.b + ": start one there, or correct --connect"
	if !strings.HasPrefix(x.warned[0], want) {
		t.Errorf("says %q, want %q", x.warned[0], want)
	}
	x.listen() // now there is one
	client, server := x.pair()
	client.says("hello")
	server.hears("hello")
	client.close()
	server.close()
}

func TestOneClientAfterTheOther(t *testing.T) {
	x := newBench(t)
	first, server := x.pair()
	second := x.dial()
	second.hearsEnd() // turned away
	second.close()
	first.says("still there")
	server.hears("still there")
	for range 20 {
		// Who comes when the one before has hung up is served, even if the server has
		// not let go yet.
		first.close()
		next := x.dial()
		server.hearsEnd()
		server.close()
		server = x.accept()
		next.says("hello")
		server.hears("hello")
		first = next
	}
	first.close()
	server.close()
	events := x.stop()
	if last := events[len(events)-1]; last.Session != 21 {
		t.Errorf("%d sessions", last.Session)
	}
	if len(x.warned) != 1 || !strings.Contains(x.warned[0], "turned away") {
		t.Errorf("warnings: %q", x.warned)
	}
}

func TestEndWithSessionsOpen(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	defer client.close()
	defer server.close()
	client.says("hello")
	server.hears("hello")
	x.stop()
	client.hearsEnd()
	server.hearsEnd()
	if _, err := net.Dial("unix", x.a); err == nil {
		t.Error("somebody still listens")
	}
	if _, err := os.Lstat(x.a); !os.IsNotExist(err) {
		t.Errorf("the socket was left behind: %v", err)
	}
}

// Who had hung up when the trace was ended is shown, and nobody else.
func TestHangUpJustBeforeTheEnd(t *testing.T) {
	for range 50 {
		t.Run("", func(t *testing.T) {
			x := newBench(t)
			client, server := x.pair()
			client.says("hello")
			server.hears("hello")
			client.says("last words")
			client.close()
			events := x.stop()
			server.close()
			if last := events[len(events)-1]; last.Kind != HangUp || last.From != Client {
				t.Errorf("the last event is %+v", last)
			}
		})
	}
}
