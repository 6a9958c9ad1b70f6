package engine

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// writeMultiOf is the payload of a REGION_WRITE_MULTI.
func writeMultiOf(writes ...codec.RegionAccess) []byte {
	m := codec.WriteMulti{Count: uint64(len(writes))}
	for _, w := range writes {
		w.Count = uint32(len(w.Data))
		m.Writes = codec.AppendWrite(m.Writes, w)
	}
	return m.Append(nil)
}

func writeOf(region uint32, off uint64, data ...byte) codec.RegionAccess {
	return codec.RegionAccess{Region: region, Offset: off, Data: data}
}

func TestWriteMulti(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	for _, c := range []struct {
		name  string
		req   []byte
		done  uint64
		errno unix.Errno
		want  []byte // what BAR0 begins with afterwards
	}{
		{"one write", writeMultiOf(writeOf(0, 0, 1)), 1, 0, []byte{1, 0}},
		{"in order", writeMultiOf(writeOf(0, 0, 1, 1), writeOf(0, 1, 2), writeOf(0, 0, 3)), 3, 0, []byte{3, 2}},
		{"eight bytes", writeMultiOf(writeOf(0, 0, 1, 2, 3, 4, 5, 6, 7, 8)), 1, 0, []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{"several regions", writeMultiOf(writeOf(0, 0, 5), writeOf(7, pciCommand, 6, 0)), 2, 0, []byte{5}},
		{"the first is refused: its errno", writeMultiOf(writeOf(9, 0, 1), writeOf(0, 0, 1)), 0, unix.EINVAL, []byte{0}},
		{"the device refuses the first", writeMultiOf(writeOf(4, 0, 1), writeOf(0, 0, 1)), 0, unix.EIO, []byte{0}},
		{"a later one is refused: how many were done", writeMultiOf(writeOf(0, 0, 1), writeOf(0, 1, 2), writeOf(9, 0, 1), writeOf(0, 0, 9)), 2, 0, []byte{1, 2}},
		{"the device refuses a later one", writeMultiOf(writeOf(0, 0, 1), writeOf(4, 0, 1), writeOf(0, 0, 9)), 1, 0, []byte{1}},
		{"beyond the end", writeMultiOf(writeOf(0, 4095, 1, 2)), 0, unix.EINVAL, []byte{0}},
		{"an offset that overflows", writeMultiOf(writeOf(0, ^uint64(0), 1, 2)), 0, unix.EINVAL, []byte{0}},
		{"a region without handler", writeMultiOf(writeOf(2, 0, 1)), 0, unix.EINVAL, []byte{0}},
		{"more than eight bytes", slices.Concat(u64(1, 0), u32(0, 9), make([]byte, 8)), 0, unix.EINVAL, []byte{0}},
		{"no writes", writeMultiOf(), 0, unix.EINVAL, []byte{0}},
		{"cut", writeMultiOf(writeOf(0, 0, 1))[:31], 0, unix.EINVAL, []byte{0}},
		{"a number without writes", u64(1), 0, unix.EINVAL, []byte{0}},
		{"a number that overflows", append(u64(1<<61), writeMultiOf(writeOf(0, 0, 1))[8:]...), 0, unix.EINVAL, []byte{0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			conn.ok(codec.CmdReset, nil)
			if c.errno != 0 {
				conn.fails(c.errno, codec.CmdRegionWriteMulti, c.req)
			} else if got := conn.ok(codec.CmdRegionWriteMulti, c.req); !bytes.Equal(got, u64(c.done)) {
				t.Errorf("reply %x, want %d writes", got, c.done)
			}
			if got := conn.ok(codec.CmdRegionRead, regionRead(0, 0, uint64(len(c.want))))[16:]; !bytes.Equal(got, c.want) {
				t.Errorf("BAR0 begins with %v, want %v", got, c.want)
			}
		})
	}
}

// write_multiple is offered to who offers it, and only if the engine is told to.
func TestWriteMultipleIsOffered(t *testing.T) {
	for _, c := range []struct {
		name               string
		configured, client bool
		want               bool
	}{
		{"by neither", false, false, false},
		{"by the client", false, true, false},
		{"by the server", true, false, false},
		{"by both", true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := newBed(t, Config{WriteMultiple: c.configured}).dial()
			v := codec.VersionMsg{Caps: codec.Capabilities{WriteMultiple: c.client}}
			if err := v.Decode(conn.ok(codec.CmdVersion, v.Append(nil))); err != nil {
				t.Fatal(err)
			}
			if v.Caps.WriteMultiple != c.want {
				t.Errorf("offered: %v, want %v", v.Caps.WriteMultiple, c.want)
			}
			conn.ok(codec.CmdRegionWriteMulti, writeMultiOf(writeOf(0, 0, 1)))
		})
	}
}

