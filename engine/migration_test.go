package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/irq"
	"vfiouser/pci"
)

// movable is the test device with a state that can be moved: BAR0 and bulk.
type movable struct {
	*testDevice
	bulk   []byte
	save   func(s *Session, w io.Writer) error // replaces SaveState
	load   func(s *Session, r io.Reader) error // replaces LoadState
	loaded uint32                              // version
}

func (d *movable) Describe() (Description, error) {
	desc, err := d.testDevice.Describe()
	desc.StateVersion = 3
	desc.ConfigWritten = func(what pci.Changed) { d.note(fmt.Sprintf("config %d", what)) }
	return desc, err
}

func (d *movable) SaveState(s *Session, w io.Writer) error {
	if d.save != nil {
		return d.save(s, w)
	}
	if _, err := w.Write(d.mem[:]); err != nil {
		return err
	}
	_, err := w.Write(d.bulk)
	return err
}

func (d *movable) LoadState(s *Session, version uint32, r io.Reader) error {
	d.loaded = version
	if d.load != nil {
		return d.load(s, r)
	}
	if _, err := io.ReadFull(r, d.mem[:]); err != nil {
		return err
	}
	var err error
	d.bulk, err = io.ReadAll(r)
	return err
}

// preMovable writes the rounds that it is given, and then what movable writes.
type preMovable struct {
	movable
	rounds []string
	fail   error
	round  func(s *Session) error // replaces PreCopy
	end    func(s *Session)       // replaces EndPreCopy
}

func (d *preMovable) PreCopy(s *Session, round int, w io.Writer) error {
	if d.round != nil {
		return d.round(s)
	}
	d.note(fmt.Sprintf("round %d", round))
	if round >= len(d.rounds) {
		return d.fail
	}
	_, err := io.WriteString(w, d.rounds[round])
	return err
}

func (d *preMovable) EndPreCopy(s *Session) {
	if d.end != nil {
		d.end(s)
	}
	d.note("end of rounds")
}

// host gives a device an endpoint of its own on the bed's engine.
func (b *bed) host(d Device, own *testDevice) *bed {
	b.t.Helper()
	nb := &bed{t: b.t, engine: b.engine, device: own, fenced: true, path: b.path + fmt.Sprintf("%p", d)}
	var err error
	if nb.ep, err = b.engine.Register(nb.path, d); err != nil {
		b.t.Fatal(err)
	}
	if err := nb.ep.Start(); err != nil {
		b.t.Fatal(err)
	}
	return nb
}

func newMovable(t testing.TB, b *bed) (*bed, *movable) {
	d := &movable{testDevice: &testDevice{gone: make(chan struct{}, 1000), shared: memfd(t, 16384)}}
	return b.host(d, d.testDevice), d
}

func newPreMovable(t testing.TB, b *bed) (*bed, *preMovable) {
	d := &preMovable{movable: movable{testDevice: &testDevice{gone: make(chan struct{}, 1000), shared: memfd(t, 16384)}}}
	return b.host(d, d.testDevice), d
}

func featureMsg(argsz uint32, flags codec.FeatureFlags, data ...byte) []byte {
	return append(u32(argsz, uint32(flags)), data...)
}

func setState(to codec.MigState) []byte {
	return featureMsg(16, codec.FeatureMigDeviceState|codec.FeatureSet, to.Append(nil)...)
}

func (c *raw) goTo(to codec.MigState) {
	c.t.Helper()
	if got := c.ok(codec.CmdDeviceFeature, setState(to)); !bytes.Equal(got, setState(to)) {
		c.t.Fatalf("reply %x to a change of state, which is to echo it", got)
	}
	c.in(to)
}

// bell is the eventfd of BAR0.
func (c *raw) bell() int {
	c.t.Helper()
	h, _, fds := c.call(codec.CmdGetRegionIOFDs, ioFDs(4096, 0))
	if h.Err() != nil || len(fds) != 1 {
		c.t.Fatal(h.Err(), len(fds))
	}
	c.t.Cleanup(func() { _ = unix.Close(fds[0]) })
	return fds[0]
}

// in checks the state.
func (c *raw) in(want codec.MigState) {
	c.t.Helper()
	got := c.ok(codec.CmdDeviceFeature, featureMsg(16, codec.FeatureMigDeviceState|codec.FeatureGet))
	if !bytes.Equal(got, featureMsg(16, codec.FeatureMigDeviceState|codec.FeatureGet, want.Append(nil)...)) {
		c.t.Fatalf("state %x, want %v", got[8:], want)
	}
}

