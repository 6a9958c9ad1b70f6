// Package codec holds the bytes of the vfio-user protocol: the message header,
// the payload of every command in both directions, and the JSON of VERSION.
//
// Everything is a pure function on []byte. Decode methods parse in place (Data
// fields alias the input), check every rule that can be checked without knowing
// the device, and allocate nothing unless they fail; VERSION's JSON and a growing
// list of areas are the exceptions. Append methods write what Decode reads.
// [Message] is one line of text for each message, for people.
//
// The protocol's fields are in the host's byte order. Sockets, descriptors, limits
// negotiated by a session and the meaning of a command live elsewhere.
package codec
