package trace

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"vfiouser/codec"
)

// maxBroken is how many bytes of what is no message are shown.
const maxBroken = 32

// Printer writes a line for each message. The first error of the writer stays in Err.
type Printer struct {
	Only map[codec.Command]bool // nil: all commands
	JSON bool
	Out  io.Writer
	Err  error

	line []byte
}

func (p *Printer) message(m *message, latency time.Duration, answered bool) {
	if m.again || m.broken == nil && p.Only != nil && !p.Only[m.header.Command] {
		return
	}
	if p.JSON {
		p.object(m, latency, answered)
		return
	}
	b := p.begin(m.time, m.channel, m.from)
	if m.broken != nil {
		b = appendBroken(b, m)
	} else {
		b, _ = codec.Message{Header: m.header, Payload: m.bytes[codec.HeaderSize:]}.AppendText(b)
	}
	if all := m.descriptors(); len(all) > 0 {
		b = fmt.Appendf(b, " %v", all)
	}
	if answered {
		b = fmt.Appendf(b, " (%v)", latency.Round(100*time.Nanosecond))
	}
	p.write(append(b, '\n'))
}

// begin begins a line: when, and from whom.
func (p *Printer) begin(t time.Time, c Channel, from Side) []byte {
	b := t.AppendFormat(p.line[:0], "15:04:05.000000")
	mark := " > "
	if from == Server {
		mark = " < "
	}
	b = append(b, mark...)
	if c != Main {
		b = append(b, string(c)+" "...)
	}
	return b
}

func appendBroken(b []byte, m *message) []byte {
	b = append(b, "broken: "...)
	b = append(b, m.broken.Error()...)
	b = append(b, ": "...)
	b = hex.AppendEncode(b, m.bytes[:min(len(m.bytes), maxBroken)])
	if len(m.bytes) > maxBroken || m.more {
		b = append(b, "..."...)
	}
	return b
}

func (p *Printer) session(e *Event) {
	if p.JSON {
		p.encode(&object{Time: e.Time, Session: e.Session, Channel: e.Channel, From: e.From, Event: e.Kind})
		return
	}
	b := p.begin(e.Time, e.Channel, e.From)
	if e.Kind == Connect {
		b = append(b, "client connects: session "...)
	} else {
		b = append(b, string(e.From)+" hangs up: session "...)
	}
	b = strconv.AppendInt(b, int64(e.Session), 10)
	p.write(append(b, '\n'))
}

// object is the line of a message, or of a session, for programs.
type object struct {
	Time        time.Time    `json:"time"`
	Session     int          `json:"session"`
	Channel     Channel      `json:"channel,omitempty"`
	From        Side         `json:"from"`
	Event       Kind         `json:"event,omitempty"`
	Command     string       `json:"command,omitempty"`
	ID          *uint16      `json:"id,omitempty"`
	Type        string       `json:"type,omitempty"` // command, reply, error
	NoReply     bool         `json:"no_reply,omitempty"`
	Errno       *uint32      `json:"errno,omitempty"` // of an error
	Size        int          `json:"size,omitempty"`  // with the header, bytes
	Latency     *int64       `json:"latency_ns,omitempty"`
	Descriptors []Descriptor `json:"descriptors,omitempty"`
	Text        string       `json:"text,omitempty"`
	Broken      string       `json:"broken,omitempty"`
}

func (p *Printer) object(m *message, latency time.Duration, answered bool) {
	o := object{Time: m.time, Session: m.session, Channel: m.channel, From: m.from, Size: len(m.bytes), Descriptors: m.descriptors()}
	if m.broken != nil {
		o.Broken = string(appendBroken(nil, m))
		p.encode(&o)
		return
	}
	h := m.header
	o.Command, o.ID, o.NoReply, o.Text = h.Command.String(), &h.ID, h.NoReply(), m.text()
	switch {
	case h.IsError():
		o.Type, o.Errno = "error", &h.Errno
	case h.IsReply():
		o.Type = "reply"
	default:
		o.Type = "command"
	}
	if answered {
		o.Latency = new(int64)
		*o.Latency = latency.Nanoseconds()
	}
	p.encode(&o)
}

func (p *Printer) encode(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		p.fail(err)
		return
	}
	p.write(append(b, '\n'))
}

func (p *Printer) write(b []byte) {
	p.line = b
	if _, err := p.Out.Write(b); err != nil {
		p.fail(err)
	}
}

func (p *Printer) fail(err error) {
	if p.Err == nil {
		p.Err = err
	}
}