// take reads migration data until it is told that there is no more, n bytes at a time.
func (c *raw) take(n uint32) (data []byte) {
	c.t.Helper()
	for {
		reply := c.ok(codec.CmdMigDataRead, u32(8+n, n))
		if !bytes.Equal(reply[:8], u32(uint32(len(reply)), uint32(len(reply)-8))) {
			c.t.Fatalf("reply of %d bytes begins with %x", len(reply), reply[:8])
		}
		data = append(data, reply[8:]...)
		if len(reply)-8 < int(n) {
			return data
		}
	}
}

func migWrite(data []byte) []byte {
	return append(u32(uint32(8+len(data)), uint32(len(data))), data...)
}

// give writes migration data, n bytes at a time.
func (c *raw) give(data []byte, n int) {
	c.t.Helper()
	for part := range slices.Chunk(data, n) {
		if reply := c.ok(codec.CmdMigDataWrite, migWrite(part)); len(reply) != 0 {
			c.t.Fatalf("%d bytes in a reply that has no payload", len(reply))
		}
	}
}

var migLetters = "ESRCUrPp" // by state: ERROR STOP RUNNING STOP_COPY RESUMING, P2P, PRE_COPY, P2P

// migPaths says how to get from a state (row) to another (column): "-" not at all, "=" it
// is there already. Columns are E S R C U r P p.
var migPaths = map[bool]string{
	true: `
		E:  -   -   -   -   -   -   -   -
		S:  -   =   R   C   U   -   RP  -
		R:  -   S   =   SC  SU  -   P   -
		C:  -   S   SR  =   SU  -   -   -
		U:  -   S   SR  SC  =   -   SRP -
		r:  -   -   -   -   -   =   -   -
		P:  -   RS  R   C   RSU -   =   -
		p:  -   -   -   -   -   -   -   =`,
	false: `
		E:  -   -   -   -   -   -   -   -
		S:  -   =   R   C   U   -   -   -
		R:  -   S   =   SC  SU  -   -   -
		C:  -   S   SR  =   SU  -   -   -
		U:  -   S   SR  SC  =   -   -   -
		r:  -   -   -   -   -   =   -   -
		P:  -   RS  R   C   RSU -   =   -
		p:  -   -   -   -   -   -   -   =`,
}

func eachMigPath(preCopy bool, f func(from, to codec.MigState, want string)) {
	for line := range strings.Lines(strings.TrimSpace(migPaths[preCopy])) {
		fields := strings.Fields(line)
		for i, want := range fields[1:] {
			f(codec.MigState(strings.IndexByte(migLetters, fields[0][0])), codec.MigState(i), want)
		}
	}
}

func TestMigrationTakesTheShortestPath(t *testing.T) {
	for _, preCopy := range []bool{true, false} {
		n := 0
		eachMigPath(preCopy, func(from, to codec.MigState, want string) {
			n++
			path, ok := migrationPath(from, to, preCopy)
			got := ""
			for _, s := range path {
				got += migLetters[s : s+1]
			}
			switch {
			case !ok:
				got = "-"
			case got == "":
				got = "="
			}
			if got != want {
				t.Errorf("from %v to %v, PRE_COPY %v: %s, want %s", from, to, preCopy, got, want)
			}
		})
		if n != 64 {
			t.Errorf("%d pairs of states in the table", n)
		}
	}
}

// TestStatesAreReachedOverTheWire walks all pairs of states that a device can be in, and
// sees that its data path is held in all but RUNNING and PRE_COPY.
func TestStatesAreReachedOverTheWire(t *testing.T) {
	b := newBed(t, Config{})
	for _, preCopy := range []bool{true, false} {
		nb, d := newMovable(t, b)
		if preCopy {
			var p *preMovable
			nb, p = newPreMovable(t, b)
			d = &p.movable
		}
		conn := nb.attach()
		eachMigPath(preCopy, func(from, to codec.MigState, want string) {
			switch {
			case from == codec.MigError, from == codec.MigRunningP2P, from == codec.MigPreCopyP2P:
				return // no way to be there
			case from == codec.MigPreCopy && !preCopy:
				return
			}
			t.Run(fmt.Sprintf("%v to %v, PRE_COPY %v", from, to, preCopy), func(t *testing.T) {
				conn.t = t
				conn.ok(codec.CmdReset, nil)
				conn.in(codec.MigRunning)
				conn.goTo(from)
				if want == "-" {
					conn.fails(unix.EINVAL, codec.CmdDeviceFeature, setState(to))
					conn.in(from)
					return
				}
				conn.goTo(to)
				calls := slices.DeleteFunc(d.noted(), func(s string) bool { return s != "hold" && s != "go on" })
				held := len(calls) > 0 && calls[len(calls)-1] == "hold"
				if held != (to != codec.MigRunning && to != codec.MigPreCopy) {
					t.Errorf("data path is held: %v", held)
				}
			})
		})
	}
}

