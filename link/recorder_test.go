package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// recorded is what a file says of a frame.
type recorded struct {
	iface    uint32
	when     time.Time
	data     []byte
	length   int
	outbound bool
	comment  string
}

// capture is what a file says.
type capture struct {
	interfaces []string
	snaps      []uint32
	frames     []recorded
	taken      []uint64 // by interface
	lost       []uint64
}

// readCapture reads a pcapng file that was written to its end.
func readCapture(t *testing.T, path string) (c capture) {
	t.Helper()
	rest, err := os.ReadFile(path)
	must(t, err)
	le := binary.LittleEndian
	for n := 0; len(rest) > 0; n++ {
		kind, length := le.Uint32(rest), le.Uint32(rest[4:])
		if length%4 != 0 || int(length) > len(rest) || le.Uint32(rest[length-4:]) != length || (n == 0) != (kind == 0x0a0d0d0a) {
			t.Fatalf("block %d of type %#x has %d bytes; %d are left", n, kind, length, len(rest))
		}
		body := rest[8 : length-4]
		rest = rest[length:]
		when := func(p []byte) time.Time {
			return time.Unix(0, int64(uint64(le.Uint32(p))<<32|uint64(le.Uint32(p[4:]))))
		}
		switch kind {
		case 0x0a0d0d0a:
			if le.Uint32(body) != 0x1a2b3c4d || le.Uint32(body[4:]) != 1 {
				t.Errorf("section: %x", body)
			}
		case 1:
			o := options(t, body[8:])
			if le.Uint16(body) != 1 || !bytes.Equal(o[9], []byte{9}) {
				t.Errorf("interface: link type %d, resolution %x", le.Uint16(body), o[9])
			}
			c.interfaces = append(c.interfaces, string(o[2]))
			c.snaps = append(c.snaps, le.Uint32(body[4:]))
		case 6:
			size := le.Uint32(body[12:])
			o := options(t, body[20+(size+3)&^3:])
			c.frames = append(c.frames, recorded{le.Uint32(body), when(body[4:]), body[20:][:size],
				int(le.Uint32(body[16:])), le.Uint32(o[2])&3 == 2, string(o[1])})
		case 5:
			o := options(t, body[12:])
			c.taken, c.lost = append(c.taken, le.Uint64(o[4])), append(c.lost, le.Uint64(o[5]))
		default:
			t.Errorf("block of type %d", kind)
		}
	}
	return c
}

func options(t *testing.T, p []byte) map[uint16][]byte {
	t.Helper()
	found := map[uint16][]byte{}
	for {
		code, n := binary.LittleEndian.Uint16(p), binary.LittleEndian.Uint16(p[2:])
		if code == 0 {
			if len(p) != 4 {
				t.Errorf("%d bytes behind the last option", len(p)-4)
			}
			return found
		}
		found[code] = p[4:][:n]
		p = p[4+(n+3)&^3:]
	}
}

func TestRecordOfBothDirections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lan.pcapng")
	var set link.Set
	l, err := set.Open("pcap:" + path + ",switch:lan")
	must(t, err)
	other, err := set.Open("switch:lan")
	must(t, err)
	a, b := stations(t, l, 1)[0], stations(t, other, 1)[0]
	b.mac = linktest.Station(2)
	before := time.Now()
	a.send(t, linktest.Broadcast, 'a')
	b.send(t, a.mac, 'b')
	big := linktest.Frame{Data: linktest.Ethernet(b.mac, a.mac, make([]byte, 5001)), Header: vnet.Header{
		Flags: vnet.FlagNeedsChecksum, GSOType: vnet.GSOTCP4, GSOSize: 1448, ChecksumStart: 34, ChecksumOffset: 16}}
	sum := linktest.Frame{Data: big.Data[:60], Header: vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16}}
	a.port.Send(0, []vnet.Frame{big.Frame(), sum.Frame()})
	if st := a.port.(link.Counter).Stats(); st.Sent != 3 || st.Received != 1 {
		t.Errorf("counted %+v", st)
	}
	must(t, a.port.Close())
	must(t, l.Close())
	must(t, l.Close())
	after := time.Now()

	c := readCapture(t, path)
	if len(c.interfaces) != 1 || c.interfaces[0] != "switch:lan" || c.snaps[0] != vnet.MaxFrame {
		t.Errorf("interfaces %v, lengths %v", c.interfaces, c.snaps)
	}
	want := []recorded{
		{data: linktest.Ethernet(linktest.Broadcast, a.mac, []byte("a")), outbound: true},
		{data: linktest.Ethernet(a.mac, b.mac, []byte("b"))},
		{data: big.Data, outbound: true, comment: "checksum not filled in, segments of 1448"},
		{data: sum.Data, outbound: true, comment: "checksum not filled in"},
	}
	if len(c.frames) != len(want) {
		t.Fatalf("%d frames", len(c.frames))
	}
	for i, w := range want {
		g := c.frames[i]
		if !bytes.Equal(g.data, w.data) || g.length != len(w.data) || g.outbound != w.outbound || g.comment != w.comment {
			t.Errorf("frame %d: %d of %d bytes, outbound %v, %q", i, len(g.data), g.length, g.outbound, g.comment)
		}
		if g.when.Before(before) || g.when.After(after) {
			t.Errorf("frame %d at %v, not between %v and %v", i, g.when, before, after)
		}
	}
	if len(c.taken) != 1 || c.taken[0] != 4 || c.lost[0] != 0 {
		t.Errorf("interface statistics %v, lost %v", c.taken, c.lost)
	}
}

