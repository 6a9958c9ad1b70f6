package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

func twinVersion(supported bool) codec.VersionMsg {
	return codec.VersionMsg{Minor: 1, Caps: codec.Capabilities{MaxMsgFDs: 8, TwinSocket: &codec.TwinSocket{Supported: supported}}}
}

// attachTwin negotiates a twin socket and maps some memory to be reached through it.
func (b *bed) attachTwin() (conn, twin *raw) {
	b.t.Helper()
	conn = b.dial()
	v := twinVersion(true)
	h, reply, fds := conn.call(codec.CmdVersion, v.Append(nil))
	if h.Err() != nil || len(fds) != 1 {
		b.t.Fatalf("%v, %d descriptors", h.Err(), len(fds))
	}
	if err := v.Decode(reply); err != nil {
		b.t.Fatal(err)
	}
	if t := v.Caps.TwinSocket; t == nil || !t.Supported || t.FDIndex == nil || *t.FDIndex != 0 {
		b.t.Fatalf("twin socket %+v in the reply", t)
	}
	twin = &raw{t: b.t, fd: fds[0]}
	limit := unix.NsecToTimeval(int64(20 * time.Second))
	if err := unix.SetsockoptTimeval(twin.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(twin.close)
	conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x4000000))
	return conn, twin
}

// read8 begins to read eight bytes of guest memory.
func read8(s *Session) chan error {
	done := make(chan error, 1)
	go func() { done <- s.ReadDMA(context.Background(), 0x100000, make([]byte, 8)) }()
	return done
}

func TestTwinSocketCarriesTheServersCommands(t *testing.T) {
	b := newBed(t, Config{})
	conn, twin := b.attachTwin()
	done := read8(b.device.session())
	h, ask := twin.dmaRequest(codec.CmdDMARead)
	conn.ok(codec.CmdRegionRead, regionRead(0, 0, 4))
	twin.answerDMA(h, ask, make([]byte, 8))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	conn.ok(codec.CmdRegionRead, regionRead(0, 0, 4))
}

// A reply may come in pieces, and with descriptors that nobody asked for.
func TestTwinSocketTakesPartialReplies(t *testing.T) {
	b := newBed(t, Config{})
	_, twin := b.attachTwin()
	fd := memfd(t, 4096)
	before := holdings.Descriptors(t)
	for split := 1; split < 40; split++ {
		done := read8(b.device.session())
		h, ask := twin.dmaRequest(codec.CmdDMARead)
		ask.Data = make([]byte, 8)
		reply := ask.Append(codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply, Size: 40}.Append(nil))
		twin.write(reply[:split], fd)
		b.do(func() {}) // the reactor has seen the first piece, or will see both
		twin.write(reply[split:])
		if err := <-done; err != nil {
			t.Fatalf("split at %d: %v", split, err)
		}
	}
	eventually(t, "descriptors closed", func() bool { return holdings.Descriptors(t) == before })
}

