package trace

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// conversation is a session with a little of everything, at times of its own.
func conversation() []Event {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	at := func(us int, k Kind, c Channel, from Side, data string, d ...Descriptor) Event {
		return Event{1, begin.Add(time.Duration(us) * time.Microsecond), k, c, from, []byte(data), d}
	}
	return []Event{
		at(0, Connect, Main, Client, ""),
		at(10, Data, Main, Client, wire(1, codec.CmdDMAMap, 0, dmaMap...), Descriptor{kindMemfd, 2 << 20}),
		at(20, Data, Main, Client, region(2, codec.CmdRegionRead, 0, 8, 4)),
		at(30, Data, Main, Server, wire(1, codec.CmdDMAMap, codec.FlagReply)),
		at(35, Data, Main, Server, failure(2, codec.CmdRegionRead, unix.EIO)),
		at(40, Data, Main, Client, region(3, codec.CmdRegionWrite, codec.FlagNoReply, 8, 1, 7)),
		at(50, Data, Main, Client, region(3, codec.CmdRegionRead, 0, 8, 1)),
		at(1050, Data, Main, Server, region(3, codec.CmdRegionRead, codec.FlagReply, 8, 1, 9)),
		at(2000, Data, Twin, Server, wire(1, codec.CmdDMARead, 0, make([]byte, 16)...)),
		at(2001, Data, Twin, Client, wire(1, codec.CmdDMARead, codec.FlagReply, make([]byte, 16)...)),
		at(3000, Data, Main, Client, wire(4, codec.CmdReset, 0)[:3]),
		at(3001, HangUp, Main, Client, ""),
	}
}

var dmaMap = []byte{
	32, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0,
}

func view1(w view) {
	v := NewViewer()
	v.Add(w)
	for _, e := range conversation() {
		v.Show(&e)
	}
}

