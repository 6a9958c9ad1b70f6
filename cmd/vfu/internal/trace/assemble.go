package trace

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"vfiouser/codec"
)

// maxMessage is the largest message that is put together, in bytes: the data of the largest
// transfer that any implementation negotiates, and some.
const maxMessage = 64<<20 + 64<<10

// Why bytes are not shown as a message.
var (
	errTooLarge = errors.New("message is larger than 64 MiB, which nobody negotiates")
	errCut      = errors.New("message is cut: its sender hung up in the middle")
)

// message is what one side sent, whole.
type message struct {
	session int
	time    time.Time // of its first byte
	channel Channel
	from    Side
	header  codec.Header
	bytes   []byte // with the header
	passed  []passed
	broken  error // it is no message: bytes that nobody can tell what they are
	more    bool  // bytes is not all: the rest follows in more of these, the last without more
	again   bool  // bytes is not the first: it continues what was broken
}

// passed are descriptors that came with one byte of a message.
type passed struct {
	offset      int
	descriptors []Descriptor
}

// descriptors are all that came with the message.
func (m *message) descriptors() []Descriptor {
	var all []Descriptor
	for _, p := range m.passed {
		all = append(all, p.descriptors...)
	}
	return all
}

// text is the message in words.
func (m *message) text() string {
	return codec.Message{Header: m.header, Payload: m.bytes[codec.HeaderSize:]}.String()
}

// direction is who sends on which socket.
type direction struct {
	session int
	channel Channel
	from    Side
}

// assembler makes messages of the bytes of all directions.
type assembler struct {
	emit func(*message)
	open map[direction]*half
}

// half is what has come of a message that is not whole yet.
type half struct {
	message
	skip uint64 // bytes to come of a message that is too large
	lost bool   // nothing after this can be a message
}

func newAssembler(emit func(*message)) *assembler {
	return &assembler{emit, make(map[direction]*half)}
}

// add takes the data of an event.
func (a *assembler) add(e *Event) {
	key := direction{e.Session, e.Channel, e.From}
	h := a.open[key]
	if h == nil {
		h = new(half)
		a.open[key] = h
	}
	b, descriptors := e.Bytes, e.Descriptors
	for len(b) > 0 {
		if len(h.bytes) == 0 {
			h.message = message{session: e.Session, time: e.Time, channel: e.Channel, from: e.From}
		}
		if len(descriptors) > 0 {
			h.passed = append(h.passed, passed{len(h.bytes), descriptors})
			descriptors = nil
		}
		b = h.take(b)
		if h.complete() {
			m := h.message
			h.message = message{}
			a.emit(&m)
		}
	}
}

// take moves what belongs to the message from b into it.
func (h *half) take(b []byte) (rest []byte) {
	if h.lost || h.skip > 0 {
		n := uint64(len(b))
		if !h.lost {
			n = min(n, h.skip)
			h.skip -= n
		}
		h.bytes, h.again, h.more = b[:n:n], true, h.lost || h.skip > 0
		return b[n:]
	}
	if n := codec.HeaderSize - len(h.bytes); n > 0 {
		n = min(n, len(b))
		h.bytes = append(h.bytes, b[:n]...)
		b = b[n:]
		if len(h.bytes) < codec.HeaderSize {
			return b
		}
		if h.header, h.broken = codec.DecodeHeader(h.bytes); h.broken != nil {
			h.lost, h.more = true, true
			return b
		}
	}
	if h.header.Size > maxMessage {
		h.broken = errTooLarge
		h.skip = uint64(h.header.Size) - codec.HeaderSize
		h.more = true
		return b
	}
	n := min(len(b), int(h.header.Size)-len(h.bytes))
	h.bytes = append(h.bytes, b[:n]...)
	return b[n:]
}

// complete tells whether the message is to be emitted.
func (h *half) complete() bool {
	return h.broken != nil || h.again || len(h.bytes) >= codec.HeaderSize && len(h.bytes) == int(h.header.Size)
}

// end emits what has come of a message that is not whole, when its direction ends.
func (a *assembler) end(session int, c Channel, from Side) {
	key := direction{session, c, from}
	h := a.open[key]
	delete(a.open, key)
	if h != nil && len(h.bytes) > 0 {
		h.broken = errCut
		a.emit(&h.message)
	}
}

// endBefore is end for all directions of the sessions before this one. The side that did not
// hang up first has no end of its own.
func (a *assembler) endBefore(session int) {
	for _, key := range slices.SortedFunc(maps.Keys(a.open), compareDirections) {
		if key.session < session {
			a.end(key.session, key.channel, key.from)
		}
	}
}

func compareDirections(a, b direction) int {
	return cmp.Or(cmp.Compare(a.session, b.session), cmp.Compare(a.channel, b.channel), cmp.Compare(a.from, b.from))
}
