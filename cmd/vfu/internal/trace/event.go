package trace

import "time"

// Side is one of the two ends of a connection.
type Side string

const (
	Client Side = "client"
	Server Side = "server"
)

// Channel is one of the sockets of a session.
type Channel string

const (
	Main Channel = ""
	Twin Channel = "twin" // for the server's commands, if both sides want it
)

// Kind says what happened.
type Kind string

const (
	Data    Kind = ""        // bytes came from a side, and maybe descriptors with the first of them
	Connect Kind = "connect" // a client came and is connected to the server
	HangUp  Kind = "hangup"  // a side closed its connection, or stopped sending
)

// Event is something that a side did.
type Event struct {
	Session     int // counts the clients from 1
	Time        time.Time
	Kind        Kind
	Channel     Channel
	From        Side
	Bytes       []byte
	Descriptors []Descriptor
}
