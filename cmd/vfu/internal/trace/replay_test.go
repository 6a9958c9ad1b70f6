package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

// settle is how long a replay waits in tests for what does not come.
const settle = time.Second

// said is one message of a recorded session.
type said struct {
	from    Side
	channel Channel
	bytes   string
	fds     []Descriptor
}

// events are what is said in one session that the client ends.
func events(session int, all ...said) []Event {
	begin := time.Unix(1000, 0)
	list := []Event{{Session: session, Time: begin, Kind: Connect, From: Client}}
	for i, s := range all {
		list = append(list, Event{session, begin.Add(time.Duration(i) * time.Millisecond), Data, s.channel, s.from, []byte(s.bytes), s.fds})
	}
	return append(list, Event{Session: session, Time: begin.Add(time.Second), Kind: HangUp, From: Client})
}

// replayed plays a recording against a server that is a function for each client.
func replayed(t *testing.T, recording []Event, serve ...func(end)) (Played, error) {
	t.Helper()
	return replayedFor(t, patience, recording, serve...)
}

// briefly is replayed where the server does not do what the recorded one did.
func briefly(t *testing.T, recording []Event, serve ...func(end)) error {
	t.Helper()
	_, err := replayedFor(t, settle, recording, serve...)
	return err
}

func replayedFor(t *testing.T, settle time.Duration, recording []Event, serve ...func(end)) (Played, error) {
	t.Helper()
	before := holdings.Descriptors(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, f := range serve {
			conn, err := l.AcceptUnix()
			if err != nil {
				t.Error(err)
				return
			}
			s, err := take(conn)
			e := newEnd(t, s, err)
			f(e)
			e.close()
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	played, err := Replay(ctx, record(t, recording), path, settle)
	<-done
	l.Close()
	if after := holdings.Descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
	return played, err
}

// differs checks that err is a Difference with these words.
func differs(t *testing.T, err error, recorded, got string) {
	t.Helper()
	var d *Difference
	if !errors.As(err, &d) {
		t.Fatalf("got %v, want a difference", err)
	}
	if !strings.Contains(d.Recorded, recorded) || !strings.Contains(d.Got, got) {
		t.Errorf("recorded %q, got %q; want %q, %q", d.Recorded, d.Got, recorded, got)
	}
}

func c(bytes string, fds ...Descriptor) said  { return said{from: Client, bytes: bytes, fds: fds} }
func sv(bytes string, fds ...Descriptor) said { return said{from: Server, bytes: bytes, fds: fds} }

func TestReplayOfWhatIsTheSame(t *testing.T) {
	dmaMap := wire(1, codec.CmdDMAMap, 0, dmaMap...)
	write := region(2, codec.CmdRegionWrite, 0, 8, 1, 7)
	memory := Descriptor{kindMemfd, 2 << 20}
	areas := wire(3, codec.CmdGetRegionInfo, codec.FlagReply, make([]byte, 32)...)
	played, err := replayed(t, events(1,
		c(dmaMap, memory), c(write), // pipelined
		sv(wire(1, codec.CmdDMAMap, codec.FlagReply)), sv(region(2, codec.CmdRegionWrite, codec.FlagReply, 8, 1)),
		c(wire(3, codec.CmdGetRegionInfo, 0, make([]byte, 32)...)), sv(areas, Descriptor{kindMemfd, 4096}),
		c(failing1), sv(failure(4, codec.CmdReset, unix.EBUSY)),
		c(region(5, codec.CmdRegionWrite, codec.FlagNoReply, 8, 1, 7)),
	), func(s end) {
		fds := s.hears(dmaMap)
		if got := identify(fds); len(got) != 1 || got[0] != memory {
			t.Errorf("with DMA_MAP came %v, want %v", got, memory)
		}
		closeAll(fds)
		s.hears(write)
		s.says(wire(1, codec.CmdDMAMap, codec.FlagReply))
		s.says(region(2, codec.CmdRegionWrite, codec.FlagReply, 8, 1))
		s.hears(wire(3, codec.CmdGetRegionInfo, 0, make([]byte, 32)...))
		s.says(areas, memfd(t, 4096))
		s.hears(failing1)
		s.says(failure(4, codec.CmdReset, unix.EBUSY))
		s.hears(region(5, codec.CmdRegionWrite, codec.FlagNoReply, 8, 1, 7))
		s.hearsEnd()
	})
	if want := (Played{Sessions: 1, Sent: 5, Compared: 4}); err != nil || played != want {
		t.Errorf("%+v, %v", played, err)
	}
}

var failing1 = wire(4, codec.CmdReset, 0)

func TestReplayFindsTheFirstDifference(t *testing.T) {
	ask := wire(1, codec.CmdGetInfo, 0, make([]byte, 16)...)
	info := func(n byte) string {
		return wire(1, codec.CmdGetInfo, codec.FlagReply, 16, 0, 0, 0, 3, 0, 0, 0, n, 0, 0, 0, 5, 0, 0, 0)
	}
	const recorded = "GET_INFO #1 reply RESET|PCI regions 9 irqs 5"
	for _, tt := range []struct {
		name      string
		fds       []Descriptor
		serve     func(end)
		want, got string
	}{
		{"a byte", nil, func(s end) { s.says(info(8)) }, recorded, "regions 8 irqs 5, byte 8 of the payload is 0x08 instead of 0x09"},
		{"an error", nil, func(s end) { s.says(failure(1, codec.CmdGetInfo, unix.EINVAL)) }, recorded, "GET_INFO #1 error EINVAL"},
		{"a descriptor that is missing", []Descriptor{{kindMemfd, 4096}}, func(s end) { s.says(info(9)) }, "[memfd 4KiB]", recorded},
		{"a descriptor too many", nil, func(s end) { s.says(info(9), memfd(t, 8192)) }, recorded, "[memfd 8KiB]"},
		{"a descriptor of another size", []Descriptor{{kindMemfd, 4096}}, func(s end) { s.says(info(9), memfd(t, 8192)) }, "[memfd 4KiB]", "[memfd 8KiB]"},
		{"no reply", nil, func(s end) { s.hearsEnd() }, recorded, "no reply in 1s"},
		{"the server hangs up", nil, func(end) {}, recorded, "the server hangs up"},
		{"a reply to no command", nil, func(s end) { s.says(wire(7, codec.CmdReset, codec.FlagReply)) }, "nothing", "a reply to no command: RESET #7"},
		{"no message", nil, func(s end) { s.says(string(make([]byte, 16))) }, "nothing", "no message: broken"},
		{"a command that the recorded server did not send", nil, func(s end) { s.says(wire(1, codec.CmdDMARead, 0, make([]byte, 16)...)) },
			"no such command", "DMA_READ #1 0x0 0 bytes"},
		{"a message that is cut", nil, func(s end) { s.says(info(9)[:20]) }, "nothing", "message is cut"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reply := sv(info(9), tt.fds...)
			err := briefly(t, events(1, c(ask), reply), func(s end) {
				s.hears(ask)
				tt.serve(s)
			})
			differs(t, err, tt.want, tt.got)
		})
	}
	t.Run("a smaller reply", func(t *testing.T) {
		reset := wire(1, codec.CmdReset, 0)
		err := briefly(t, events(1, c(reset), sv(wire(1, codec.CmdReset, codec.FlagReply, 1))), func(s end) {
			s.hears(reset)
			s.says(wire(1, codec.CmdReset, codec.FlagReply))
		})
		differs(t, err, "RESET #1 reply and 1 bytes 01", "RESET #1 reply")
	})
	t.Run("when", func(t *testing.T) {
		err := briefly(t, events(3, c(ask), c(ask), sv(info(9)), sv(info(9))), func(s end) {
			s.hears(ask + ask)
			s.says(info(9) + info(8))
			s.hearsEnd()
		})
		var d *Difference
		if !errors.As(err, &d) || d.Session != 3 || d.At != 3*time.Millisecond {
			t.Errorf("got %v", err)
		}
		if err == nil || !strings.HasPrefix(err.Error(), "first difference, session 3, 3ms after its beginning:\n  recorded: ") {
			t.Errorf("says %v", err)
		}
	})
}

// A client that waits for a register reads as often as the server is slow.
func TestReplayOfPolling(t *testing.T) {
	read := region(1, codec.CmdRegionRead, 0, 0x1c, 1)
	value := func(v byte) string { return region(1, codec.CmdRegionRead, codec.FlagReply, 0x1c, 1, v) }
	recording := events(1, c(read), sv(value(0)), c(read), sv(value(0)), c(read), sv(value(1)), c(failing1), sv(wire(4, codec.CmdReset, codec.FlagReply)))
	for _, values := range [][]byte{{0, 0, 1}, {1}, {0, 0, 0, 0, 0, 1}, {5, 1}} {
		_, err := replayed(t, recording, func(s end) {
			for _, v := range values {
				s.hears(read)
				s.says(value(v))
			}
			s.hears(failing1)
			s.says(wire(4, codec.CmdReset, codec.FlagReply))
			s.hearsEnd()
		})
		if err != nil {
			t.Errorf("values %v: %v", values, err)
		}
	}
	err := briefly(t, recording, func(s end) {
		for {
			n, _, err := s.in.receive(make([]byte, len(read)))
			if err != nil || n != len(read) || s.send([]byte(value(2)), nil) != nil {
				return
			}
		}
	})
	differs(t, err, "1 bytes 01", "1 bytes 02")
}

func TestReplayAnswersTheServersCommands(t *testing.T) {
	ask := func(id uint16, addr byte) string {
		return wire(id, codec.CmdDMARead, 0, append([]byte{addr, 0, 0, 0, 0, 0, 0, 0}, 1, 0, 0, 0, 0, 0, 0, 0)...)
	}
	answer := func(id uint16, addr byte) string {
		return wire(id, codec.CmdDMARead, codec.FlagReply, append([]byte{addr, 0, 0, 0, 0, 0, 0, 0}, 1, 0, 0, 0, 0, 0, 0, 0, addr+100)...)
	}
	doorbell := region(1, codec.CmdRegionWrite, 0, 0x1000, 1, 1)
	rung := region(1, codec.CmdRegionWrite, codec.FlagReply, 0x1000, 1)
	recording := events(1, c(doorbell), sv(ask(10, 1)), sv(rung), sv(ask(11, 2)), c(answer(11, 2)), c(answer(10, 1)), c(failing1),
		sv(wire(4, codec.CmdReset, codec.FlagReply)))
	_, err := replayed(t, recording, func(s end) {
		s.hears(doorbell)
		s.says(rung) // first, and the others in another order, with other ids
		s.says(ask(20, 2))
		s.hears(answer(20, 2))
		s.says(ask(21, 1))
		s.hears(answer(21, 1))
		s.hears(failing1)
		s.says(wire(4, codec.CmdReset, codec.FlagReply))
		s.hearsEnd()
	})
	if err != nil {
		t.Error(err)
	}
	err = briefly(t, recording, func(s end) {
		s.hears(doorbell)
		s.says(rung)
		s.says(ask(20, 2))
		s.hears(answer(20, 2))
		s.hearsEnd()
	})
	differs(t, err, "DMA_READ #10 0x1 1 bytes", "no such command in 1s")
	err = briefly(t, recording, func(s end) {
		s.hears(doorbell)
		s.says(ask(1, 1))
		s.hears(answer(1, 1))
		s.says(ask(2, 1)) // the same once more
		s.hearsEnd()
	})
	differs(t, err, "no such command", "DMA_READ #2 0x1 1 bytes")
}

func TestReplayOfTheTwinSocket(t *testing.T) {
	index0 := strings.Replace(twinReply, "1", "0", 1)
	ask, answer := wire(1, codec.CmdDMARead, 0, make([]byte, 16)...), wire(1, codec.CmdDMARead, codec.FlagReply, make([]byte, 16)...)
	recording := events(1, c(version(0, `{}`)), sv(version(codec.FlagReply, index0), Descriptor{Kind: kindSocket}),
		said{from: Server, channel: Twin, bytes: ask}, said{from: Client, channel: Twin, bytes: answer},
		c(failing1), sv(wire(4, codec.CmdReset, codec.FlagReply)))
	_, err := replayed(t, recording, func(s end) {
		s.hears(version(0, `{}`))
		mine, theirs := socketpair(t, 0)
		s.says(version(codec.FlagReply, index0), theirs)
		twin := newEnd(t, stream{mine}, nil)
		twin.says(ask)
		twin.hears(answer)
		s.hears(failing1)
		s.says(wire(4, codec.CmdReset, codec.FlagReply))
		s.hearsEnd()
		twin.hearsEnd()
		twin.close()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestReplayOfHostileClients(t *testing.T) {
	broken := string(codec.Header{ID: 1, Command: codec.CmdReset, Size: 3}.Append(nil)) + "garbage"
	list := events(1, c(failing1), sv(wire(4, codec.CmdReset, codec.FlagReply)), c(broken))
	list[len(list)-1].From = Server // who hangs up
	serve := func(stay bool) func(end) {
		return func(s end) {
			s.hears(failing1)
			s.says(wire(4, codec.CmdReset, codec.FlagReply))
			s.hears(broken)
			if stay {
				s.hearsEnd()
			}
		}
	}
	if _, err := replayed(t, list, serve(false)); err != nil {
		t.Error(err)
	}
	err := briefly(t, list, serve(true))
	differs(t, err, "the server hangs up", "still there after 1s")
}

func TestReplayOfDescriptorsInsideAMessage(t *testing.T) {
	reset := wire(4, codec.CmdReset, 0)
	list := events(1, c(reset[:10]), c(reset[10:], Descriptor{Kind: kindEventfd}, Descriptor{Kind: kindPipe}), sv(wire(4, codec.CmdReset, codec.FlagReply)))
	_, err := replayed(t, list, func(s end) {
		if fds := s.hears(reset[:10]); len(fds) > 0 {
			t.Errorf("%d descriptors with the first byte", len(fds))
		}
		fds := s.hears(reset[10:])
		if got := fmt.Sprint(identify(fds)); got != "[eventfd pipe]" {
			t.Errorf("in the middle came %s", got)
		}
		closeAll(fds)
		s.says(wire(4, codec.CmdReset, codec.FlagReply))
		s.hearsEnd()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestReplayOfSessions(t *testing.T) {
	list := append(events(1, c(failing1), sv(wire(4, codec.CmdReset, codec.FlagReply))), events(2, c(failing1), sv(wire(4, codec.CmdReset, codec.FlagReply)))...)
	serve := func(s end) {
		s.hears(failing1)
		s.says(wire(4, codec.CmdReset, codec.FlagReply))
		s.hearsEnd()
	}
	busy := func(end) {} // with the end of the first session
	played, err := replayed(t, list, serve, busy, busy, serve)
	if err != nil || played.Sessions != 2 {
		t.Errorf("%+v, %v", played, err)
	}
}

func TestReplayThatCannotBe(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	_, err := Replay(context.Background(), record(t, events(1)), none, settle)
	if err == nil || !strings.Contains(err.Error(), "no server answers at "+none) {
		t.Errorf("no server: %v", err)
	}
	_, err = Replay(context.Background(), bytes.NewReader(nil), none, settle)
	if err == nil || !strings.Contains(err.Error(), "not a recording") {
		t.Errorf("no recording: %v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cancel(errFailing)
	_, err = Replay(ctx, record(t, events(1, c(failing1), sv(wire(4, codec.CmdReset, codec.FlagReply)))), path, patience)
	if err == nil {
		t.Error("a context that has ended does not end the replay")
	}
}
