package codec

import (
	"encoding/hex"
	"errors"
	"strconv"
)

// maxTextData is how much of a message's data its text shows, in bytes.
const maxTextData = 16

// maxTextList is how many members of a list a message's text shows.
const maxTextList = 8

// Message is a whole message, as people want to read it: in a trace or in a log.
type Message struct {
	Header  Header
	Payload []byte // what follows the header
}

// String is the message in one line, such as
//
//	REGION_WRITE #12 BAR0+0x1000 4 bytes 01 00 00 00
//
// A payload that breaks a rule is shown with the reason and as bytes; long data is cut.
func (m Message) String() string {
	text, _ := m.AppendText(nil)
	return string(text)
}

// AppendText appends what String returns to dst. The error is always nil.
func (m Message) AppendText(dst []byte) ([]byte, error) {
	l := line{dst}
	h := m.Header
	l.add(h.Command.String(), " #").number(uint64(h.ID))
	switch {
	case h.IsError():
		l.add(" error").errno(h.Errno).rest(m.Payload)
		return l.b, nil
	case h.IsReply():
		l.add(" reply")
	case h.NoReply():
		l.add(" no reply")
	}
	start := len(l.b)
	if err := l.payload(h, m.Payload); err != nil {
		l.b = l.b[:start]
		l.add(" broken: ").reason(err).data(m.Payload)
	}
	return l.b, nil
}

// payload is what the table of texts says about it.
func (l *line) payload(h Header, payload []byte) error {
	if h.Command >= NumCommands {
		l.rest(payload)
		return nil
	}
	write := texts[h.Command].request
	if h.IsReply() {
		write = texts[h.Command].reply
	}
	if write == nil {
		l.rest(payload)
		return nil
	}
	return write(l, payload)
}

// line is a text that grows. Each part begins with the blank that sets it off.
type line struct{ b []byte }

func (l *line) add(parts ...string) *line {
	for _, p := range parts {
		l.b = append(l.b, p...)
	}
	return l
}

func (l *line) number(v uint64) *line {
	l.b = strconv.AppendUint(l.b, v, 10)
	return l
}

func (l *line) hex(v uint64) *line {
	l.b = append(l.b, "0x"...)
	l.b = strconv.AppendUint(l.b, v, 16)
	return l
}

// span is a place and its size.
func (l *line) span(at, size uint64) *line { return l.add(" ").hex(at).add("+").hex(size) }

// value is a number with its name.
func (l *line) value(name string, v uint64) *line { return l.add(" ", name, " ").number(v) }

func (l *line) reason(err error) *line {
	var e *Error
	if errors.As(err, &e) {
		return l.add(e.Kind.Error(), ": ", e.Reason)
	}
	return l.add(err.Error())
}

// errno is the name of an error that a reply carries.
func (l *line) errno(n uint32) *line {
	switch name := errnoName(n); {
	case name != "":
		return l.add(" ", name)
	case n == 0:
		return l.add(" without errno")
	}
	return l.value("errno", uint64(n))
}

// flags are names of bits, the lowest first; bits without a name are a number.
func (l *line) flags(v uint64, names ...string) *line {
	separator := " "
	for i, name := range names {
		bit := uint64(1) << i
		if v&bit != 0 && name != "" {
			l.add(separator, name)
			separator = "|"
			v &^= bit
		}
	}
	if v != 0 || separator == " " {
		l.add(separator).hex(v)
	}
	return l
}

// name is one of a list of names, or its number.
func (l *line) name(index uint32, what string, names ...string) *line {
	if uint64(index) < uint64(len(names)) {
		return l.add(" ", names[index])
	}
	return l.value(what, uint64(index))
}

func (l *line) region(index uint32) *line {
	return l.name(index, "region", "BAR0", "BAR1", "BAR2", "BAR3", "BAR4", "BAR5", "ROM", "CONFIG", "VGA")
}

func (l *line) irq(index IRQIndex) *line { return l.add(" ", index.String()) }

// data is the size of data and its first bytes.
func (l *line) data(b []byte) *line {
	l.add(" ").number(uint64(len(b))).add(" bytes")
	for _, x := range b[:min(len(b), maxTextData)] {
		l.b = append(l.b, ' ')
		l.b = hex.AppendEncode(l.b, []byte{x})
	}
	if len(b) > maxTextData {
		l.add(" ...")
	}
	return l
}

// rest is what a message has behind what is known of it, if anything.
func (l *line) rest(b []byte) *line {
	if len(b) > 0 {
		l.add(" and").data(b)
	}
	return l
}
