package trace

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func TestMessagesPassAndAreShown(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	for _, m := range []struct {
		from, to end
		bytes    string
	}{
		{client, server, version(0, `{"capabilities":{"max_msg_fds":16}}`)},
		{server, client, version(codec.FlagReply, `{}`)},
		{client, server, region(1, codec.CmdRegionWrite, 0, 0x1000, 4, 1, 0, 0, 0)},
		{server, client, region(1, codec.CmdRegionWrite, codec.FlagReply, 0x1000, 4)},
		{server, client, wire(9, codec.CmdDMARead, 0, make([]byte, 16)...)},
		{client, server, wire(9, codec.CmdDMARead, codec.FlagReply, make([]byte, 16)...)},
		{client, server, region(2, codec.CmdRegionRead, 0, 0x1c, 4)},
		{server, client, failure(2, codec.CmdRegionRead, unix.EINVAL)},
	} {
		m.from.says(m.bytes)
		m.to.hears(m.bytes)
	}
	client.close()
	server.hearsEnd()
	server.close()
	want := `> client connects: session 1
> VERSION #0 0.0 max_msg_fds 16
< VERSION #0 reply 0.0
> REGION_WRITE #1 BAR0+0x1000 4 bytes 01 00 00 00
< REGION_WRITE #1 reply BAR0+0x1000 4 bytes
< DMA_READ #9 0x0 0 bytes
> DMA_READ #9 reply 0x0 0 bytes
> REGION_READ #2 BAR0+0x1c 4 bytes
< REGION_READ #2 error EINVAL
> client hangs up: session 1
`
	if got := shown(x.stop()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDescriptorsStayWithTheirByte(t *testing.T) {
	type part struct {
		bytes string
		fds   int
	}
	dmaMap := wire(1, codec.CmdDMAMap, 0, make([]byte, 32)...)
	small := region(2, codec.CmdRegionRead, 0, 0x10, 4)
	large := region(3, codec.CmdRegionWrite, 0, 0, 100_000, make([]byte, 100_000)...)
	for name, parts := range map[string][]part{
		"first byte":             {{dmaMap, 1}},
		"second message":         {{small, 0}, {dmaMap, 2}},
		"two in a row":           {{dmaMap, 1}, {dmaMap, 2}},
		"not of the next":        {{dmaMap, 1}, {small, 0}, {dmaMap, 1}},
		"behind many":            {{strings.Repeat(small, 1000), 0}, {dmaMap, 1}, {small, 0}},
		"behind a large one":     {{large, 0}, {dmaMap, 1}, {large, 0}},
		"with a large one":       {{small, 0}, {large, 3}, {dmaMap, 1}},
		"several messages":       {{small, 0}, {dmaMap + small + small, 3}},
		"in a header":            {{dmaMap[:8], 0}, {dmaMap[8:], 1}},
		"behind a header":        {{dmaMap[:16], 0}, {dmaMap[16:], 1}},
		"the last byte":          {{dmaMap[:47], 0}, {dmaMap[47:], 1}},
		"every part":             {{dmaMap[:1], 1}, {dmaMap[1:20], 1}, {dmaMap[20:], 1}},
		"as many as Linux takes": {{dmaMap, maxFDs}},
	} {
		for _, direction := range []string{"to the server", "to the client"} {
			t.Run(name+", "+direction, func(t *testing.T) {
				x := newBench(t)
				client, server := x.pair()
				defer client.close()
				defer server.close()
				from, to := client, server
				if direction == "to the client" {
					from, to = server, client
					refusal := failure(0, codec.CmdVersion, unix.EINVAL)
					from.says(refusal) // after it no twin socket can come
					to.hears(refusal)
				}
				// The sender must not wait for the receiver: large messages do not fit.
				sent := make(chan []uint64, 1)
				go func() {
					var inodes []uint64
					for _, p := range parts {
						var fds []int
						for range p.fds {
							fds = append(fds, memfd(t, 4096))
							inodes = append(inodes, inode(t, fds[len(fds)-1]))
						}
						from.says(p.bytes, fds...)
					}
					sent <- inodes
				}()
				var got []uint64
				for _, p := range parts {
					// Exactly with these bytes, and with the first of them.
					fds := to.hears(p.bytes[:1])
					if len(fds) != p.fds {
						t.Errorf("%d descriptors with the first byte of %.20q, want %d", len(fds), p.bytes, p.fds)
					}
					for _, fd := range fds {
						got = append(got, inode(t, fd))
						if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
							t.Error("a descriptor would be inherited")
						}
					}
					closeAll(fds)
					if rest := to.hears(p.bytes[1:]); len(rest) > 0 {
						t.Errorf("descriptors with a later byte of %.20q", p.bytes)
						closeAll(rest)
					}
				}
				if want := <-sent; !slices.Equal(got, want) {
					t.Errorf("got files %v, want %v", got, want)
				}
			})
		}
	}
}

// Both directions at once, large, in pieces of any size: all arrives as it was sent.
func TestBytesPassUnchanged(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	defer client.close()
	defer server.close()
	const size = 20 << 20
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	var both sync.WaitGroup
	for _, way := range []struct {
		from, to end
		seed     uint64
	}{{client, server, 1}, {server, client, 2}} {
		both.Go(func() {
			sizes := rand.New(rand.NewPCG(way.seed, 0))
			for rest := data; len(rest) > 0; {
				n := min(1+sizes.IntN(1<<sizes.IntN(20)), len(rest))
				if err := way.from.send(rest[:n], nil); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		both.Go(func() {
			got := make([]byte, size)
			for n := 0; n < size; {
				more, _, err := way.to.in.receive(got[n:min(n+100_000, size)])
				if err != nil {
					t.Errorf("after %d bytes: %v", n, err)
					return
				}
				n += more
			}
			if !bytes.Equal(got, data) {
				t.Error("bytes were changed")
			}
		})
	}
	both.Wait()
}

func TestWhoDoesNotReadStopsOnlyItsOwnDirection(t *testing.T) {
	for _, stuck := range []string{"server", "client"} {
		t.Run(stuck, func(t *testing.T) {
			x := newBench(t)
			client, server := x.pair()
			defer client.close()
			defer server.close()
			from, deaf := client, server
			if stuck == "client" {
				from, deaf = server, client
			}
			// Full when nothing fits for good: the proxy may still be moving what there is.
			if err := unix.SetNonblock(from.fd, true); err != nil {
				t.Fatal(err)
			}
			sent, chunk := 0, make([]byte, 64<<10)
			for full := 0; full < 3; {
				n, err := unix.SendmsgN(from.fd, chunk, nil, nil, unix.MSG_NOSIGNAL)
				switch {
				case err == unix.EAGAIN:
					p := []unix.PollFd{{Fd: int32(from.fd), Events: unix.POLLOUT}}
					if n, _ := unix.Poll(p, 100); n == 0 {
						full++
					}
				case err != nil:
					t.Fatal(err)
				default:
					sent, full = sent+n, 0
				}
				if sent > 16<<20 {
					t.Fatal("nothing stops the sender")
				}
			}
			if err := unix.SetNonblock(from.fd, false); err != nil {
				t.Fatal(err)
			}
			deaf.says("the other direction")
			from.hears("the other direction")
			for got := 0; got < sent; {
				n, _, err := deaf.in.receive(chunk)
				if err != nil {
					t.Fatalf("after %d of %d bytes: %v", got, sent, err)
				}
				got += n
			}
		})
	}
}

func TestHostileBytesPass(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	hostile := []string{
		wire(1, codec.CmdGetInfo, 0, make([]byte, 3)...),
		string(codec.Header{ID: 2, Command: 99, Size: 1 << 31}.Append(nil)) + strings.Repeat("a", 100),
	}
	for _, b := range hostile {
		client.says(b)
		server.hears(b)
	}
	broken := string(codec.Header{ID: 3, Command: codec.CmdReset, Size: 15}.Append(nil))
	server.says(broken)
	client.hears(broken)
	server.says("whatever comes now")
	client.hears("whatever comes now")
	client.close()
	server.close()
	want := `> client connects: session 1
> GET_INFO #1 broken: message too short: payload needs 16 bytes 3 bytes 00 00 00
> broken: message is larger than 64 MiB, which nobody negotiates: 02006300000000800000000000000000...
< broken: RESET: sizes contradict each other: message size is smaller than the header: 03000d000f0000000000000000000000...
`
	if got := shown(x.stop()); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestListenWhereSomethingIs(t *testing.T) {
	dir := t.TempDir()
	live := filepath.Join(dir, "live")
	l, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(live, "b", nil, nil); err == nil || !strings.Contains(err.Error(), "another server listens there") {
		t.Errorf("live socket: %v", err)
	}
	stale := filepath.Join(dir, "stale")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	p, err := Listen(stale, "b", func([]Event) {}, nil)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	p.listener.Close()
	p.queue.close()
	if _, err := Listen(filepath.Join(dir, "none", "s"), "b", nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
}

func TestTooManyDescriptorsForTheProcess(t *testing.T) {
	x := newBench(t)
	client, server := x.pair()
	defer client.close()
	defer server.close()
	fds := make([]int, 8)
	for i := range fds {
		fds[i] = memfd(t, 1)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = uint64(fds[7]) + 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	err := client.send([]byte("x"), fds)
	if err == nil {
		x.eventually("warning", func() bool { return len(x.warned) > 0 })
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	closeAll(fds)
	if err != nil || !strings.Contains(x.warned[0], errDescriptors.Error()) {
		t.Errorf("%v, says %q", err, x.warned)
	}
	client.hearsEnd()
}

func TestIdentifyAndOpen(t *testing.T) {
	for _, d := range []Descriptor{
		{kindMemfd, 1 << 40}, {kindMemfd, 0}, {Kind: kindEventfd}, {Kind: kindSocket}, {Kind: kindPipe}, {Kind: kindDevice},
	} {
		fd, err := d.open()
		if err != nil {
			t.Fatalf("%v: %v", d, err)
		}
		if got := identifyOne(fd); got != d {
			t.Errorf("%v is taken for %v", d, got)
		}
		_ = unix.Close(fd)
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, _ = io.WriteString(file, "12345")
	if got, want := identifyOne(int(file.Fd())), (Descriptor{kindFile, 5}); got != want || got.String() != "file 5B" {
		t.Errorf("a file is taken for %v", got)
	}
	fd, err := Descriptor{kindFile, 5}.open()
	if err != nil || identifyOne(fd) != (Descriptor{kindMemfd, 5}) {
		t.Errorf("in place of a file: %v", err)
	}
	_ = unix.Close(fd)
	epoll, err := unix.EpollCreate1(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	if got := identifyOne(epoll).Kind; got != "eventpoll" {
		t.Errorf("an epoll descriptor is taken for %q", got)
	}
	if got := identifyOne(-1).Kind; got != kindOther {
		t.Errorf("no descriptor is taken for %q", got)
	}
}
