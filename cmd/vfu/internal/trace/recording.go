package trace

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// The recording of a trace is text, a JSON object in each line: one that says what the file
// is, then one for each Event. docs/trace.md describes it for other programs.
const (
	recordingFormat  = "vfu-trace"
	recordingVersion = 1
)

type recordingHead struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Endian  string    `json:"endian"` // of the messages
	Start   time.Time `json:"start"`
}

type recordingLine struct {
	Time        int64        `json:"t"` // since the start, ns
	Session     int          `json:"session"`
	Channel     Channel      `json:"channel,omitempty"`
	From        Side         `json:"from"`
	Event       Kind         `json:"event,omitempty"`
	Data        []byte       `json:"data,omitempty"`
	Descriptors []Descriptor `json:"descriptors,omitempty"`
}

func endian() string {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return "little"
	}
	return "big"
}

// Recorder writes Events down.
type Recorder struct {
	out   *bufio.Writer
	enc   *json.Encoder
	start time.Time
}

// NewRecorder begins a recording.
func NewRecorder(w io.Writer) (*Recorder, error) {
	out := bufio.NewWriterSize(w, 1<<20)
	r := &Recorder{out: out, enc: json.NewEncoder(out), start: time.Now()}
	return r, r.enc.Encode(&recordingHead{recordingFormat, recordingVersion, endian(), r.start})
}

// Write adds an Event.
func (r *Recorder) Write(e *Event) error {
	return r.enc.Encode(&recordingLine{e.Time.Sub(r.start).Nanoseconds(), e.Session, e.Channel, e.From, e.Kind, e.Bytes, e.Descriptors})
}

// Flush writes what is still in memory.
func (r *Recorder) Flush() error { return r.out.Flush() }

// maxLine bounds a line of a recording, in bytes: what a relay passes on at once, in base64,
// with the descriptors of a message.
const maxLine = 2*relayBuffer + maxFDs*100 + 4096

// ReadRecording calls each for every Event of a recording. Its Bytes are each's to keep.
func ReadRecording(r io.Reader, each func(*Event) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	var head recordingHead
	if !in.Scan() || json.Unmarshal(in.Bytes(), &head) != nil || head.Format != recordingFormat {
		if err := in.Err(); err != nil && err != bufio.ErrTooLong {
			return err
		}
		return fmt.Errorf("not a recording of vfu trace: its first line must say so")
	}
	if head.Version != recordingVersion || head.Endian != endian() {
		return fmt.Errorf("a recording of version %d, %s-endian: this command reads version %d, %s-endian",
			head.Version, head.Endian, recordingVersion, endian())
	}
	for number := 2; in.Scan(); number++ {
		var l recordingLine
		d := json.NewDecoder(bytes.NewReader(in.Bytes()))
		if err := d.Decode(&l); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		e := &Event{l.Session, head.Start.Add(time.Duration(l.Time)), l.Event, l.Channel, l.From, l.Data, l.Descriptors}
		if err := e.check(); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return in.Err()
}

// check refuses what no Recorder writes.
func (e *Event) check() error {
	switch year := e.Time.Year(); {
	case year < 0 || year > 9999:
		return fmt.Errorf("a time in the year %d", year)
	case e.From != Client && e.From != Server:
		return fmt.Errorf("from %q: must be client or server", e.From)
	case e.Channel != Main && e.Channel != Twin:
		return fmt.Errorf("channel %q: must be twin or absent", e.Channel)
	case e.Kind != Data && e.Kind != Connect && e.Kind != HangUp:
		return fmt.Errorf("event %q: must be connect, hangup or absent", e.Kind)
	case e.Kind == Data && len(e.Bytes) == 0:
		return fmt.Errorf("no data")
	case e.Kind != Data && len(e.Bytes) > 0:
		return fmt.Errorf("data with event %q", e.Kind)
	case len(e.Descriptors) > maxFDs:
		return fmt.Errorf("%d descriptors with one byte: Linux passes %d", len(e.Descriptors), maxFDs)
	}
	for _, d := range e.Descriptors {
		if strings.ContainsFunc(d.Kind, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("descriptor of kind %q: must be printable", d.Kind)
		}
	}
	return nil
}