func TestFeatures(t *testing.T) {
	b := newBed(t, Config{})
	plain := b.attach()
	mb, _ := newMovable(t, b)
	pb, _ := newPreMovable(t, b)
	stop, pre := mb.attach(), pb.attach()
	const get, set, probe = codec.FeatureGet, codec.FeatureSet, codec.FeatureProbe
	const migration, state = codec.FeatureMigration, codec.FeatureMigDeviceState
	const start, report = codec.FeatureDMALoggingStart, codec.FeatureDMALoggingReport
	running := codec.MigRunning.Append(nil)
	for _, c := range []struct {
		name string
		conn *raw
		req  []byte
		want []byte // nil: refused with EINVAL
	}{
		{"MIGRATION of a device with PRE_COPY", pre, featureMsg(16, migration|get), featureMsg(16, migration|get, u64(5)...)},
		{"MIGRATION of a device without PRE_COPY", stop, featureMsg(16, migration|get), featureMsg(16, migration|get, u64(1)...)},
		{"argsz of a GET is that of the reply", stop, featureMsg(4096, migration|get), featureMsg(16, migration|get, u64(1)...)},
		{"GET without room for the data", stop, featureMsg(15, migration|get), nil},
		{"MIGRATION of a device that is not a Migrator", plain, featureMsg(16, migration|get), nil},
		{"PROBE of a device that is not a Migrator", plain, featureMsg(8, state|probe), nil},
		{"SET of MIGRATION", stop, featureMsg(16, migration|set, u64(1)...), nil},
		{"state", stop, featureMsg(16, state|get), featureMsg(16, state|get, running...)},
		{"same state", stop, featureMsg(16, state|set, running...), featureMsg(16, state|set, running...)},
		{"larger argsz of a SET is echoed", stop, featureMsg(99, state|set, running...), featureMsg(99, state|set, running...)},
		{"SET with an argsz that is smaller than the request", stop, featureMsg(15, state|set, running...), nil},
		{"SET without data", stop, featureMsg(8, state|set), nil},
		{"a state that is not there", stop, featureMsg(16, state|set, u32(8, 0)...), nil},
		{"PROBE", stop, featureMsg(8, state|probe), featureMsg(8, state|probe)},
		{"PROBE of GET", stop, featureMsg(8, state|probe|get), featureMsg(8, state|probe|get)},
		{"PROBE of GET and SET", stop, featureMsg(8, state|probe|get|set), featureMsg(8, state|probe|get|set)},
		{"PROBE of GET and SET where there is no SET", stop, featureMsg(8, migration|probe|get|set), nil},
		{"PROBE with data does nothing", stop, featureMsg(16, state|probe|set, codec.MigStop.Append(nil)...), featureMsg(16, state|probe|set, codec.MigStop.Append(nil)...)},
		{"PROBE with an argsz that is smaller than the request", stop, featureMsg(8, state|probe|set, running...), nil},
		{"GET and SET", stop, featureMsg(16, state|get|set, running...), nil},
		{"no operation", stop, featureMsg(16, state), nil},
		{"unknown operation", stop, featureMsg(16, state|get|1<<19), nil},
		{"unknown feature", stop, featureMsg(16, 5|get), nil},
		{"PROBE of an unknown feature", stop, featureMsg(16, 99|probe), nil},
		{"argsz below the head", stop, featureMsg(7, state|probe), nil},
		{"a payload that is cut", stop, u32(8), nil},
		{"logging is for every device", plain, featureMsg(8, start|probe|set), featureMsg(8, start|probe|set)},
		{"GET of logging", plain, featureMsg(64, start|get), nil},
		{"REPORT while nothing is logged", plain, featureMsg(40, report|get, u64(0, 4096, 4096)...), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.conn.t = t
			if c.want == nil {
				c.conn.fails(unix.EINVAL, codec.CmdDeviceFeature, c.req)
				return
			}
			if got := c.conn.ok(codec.CmdDeviceFeature, c.req); !bytes.Equal(got, c.want) {
				t.Errorf("reply %x, want %x", got, c.want)
			}
		})
	}
	stop.in(codec.MigRunning)
}

