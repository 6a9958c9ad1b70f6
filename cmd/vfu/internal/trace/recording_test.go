package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
)

func record(t testing.TB, events []Event) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	r, err := NewRecorder(&out)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if err := r.Write(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestRecordingKeepsAll(t *testing.T) {
	want := conversation()
	large := Event{Session: 2, Time: want[0].Time, From: Server, Bytes: bytes.Repeat([]byte{0xff, 0, 1}, relayBuffer/3)}
	for range maxFDs {
		large.Descriptors = append(large.Descriptors, Descriptor{kindMemfd, 1 << 62})
	}
	want = append(want, large)
	var got []Event
	err := ReadRecording(record(t, want), func(e *Event) error { got = append(got, *e); return nil })
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d events of %d: %v", len(got), len(want), err)
	}
	for i := range want {
		if !got[i].Time.Equal(want[i].Time) {
			t.Errorf("event %d at %v, was %v", i, got[i].Time, want[i].Time)
		}
		got[i].Time = want[i].Time
		if len(want[i].Bytes) == 0 {
			want[i].Bytes = nil
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
}

const head = `{"format":"vfu-trace","version":1,"endian":"little","start":"2026-01-02T03:04:05Z"}` + "\n"

func TestRecordingFormat(t *testing.T) {
	var got []Event
	err := ReadRecording(strings.NewReader(head+
		`{"t":0,"session":1,"from":"client","event":"connect"}`+"\n"+
		`{"t":1500,"session":1,"channel":"twin","from":"server","data":"AQID","descriptors":[{"kind":"memfd","size":4096}],"later":true}`+"\n"),
		func(e *Event) error { got = append(got, *e); return nil })
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := []Event{
		{Session: 1, Time: start, Kind: Connect, From: Client},
		{1, start.Add(1500), Data, Twin, Server, []byte{1, 2, 3}, []Descriptor{{kindMemfd, 4096}}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, got %+v", err, got)
	}
}

func TestBadRecordings(t *testing.T) {
	for _, c := range []struct{ name, text, says string }{
		{"empty", "", "not a recording"},
		{"something else", "hello\n", "not a recording"},
		{"JSON of something else", "{}\n", "not a recording"},
		{"an endless first line", strings.Repeat("x", maxLine+1), "not a recording"},
		{"version 2", strings.Replace(head, "1", "2", 1), "version 2"},
		{"another byte order", strings.Replace(head, "little", "big", 1), "big-endian"},
		{"a line that is cut", head + `{"t":0,"sess`, "line 2"},
		{"an endless line", head + strings.Repeat("x", maxLine+1), "too long"},
		{"nobody said it", head + `{"t":0,"session":1,"data":"AQ=="}`, "line 2: from"},
		{"unknown channel", head + `{"t":0,"session":1,"channel":"x","from":"client","data":"AQ=="}`, "line 2: channel"},
		{"unknown event", head + `{"t":0,"session":1,"from":"client","event":"x"}`, "line 2: event"},
		{"before there were years", strings.Replace(head, "2026-01-02", "0000-01-01", 1) + `{"t":-10000000000000000,"session":1,"from":"client","event":"connect"}`, "line 2: a time in the year -1"},
		{"no data", head + `{"t":0,"session":1,"from":"client"}`, "line 2: no data"},
		{"data where none can be", head + `{"t":0,"session":1,"from":"client","event":"hangup","data":"AQ=="}`, "line 2: data"},
		{"data that is not base64", head + `{"t":0,"session":1,"from":"client","data":"?"}`, "line 2"},
		{"a kind of descriptor that moves the cursor", head + `{"t":0,"session":1,"from":"client","data":"AQ==","descriptors":[{"kind":"\u001b[2J"}]}`, "line 2: descriptor"},
		{"too many descriptors", head + `{"t":0,"session":1,"from":"client","data":"AQ==","descriptors":[` + strings.Repeat(`{"kind":"pipe"},`, maxFDs) + `{"kind":"pipe"}]}`, "254 descriptors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ReadRecording(strings.NewReader(c.text), func(*Event) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
	err := ReadRecording(record(t, conversation()), func(*Event) error { return errFailing })
	if err != errFailing {
		t.Errorf("the reader's error is lost: %v", err)
	}
}

func TestRecorderTellsThatItCannotWrite(t *testing.T) {
	r, err := NewRecorder(failing{})
	if err != nil {
		t.Fatal(err) // it is still in memory
	}
	if err := r.Flush(); !errors.Is(err, errFailing) {
		t.Errorf("got %v", err)
	}
}

// FuzzRecording: whatever a file holds, what can be read of it is the same when it is written and
// read again, and shows as lines that do nothing to a terminal.
//
//fuzz:covers cmd/vfu/internal/trace/recording.go cmd/vfu/internal/trace/printer.go cmd/vfu/internal/trace/summary.go cmd/vfu/internal/trace/viewer.go cmd/vfu/internal/trace/script.go
func FuzzRecording(f *testing.F) {
	f.Add(record(f, conversation()).Bytes())
	f.Add([]byte(head))
	f.Add([]byte(head + `{"t":-5,"session":1,"channel":"twin","from":"server","data":"AQID","descriptors":[{"kind":"memfd","size":-1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, start := readAll(b)
		var again bytes.Buffer
		r, err := NewRecorder(&again)
		if err != nil {
			t.Fatal(err)
		}
		for i := range events {
			e := events[i]
			e.Time = r.start.Add(e.Time.Sub(start))
			if err := r.Write(&e); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Flush(); err != nil {
			t.Fatal(err)
		}
		other, otherStart := readAll(again.Bytes())
		if len(other) != len(events) {
			t.Fatalf("%d events, %d when they were written", len(events), len(other))
		}
		for i, e := range events {
			o := other[i]
			if e.Time.Sub(start) != o.Time.Sub(otherStart) {
				t.Fatalf("event %d is at %v, and at %v when it was written", i, e.Time.Sub(start), o.Time.Sub(otherStart))
			}
			if o.Time = e.Time; len(e.Descriptors) == 0 {
				e.Descriptors, o.Descriptors = nil, nil
			}
			if len(e.Bytes) == 0 {
				e.Bytes, o.Bytes = nil, nil
			}
			if !reflect.DeepEqual(e, o) {
				t.Fatalf("event %d is %+v, and %+v when it was written", i, e, o)
			}
		}
		var out bytes.Buffer
		summary := NewSummary()
		for _, asJSON := range []bool{false, true} {
			v := NewViewer()
			p := &Printer{Out: &out, JSON: asJSON}
			v.Add(p)
			v.Add(summary)
			for i := range events {
				v.Show(&events[i])
			}
			if p.Err != nil {
				t.Fatal(p.Err)
			}
		}
		if err := errors.Join(summary.Text(&out), summary.JSON(&out)); err != nil {
			t.Fatal(err)
		}
		if i := bytes.IndexFunc(out.Bytes(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("%q is shown", out.Bytes()[max(0, i-20):min(out.Len(), i+20)])
		}
		_, _ = readScripts(bytes.NewReader(b))
	})
}

// readAll reads what can be read of a recording.
func readAll(b []byte) (events []Event, start time.Time) {
	_ = ReadRecording(bytes.NewReader(b), func(e *Event) error { events = append(events, *e); return nil })
	var first recordingHead
	_ = json.Unmarshal(b[:max(0, bytes.IndexByte(b, '\n'))], &first)
	return events, first.Start
}