func TestPrinter(t *testing.T) {
	only := map[codec.Command]bool{codec.CmdDMAMap: true, codec.CmdReset: true}
	for _, c := range []struct {
		name    string
		printer Printer
		want    string
	}{
		{"lines", Printer{}, `03:04:05.600000 > client connects: session 1
03:04:05.600010 > DMA_MAP #1 0x100000+0x200000 READ|WRITE offset 0x0 [memfd 2MiB]
03:04:05.600020 > REGION_READ #2 BAR0+0x8 4 bytes
03:04:05.600030 < DMA_MAP #1 reply (20µs)
03:04:05.600035 < REGION_READ #2 error EIO (15µs)
03:04:05.600040 > REGION_WRITE #3 no reply BAR0+0x8 1 bytes 07
03:04:05.600050 > REGION_READ #3 BAR0+0x8 1 bytes
03:04:05.601050 < REGION_READ #3 reply BAR0+0x8 1 bytes 09 (1ms)
03:04:05.602000 < twin DMA_READ #1 0x0 0 bytes
03:04:05.602001 > twin DMA_READ #1 reply 0x0 0 bytes (1µs)
03:04:05.603000 > broken: message is cut: its sender hung up in the middle: 04000d
03:04:05.603001 > client hangs up: session 1
`},
		{"some commands, and what is broken", Printer{Only: only}, `03:04:05.600000 > client connects: session 1
03:04:05.600010 > DMA_MAP #1 0x100000+0x200000 READ|WRITE offset 0x0 [memfd 2MiB]
03:04:05.600030 < DMA_MAP #1 reply (20µs)
03:04:05.603000 > broken: message is cut: its sender hung up in the middle: 04000d
03:04:05.603001 > client hangs up: session 1
`},
		{"objects", Printer{JSON: true}, `{"time":"2026-01-02T03:04:05.6Z","session":1,"from":"client","event":"connect"}
{"time":"2026-01-02T03:04:05.60001Z","session":1,"from":"client","command":"DMA_MAP","id":1,"type":"command","size":48,"descriptors":[{"kind":"memfd","size":2097152}],"text":"DMA_MAP #1 0x100000+0x200000 READ|WRITE offset 0x0"}
{"time":"2026-01-02T03:04:05.60002Z","session":1,"from":"client","command":"REGION_READ","id":2,"type":"command","size":32,"text":"REGION_READ #2 BAR0+0x8 4 bytes"}
{"time":"2026-01-02T03:04:05.60003Z","session":1,"from":"server","command":"DMA_MAP","id":1,"type":"reply","size":16,"latency_ns":20000,"text":"DMA_MAP #1 reply"}
{"time":"2026-01-02T03:04:05.600035Z","session":1,"from":"server","command":"REGION_READ","id":2,"type":"error","errno":5,"size":16,"latency_ns":15000,"text":"REGION_READ #2 error EIO"}
{"time":"2026-01-02T03:04:05.60004Z","session":1,"from":"client","command":"REGION_WRITE","id":3,"type":"command","no_reply":true,"size":33,"text":"REGION_WRITE #3 no reply BAR0+0x8 1 bytes 07"}
{"time":"2026-01-02T03:04:05.60005Z","session":1,"from":"client","command":"REGION_READ","id":3,"type":"command","size":32,"text":"REGION_READ #3 BAR0+0x8 1 bytes"}
{"time":"2026-01-02T03:04:05.60105Z","session":1,"from":"server","command":"REGION_READ","id":3,"type":"reply","size":33,"latency_ns":1000000,"text":"REGION_READ #3 reply BAR0+0x8 1 bytes 09"}
{"time":"2026-01-02T03:04:05.602Z","session":1,"channel":"twin","from":"server","command":"DMA_READ","id":1,"type":"command","size":32,"text":"DMA_READ #1 0x0 0 bytes"}
{"time":"2026-01-02T03:04:05.602001Z","session":1,"channel":"twin","from":"client","command":"DMA_READ","id":1,"type":"reply","size":32,"latency_ns":1000,"text":"DMA_READ #1 reply 0x0 0 bytes"}
{"time":"2026-01-02T03:04:05.603Z","session":1,"from":"client","size":3,"broken":"broken: message is cut: its sender hung up in the middle: 04000d"}
{"time":"2026-01-02T03:04:05.603001Z","session":1,"from":"client","event":"hangup"}
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			c.printer.Out = &out
			view1(&c.printer)
			if out.String() != c.want || c.printer.Err != nil {
				t.Errorf("%v, got\n%swant\n%s", c.printer.Err, &out, c.want)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	s := NewSummary()
	view1(s)
	var text, lines strings.Builder
	if err := s.Text(&text); err != nil {
		t.Error(err)
	}
	want := `        command  commands  replies  errors  bytes   p50       p99       max
        DMA_MAP         1        1       0     64  20µs      20µs      20µs
    REGION_READ         2        2       1    113  15µs  1.0004ms  1.0004ms
   REGION_WRITE         1        0       0     33     -         -         -
  twin DMA_READ         1        1       0     64   1µs       1µs       1µs
1 times something that is no message
`
	if text.String() != want {
		t.Errorf("got\n%swant\n%s", &text, want)
	}
	if err := s.JSON(&lines); err != nil {
		t.Error(err)
	}
	first, _, _ := strings.Cut(lines.String(), "\n")
	if want := `{"summary":"DMA_MAP","commands":1,"replies":1,"errors":0,"bytes":64,"p50_ns":20015,"p99_ns":20015,"max_ns":20015}`; first != want {
		t.Errorf("got\n%s\nwant\n%s", first, want)
	}
	if n := strings.Count(lines.String(), "\n"); n != 4 {
		t.Errorf("%d lines", n)
	}
}

func TestSummaryOfUnknownCommands(t *testing.T) {
	s, v := NewSummary(), NewViewer()
	v.Add(s)
	for c := range 1 << 16 {
		if name := codec.Command(c).String(); strings.HasPrefix(name, "command ") {
			v.Show(&Event{From: Client, Bytes: []byte(wire(uint16(c), codec.Command(c), 0))})
		}
	}
	var text strings.Builder
	if err := s.Text(&text); err != nil {
		t.Error(err)
	}
	if lines := strings.Split(text.String(), "\n"); len(lines) != 3 || !strings.Contains(lines[1], " unknown ") {
		t.Errorf("got\n%.500s", &text)
	}
}

type failing struct{}

var errFailing = errors.New("disk full")

func (failing) Write([]byte) (int, error) { return 0, errFailing }

func TestPrinterTellsThatItCannotWrite(t *testing.T) {
	for _, json := range []bool{false, true} {
		p := &Printer{Out: failing{}, JSON: json}
		view1(p)
		if p.Err != errFailing {
			t.Errorf("JSON %v: %v", json, p.Err)
		}
	}
}

func TestCalls(t *testing.T) {
	c := newCalls()
	note := func(us int, session int, from Side, h codec.Header) (time.Duration, bool) {
		h.Size = codec.HeaderSize
		return c.note(&message{session: session, time: time.Unix(0, int64(us)*1000), from: from, header: h})
	}
	ask, reply := codec.Header{ID: 1, Command: codec.CmdReset}, codec.Header{ID: 1, Command: codec.CmdReset, Flags: codec.FlagReply}
	for _, tt := range []struct {
		name    string
		us      int
		session int
		from    Side
		header  codec.Header
		want    time.Duration // 0: none
	}{
		{"reply to nothing", 0, 1, Server, reply, 0},
		{"command", 10, 1, Client, ask, 0},
		{"same id again while in use", 20, 1, Client, ask, 0},
		{"reply of another session", 25, 2, Server, reply, 0},
		{"reply of the wrong side", 26, 1, Client, reply, 0},
		{"reply of another command", 27, 1, Server, codec.Header{ID: 1, Command: codec.CmdGetInfo, Flags: codec.FlagReply}, 0},
		{"reply to the first", 40, 1, Server, reply, 30 * time.Microsecond},
		{"error reply to the second", 50, 1, Server, codec.Header{ID: 1, Command: codec.CmdReset, Flags: codec.FlagReply | codec.FlagError}, 30 * time.Microsecond},
		{"one too many", 60, 1, Server, reply, 0},
		{"command without reply", 70, 1, Client, codec.Header{ID: 1, Command: codec.CmdReset, Flags: codec.FlagNoReply}, 0},
		{"reply to what wanted none", 80, 1, Server, reply, 0},
	} {
		got, ok := note(tt.us, tt.session, tt.from, tt.header)
		if got != tt.want || ok != (tt.want > 0) {
			t.Errorf("%s: %v, %v", tt.name, got, ok)
		}
	}
	for i := range 2 * maxCalls {
		note(0, 1, Client, codec.Header{ID: uint16(i), Command: codec.CmdReset})
	}
	if c.count != maxCalls {
		t.Errorf("%d commands are remembered", c.count)
	}
	c.forget(1)
	if c.count != 0 || len(c.open) != 0 {
		t.Errorf("%d commands of a session that has ended", c.count)
	}
}