// TestStateMoves: what a client sees of a device, and which interrupts it waits for, is
// the same at the destination.
func TestStateMoves(t *testing.T) {
	b := newBed(t, Config{})
	sb, src := newMovable(t, b)
	db, dst := newMovable(t, b)
	src.bulk = bytes.Repeat([]byte("bulk"), 100_000)
	from, to := sb.attach(), db.attach()

	from.poke(0, 8, []byte("register")...)
	from.poke(7, pciCommand, 6, 0)
	from.ok(codec.CmdSetIRQs, setIRQs(codec.IRQSetDataNone|codec.IRQSetActionMask, uint32(irq.MSIX), 1, 1))
	sb.do(func() {
		for _, n := range []int{1, 2} {
			if err := src.session().IRQ().Vector(irq.MSIX, n).Trigger(); err != nil {
				t.Error(err)
			}
		}
	})
	var fds [irqMSIX]int
	for n := range fds {
		fds[n] = to.listen(irq.MSIX, uint32(n))
	}

	from.goTo(codec.MigStopCopy)
	stream := from.take(64 << 10)
	if more := from.take(100); len(more) != 0 {
		t.Errorf("%d bytes behind the end", len(more))
	}
	to.goTo(codec.MigResuming)
	to.give(stream, 10_007)
	to.goTo(codec.MigStop)
	if fired(fds[2]) {
		t.Error("an interrupt fires in STOP")
	}
	to.goTo(codec.MigRunning)
	if !bytes.Equal(to.peek(0, 8, 8), []byte("register")) || !bytes.Equal(dst.bulk, src.bulk) {
		t.Error("the device's state differs")
	}
	from.goTo(codec.MigRunning)
	if !bytes.Equal(to.peek(7, 0, 256), from.peek(7, 0, 256)) {
		t.Error("the configuration spaces differ")
	}
	if dst.loaded != 3 {
		t.Errorf("loaded a state of version %d", dst.loaded)
	}
	if !slices.Contains(dst.noted(), "config 1") {
		t.Errorf("the device was not told of its configuration space: %v", dst.noted())
	}
	for n, want := range []bool{false, false, true, false} {
		if fired(fds[n]) != want {
			t.Errorf("vector %d has fired: %v", n, !want)
		}
	}
	to.ok(codec.CmdSetIRQs, setIRQs(codec.IRQSetDataNone|codec.IRQSetActionUnmask, uint32(irq.MSIX), 1, 1))
	if !fired(fds[1]) {
		t.Error("what was masked and pending is lost")
	}
	// The source can go on as if nothing had been.
	if !bytes.Equal(from.peek(0, 8, 8), []byte("register")) {
		t.Error("the source has lost its state")
	}
}

func TestRegionsAreClosedWhileStateIsMoved(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newPreMovable(t, b)
	conn := nb.attach()
	fd := conn.bell()
	for _, c := range []struct {
		state codec.MigState
		open  bool
	}{
		{codec.MigPreCopy, true}, {codec.MigStopCopy, false}, {codec.MigStop, true}, {codec.MigResuming, false}, {codec.MigRunning, true},
	} {
		conn.goTo(c.state)
		before := len(d.noted())
		ring(t, fd)
		if c.open {
			conn.peek(0, 0, 4)
			conn.poke(0, 0, 1)
			conn.peek(7, 0, 4)
		} else {
			conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(0, 0, 4))
			conn.fails(unix.EINVAL, codec.CmdRegionWrite, regionWrite(0, 0, 1))
			conn.fails(unix.EINVAL, codec.CmdRegionRead, regionRead(7, 0, 4))
			nb.do(func() {})
			if slices.Contains(d.noted()[before:], "bell") {
				t.Errorf("%v: an ioeventfd reaches the device", c.state)
			}
			continue
		}
		eventually(t, "ioeventfd", func() bool { return slices.Contains(d.noted()[before:], "bell") })
		// Memory and interrupts are the client's in every state.
		conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x100000, 4096))
		conn.ok(codec.CmdDMAUnmap, dmaUnmap(0, 0x100000, 4096))
	}
}

