package link

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"vfiouser/engine/reactor"
)

var (
	// ErrSpec is found by errors.Is where the text given to Open is itself wrong, as
	// opposed to what it names.
	ErrSpec = errors.New("invalid link")
	// ErrBusy: the link has room for one card only, and it has come already.
	ErrBusy = errors.New("link has a card already")
	// ErrFull: the link has as many cards as it can have.
	ErrFull = errors.New("link has no room for another card")
	// ErrClosed: the link is closed.
	ErrClosed = errors.New("link is closed")
)

// OpenError says why a link could not be made and what would be right.
type OpenError struct {
	Spec string // what was to be opened, for example "tap:tap0"
	Err  error
}

// Error names the link and the reason.
func (e *OpenError) Error() string { return fmt.Sprintf("link: %s: %v", e.Spec, e.Err) }

// Unwrap returns the reason, which carries ErrSpec, ErrBusy or a syscall.Errno.
func (e *OpenError) Unwrap() error { return e.Err }

// reason is a sentence for people with a cause for programs.
type reason struct {
	text  string
	cause error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.cause }

var errNoReactor = because(ErrSpec, "it needs a reactor")

func because(cause error, format string, args ...any) error {
	return &reason{text: fmt.Sprintf(format, args...), cause: cause}
}

// Set makes links out of texts. Links that have a name, as a switch has, are the same for
// everybody who opens them in the same set. The zero value works; the fields are set before
// the first Open. Open is for any goroutine.
type Set struct {
	// Reactor drives the sockets of links that have such, and the taps. They are refused without.
	Reactor *reactor.Reactor
	// Logger is told what becomes of links. Default: slog.Default().
	Logger *slog.Logger

	mu       sync.Mutex
	switches map[string]*named
}

// opener makes a link whose text was read.
type opener func(s *Set) (Link, error)

// kind is one row of the table of links.
type kind struct {
	name  string
	usage string
	// read takes the argument apart, and touches nothing.
	read func(arg string) (opener, error)
}

// kinds is the table of links. It is a function, because pcap opens another link.
func kinds() []kind {
	return append([]kind{
		{"loop", "loop", bare(Loop)},
		{"null", "null", bare(Null)},
		{"switch", "switch:NAME", readSwitch},
		{"tap", tapUsage, readTap},
		{"stream", streamUsage, readStream},
		{"pcap", "pcap:FILE,LINK", readRecorder},
	}, faultKinds()...)
}

// bare is for the kinds that take no argument.
func bare(make func() Link) func(string) (opener, error) {
	return func(arg string) (opener, error) {
		if arg != "" {
			return nil, because(ErrSpec, "it takes no argument, and %q was given", arg)
		}
		return func(*Set) (Link, error) { return make(), nil }, nil
	}
}

// Open makes a link out of a text, KIND or KIND:ARGUMENT:
//
//	loop           what a queue sends comes back on the same queue
//	null           takes everything and delivers nothing
//	switch:NAME    connects all cards whose link has this name
//	tap:NAME       a tap device of the kernel; ,queues=N gives it several queues, ,up=on
//	               brings it up; tap:fd=N is one that is open already
//	stream:…       a socket with QEMU's framing: unix=PATH or tcp=HOST:PORT, ,server=on to
//	               wait for the peer, ,reconnect=PAUSE (off, or a duration) for the longest
//	               pause between two attempts
//	pcap:FILE,LINK records what goes through another link; pcap:FILE,snap=BYTES,LINK no
//	               more than so many bytes of each frame
//	loss:1%,LINK, duplicate:1%,LINK, reorder:1%,LINK, delay:20ms,LINK, delay:20ms+5ms,LINK
//	               (with jitter), rate:100M,LINK
//	               another link with faults, or several of them in a chain (see Faults)
//
// Errors are *OpenError. The caller closes the link.
func (s *Set) Open(spec string) (Link, error) {
	open, err := read(spec)
	if err != nil {
		return nil, err
	}
	return open(s)
}

// Check tells what is wrong with a text that is meant for Open. It looks at the text only: what
// that names need not be there. Errors are *OpenError, with ErrSpec.
func Check(spec string) error {
	_, err := read(spec)
	return err
}

func read(spec string) (opener, error) {
	name, arg, _ := strings.Cut(spec, ":")
	var usages []string
	for _, k := range kinds() {
		if k.name != name {
			usages = append(usages, k.usage)
			continue
		}
		open, err := k.read(arg)
		if err != nil {
			return nil, openError(spec, err)
		}
		return func(s *Set) (Link, error) {
			l, err := open(s)
			if err != nil {
				return nil, openError(spec, err)
			}
			return l, nil
		}, nil
	}
	return nil, &OpenError{Spec: fmt.Sprintf("%q", spec),
		Err: because(ErrSpec, "unknown kind of link %q; known are %s", name, strings.Join(usages, ", "))}
}

// openError is err of the link spec, or of one in it that it tells of already.
func openError(spec string, err error) error {
	if nested := (*OpenError)(nil); errors.As(err, &nested) {
		return err
	}
	return &OpenError{Spec: spec, Err: err}
}
