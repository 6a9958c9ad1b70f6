package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Version is that of the protocol.
const Version = 1

const (
	// MaxRequest bounds a line with a request, in bytes.
	MaxRequest = 64 << 10
	// maxReply bounds a line with a reply, in bytes.
	maxReply = 64 << 20
	maxID    = 64
)

// Code says what kind of error it is.
type Code string

// What can be wrong with a request.
const (
	Malformed  Code = "malformed"   // not a line with a request
	BadVersion Code = "bad-version" // of the protocol
	Unknown    Code = "unknown"     // no such request
	Argument   Code = "argument"    // an argument makes no sense
	Missing    Code = "missing"     // what an argument names is not there
	Refused    Code = "refused"     // not possible as things are
	Failed     Code = "failed"      // tried in vain
	Busy       Code = "busy"        // too many connections
)

// Error is a request's end without a result.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// request is a line of a client.
type request struct {
	Version   int             `json:"version"`
	ID        json.RawMessage `json:"id,omitempty"`
	Request   string          `json:"request"`
	Arguments json.RawMessage `json:"arguments,omitempty"`
}

// reply is the line for it. One of Result and Error is there.
type reply struct {
	Version int             `json:"version"`
	ID      json.RawMessage `json:"id,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}

// parse reads a line. What could be read of it is returned with the error too.
func parse(line []byte) (r request, err error) {
	if err := strict(line, &r); err != nil {
		r.ID = nil
		return r, Errorf(Malformed, "not a request: %v", err)
	}
	if !plainID(r.ID) {
		r.ID = nil
		return r, Errorf(Malformed, "id must be a number or a text of up to %d bytes", maxID)
	}
	switch {
	case r.Version != Version:
		return r, Errorf(BadVersion, "version is %d, this is %d", r.Version, Version)
	case r.Request == "":
		return r, Errorf(Malformed, "there is no request")
	}
	return r, nil
}

// plainID says whether an id is one that is repeated in the reply.
func plainID(id json.RawMessage) bool {
	if len(id) == 0 {
		return true
	}
	// A number begins with one of these, and package json lets bytes that are no text through.
	return len(id) <= maxID && strings.IndexByte(`"-0123456789`, id[0]) >= 0 && utf8.Valid(id)
}

// strict reads one JSON value whose members are all known.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return readable(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows it")
	}
	return nil
}

// readable is an error of package json without what means something to programmers in Go only.
func readable(err error) error {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("%s cannot be a %s", kind.Field, kind.Value)
	case errors.As(err, &kind):
		return fmt.Errorf("it cannot be a %s", kind.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the line is empty, or ends early")
	}
	text := err.Error()
	if rest, ok := bytes.CutPrefix([]byte(text), []byte("json: ")); ok {
		text = string(rest)
	}
	return errors.New(text)
}

// Arguments reads the arguments of a request into v, a pointer to a struct. None at all are
// like an empty object. The error is an Error.
func Arguments(data json.RawMessage, v any) error {
	if len(data) == 0 {
		return nil
	}
	if err := strict(data, v); err != nil {
		return Errorf(Argument, "arguments: %v", err)
	}
	return nil
}