func TestPreCopyComesInRounds(t *testing.T) {
	b := newBed(t, Config{})
	sb, src := newPreMovable(t, b)
	src.rounds = []string{strings.Repeat("first", 50_000), "second"}
	from := sb.attach()
	from.goTo(codec.MigPreCopy)
	var sizes []int
	var stream []byte
	for range 3 {
		round := from.take(32 << 10)
		stream, sizes = append(stream, round...), append(sizes, len(round))
	}
	// Identity and data, data alone, nothing new.
	records := (250_000 + maxRecord - 1) / maxRecord
	if want := []int{250_000 + records*recordHeader + recordHeader + identitySize, 6 + recordHeader, 0}; !slices.Equal(sizes, want) {
		t.Errorf("rounds of %v bytes, want %v", sizes, want)
	}
	from.goTo(codec.MigStopCopy)
	stream = append(stream, from.take(32<<10)...)
	if calls := src.noted(); slices.Contains(calls, "end of rounds") {
		t.Errorf("rounds end before the state is read: %v", calls)
	}
	from.goTo(codec.MigStop)
	want := []string{"new", "round 0", "round 1", "round 2", "hold", "end of rounds"}
	if calls := src.noted(); !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}

	var got []byte
	db, dst := newPreMovable(t, b)
	dst.load = func(_ *Session, r io.Reader) (err error) { got, err = io.ReadAll(r); return err }
	to := db.attach()
	to.goTo(codec.MigResuming)
	to.give(stream, 99_999)
	to.goTo(codec.MigRunning)
	if want := src.rounds[0] + src.rounds[1] + string(src.mem[:]); string(got) != want {
		t.Errorf("%d bytes were loaded, want %d", len(got), len(want))
	}
}

// A client may stop the device at any time: what it has not read of a round comes first.
func TestStopCopyGoesOnInTheSameStream(t *testing.T) {
	b := newBed(t, Config{})
	sb, src := newPreMovable(t, b)
	src.rounds = []string{strings.Repeat("r", 300_000)}
	from := sb.attach()
	for _, read := range []uint32{0, 1, 1000, 250_000} {
		src.mem[0] = byte(read)
		from.goTo(codec.MigPreCopy)
		var stream []byte
		if read > 0 {
			stream = from.ok(codec.CmdMigDataRead, u32(8+read, read))[8:]
		}
		from.goTo(codec.MigStopCopy)
		stream = append(stream, from.take(50_000)...)
		var got []byte
		db, dst := newPreMovable(t, b)
		dst.load = func(_ *Session, r io.Reader) (err error) { got, err = io.ReadAll(r); return err }
		to := db.attach()
		to.goTo(codec.MigResuming)
		to.give(stream, 1<<20)
		to.goTo(codec.MigRunning)
		want := src.rounds[0] + string(src.mem[:])
		if read == 0 {
			want = string(src.mem[:]) // no round has begun
		}
		if string(got) != want {
			t.Errorf("%d bytes read in PRE_COPY: %d bytes loaded, want %d", read, len(got), len(want))
		}
		to.close()
		from.goTo(codec.MigRunning)
	}
}

