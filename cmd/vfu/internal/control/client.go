package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrProtocol: what listens there does not speak the protocol.
var ErrProtocol = errors.New("no control socket of vfu serve")

// Call asks the server at path for something, and reads the result into result unless that is
// nil. What the server says against it is an *Error.
func Call(ctx context.Context, path, name string, arguments, result any) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // the past
	r := request{Version: Version, Request: name}
	if arguments != nil {
		if r.Arguments, err = json.Marshal(arguments); err != nil {
			return err
		}
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(text) >= MaxRequest {
		return Errorf(Argument, "a request of %d bytes; fewer than %d are taken", len(text), MaxRequest)
	}
	_, sent := conn.Write(append(text, '\n'))
	// (one that is refused has an answer all the same)
	answer, err := bufio.NewReader(io.LimitReader(conn, maxReply)).ReadBytes('\n')
	if err != nil {
		return explainEnd(ctx, errors.Join(sent, err))
	}
	var a reply
	if err := json.Unmarshal(answer, &a); err != nil || a.Version == 0 {
		return fmt.Errorf("%w: %.80q", ErrProtocol, answer)
	}
	switch {
	case a.Error != nil:
		return a.Error
	case a.Version != Version:
		return fmt.Errorf("%w: version %d, this is %d", ErrProtocol, a.Version, Version)
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

func explainEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("the server has hung up: %w", err)
}
