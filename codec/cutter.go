package codec

import "slices"

// Cutter cuts a byte stream into messages and finds the message that a descriptor came
// with. It holds descriptors as numbers, and does nothing with them.
//
// On a unix stream the kernel ends a recvmsg at the segment that carried descriptors, so
// they belong to the message whose first byte lies in the last segment read: the last
// message that has begun so far.
//
// The zero value begins a stream.
type Cutter struct {
	next  uint64      // number of the next message to be cut
	fds   []arrivedFD // of messages not cut yet, in order
	taken []int       // of the message cut last; reused
}

type arrivedFD struct {
	message uint64
	fd      int // tooManyFDs: there were more than the message may carry
}

const tooManyFDs = -1

// Cut finds the next whole message at the start of data, everything received and not cut
// yet: its header and its size. The size is 0 if the message is not complete; it is bounded
// by limit. With an error, which means that the stream is out of step, h is as it was found.
func (c *Cutter) Cut(data []byte, limit int) (h Header, size int, err error) {
	if len(data) < HeaderSize {
		return h, 0, nil
	}
	if h, err = DecodeHeader(data); err != nil {
		return h, 0, err
	}
	switch {
	case int64(h.Size) > int64(limit):
		return h, 0, invalid(h.Command, ErrSize, "message is larger than any may be")
	case int(h.Size) > len(data):
		return h, 0, nil
	}
	c.next++
	return h, int(h.Size), nil
}

// Messages is how many messages were cut.
func (c *Cutter) Messages() uint64 { return c.next }

// FDs are the descriptors of the message that was cut last, valid until the next call.
// flooded says that more came than a message may carry; then there are none.
func (c *Cutter) FDs() (fds []int, flooded bool) {
	if len(c.fds) == 0 {
		return nil, false
	}
	c.taken = c.taken[:0]
	n := 0
	for ; n < len(c.fds) && c.fds[n].message < c.next; n++ {
		if c.fds[n].fd == tooManyFDs {
			flooded = true
			continue
		}
		c.taken = append(c.taken, c.fds[n].fd)
	}
	c.fds = slices.Delete(c.fds, 0, n)
	return c.taken, flooded
}

// Arrived stores the descriptors that the last recvmsg brought; data is everything received
// and not cut yet. It keeps no more of them than limit for a message, whose rest may never
// come, and returns those that are to be closed. flooded says that there were more than
// could be received.
func (c *Cutter) Arrived(data []byte, fds []int, flooded bool, limit int) (refused []int) {
	message := c.next + begun(data) - 1
	first := len(c.fds)
	for first > 0 && c.fds[first-1].message == message {
		first--
	}
	flooded = flooded || len(c.fds) > first && c.fds[first].fd == tooManyFDs
	if flooded || len(c.fds)-first+len(fds) > limit {
		refused = append(c.drop(first), fds...)
		c.fds = append(c.fds, arrivedFD{message, tooManyFDs})
		return refused
	}
	for _, fd := range fds {
		c.fds = append(c.fds, arrivedFD{message, fd})
	}
	return nil
}

// Close ends the stream and returns the descriptors that are to be closed.
func (c *Cutter) Close() (refused []int) { return c.drop(0) }

func (c *Cutter) drop(first int) (fds []int) {
	for _, a := range c.fds[first:] {
		if a.fd != tooManyFDs {
			fds = append(fds, a.fd)
		}
	}
	c.fds = c.fds[:first]
	return fds
}

// Missing is how many bytes the message at the start of data lacks, as far as that is
// known: a header's at first.
func Missing(data []byte) int {
	h, err := DecodeHeader(data)
	if err != nil {
		return HeaderSize
	}
	return max(int(h.Size)-len(data), 0)
}

// begun counts the messages of which at least one byte is in data.
func begun(data []byte) (n uint64) {
	for len(data) > 0 {
		n++
		h, err := DecodeHeader(data)
		if err != nil || uint64(h.Size) >= uint64(len(data)) {
			break
		}
		data = data[h.Size:]
	}
	return n
}