func TestMigrationDataIsBounded(t *testing.T) {
	b := newBed(t, Config{MaxMigrationData: 10_000})
	nb, d := newMovable(t, b)
	d.load = func(_ *Session, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	small := nb.dial()
	small.ok(codec.CmdVersion, version(1, `{"max_data_xfer_size":1000}`))
	for _, c := range []struct {
		name  string
		state codec.MigState
		cmd   codec.Command
		data  []byte
		errno unix.Errno
	}{
		{"read while it runs", codec.MigRunning, codec.CmdMigDataRead, u32(108, 100), unix.EINVAL},
		{"write while it runs", codec.MigRunning, codec.CmdMigDataWrite, migWrite([]byte("x")), unix.EINVAL},
		{"read while it is stopped", codec.MigStop, codec.CmdMigDataRead, u32(108, 100), unix.EINVAL},
		{"read while it resumes", codec.MigResuming, codec.CmdMigDataRead, u32(108, 100), unix.EINVAL},
		{"write while it is copied", codec.MigStopCopy, codec.CmdMigDataWrite, migWrite([]byte("x")), unix.EINVAL},
		{"read of nothing", codec.MigStopCopy, codec.CmdMigDataRead, u32(8, 0), 0},
		{"read of as much as was negotiated", codec.MigStopCopy, codec.CmdMigDataRead, u32(1008, 1000), 0},
		{"read of more than was negotiated", codec.MigStopCopy, codec.CmdMigDataRead, u32(1009, 1001), unix.EINVAL},
		{"read of all there is", codec.MigStopCopy, codec.CmdMigDataRead, u32(^uint32(0), ^uint32(0)), unix.EINVAL},
		{"read with a small argsz", codec.MigStopCopy, codec.CmdMigDataRead, u32(107, 100), unix.EINVAL},
		{"read with a large argsz", codec.MigStopCopy, codec.CmdMigDataRead, u32(5000, 100), 0},
		{"a request that is cut", codec.MigStopCopy, codec.CmdMigDataRead, u32(8), unix.EINVAL},
		{"write of nothing", codec.MigResuming, codec.CmdMigDataWrite, u32(8, 0), 0},
		{"write of more than was negotiated", codec.MigResuming, codec.CmdMigDataWrite, migWrite(make([]byte, 1001)), unix.EINVAL},
		{"write with a small argsz", codec.MigResuming, codec.CmdMigDataWrite, append(u32(8, 1), 1), unix.EINVAL},
		{"write with less data than it says", codec.MigResuming, codec.CmdMigDataWrite, append(u32(10, 2), 1), unix.EINVAL},
	} {
		t.Run(c.name, func(t *testing.T) {
			small.t = t
			small.ok(codec.CmdReset, nil)
			small.goTo(c.state)
			if c.errno != 0 {
				small.fails(c.errno, c.cmd, c.data)
			} else {
				small.ok(c.cmd, c.data)
			}
			small.in(c.state)
		})
	}
	small.t = t

	// A stream that never ends.
	var records bytes.Buffer
	w := recordWriter{out: func(r []byte) error { records.Write(r); return nil }}
	w.put(recordIdentity, identityOf(nb.ep).append(nil))
	for range 12 {
		_, _ = w.Write(make([]byte, 1000-recordHeader))
		w.flush()
	}
	small.ok(codec.CmdReset, nil)
	small.goTo(codec.MigResuming)
	small.give(records.Next(10_000), 1000)
	small.fails(unix.EFBIG, codec.CmdMigDataWrite, migWrite(records.Next(1)))
	small.fails(unix.EINVAL, codec.CmdDeviceFeature, setState(codec.MigStop))
	small.in(codec.MigError)
	small.ok(codec.CmdReset, nil)
	small.in(codec.MigRunning)
}

var errTest = fmt.Errorf("test: %w", unix.EDOM)

func TestDeviceThatCannotSaveGoesOn(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newPreMovable(t, b)
	conn := nb.attach()
	d.fail = errTest
	conn.goTo(codec.MigPreCopy)
	conn.fails(unix.EDOM, codec.CmdMigDataRead, u32(1008, 1000))
	conn.fails(unix.EDOM, codec.CmdMigDataRead, u32(1008, 1000))
	conn.goTo(codec.MigRunning)
	d.save = func(_ *Session, w io.Writer) error {
		_, _ = w.Write(make([]byte, 200_000))
		return errors.New("no errno")
	}
	conn.goTo(codec.MigStopCopy)
	conn.ok(codec.CmdMigDataRead, u32(100_008, 100_000))
	conn.fails(unix.EIO, codec.CmdMigDataRead, u32(200_008, 200_000))
	conn.goTo(codec.MigRunning)
	conn.poke(0, 0, 1)
	if calls := d.noted(); slices.Contains(calls, "reset") {
		t.Errorf("calls %v: nothing was wrong with the device", calls)
	}
}

// A client that gives up in the middle finds the device as it was, and the device's
// methods have returned before the client is told so.
func TestClientThatGivesUpInTheMiddle(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newPreMovable(t, b)
	conn := nb.attach()
	d.rounds = []string{strings.Repeat("x", 1<<20)}
	inside := false
	d.save = func(_ *Session, w io.Writer) error {
		inside = true
		_, err := w.Write(make([]byte, 1<<20))
		if !errors.Is(err, unix.ECANCELED) {
			t.Errorf("a write for nobody: %v", err)
		}
		inside = false
		return err
	}
	d.load = func(_ *Session, r io.Reader) error {
		inside = true
		_, err := io.Copy(io.Discard, r)
		if !errors.Is(err, unix.ECANCELED) {
			t.Errorf("a read from nobody: %v", err)
		}
		inside = false
		return err
	}
	var records bytes.Buffer
	w := recordWriter{out: func(r []byte) error { records.Write(r); return nil }}
	w.put(recordIdentity, identityOf(nb.ep).append(nil))
	_, _ = w.Write(make([]byte, 1000))
	w.flush()
	for _, from := range []codec.MigState{codec.MigPreCopy, codec.MigStopCopy, codec.MigResuming} {
		for _, how := range []string{"reset", "run"} {
			conn.goTo(from)
			if from == codec.MigResuming {
				if how == "run" {
					conn.goTo(codec.MigRunning) // nothing was written, so nothing is missing
					continue
				}
				conn.give(records.Bytes(), 1<<20)
			} else {
				conn.ok(codec.CmdMigDataRead, u32(100_008, 100_000))
				if from == codec.MigStopCopy && !inside {
					t.Error("the device was not asked to save anything")
				}
			}
			if how == "reset" {
				conn.ok(codec.CmdReset, nil)
			} else {
				conn.goTo(codec.MigRunning)
			}
			if inside {
				t.Errorf("%v, %s: the device is still at it", from, how)
			}
			conn.in(codec.MigRunning)
			conn.poke(0, 0, 1)
		}
	}
	ends := 0
	for _, c := range d.noted() {
		if c == "end of rounds" {
			ends++
		}
	}
	if ends != 2 {
		t.Errorf("%d times the rounds have ended, they began twice", ends)
	}
}

// TestClientHangsUpInTheMiddle: the next client finds a device that works, reset if it has
// half of a state.
func TestClientHangsUpInTheMiddle(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newPreMovable(t, b)
	d.rounds = []string{strings.Repeat("x", 1<<20)}
	valid := func() []byte {
		conn := nb.attach()
		conn.goTo(codec.MigStopCopy)
		stream := conn.take(1 << 20)
		conn.close()
		nb.settled()
		return stream
	}()
	for _, c := range []struct {
		state codec.MigState
		data  []byte
		reset bool
	}{
		{codec.MigStop, nil, false}, {codec.MigPreCopy, nil, false}, {codec.MigStopCopy, nil, false},
		{codec.MigResuming, nil, false}, {codec.MigResuming, valid[:1000], true}, {codec.MigResuming, valid, true}, {codec.MigResuming, []byte("no record at all"), true},
	} {
		d.mem[0] = 7
		before := len(d.noted())
		conn := nb.attach()
		conn.goTo(c.state)
		switch {
		case c.state == codec.MigResuming && c.data != nil:
			conn.call(codec.CmdMigDataWrite, migWrite(c.data))
		case c.state == codec.MigPreCopy || c.state == codec.MigStopCopy:
			conn.ok(codec.CmdMigDataRead, u32(108, 100))
		}
		conn.close()
		nb.settled()
		calls := d.noted()[before:]
		if slices.Contains(calls, "reset") != c.reset || calls[len(calls)-1] != "destroy" {
			t.Errorf("%v, %d bytes written: calls %v", c.state, len(c.data), calls)
		}
		next := nb.attach()
		next.in(codec.MigRunning)
		if got := next.peek(0, 0, 1)[0]; (got == 7) == c.reset {
			t.Errorf("%v, %d bytes written: register %d", c.state, len(c.data), got)
		}
		next.close()
		nb.settled()
	}
}

// A change of state is answered when it is complete, and nothing is served meanwhile.
func TestStateIsReachedBeforeTheReply(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newMovable(t, b)
	conn := nb.attach()
	held := make(chan func(), 1)
	d.onHold(func(done func()) { held <- done })
	conn.write(conn.frame(codec.CmdDeviceFeature, 0, setState(codec.MigStop)))
	conn.write(conn.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 1)))
	done := <-held
	nb.do(func() {
		if s := d.session(); !s.backlog.pending || s.migration.state != codec.MigRunning {
			t.Errorf("state %v before the data path is held", s.migration.state)
		}
	})
	d.onHold(nil)
	done()
	for _, want := range []codec.Command{codec.CmdDeviceFeature, codec.CmdRegionRead} {
		if h, _, _ := conn.read(); h.Command != want || h.Err() != nil {
			t.Errorf("reply %+v, want one to %v", h, want)
		}
	}
	conn.in(codec.MigStop)
}

