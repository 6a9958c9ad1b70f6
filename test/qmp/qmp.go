package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// Monitor is a QMP connection. One caller at a time.
type Monitor struct {
	conn   net.Conn
	in     *json.Decoder
	out    *json.Encoder
	events []Event // that came while something else was waited for
}

// Event is something that QEMU tells unasked.
type Event struct {
	Name string
	Data json.RawMessage
}

// message is any message of QEMU's: the greeting, an event, a result or an error.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// maxEvents is how many events are kept for [Monitor.Wait]; older ones are forgotten.
const maxEvents = 64

// New takes conn over.
func New(conn net.Conn) *Monitor {
	return &Monitor{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
}

// Close ends the connection, and makes a call under way fail.
func (m *Monitor) Close() error { return m.conn.Close() }

// Negotiate leaves the mode in which QEMU accepts no command. It comes first.
func (m *Monitor) Negotiate(ctx context.Context) error {
	return m.Execute(ctx, "qmp_capabilities", nil, nil)
}

// Execute runs a command and decodes what it returns into result, unless that is nil.
func (m *Monitor) Execute(ctx context.Context, command string, arguments, result any) error {
	defer Deadline(ctx, m.conn)()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := m.out.Encode(request); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	for {
		reply, err := m.receive()
		switch {
		case err != nil:
			return fmt.Errorf("QMP %s: %w", command, cause(ctx, err))
		case reply.Error != nil:
			return fmt.Errorf("QMP %s: %s: %s", command, reply.Error.Class, reply.Error.Desc)
		case reply.Return == nil: // the greeting or an event
		case result != nil:
			return json.Unmarshal(reply.Return, result)
		default:
			return nil
		}
	}
}

// Wait waits for an event that match accepts, among those that have come since the last
// Wait that found its event, and forgets it and those before it.
func (m *Monitor) Wait(ctx context.Context, match func(Event) bool) (Event, error) {
	defer Deadline(ctx, m.conn)()
	for {
		if i := slices.IndexFunc(m.events, match); i >= 0 {
			found := m.events[i]
			m.events = slices.Delete(m.events, 0, i+1)
			return found, nil
		}
		if _, err := m.receive(); err != nil {
			return Event{}, fmt.Errorf("QMP: wait for an event: %w", cause(ctx, err))
		}
	}
}

// Unplugged accepts the event that a device is gone from the machine.
func Unplugged(id string) func(Event) bool {
	return func(e Event) bool {
		var data struct {
			Device string `json:"device"`
		}
		return e.Name == "DEVICE_DELETED" && json.Unmarshal(e.Data, &data) == nil && data.Device == id
	}
}

// receive takes the next message, and keeps it if it is an event.
func (m *Monitor) receive() (message, error) {
	var got message
	if err := m.in.Decode(&got); err != nil {
		return message{}, err
	}
	if got.Event != "" {
		m.events = append(m.events[max(0, len(m.events)-maxEvents+1):], Event{got.Event, got.Data})
	}
	return got, nil
}

// Deadline makes what is done on conn fail when ctx ends, until the function that it
// returns is called.
func Deadline(ctx context.Context, conn net.Conn) (restore func()) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		stop()
		conn.SetDeadline(time.Time{})
	}
}

// cause puts the reason for which ctx ended beside the time-out that it made of it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}