// A function level reset is done before the writes that follow it, even in one message.
func TestWriteMultiWithFunctionLevelReset(t *testing.T) {
	b := newBed(t, Config{})
	conn := b.attach()
	control := uint64(b.device.express + 8)
	flr := writeOf(7, control, 0, 0x80)
	for _, c := range []struct {
		name   string
		writes []codec.RegionAccess
		want   []byte
	}{
		{"in the middle", []codec.RegionAccess{writeOf(0, 0, 7), flr, writeOf(0, 1, 9)}, []byte{0, 9}},
		{"at the end", []codec.RegionAccess{writeOf(0, 0, 7), flr}, []byte{0, 0}},
		{"twice, with a refusal at the end", []codec.RegionAccess{writeOf(0, 0, 7), flr, writeOf(0, 1, 9), flr, writeOf(0, 0, 3), writeOf(9, 0, 1)}, []byte{3, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn.t = t
			req, done := writeMultiOf(c.writes...), uint64(len(c.writes))
			if c.writes[done-1].Region == 9 {
				done--
			}
			conn.write(slices.Concat(
				conn.frame(codec.CmdRegionWriteMulti, codec.FlagNoReply, req),
				conn.frame(codec.CmdRegionWriteMulti, 0, req),
				conn.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 2))))
			if h, reply, _ := conn.read(); h.Command != codec.CmdRegionWriteMulti || h.ID != conn.next-1 || !bytes.Equal(reply, u64(done)) {
				t.Errorf("reply %+v %x, want %d writes", h, reply, done)
			}
			if _, reply, _ := conn.read(); !bytes.Equal(reply[16:], c.want) {
				t.Errorf("BAR0 begins with %v, want %v", reply[16:], c.want)
			}
		})
	}
}

func TestClientMayVanishInWriteMulti(t *testing.T) {
	b := newBed(t, Config{})
	release := make(chan func(), 1)
	b.device.onHold(func(done func()) { release <- done })
	conn := b.attach()
	conn.write(conn.frame(codec.CmdRegionWriteMulti, 0, writeMultiOf(writeOf(7, uint64(b.device.express+8), 0, 0x80), writeOf(0, 0, 1))))
	done := <-release
	conn.close()
	eventually(t, "hang-up noticed", func() (dropped bool) {
		_ = b.engine.reactor.Do(func() { dropped = b.ep.session.state == stateDropped })
		return dropped
	})
	b.device.onHold(nil)
	done()
	<-b.device.gone
	b.settled()
	if got := b.attach().ok(codec.CmdRegionRead, regionRead(0, 0, 1)); got[16] != 0 {
		t.Error("a write of a client that is gone was done")
	}
}

// One message may hold more writes than a session's turn has time for. Others are served
// in between.
func TestWriteMultiLeavesTimeForOthers(t *testing.T) {
	const n = 1000
	asked, writes, seen := make(chan struct{}), 0, 0
	busy, _ := newPlainBed(t, Config{}, Description{Regions: [NumRegions]Region{0: {
		Size: 8,
		Write: func(uint64, []byte) error {
			if writes++; writes == 1 {
				<-asked
			}
			for begin := time.Now(); time.Since(begin) < 10*time.Microsecond; {
			}
			return nil
		},
	}}})
	other, _ := busy.plain(Description{Regions: [NumRegions]Region{0: {
		Size: 8,
		Read: func(uint64, []byte) error { seen = writes; return nil },
	}}})
	a, z := busy.attach(), other.attach()
	all := slices.Repeat([]codec.RegionAccess{writeOf(0, 0, 1)}, n)
	a.write(a.frame(codec.CmdRegionWriteMulti, 0, writeMultiOf(all...)))
	z.write(z.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 8)))
	close(asked)
	if _, reply, _ := a.read(); !bytes.Equal(reply, u64(n)) {
		t.Errorf("reply %x, want %d writes", reply, n)
	}
	z.read()
	busy.do(func() {
		if seen == n {
			t.Error("the other client had to wait for all of the writes")
		}
	})
}

func TestDevicePanicInResetCostsTheSessionOnly(t *testing.T) {
	b, d := newPlainBed(t, Config{}, Description{})
	b.do(func() { d.reset = func() { panic("reset") } })
	conn := b.attach()
	conn.write(conn.frame(codec.CmdReset, 0, nil))
	conn.ends()
	b.settled()
	b.attach()
}

func TestDevicePanicInWriteMultiCostsTheSessionOnly(t *testing.T) {
	b, d := newPlainBed(t, Config{}, Description{Regions: [NumRegions]Region{0: {
		Size:  8,
		Write: func(off uint64, _ []byte) error { panic(off) },
	}}})
	conn := b.attach()
	conn.write(conn.frame(codec.CmdRegionWriteMulti, 0, writeMultiOf(writeOf(0, 0, 1))))
	conn.ends()
	<-(<-d.sessions).Context().Done()
	b.settled()
	b.attach()
}