// The client goes while the data path is not yet held, or while the device is at work.
func TestClientGoesDuringATransition(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newMovable(t, b)
	conn := nb.attach()
	held := make(chan func(), 1)
	d.onHold(func(done func()) { held <- done })
	conn.write(conn.frame(codec.CmdDeviceFeature, 0, setState(codec.MigStop)))
	done := <-held
	d.onHold(nil)
	conn.close()
	done()
	nb.settled()

	working := make(chan struct{})
	d.save = func(s *Session, _ io.Writer) error {
		close(working)
		<-s.Context().Done()
		return s.Context().Err()
	}
	conn = nb.attach()
	conn.goTo(codec.MigStopCopy)
	conn.write(conn.frame(codec.CmdMigDataRead, 0, u32(100_008, 100_000)))
	<-working
	conn.close()
	nb.settled()
	nb.attach().in(codec.MigRunning)
}

func TestPanicsOfADeviceThatIsMigrated(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newMovable(t, b)
	d.save = func(_ *Session, w io.Writer) error { _, _ = w.Write([]byte("x")); panic("save") }
	conn := nb.attach()
	conn.goTo(codec.MigStopCopy)
	conn.write(conn.frame(codec.CmdMigDataRead, 0, u32(100_008, 100_000)))
	conn.ends()
	nb.settled()
	d.save = nil
	conn = nb.attach()
	conn.goTo(codec.MigStopCopy)
	stream := conn.take(1 << 20)
	conn.goTo(codec.MigResuming)
	d.load = func(*Session, io.Reader) error { panic("load") }
	conn.write(conn.frame(codec.CmdMigDataWrite, 0, migWrite(stream)))
	conn.ends()
	nb.settled()
	nb.attach().peek(0, 0, 1)
}