func TestTcpdumpReadsARecord(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		t.Skip("no tcpdump")
	}
	path := filepath.Join(t.TempDir(), "loop.pcapng")
	r, err := link.Record(link.Loop(), path, link.RecordOptions{})
	must(t, err)
	_, port := attach(t, r)
	port.Send(0, linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(1), make([]byte, 46))))
	must(t, r.Close())
	out, err := exec.Command(tcpdump, "--nano", "-tt", "-e", "-n", "-r", path).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 1+2*4 || !strings.Contains(lines[1], "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff") ||
		!strings.Contains(lines[1], "length 60") || strings.HasPrefix(lines[1], "0") {
		t.Errorf("%v\n%s", err, out)
	}
	if stamp, _, _ := strings.Cut(lines[1], " "); len(stamp) != len("1700000000.123456789") {
		t.Errorf("time stamp %s", stamp)
	}
}

func TestARecordHoldsWhatWasTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	l, err := new(link.Set).Open("pcap:" + path + ",snap=20,loop")
	must(t, err)
	card, port := attach(t, l)
	card.OnReceive = func(int, []vnet.Frame) int { return 1 }
	frame := linktest.Ethernet(linktest.Broadcast, linktest.Station(1), []byte("some payload"))
	for range 2 { // the second one is offered again, before a third
		if n := port.Send(0, linktest.Frames(frame, frame)); n != 1 {
			t.Errorf("%d taken", n)
		}
	}
	must(t, port.Close())
	must(t, l.Close())
	c := readCapture(t, path)
	way := ""
	for _, f := range c.frames {
		way += map[bool]string{false: "<", true: ">"}[f.outbound]
	}
	if way != ">><><" || c.snaps[0] != 20 {
		t.Fatalf("%s %+v, want three frames out and two in", way, c)
	}
	for _, f := range c.frames {
		if len(f.data) != 20 || f.length != len(frame) {
			t.Errorf("%d of %d bytes", len(f.data), f.length)
		}
	}
}

func TestEveryCardIsAnInterface(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	r, err := link.Record(link.NewSwitch(link.SwitchConfig{}), path, link.RecordOptions{Name: "lan"})
	must(t, err)
	s := stations(t, r, 2)
	s[1].send(t, linktest.Broadcast, 'x')
	must(t, r.Close())
	c := readCapture(t, path)
	if len(c.interfaces) != 2 || c.interfaces[0] != "lan" || c.interfaces[1] != "lan-1" {
		t.Errorf("interfaces %v", c.interfaces)
	}
	if len(c.frames) != 2 || c.frames[0].iface != 1 || !c.frames[0].outbound || c.frames[1].iface != 0 || c.frames[1].outbound {
		t.Errorf("frames %+v", c.frames)
	}
}

func TestNamesOfInterfacesAreBounded(t *testing.T) {
	for name, want := range map[string]string{strings.Repeat("x", 70_000): strings.Repeat("x", 255), "a\xff\xfe": "a?", "": "card"} {
		path := filepath.Join(t.TempDir(), "f")
		r, err := link.Record(link.Loop(), path, link.RecordOptions{Name: name, Snap: 1, Buffer: 1})
		must(t, err)
		attach(t, r)
		must(t, r.Close())
		if c := readCapture(t, path); len(c.interfaces) != 1 || c.interfaces[0] != want {
			t.Errorf("%.20q is %.300q", name, c.interfaces)
		}
	}
}

// A pipe that nobody reads stands for a slow file.
func TestTheDataPathDoesNotWaitForTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	must(t, unix.Mkfifo(path, 0o600))
	pipe, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(pipe)
	_, err = unix.FcntlInt(uintptr(pipe), unix.F_SETPIPE_SZ, 4096) // less than a buffer
	must(t, err)
	r, err := link.Record(link.Null(), path, link.RecordOptions{Buffer: 1 << 16, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	_, port := attach(t, r)
	frames := linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(1), make([]byte, 1400)))
	const n = 1000
	for range n {
		if port.Send(0, frames) != 1 {
			t.Fatal("a frame was not taken")
		}
	}
	if st := r.Stats(); st.Frames != n || st.Lost < n/2 || st.Lost > n-40 {
		t.Errorf("counted %+v", st)
	}
	if err := r.Close(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
}

