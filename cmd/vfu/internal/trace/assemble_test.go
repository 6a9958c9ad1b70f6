package trace

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vfiouser/codec"
)

// heardAs are events of one direction as messages, one in a line.
func heardAs(chunks ...string) string {
	var out strings.Builder
	a := newAssembler(func(m *message) {
		switch {
		case m.again && len(m.bytes) > 100:
			fmt.Fprintf(&out, "again %d bytes more %v\n", len(m.bytes), m.more)
		case m.again:
			fmt.Fprintf(&out, "again %q more %v\n", m.bytes, m.more)
		case m.broken != nil:
			fmt.Fprintf(&out, "%v %d bytes more %v\n", m.broken, len(m.bytes), m.more)
		default:
			fmt.Fprintln(&out, m.text())
		}
	})
	for _, c := range chunks {
		a.add(&Event{From: Client, Bytes: []byte(c)})
	}
	a.end(0, Main, Client)
	return out.String()
}

func TestAssemble(t *testing.T) {
	reset, read := wire(1, codec.CmdReset, 0), region(2, codec.CmdRegionRead, 0, 8, 4)
	const resetText, readText = "RESET #1\n", "REGION_READ #2 BAR0+0x8 4 bytes\n"
	huge := string(codec.Header{ID: 3, Size: maxMessage + 1}.Append(nil))
	broken := string(codec.Header{ID: 4, Command: codec.CmdReset, Size: 16, Flags: 2}.Append(nil))
	const brokenText = "RESET: invalid flags: message is neither command nor reply 16 bytes more true\n"
	for _, c := range []struct {
		name   string
		chunks []string
		want   string
	}{
		{"one", []string{reset}, resetText},
		{"two in one piece", []string{reset + read}, resetText + readText},
		{"one and a half", []string{reset + read[:20], read[20:]}, resetText + readText},
		{"cut in the header", []string{reset + read[:7]}, resetText + errCut.Error() + " 7 bytes more false\n"},
		{"cut in the payload", []string{read[:17]}, errCut.Error() + " 17 bytes more false\n"},
		{"broken", []string{reset + broken}, resetText + brokenText},
		{"nothing comes after broken", []string{broken + reset, read}, brokenText + fmt.Sprintf("again %q more true\nagain %q more true\n", reset, read)},
		{"as large as may be", []string{string(codec.Header{ID: 5, Command: 99, Size: maxMessage}.Append(nil)) + strings.Repeat("x", maxMessage-16)},
			"command 99 #5 and 67174384 bytes" + strings.Repeat(" 78", 16) + " ...\n"},
		{"too large", []string{huge}, errTooLarge.Error() + " 16 bytes more true\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := heardAs(c.chunks...); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
	t.Run("in step behind what is too large", func(t *testing.T) {
		got := heardAs(huge+"abc", strings.Repeat("x", maxMessage+1-16-3)+reset)
		want := errTooLarge.Error() + " 16 bytes more true\nagain \"abc\" more true\nagain 67174382 bytes more false\n" + resetText
		if got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
	t.Run("at every byte", func(t *testing.T) {
		both := reset + read
		for i := range both {
			if got := heardAs(both[:i], both[i:]); i > 0 && got != resetText+readText {
				t.Errorf("cut at %d: got\n%s", i, got)
			}
		}
		if got := heardAs(strings.Split(both, "")...); got != resetText+readText {
			t.Errorf("byte by byte: got\n%s", got)
		}
	})
}

func TestDirectionsDoNotMix(t *testing.T) {
	var got []string
	a := newAssembler(func(m *message) { got = append(got, fmt.Sprintf("%d%s%s %s", m.session, m.channel, m.from, m.text())) })
	reset := wire(1, codec.CmdReset, 0)
	for _, half := range []string{reset[:9], reset[9:]} {
		for session := range 2 {
			for _, c := range []Channel{Main, Twin} {
				for _, s := range []Side{Client, Server} {
					a.add(&Event{Session: session, Channel: c, From: s, Bytes: []byte(half)})
				}
			}
		}
	}
	want := "0client RESET #1,0server RESET #1,0twinclient RESET #1,0twinserver RESET #1," +
		"1client RESET #1,1server RESET #1,1twinclient RESET #1,1twinserver RESET #1"
	if strings.Join(got, ",") != want {
		t.Errorf("got %q", got)
	}
}

func TestDescriptorsOfAMessage(t *testing.T) {
	var got *message
	a := newAssembler(func(m *message) { got = m })
	read := region(2, codec.CmdRegionRead, 0, 8, 4)
	begin := time.Unix(100, 0)
	a.add(&Event{Time: begin, From: Client, Bytes: []byte(read[:10]), Descriptors: []Descriptor{{Kind: kindEventfd}}})
	a.add(&Event{Time: begin.Add(time.Second), From: Client, Bytes: []byte(read[10:]), Descriptors: []Descriptor{{Kind: kindPipe}}})
	if len(got.passed) != 2 || got.passed[0].offset != 0 || got.passed[1].offset != 10 || len(got.descriptors()) != 2 {
		t.Errorf("passed %+v", got.passed)
	}
	if !got.time.Equal(begin) {
		t.Errorf("at %v, want that of the first byte", got.time)
	}
}

// FuzzAssemble: whatever comes in whatever pieces, no byte is lost, and the pieces do not matter.
//
//fuzz:covers cmd/vfu/internal/trace/assemble.go
func FuzzAssemble(f *testing.F) {
	f.Add([]byte(wire(1, codec.CmdReset, 0)+region(2, codec.CmdRegionRead, 0, 8, 4)), 5)
	f.Add([]byte(codec.Header{Size: maxMessage + 1}.Append(nil)), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		collect := func(chunks ...[]byte) (all []byte, messages int) {
			a := newAssembler(func(m *message) {
				all = append(all, m.bytes...)
				if m.broken == nil && !m.again {
					messages++
					_ = m.text()
				}
			})
			for _, c := range chunks {
				a.add(&Event{From: Client, Bytes: c})
			}
			a.end(0, Main, Client)
			return all, messages
		}
		if cut < 0 || cut > len(b) {
			cut = len(b)
		}
		once, n := collect(b)
		twice, m := collect(b[:cut], b[cut:])
		if string(once) != string(b) || string(twice) != string(b) || n != m {
			t.Errorf("%d bytes: %d and %d came out, in %d and %d messages", len(b), len(once), len(twice), n, m)
		}
	})
}
