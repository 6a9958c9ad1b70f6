package trace

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// session is one client with its connection to the server.
type session struct {
	id             int
	client, server stream
	put            func(Event)
	over           chan struct{} // closed when both are closed

	mu      sync.Mutex
	closed  bool
	hung    map[Channel]bool // somebody has closed it; the other side's end follows from that
	aborted bool
	left    Side // who had hung up when it was aborted, if anybody had

	twin                   bool
	twinClient, twinServer stream
	twins                  sync.WaitGroup
}

func newSession(id int, client, server stream, put func(Event)) *session {
	return &session{id: id, client: client, server: server, put: put,
		over: make(chan struct{}), hung: make(map[Channel]bool)}
}

// run returns when both sides are gone.
func (s *session) run() error {
	defer s.close()
	s.put(Event{Session: s.id, Time: time.Now(), Kind: Connect, From: Client})
	finder := &twinFinder{found: s.startTwin}
	var toClient error
	var other sync.WaitGroup
	other.Go(func() {
		r := relay{session: s, side: Server, from: s.server, to: s.client, change: finder.change}
		toClient = r.run()
	})
	r := relay{session: s, side: Client, from: s.client, to: s.server}
	toServer := r.run()
	other.Wait()
	s.endTwin()
	s.tellWhoLeft()
	for _, err := range []error{toServer, toClient} {
		if err != nil && err != io.EOF && !errors.Is(err, unix.ECONNRESET) {
			return fmt.Errorf("session %d ended: %w", s.id, err)
		}
	}
	return nil
}

// close lets go of the sockets.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.client.close()
	s.server.close()
}

// abort makes run return.
func (s *session) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.aborted = true
	switch {
	case s.client.gone():
		s.left = Client
	case s.server.gone():
		s.left = Server
	}
	s.client.shutdown(unix.SHUT_RDWR)
	s.server.shutdown(unix.SHUT_RDWR)
}

// clientGone tells whether the client has closed its end.
func (s *session) clientGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.client.gone()
}

// hungUp tells of the end of what a side sends on a channel, unless that is the
// consequence of what was told already.
func (s *session) hungUp(c Channel, side Side, full bool) {
	s.mu.Lock()
	tell := !s.hung[c] && (c != Main || !s.aborted || side == s.left)
	if tell {
		s.hung[c] = full
	}
	s.mu.Unlock()
	if tell {
		s.put(Event{Session: s.id, Time: time.Now(), Kind: HangUp, Channel: c, From: side})
	}
}

// tellWhoLeft tells of a side that had hung up when the session was aborted, if its relay
// could not.
func (s *session) tellWhoLeft() {
	s.mu.Lock()
	left, told := s.left, s.hung[Main]
	s.mu.Unlock()
	if left != "" && !told {
		s.hungUp(Main, left, true)
	}
}

// startTwin passes on what goes over the twin socket.
func (s *session) startTwin(server, client stream) {
	s.twin, s.twinServer, s.twinClient = true, server, client
	for _, r := range []relay{
		{session: s, channel: Twin, side: Server, from: server, to: client},
		{session: s, channel: Twin, side: Client, from: client, to: server},
	} {
		s.twins.Go(func() { _ = r.run() })
	}
}

// endTwin ends what goes over the twin socket, which has no life of its own.
func (s *session) endTwin() {
	if !s.twin {
		return
	}
	s.mu.Lock()
	s.hung[Twin] = true
	s.mu.Unlock()
	s.twinClient.shutdown(unix.SHUT_RDWR)
	s.twinServer.shutdown(unix.SHUT_RDWR)
	s.twins.Wait()
	s.twinClient.close()
	s.twinServer.close()
}