// A device may look at guest memory while its state is moved, and the client may truncate
// it: that costs the client its session and no other device anything.
func TestMemoryOfADeviceThatIsMigratedGoes(t *testing.T) {
	b := newBed(t, Config{})
	nb, d := newPreMovable(t, b)
	file := -1
	touch := func(s *Session) error {
		r := s.Memory().NewReader()
		defer r.Close()
		r.Enter()
		mem, err := r.Bytes(0x10000, 1, dma.ProtWrite)
		if err != nil {
			return err
		}
		if err := unix.Ftruncate(file, 0); err != nil {
			return err
		}
		mem[0]++
		return errors.New("memory that is not there was written")
	}
	attach := func() *raw {
		conn := nb.attach()
		file = memfd(t, 0x10000)
		conn.ok(codec.CmdDMAMap, dmaMap(3, 0, 0x10000, 0x10000), file)
		return conn
	}
	conn := attach()
	conn.goTo(codec.MigStopCopy)
	stream := conn.take(1 << 20)
	conn.close()
	nb.settled()

	for _, c := range []struct {
		name string
		to   codec.MigState
		cmd  codec.Command
		msg  []byte
	}{
		{"saved", codec.MigStopCopy, codec.CmdMigDataRead, u32(100_008, 100_000)},
		{"saved in rounds", codec.MigPreCopy, codec.CmdMigDataRead, u32(100_008, 100_000)},
		{"loaded", codec.MigResuming, codec.CmdMigDataWrite, migWrite(stream)},
		{"told that the rounds have ended", codec.MigPreCopy, codec.CmdDeviceFeature, setState(codec.MigRunning)},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := attach()
			conn.goTo(c.to)
			d.save, d.load = func(s *Session, _ io.Writer) error { return touch(s) }, func(s *Session, _ io.Reader) error { return touch(s) }
			d.round, d.end = touch, func(s *Session) { _ = touch(s) }
			conn.write(conn.frame(c.cmd, 0, c.msg))
			conn.ends()
			nb.settled()
			d.save, d.load, d.round, d.end = nil, nil, nil, nil
		})
	}
	nb.attach().in(codec.MigRunning)
}
