package link

import (
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/engine/reactor"
)

const (
	firstPause  = 100 * time.Millisecond // before the second attempt to connect
	dialTimeout = 10 * time.Second

	// DefaultReconnect is the longest pause between two attempts of a stream to connect.
	DefaultReconnect = 5 * time.Second
)

// StreamOptions are the choices that Stream offers.
type StreamOptions struct {
	// Reactor drives the socket. It must outlive the link's ports.
	Reactor *reactor.Reactor
	// Server waits for the peer instead of going to it. There is one peer at a time;
	// others are refused.
	Server bool
	// Reconnect is the longest pause between two attempts to connect: pauses begin with a
	// tenth of a second and double. A server takes a new peer after such pauses if peers
	// leave as soon as they have come. 0: DefaultReconnect; negative: the first peer is the
	// last, and a client tries once.
	Reconnect time.Duration
	// Logger is told of peers that come and go. Default: slog.Default().
	Logger *slog.Logger
}

// stream is a socket to somebody who speaks QEMU's framing.
type stream struct {
	single
	opt      StreamOptions
	place    place
	known    []unix.Sockaddr // of the peer, unless they have to be asked for
	listener int             // of a server, or -1
	address  string          // where it listens
	closed   atomic.Bool
}

// Stream returns a link for one card: a stream socket on which every frame follows its length,
// a big-endian number of 4 bytes. QEMU's "-netdev stream" speaks that, and so do passt and
// gvproxy. network is "unix", and address a path (or, with an @ in front, an abstract name),
// or "tcp", and HOST:PORT.
//
// Frames go as they are to be on a wire: what a sender has left undone is done here. The card
// has a carrier while the peer is there, and is to announce itself to every peer but the
// first. Frames for nobody are dropped; a peer that does not read holds up the card's
// transmit queues. A peer that sends a length of 0, or of more than vnet.MaxFrame, is left.
//
// A server listens from now on, a client connects when the card is attached. Errors carry
// ErrSpec or a syscall.Errno. The link has a method Addr() string, where a server listens.
func Stream(network, address string, opt StreamOptions) (Link, error) {
	if opt.Reactor == nil {
		return nil, because(ErrSpec, "no reactor")
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Reconnect == 0 {
		opt.Reconnect = DefaultReconnect
	}
	where, err := newPlace(network, address)
	if err != nil {
		return nil, err
	}
	s := &stream{opt: opt, place: where, known: where.known(), listener: -1}
	if !opt.Server {
		return s, nil
	}
	if s.listener, s.address, err = where.listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr is where a server listens.
func (s *stream) Addr() string { return s.address }

// Attach connects the card.
func (s *stream) Attach(c Card) (Port, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if err := s.take(); err != nil {
		return nil, err
	}
	p, err := newStreamPort(s, c)
	if err != nil {
		s.leave()
		return nil, err
	}
	return p, nil
}

// Close stops listening.
func (s *stream) Close() error {
	if s.closed.Swap(true) || s.listener < 0 {
		return nil
	}
	if s.place.network == "unix" && !strings.HasPrefix(s.place.address, "@") {
		_ = os.Remove(s.place.address)
	}
	return unix.Close(s.listener)
}

const streamUsage = "stream:unix=PATH or stream:tcp=HOST:PORT[,server=on][,reconnect=PAUSE]"

// readStream reads "stream:unix=PATH" or "stream:tcp=HOST:PORT", and options.
func readStream(arg string) (opener, error) {
	var opt StreamOptions
	var network, address string
	for i, o := range cutOptions(arg) {
		var err error
		switch {
		case i == 0 && (o.key == "unix" || o.key == "tcp"):
			network, address = o.key, o.value
		case i > 0 && o.key == "server":
			opt.Server, err = o.onOff()
		case i > 0 && o.key == "reconnect" && o.value == "off":
			opt.Reconnect = -1
		case i > 0 && o.key == "reconnect":
			if opt.Reconnect, err = time.ParseDuration(o.value); err != nil || opt.Reconnect < firstPause {
				err = because(ErrSpec, "bad pause %q: write off, or %v or more, for example 5s", o.value, firstPause)
			}
		default:
			err = because(ErrSpec, "cannot read %q; write %s", arg, streamUsage)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := newPlace(network, address); err != nil {
		return nil, err
	}
	return func(s *Set) (Link, error) {
		if s.Reactor == nil {
			return nil, errNoReactor
		}
		opt.Reactor, opt.Logger = s.Reactor, s.Logger
		return Stream(network, address, opt)
	}, nil
}
