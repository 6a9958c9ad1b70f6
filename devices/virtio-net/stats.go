package virtionet

import (
	"sync/atomic"

	"vfiouser/link/vnet"
)

// TransmitStats counts what a transmit queue did since the card was made.
type TransmitStats struct {
	Frames, Bytes uint64 // taken by the link
	// Dropped counts, by reason, frames whose headers were not what a driver may ask for.
	Dropped    [vnet.Reasons]uint64
	Interrupts uint64
}

// ReceiveStats counts what came from the link for a receive queue since the card was made.
type ReceiveStats struct {
	Frames, Bytes uint64 // given to the driver
	NoDriver      uint64 // dropped: nobody has enabled the queue
	NoBuffer      uint64 // dropped: the driver gave no buffers in time
	TooLong       uint64 // dropped: more than the MTU, or than fits the driver's buffers
	Filtered      uint64 // dropped: not for this card; counted where the link delivered them
	// Dropped counts, by reason, frames that could not be finished in software.
	Dropped    [vnet.Reasons]uint64
	Refused    uint64 // left to the link, which drops them or offers them again
	Waited     uint64 // kept for a while because the driver gave no buffers
	Interrupts uint64
}

// QueueStats is about one queue pair.
type QueueStats struct {
	Transmit TransmitStats
	Receive  ReceiveStats
}

// counter is counted by one goroutine at a time, or rarely, and read by any.
type counter struct{ atomic.Uint64 }

// transmitStats are added to by the owner of the queue.
type transmitStats struct {
	frames, bytes, interrupts counter
	dropped                   [vnet.Reasons]counter
}

func (s *transmitStats) add(frames, bytes int) {
	if frames > 0 {
		s.frames.Add(uint64(frames))
		s.bytes.Add(uint64(bytes))
	}
}

func (s *transmitStats) read() (r TransmitStats) {
	r.Frames, r.Bytes, r.Interrupts = s.frames.Load(), s.bytes.Load(), s.interrupts.Load()
	for i := range r.Dropped {
		r.Dropped[i] = s.dropped[i].Load()
	}
	return r
}

// receiveStats are added to with the queue's lock held, or rarely.
type receiveStats struct {
	frames, bytes, noDriver, noBuffer, tooLong, filtered, refused, waited, interrupts counter
	dropped                                                                           [vnet.Reasons]counter
}

func (s *receiveStats) read() (r ReceiveStats) {
	for _, c := range [...]struct {
		to   *uint64
		from *counter
	}{
		{&r.Frames, &s.frames}, {&r.Bytes, &s.bytes}, {&r.NoDriver, &s.noDriver}, {&r.NoBuffer, &s.noBuffer},
		{&r.TooLong, &s.tooLong}, {&r.Filtered, &s.filtered}, {&r.Refused, &s.refused}, {&r.Waited, &s.waited},
		{&r.Interrupts, &s.interrupts},
	} {
		*c.to = c.from.Load()
	}
	for i := range r.Dropped {
		r.Dropped[i] = s.dropped[i].Load()
	}
	return r
}
