package trace

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

const twinReply = `{"capabilities":{"twin_socket":{"supported":true,"fd_index":1}}}`

func socketpair(t *testing.T, flags int) (mine, theirs int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pair[0], pair[1]
}

func TestTwinSocketIsTraced(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	mine, theirs := socketpair(t, 0)
	other := memfd(t, 4096)
	passed := []uint64{inode(t, other), inode(t, theirs)}
	reply := version(codec.FlagReply, twinReply)
	server.says(reply[:20], other, theirs) // it comes in two pieces
	server.says(reply[20:])
	fds := client.hears(reply)
	if len(fds) != 2 || inode(t, fds[0]) != passed[0] || inode(t, fds[1]) == passed[1] {
		t.Fatalf("got descriptors %v", identify(fds))
	}
	closeAll(fds[:1])
	serverTwin, clientTwin := newEnd(t, stream{mine}, nil), newEnd(t, stream{fds[1]}, nil)
	for i := range byte(3) {
		command := wire(uint16(i), codec.CmdDMARead, 0, slices.Concat(make([]byte, 8), []byte{4, 0, 0, 0, 0, 0, 0, 0})...)
		serverTwin.says(command)
		clientTwin.hears(command)
		answer := wire(uint16(i), codec.CmdDMARead, codec.FlagReply, slices.Concat(make([]byte, 8), []byte{4, 0, 0, 0, 0, 0, 0, 0}, []byte{i, i, i, i})...)
		clientTwin.says(answer)
		serverTwin.hears(answer)
	}
	serverTwin.says("x", memfd(t, 8192)) // whatever it means, it passes
	got := clientTwin.hears("x")
	if want := []Descriptor{{kindMemfd, 8192}}; !slices.Equal(identify(got), want) {
		t.Errorf("over the twin socket: %v", identify(got))
	}
	closeAll(got)
	client.says(wire(1, codec.CmdReset, 0))
	server.hears(wire(1, codec.CmdReset, 0))
	client.close() // ends the twin socket, too
	server.hearsEnd()
	server.close()
	serverTwin.hearsEnd()
	clientTwin.hearsEnd()
	serverTwin.close()
	clientTwin.close()
	want := `> client connects: session 1
< VERSION #0 reply 0.0 twin_socket fd_index 1 [memfd 4KiB socket]
< twin DMA_READ #0 0x0 4 bytes
> twin DMA_READ #0 reply 0x0 4 bytes 00 00 00 00
< twin DMA_READ #1 0x0 4 bytes
> twin DMA_READ #1 reply 0x0 4 bytes 01 01 01 01
< twin DMA_READ #2 0x0 4 bytes
> twin DMA_READ #2 reply 0x0 4 bytes 02 02 02 02
> RESET #1
> client hangs up: session 1
`
	if got := shown(x.stop()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestTwinSocketHangsUpByItself(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	mine, theirs := socketpair(t, 0)
	reply := version(codec.FlagReply, strings.Replace(twinReply, "1", "0", 1))
	server.says(reply, theirs)
	twin := newEnd(t, stream{client.hears(reply)[0]}, nil)
	_ = unix.Close(mine)
	twin.hearsEnd()
	twin.close()
	client.says("the session goes on")
	server.hears("the session goes on")
	client.close()
	server.close()
	if got := shown(x.stop()); !strings.Contains(got, "< twin server hangs up: session 1\n") {
		t.Errorf("got\n%s", got)
	}
}

func TestTwinSocketBlocksAsTheServersDid(t *testing.T) {
	for name, flags := range map[string]int{"blocks": 0, "does not": unix.SOCK_NONBLOCK} {
		t.Run(name, func(t *testing.T) {
			x := newBench(t)
			client, server := x.pair()
			mine, theirs := socketpair(t, flags)
			reply := version(codec.FlagReply, strings.Replace(twinReply, "1", "0", 1))
			server.says(reply, theirs)
			fds := client.hears(reply)
			got, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0)
			if err != nil || got&unix.O_NONBLOCK != flags {
				t.Errorf("flags %#x, %v, want %#x", got, err, flags)
			}
			closeAll(append(fds, mine))
			client.close()
			server.close()
		})
	}
}

// What only looks like a twin socket passes as it is.
func TestNoTwinSocket(t *testing.T) {
	index0 := strings.Replace(twinReply, "1", "0", 1)
	for _, c := range []struct {
		name  string
		parts []string // the descriptors come with the first
	}{
		{"index out of range", []string{version(codec.FlagReply, twinReply)}},
		{"not supported after all", []string{version(codec.FlagReply, strings.Replace(index0, "true", "false", 1))}},
		{"no index", []string{version(codec.FlagReply, `{"capabilities":{"twin_socket":{"supported":true}}}`)}},
		{"no capabilities", []string{version(codec.FlagReply, `{}`)}},
		{"JSON that is cut", []string{version(codec.FlagReply, index0[:40])}},
		{"a command", []string{version(0, index0)}},
		{"an error", []string{version(codec.FlagReply|codec.FlagError, index0)}},
		{"another message", []string{wire(1, codec.CmdReset, codec.FlagReply)}},
		{"broken header", []string{string(codec.Header{Command: codec.CmdVersion, Flags: codec.FlagReply, Size: 3}.Append(nil))}},
		{"larger than any", []string{string(codec.Header{Command: codec.CmdVersion, Flags: codec.FlagReply, Size: 1 << 30}.Append(nil)), "more"}},
		{"in two pieces", []string{wire(1, codec.CmdReset, codec.FlagReply)[:7], wire(1, codec.CmdReset, codec.FlagReply)[7:]}},
		{"reply that ends in the middle", []string{version(codec.FlagReply, index0)[:40]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newBench(t)
			client, server := x.pair()
			defer client.close()
			mine, theirs := socketpair(t, 0)
			defer unix.Close(mine)
			was := inode(t, theirs)
			server.says(c.parts[0], theirs)
			for _, p := range c.parts[1:] {
				server.says(p)
			}
			server.close()
			fds := client.hears(strings.Join(c.parts, ""))
			if len(fds) != 1 || inode(t, fds[0]) != was {
				t.Errorf("descriptors %v, not what the server passed", identify(fds))
			}
			closeAll(fds)
			client.hearsEnd()
		})
	}
}

func TestTwinIndexOfNoSocket(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	defer client.close()
	defer server.close()
	fd := memfd(t, 1)
	was := inode(t, fd)
	reply := version(codec.FlagReply, strings.Replace(twinReply, "1", "0", 1))
	server.says(reply, fd)
	fds := client.hears(reply)
	if len(fds) != 1 || inode(t, fds[0]) != was {
		t.Errorf("descriptors %v", identify(fds))
	}
	closeAll(fds)
}