func TestNamedPipesAreReadLive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	must(t, unix.Mkfifo(path, 0o600))
	r, err := link.Record(link.Null(), path, link.RecordOptions{})
	must(t, err)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	attach(t, r)
	head := make([]byte, 4)
	if _, err := f.Read(head); err != nil || !bytes.Equal(head, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		t.Errorf("%v, %x", err, head)
	}
	must(t, r.Close())
}

func TestAFullDiskEndsTheRecordAndNothingElse(t *testing.T) {
	r, err := link.Record(link.Loop(), "/dev/full", link.RecordOptions{Buffer: 1 << 16, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	card, port := attach(t, r)
	frames := linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(1), make([]byte, 1400)))
	for range 1000 {
		port.Send(0, frames)
	}
	if n := len(card.Take()); n != 1000 {
		t.Errorf("%d frames came back", n)
	}
	if err := r.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
}

// What did fit on a disk that has become full can be read: the file ends with a whole block.
func TestAFullDiskHoldsWholeFrames(t *testing.T) {
	runtime.LockOSThread() // for good: it has a disk that nobody else sees
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		unavailable(t, "a mount namespace", err)
	}
	dir := t.TempDir()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("disk", dir, "tmpfs", 0, "size=64k"))
	r, err := link.Record(link.Null(), dir+"/f", link.RecordOptions{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	_, port := attach(t, r)
	for range 200 {
		port.Send(0, linktest.Frames(make([]byte, 1001)))
	}
	if err := r.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
	if n := len(readCapture(t, dir+"/f").frames); n < 40 || n > 64 {
		t.Errorf("%d frames are in the file", n)
	}
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
}

func TestWhatCannotBeRecorded(t *testing.T) {
	dir := t.TempDir()
	first, err := link.Record(link.Loop(), dir+"/taken", link.RecordOptions{})
	must(t, err)
	for _, c := range []struct {
		spec string
		want error
	}{
		{"pcap", link.ErrSpec},
		{"pcap:file", link.ErrSpec},
		{"pcap:,loop", link.ErrSpec},
		{"pcap:" + dir + "/a,snap=0,loop", link.ErrSpec},
		{"pcap:" + dir + "/a,snap=x,loop", link.ErrSpec},
		{"pcap:" + dir + "/a,nothing", link.ErrSpec},
		{"pcap:" + dir + "/taken,loop", link.ErrBusy},
		{"pcap:" + dir + "/none/a,loop", unix.ENOENT},
		{"pcap:" + dir + ",loop", unix.EISDIR},
	} {
		if _, err := new(link.Set).Open(c.spec); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.spec, err, c.want)
		}
	}
	if _, err := os.Stat(dir + "/a"); err == nil {
		t.Error("a file was made for nothing")
	}
	must(t, first.Close())
	again, err := link.Record(link.Loop(), dir+"/taken", link.RecordOptions{})
	must(t, err)
	must(t, again.Close())
}

// A guest's memory may fault while it is recorded: the frame is not there, all else goes on.
func TestAFaultWhileRecording(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	r, err := link.Record(link.Null(), path, link.RecordOptions{})
	must(t, err)
	_, port := attach(t, r)
	good := linktest.Frames(linktest.Ethernet(linktest.Broadcast, linktest.Station(1), []byte("good")))
	bad := linktest.Frames(make([]byte, 60))
	bad[0].Parts = append(bad[0].Parts, faulty(t))
	bad[0].Len += len(bad[0].Parts[1])
	port.Send(0, good)
	faults(t, func() { port.Send(0, bad) })
	port.Send(0, good)
	must(t, r.Close())
	if c := readCapture(t, path); len(c.frames) != 2 || string(c.frames[1].data[14:]) != "good" {
		t.Errorf("%d frames", len(c.frames))
	}
}

func TestRecordingDoesNotAllocate(t *testing.T) {
	r, err := link.Record(link.Null(), filepath.Join(t.TempDir(), "f"), link.RecordOptions{})
	must(t, err)
	_, port := attach(t, r)
	frames := linktest.Frames(make([]byte, 60), make([]byte, 1500))
	frames[0].Header.Flags = vnet.FlagNeedsChecksum
	if n := testing.AllocsPerRun(100, func() { port.Send(0, frames) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	must(t, r.Close())
}
