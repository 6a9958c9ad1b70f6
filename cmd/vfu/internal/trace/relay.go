package trace

import (
	"bytes"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// relayBuffer is the most that is passed on at once, in bytes.
const relayBuffer = 256 << 10

// relay passes on what comes from one side, until that hangs up or the other is gone.
type relay struct {
	session  *session
	channel  Channel
	side     Side // whose data it is
	from, to stream
	// change, if it is not nil, may hold a segment back or change its descriptors.
	change func(segment) []segment
}

// segment is data with the descriptors that are attached to its first byte, which the
// segment owns.
type segment struct {
	bytes []byte
	fds   []int
}

// run returns io.EOF if the side hung up, else why the session cannot go on, or nil if
// the other side is gone.
func (r *relay) run() error {
	buf := make([]byte, relayBuffer)
	in := receiver{stream: r.from}
	defer in.drop()
	for {
		n, fds, err := in.receive(buf)
		if err != nil {
			if r.change != nil {
				_ = r.sendAll(r.change(segment{}))
			}
			r.hangUp(err)
			return err
		}
		// The event comes first, so that no answer is told of before its question.
		r.session.put(Event{Session: r.session.id, Time: time.Now(), Channel: r.channel, From: r.side,
			Bytes: bytes.Clone(buf[:n]), Descriptors: identify(fds)})
		out := []segment{{buf[:n], fds}}
		if r.change != nil {
			out = r.change(out[0])
		}
		if err := r.sendAll(out); err != nil {
			// What it has still to say comes through the relay of the other direction.
			r.from.shutdown(unix.SHUT_RD)
			return nil
		}
	}
}

func (r *relay) sendAll(out []segment) error {
	var err error
	for _, s := range out {
		if err == nil {
			err = r.to.send(s.bytes, s.fds)
		}
		closeAll(s.fds)
	}
	return err
}

// hangUp passes on that the side has closed its end, or only will not send any more.
func (r *relay) hangUp(err error) {
	half := err == io.EOF && !r.from.gone()
	r.session.hungUp(r.channel, r.side, !half)
	if half {
		r.to.shutdown(unix.SHUT_WR)
		return
	}
	r.to.shutdown(unix.SHUT_RDWR)
	r.from.shutdown(unix.SHUT_RDWR)
}
