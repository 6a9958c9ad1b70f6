package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
)

// monitor speaks QMP, QEMU's machine protocol: JSON objects both ways.
type monitor struct {
	conn net.Conn
	in   *json.Decoder
	out  *json.Encoder
}

// qmpReply is any message of QEMU's: the greeting, an event, a result or an error.
type qmpReply struct {
	Greeting json.RawMessage `json:"QMP"`
	Event    string          `json:"event"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// newMonitor takes conn over.
func newMonitor(conn net.Conn) *monitor {
	return &monitor{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
}

// negotiate leaves the mode in which QEMU accepts no command.
func (m *monitor) negotiate(ctx context.Context) error {
	return m.execute(ctx, "qmp_capabilities", nil, nil)
}

// execute runs a command and decodes what it returns into result, unless that is nil.
func (m *monitor) execute(ctx context.Context, command string, arguments, result any) error {
	defer deadline(ctx, m.conn)()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := m.out.Encode(request); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	for {
		var reply qmpReply
		if err := m.in.Decode(&reply); err != nil {
			return fmt.Errorf("QMP %s: %w", command, err)
		}
		switch {
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
