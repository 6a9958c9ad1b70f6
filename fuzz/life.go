package fuzz

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/internal/stacks"
)

// Bounds of what one input can do.
const (
	maxSteps       = 256
	maxConnections = 8
	maxEventfds    = 64
	maxState       = 1 << 20  // of migration data that a client keeps, bytes
	maxTraffic     = 4 << 20  // of accesses and messages, bytes; then only small ones come
	maxPayload     = 64 << 10 // of a message that is made up, bytes
	maxAwait       = 10 * time.Millisecond
)

// life is that of the clients of one device, as an input tells it.
type life struct {
	t       tester
	r       *rig
	s       *choice.Source
	address string
	trace   trace

	c           *conn // nil before the first one
	connections int
	memory      memory
	eventfds    []int
	state       []byte // of the device, as far as it was read
	traffic     int
	awaited     time.Duration
	awaiting    *awaited        // nil: no read is
	opened      []int           // other descriptors that are not the server's
	cut         int             // size of the pieces that messages are sent in; 0: whole
	prompt      bool            // what the server asks is answered at once
	deaf        bool            // replies are not read as they come
	lingers     bool            // a connection was sent to the server: its end shows when that has closed it
	truncated   bool            // memory was
	heard       func(*incoming) // takes replies, if it is not nil
	refused     string          // the last command that was
}

// mayConnect tells whether another connection is not too many for an input.
func (l *life) mayConnect() bool { return l.s.Seeded() || l.connections < maxConnections }

// live does what the input says.
func (l *life) live() {
	l.prompt = true
	l.connect()
	begin := time.Now()
	for n := 0; l.s.More() && (l.s.Seeded() || n < maxSteps && time.Since(begin) < longLife); n++ {
		if l.c.main.over {
			if !l.mayConnect() {
				return
			}
			l.connect()
		}
		if l.c.unsettled > maxUnsettled {
			l.c.settle()
			continue
		}
		opcodes[l.s.Uint8()].do(l)
		if !l.deaf {
			l.c.pump()
		}
	}
	l.c.settle()
}

// connect begins a session.
func (l *life) connect() {
	l.disconnect()
	l.connections++
	l.c = newConn(l)
	l.c.version(false)
	for tries := 0; l.lingers; tries++ {
		l.c.settle()
		switch {
		case !l.c.main.over:
			l.lingers, l.c.may = false, ""
		case tries == moments(l.r.hangAfter):
			l.hang("the last client is not seen to leave")
		default:
			time.Sleep(min(time.Duration(tries)*time.Millisecond, moment)) // polls
			l.c.close()
			l.c = newConn(l)
			l.c.version(false)
		}
	}
}

// disconnect ends the session, if there is one.
func (l *life) disconnect() {
	if l.c != nil {
		l.c.close()
		l.c = nil
	}
}

// version sends a VERSION that opens the session.
func (c *conn) version(twin bool) {
	m := codec.VersionMsg{Minor: 1, Caps: codec.Capabilities{
		MaxMsgFDs: 8, MaxDataXferSize: 1 << 20, MaxDMAMaps: 65535, PgSizes: 4096, WriteMultiple: true,
		Migration: &codec.MigrationCaps{PgSize: 4096, MaxBitmapSize: 1 << 20},
	}}
	if twin {
		m.Caps.TwinSocket = &codec.TwinSocket{Supported: true}
	}
	c.call(codec.CmdVersion, m.Append(nil))
}

// close gives back what the clients had.
func (l *life) close() {
	l.disconnect()
	l.memory.close()
	reactor.CloseFDs(l.eventfds)
	reactor.CloseFDs(l.opened)
	l.eventfds, l.opened = nil, nil
}

// piece is how many of n bytes are sent at a time.
func (l *life) piece(n int) int {
	if l.cut > 0 {
		return min(n, l.cut)
	}
	return n
}

// spend says whether so many bytes may still be moved.
func (l *life) spend(n int) bool {
	l.traffic += n
	return n <= 4096 || l.traffic < maxTraffic
}

// keepState keeps the payload of a MIG_DATA_READ.
func (l *life) keepState(payload []byte) {
	var m codec.MigData
	if m.DecodeReadReply(payload) == nil && len(l.state)+len(m.Data) <= maxState {
		l.state = append(l.state, m.Data...)
	}
}

// eventfd is a new eventfd of the client's, or one that it has if there are enough.
func (l *life) eventfd() int {
	if len(l.eventfds) >= maxEventfds {
		return l.eventfds[0]
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		l.t.Fatalf("eventfd: %v", err)
	}
	l.eventfds = append(l.eventfds, fd)
	return fd
}

// fail ends the test with what the client did.
func (l *life) fail(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), &l.trace)
}

// hang ends the test with what all goroutines do.
func (l *life) hang(what string) {
	l.t.Helper()
	l.r.broken = true
	l.fail("%s for %v; goroutines:\n%s", what, l.r.hangAfter, stacks.All())
}

// unexpectedEnd is called when the server has ended a session for which its client has given it
// no reason.
func (l *life) unexpectedEnd() {
	defects, _, causes := l.r.journal.take()
	for _, cause := range causes {
		for _, accept := range l.r.ends {
			if accept(cause) {
				l.c.may = "the device has its reasons"
				l.r.journal.put(defects)
				return
			}
		}
	}
	l.fail("the session ends: %v\n%s", causes, strings.Join(defects, "\n"))
}

// trace is what happened, for people.
type trace struct{ events []event }

type event struct {
	text string
	sent []byte
	fds  int
}

func (t *trace) add(b []byte, fds int) { t.events = append(t.events, event{sent: b, fds: fds}) }

func (t *trace) note(format string, args ...any) {
	t.events = append(t.events, event{text: fmt.Sprintf(format, args...)})
}

// maxTrace is how many events are shown.
const maxTrace = 60

// String shows the last events.
func (t *trace) String() string {
	b := strings.Builder{}
	first := max(0, len(t.events)-maxTrace)
	fmt.Fprintf(&b, "what the client did, from event %d on:", first)
	for _, e := range t.events[first:] {
		b.WriteString("\n\t" + e.String())
	}
	return b.String()
}

func (e event) String() string {
	text := e.text
	if text == "" {
		h, err := codec.DecodeHeader(e.sent)
		if err != nil || int(h.Size) != len(e.sent) {
			text = fmt.Sprintf("%d bytes: %.64x", len(e.sent), e.sent)
		} else {
			text = codec.Message{Header: h, Payload: e.sent[codec.HeaderSize:]}.String()
		}
	}
	if e.fds > 0 {
		text += fmt.Sprintf(" with %d descriptors", e.fds)
	}
	return text
}
