package trace

import (
	"bytes"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ear listens to one socket of a server for a player.
type ear struct {
	stream  stream
	channel Channel
	heard   chan<- heard
	quit    <-chan struct{}
	done    chan struct{}

	mu   sync.Mutex
	kept []int // the descriptors of the first message, if it is the VERSION reply
	full bool  // kept is decided
}

// listen reads until the end; every message goes to heard, unless quit is closed.
func listen(s stream, c Channel, to chan<- heard, quit <-chan struct{}) *ear {
	e := &ear{stream: s, channel: c, heard: to, quit: quit, done: make(chan struct{})}
	go e.run()
	return e
}

func (e *ear) run() {
	defer close(e.done)
	a := newAssembler(func(m *message) { e.tell(heard{message: m}) })
	buf := make([]byte, relayBuffer)
	in := receiver{stream: e.stream}
	defer in.drop()
	for {
		n, fds, err := in.receive(buf)
		if err != nil {
			a.end(0, e.channel, Server)
			if e.channel == Main {
				e.tell(heard{err: err})
			}
			return
		}
		descriptors := identify(fds)
		e.keep(fds)
		a.add(&Event{Time: time.Now(), Channel: e.channel, From: Server, Bytes: bytes.Clone(buf[:n]), Descriptors: descriptors})
	}
}

func (e *ear) tell(h heard) {
	select {
	case e.heard <- h:
	case <-e.quit:
	}
}

// keep holds on to the first descriptors.
func (e *ear) keep(fds []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.full {
		closeAll(fds)
		return
	}
	e.kept, e.full = fds, true
}

// takeKept hands over the descriptors that came with the first message.
func (e *ear) takeKept() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	fds := e.kept
	e.kept = nil
	return fds
}

// close ends the ear and its socket.
func (e *ear) close() {
	e.stream.shutdown(unix.SHUT_RDWR)
	<-e.done
	e.stream.close()
	closeAll(e.takeKept())
}
