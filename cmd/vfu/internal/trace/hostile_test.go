package trace

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// netlink opens a socket that shutdown(2) does not end.
func netlink(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// A socket that is no unix stream passes as it is: nobody could be stopped who waits on it.
func TestTwinIndexOfAnotherSocket(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	fd := netlink(t)
	was := inode(t, fd)
	reply := version(codec.FlagReply, strings.Replace(twinReply, "1", "0", 1))
	server.says(reply, fd)
	fds := client.hears(reply)
	if len(fds) != 1 || inode(t, fds[0]) != was {
		t.Errorf("descriptors %v", identify(fds))
	}
	closeAll(fds)
	client.close()
	server.close()
}

func TestReplayOfATwinThatIsAnotherSocket(t *testing.T) {
	ask := version(0, `{}`)
	reply := version(codec.FlagReply, strings.Replace(twinReply, "1", "0", 1))
	_, err := replayed(t, events(1, c(ask), sv(reply, Descriptor{Kind: kindSocket})), func(s end) {
		s.hears(ask)
		s.says(reply, netlink(t))
		s.hearsEnd()
	})
	if err != nil {
		t.Error(err)
	}
}

// pieces is a message as a relay records it.
func pieces(from Side, message string) (all []said) {
	for part := range slices.Chunk([]byte(message), relayBuffer) {
		all = append(all, said{from: from, bytes: string(part)})
	}
	return all
}

// A server that does not read is a difference, not the end of all progress.
func TestReplayToAServerThatDoesNotRead(t *testing.T) {
	large := region(1, codec.CmdRegionWrite, codec.FlagNoReply, 0, 8<<20, make([]byte, 8<<20)...)
	err := briefly(t, events(1, pieces(Client, large)...), func(s end) {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd)}}, int(patience.Milliseconds())) // until it is hung up
	})
	differs(t, err, "the server reads", "does not read for")
}

func TestListenKeepsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Listen(path, "b", func([]Event) {}, nil)
	if err == nil {
		p.listener.Close()
		p.queue.close()
	}
	if err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file has %q, %v", b, err)
	}
}

// What a server was in the middle of when its client hung up is shown when the next
// client comes, and not kept for ever.
func TestCutMessageOfTheOtherSide(t *testing.T) {
	x := newBench(t)
	for range 2 {
		client, server := x.pair()
		server.says("\x00\x00\x0d")
		client.hears("\x00\x00\x0d")
		client.close()
		server.hearsEnd()
		server.close()
	}
	all := x.stop()
	want := `> client connects: session 1
> client hangs up: session 1
< broken: message is cut: its sender hung up in the middle: 00000d
> client connects: session 2
> client hangs up: session 2
`
	if got := shown(all); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	v := NewViewer()
	for i := range all {
		v.Show(&all[i])
	}
	for key := range v.assembler.open {
		if key.session != 2 {
			t.Errorf("something is kept of session %d", key.session)
		}
	}
}

// Many small events need as much memory as few large ones.
func TestQueueBoundsSmallEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := newQueue(func([]Event) { <-release })
		q.put(Event{})
		time.Sleep(time.Minute) // it is being shown
		put := 0
		go func() {
			for range queueBytes / 64 {
				q.put(Event{Bytes: []byte{1}})
				put++
			}
		}()
		synctest.Wait()
		if limit := queueBytes / 64; put >= limit {
			t.Errorf("%d events of a byte wait", put)
		}
		close(release)
		time.Sleep(time.Minute)
		synctest.Wait()
		q.close()
	})
}

// A server that waits until its replies are read, and reads nothing more until then.
func TestReplayToAServerThatSendsFirst(t *testing.T) {
	read := region(1, codec.CmdRegionRead, 0, 0, 8<<20)
	first := region(1, codec.CmdRegionRead, codec.FlagReply, 0, 8<<20, make([]byte, 8<<20)...)
	last := region(2, codec.CmdRegionRead, codec.FlagReply, 0, 8<<20, make([]byte, 8<<20)...)
	second := region(2, codec.CmdRegionRead, 0, 0, 8<<20)
	large := region(3, codec.CmdRegionWrite, codec.FlagNoReply, 0, 8<<20, make([]byte, 8<<20)...)
	list := slices.Concat([]said{c(read), c(second)}, pieces(Client, large), pieces(Server, first), pieces(Server, last))
	_, err := replayed(t, events(1, list...), func(s end) {
		s.hears(read)
		s.hears(second)
		s.says(first)
		s.says(last)
		s.hears(large)
		s.hearsEnd()
	})
	if err != nil {
		t.Error(err)
	}
}
