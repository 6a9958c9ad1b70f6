// Package control is the way to talk to a running vfu serve: lines of JSON on a unix socket. It
// knows connections, lines, and what a request and a reply look like; what can be asked for is
// told to it. docs/control.md has the protocol.
package control