func TestTwinSocketIsForWhoOffersIt(t *testing.T) {
	none := codec.VersionMsg{Caps: codec.Capabilities{MaxMsgFDs: 8}}
	noFDs := twinVersion(true)
	noFDs.Caps.MaxMsgFDs, noFDs.Caps.Present = 0, codec.HasMaxMsgFDs
	for _, c := range []struct {
		name  string
		cfg   Config
		v     codec.VersionMsg
		flags codec.Flags
	}{
		{"not offered", Config{}, none, 0},
		{"offered with false", Config{}, twinVersion(false), 0},
		{"switched off here", Config{NoTwinSocket: true}, twinVersion(true), 0},
		{"no descriptors taken", Config{}, noFDs, 0},
		{"no reply wanted", Config{}, twinVersion(true), codec.FlagNoReply},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, c.cfg)
			conn := b.dial()
			conn.write(conn.frame(codec.CmdVersion, c.flags, c.v.Append(nil)))
			if c.flags == 0 {
				h, reply, fds := conn.read()
				var v codec.VersionMsg
				if err := v.Decode(reply); err != nil || h.Err() != nil || len(fds) != 0 || v.Caps.TwinSocket != nil {
					t.Errorf("%v, %v, %d descriptors, %s", err, h.Err(), len(fds), reply)
				}
			}
			conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 0x1000))
			done := read8(b.device.session())
			h, ask := conn.dmaRequest(codec.CmdDMARead)
			conn.answerDMA(h, ask, make([]byte, 8))
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhatEndsASessionWithATwinSocket(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(conn, twin *raw, h codec.Header, ask codec.DMAAccess)
	}{
		{"a command on the twin", func(_, twin *raw, _ codec.Header, _ codec.DMAAccess) {
			twin.write(twin.frame(codec.CmdGetInfo, 0, u32(16, 0, 0, 0)))
		}},
		{"a reply beside the twin", func(conn, _ *raw, h codec.Header, ask codec.DMAAccess) {
			conn.answerDMA(h, ask, make([]byte, 8))
		}},
		{"a reply on the twin to what was not asked", func(_, twin *raw, h codec.Header, ask codec.DMAAccess) {
			h.ID++
			twin.answerDMA(h, ask, make([]byte, 8))
		}},
		{"a broken frame on the twin", func(_, twin *raw, _ codec.Header, _ codec.DMAAccess) {
			twin.write(codec.Header{Size: 3}.Append(nil))
		}},
		{"hang-up of the twin", func(_, twin *raw, _ codec.Header, _ codec.DMAAccess) { twin.close() }},
		{"hang-up in the middle of a reply", func(_, twin *raw, h codec.Header, _ codec.DMAAccess) {
			twin.write(codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply, Size: 40}.Append(nil))
			twin.close()
		}},
		{"hang-up of the other socket", func(conn, _ *raw, _ codec.Header, _ codec.DMAAccess) { conn.close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, Config{})
			conn, twin := b.attachTwin()
			done := read8(b.device.session())
			h, ask := twin.dmaRequest(codec.CmdDMARead)
			c.do(conn, twin, h, ask)
			if err := <-done; !errors.Is(err, ErrClosed) {
				t.Errorf("read ended with %v, want ErrClosed", err)
			}
			for _, side := range []*raw{conn, twin} {
				if side.fd >= 0 {
					side.ends()
				}
			}
			b.settled()
			b.attach()
		})
	}
}

// A client that goes closes both sockets. That its twin is looked at first changes nothing: what it
// has posted is served, and it has hung up.
func TestHangUpOfBothSocketsSeenOnTheTwinFirst(t *testing.T) {
	b := newBed(t, Config{})
	conn, twin := b.attachTwin()
	s := b.device.session()
	b.do(func() {
		conn.write(conn.frame(codec.CmdRegionWrite, codec.FlagNoReply, regionWrite(0, 8, 42)))
		conn.close()
		twin.close()
		s.twin.HandleEvents(0)
	})
	if cause := context.Cause(s.Context()); !errors.Is(cause, errHungUp) {
		t.Errorf("the session ended because %v", cause)
	}
	b.settled()
	if b.device.mem[8] != 42 {
		t.Error("the last write was not served")
	}
}

// A client that does not read its twin socket holds messages back, and is dropped after
// Config.WriteTimeout; its other socket is served meanwhile.
func TestTwinSocketThatIsNotRead(t *testing.T) {
	b := newBed(t, Config{WriteTimeout: 100 * time.Millisecond, DMATimeout: time.Hour})
	conn, twin := b.attachTwin()
	s := b.device.session()
	const n = 200
	done := make(chan error, n)
	data := make([]byte, maxDMAMessage)
	for range n {
		s.StartWriteDMA(0x100000, data, func(err error) { done <- err })
	}
	conn.ok(codec.CmdRegionRead, regionRead(0, 0, 4))
	for range n {
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("write ended with %v, want ErrClosed", err)
		}
	}
	twin.ends()
	conn.ends()
	b.settled()
	b.attach()
}

func TestTwinSocketUnderLoad(t *testing.T) {
	b := newBed(t, Config{})
	conn, twin := b.attachTwin()
	s := b.device.session()
	const n = 600
	done := make(chan error, n)
	data := slices.Repeat([]byte{7}, maxDMAMessage)
	for range n {
		s.StartWriteDMA(0x100000, data, func(err error) { done <- err })
	}
	for i := range n {
		h, ask := twin.dmaRequest(codec.CmdDMAWrite)
		if !slices.Equal(ask.Data, data) {
			t.Fatal("other data")
		}
		twin.answerDMA(h, ask, nil)
		if i%50 == 0 {
			conn.ok(codec.CmdRegionRead, regionRead(0, 0, 4))
		}
	}
	for range n {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// The client's end is not kept here, also when the client never reads the reply.
func TestTwinSocketOfAReplyThatIsNotRead(t *testing.T) {
	b := newBed(t, Config{})
	before := holdings.Descriptors(t)
	conn := b.dial()
	v := twinVersion(true)
	conn.write(conn.frame(codec.CmdVersion, 0, v.Append(nil)))
	eventually(t, "negotiated", func() bool { return b.device.session() != nil })
	conn.close()
	b.settled()
	if after := holdings.Descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
