package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// MaxConnections is how many clients there may be at a time.
	MaxConnections = 16
	// idleTime is how long a connection may be silent between two requests.
	idleTime = time.Minute
	// lineTime is how long a request may be on its way, and a reply.
	lineTime = 10 * time.Second
	// acceptPause is how long nobody is let in when the process has run out of descriptors.
	acceptPause = 100 * time.Millisecond
)

// Handler serves a request and returns its result, which is made JSON of. An error that is no
// Error is Failed. It may be called from several goroutines at a time, and may take its time.
type Handler func(arguments json.RawMessage) (result any, err error)

// Server answers the requests of clients, each connection on a goroutine of its own.
type Server struct {
	log      *slog.Logger
	handlers map[string]Handler
	listener *listener
	idle     time.Duration
	line     time.Duration
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	ended bool
}

// Serve listens on a socket at path, which only the process's user may connect to, and serves
// requests by their names until Close. A socket that a dead server left behind is replaced.
func Serve(path string, log *slog.Logger, handlers map[string]Handler) (*Server, error) {
	return serve(path, log, handlers, idleTime, lineTime)
}

func serve(path string, log *slog.Logger, handlers map[string]Handler, idle, line time.Duration) (*Server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, err
	}
	s := &Server{log: log, handlers: handlers, listener: l, idle: idle, line: line, conns: make(map[net.Conn]struct{})}
	s.wg.Go(s.accept)
	return s, nil
}

// Close stops listening and removes the socket. Requests that have begun go on, see Wait.
// Idempotent.
func (s *Server) Close() error {
	s.mu.Lock()
	s.ended = true
	for conn := range s.conns {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // the past: nothing more is read
	}
	s.mu.Unlock()
	return s.listener.Close()
}

// Wait returns when the requests that had begun before Close are done.
func (s *Server) Wait() { s.wg.Wait() }

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.log.Warn("control socket", "error", err)
			time.Sleep(acceptPause)
		default:
			s.begin(conn)
		}
	}
}

// begin lets a client in, if there is room.
func (s *Server) begin(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		conn.Close()
	case len(s.conns) == MaxConnections:
		// Its buffer is empty, so this does not block; without one the reply is lost.
		_ = conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
		_, _ = conn.Write(line(nil, nil, &Error{Busy, fmt.Sprintf("%d clients are connected, no more are served at a time", MaxConnections)}))
		conn.Close()
	default:
		s.conns[conn] = struct{}{}
		s.wg.Go(func() {
			defer s.end(conn)
			s.converse(conn)
		})
	}
}

func (s *Server) end(conn net.Conn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	conn.Close()
}

// deadline bounds how long the next read may take; false if the server ends.
func (s *Server) deadline(conn net.Conn, d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ended && conn.SetReadDeadline(time.Now().Add(d)) == nil
}

// converse serves the requests of a connection, one after the other.
func (s *Server) converse(conn net.Conn) {
	in := bufio.NewReaderSize(conn, MaxRequest)
	for {
		if !s.deadline(conn, s.idle) {
			return
		}
		if _, err := in.Peek(1); err != nil || !s.deadline(conn, s.line) {
			return
		}
		text, err := in.ReadSlice('\n')
		var answer []byte
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		switch {
		case tooLong:
			answer = line(nil, nil, &Error{Malformed, fmt.Sprintf("a request of more than %d bytes", MaxRequest)})
		case err != nil:
			return
		default:
			answer = s.answer(text)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(s.line))
		if _, err := conn.Write(answer); err != nil || tooLong {
			return
		}
	}
}

// answer serves a request and makes the line of its reply.
func (s *Server) answer(text []byte) []byte {
	r, err := parse(text)
	if err != nil {
		return failure(r.ID, err)
	}
	handle := s.handlers[r.Request]
	if handle == nil {
		return failure(r.ID, Errorf(Unknown, "unknown request %.40q; known are %s", r.Request, strings.Join(s.names(), ", ")))
	}
	result, err := s.guard(r.Request, func() (any, error) { return handle(r.Arguments) })
	if err != nil {
		return failure(r.ID, err)
	}
	data, err := json.Marshal(result)
	if err != nil {
		return failure(r.ID, err)
	}
	return line(r.ID, data, nil)
}

// guard has a defect in a handler cost its request only, not the devices of the process.
func (s *Server) guard(request string, handle func() (any, error)) (result any, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("defect in a request", "request", request, "panic", v, "stack", string(debug.Stack()))
			err = Errorf(Failed, "defect: %v", v)
		}
	}()
	return handle()
}

func (s *Server) names() (names []string) {
	for name := range s.handlers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func failure(id json.RawMessage, err error) []byte {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Failed, err.Error()}
	}
	return line(id, nil, e)
}

// line is a reply as it is sent.
func line(id, result json.RawMessage, e *Error) []byte {
	data, err := json.Marshal(reply{Version, id, result, e})
	if err != nil {
		panic(err) // an id that was read, and a result that was made, are JSON
	}
	return append(data, '\n')
}
