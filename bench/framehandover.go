package bench

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync/atomic"

	"vfiouser/dma"
	"vfiouser/link/vnet"
)

// frameHandover is what nobody can do without to get frames through a network card, driver on one
// core and card on another, each of whose queues is a ring: for each frame a word with its length,
// one copy by the card, and a look by the driver at the header of what it has received; for some
// frames at a time, how many buffers are free again. Where buffers are is agreed on for good, and
// what is sent is in them already.
type frameHandover struct {
	way         string // send: to nowhere, nothing is copied; receive: from somewhere; through: sent and received
	size, batch int
	buffers     int // of a queue
	room        int // bytes of one
}

func (f frameHandover) String() string {
	if f.way == "send" { // of any size
		return fmt.Sprintf("frame-handover/send/batch=%d", f.batch)
	}
	return fmt.Sprintf("frame-handover/%s/size=%d/batch=%d", f.way, f.size, f.batch)
}

// frameWays are what the ways of traffic cannot do without.
var frameWays = map[string]string{"null": "send", "rx": "receive", "loop": "through", "switch": "through"}

func (t traffic) handover() frameHandover {
	f := frameHandover{way: frameWays[t.way], size: t.size, batch: t.batch, buffers: frameBuffers, room: frameRoom}
	if t.size == segment {
		f.buffers, f.room = segmentBuffers, segmentRoom
	}
	if f.way == "send" {
		f.size, f.buffers, f.room = 0, frameBuffers, frameRoom
	}
	return f
}

func frameLimits() (limits []Limit) {
	seen := map[frameHandover]bool{}
	for _, t := range traffics() {
		f := t.handover()
		if seen[f] {
			continue
		}
		seen[f] = true
		limits = append(limits, Limit{Name: f.String(), Bytes: f.size, Setup: f.subject})
	}
	return limits
}

// frameQueue is one direction of frames, from a core that fills buffers to one that empties them.
// Each has counters of its own, in cache lines of its own.
type frameQueue struct {
	frames []byte // words: the lower half of one is the length of a frame, the upper one says by the frame's number, from 1 on, that it is there
	free   []byte // one word: up to which number there are free buffers
	memory []byte // behind the buffers

	_           [64]byte // both sides read what is above all the time
	filled, end uint64   // by who fills: frames so far, and free as it was seen last
	_           [64]byte
	emptied     uint64 // by who empties: frames so far
	_           [64]byte
}

func newFrameQueue(env *Env, f frameHandover) (*frameQueue, error) {
	q := &frameQueue{}
	var err error
	if q.frames, err = anonymous(env, laneSize*8); err != nil {
		return nil, err
	}
	if q.free, err = anonymous(env, 8); err != nil {
		return nil, err
	}
	dma.StoreRelease64(q.free, 0, uint64(f.buffers))
	q.memory, err = anonymous(env, f.buffers*f.room)
	return q, err
}

func wordAt(number uint64) int { return int(number%laneSize) * 8 }

// worthwhile is for how many buffers at least who has none left looks: each look takes a cache
// line away from the core that writes it.
const worthwhile = 16

// room is how many buffers can be filled, at most some.
func (q *frameQueue) room(most int) int {
	if q.end-q.filled < uint64(most) {
		if end := dma.Load64(q.free, 0); end-q.filled >= worthwhile {
			q.end = end
		}
	}
	return int(min(q.end-q.filled, uint64(most)))
}

// fill hands n frames over, the first one last: at that one's word the other core looks meanwhile.
func (q *frameQueue) fill(n, size int) {
	for i := uint64(n); i > 0; i-- {
		number := q.filled + i
		dma.StoreRelease64(q.frames, wordAt(number), number<<32|uint64(size))
	}
	q.filled += uint64(n)
}

// there is how many frames have come, at most some.
func (q *frameQueue) there(most int) (n int) {
	for n < most {
		number := q.emptied + 1 + uint64(n)
		if uint32(dma.Load64(q.frames, wordAt(number))>>32) != uint32(number) {
			break
		}
		n++
	}
	return n
}

// empty gives n buffers back.
func (q *frameQueue) empty(n, buffers int) {
	q.emptied += uint64(n)
	dma.StoreRelease64(q.free, 0, q.emptied+uint64(buffers))
}

func (f frameHandover) subject(env *Env) (Subject, error) {
	tx, err := newFrameQueue(env, f)
	if err != nil {
		return Subject{}, err
	}
	rx, err := newFrameQueue(env, f)
	if err != nil {
		return Subject{}, err
	}
	source := tx.memory
	switch f.way {
	case "send":
		rx = nil
	case "receive":
		tx = nil
	}
	beside(env, func(stop *atomic.Bool) { f.card(stop, tx, rx, source) })
	run := func(n int) error { f.driver(n, tx, rx); return nil }
	return Subject{Run: run, UnderWay: f.buffers}, run(2 * f.buffers) // once through all buffers
}

// buffer is that of a frame of a number, with a header in front of it.
func (f frameHandover) buffer(memory []byte, number uint64) []byte {
	at := int(number) % f.buffers * f.room
	return memory[at : at+vnet.HeaderSize+f.size]
}

// fetch has the processor begin to fetch the first lines of n buffers from a number on, which the
// other core has read, all at the same time.
func (f frameHandover) fetch(memory []byte, number uint64, n int) {
	const line = 64 // bytes
	for i := range uint64(n) {
		buffer := f.buffer(memory, number+i)
		dma.PrefetchWrite(&buffer[0])
		dma.PrefetchWrite(&buffer[min(line, len(buffer)-1)])
	}
}

// cardBatch is how many frames a card takes at a time, at most.
const cardBatch = 32

// card takes as many frames as there are. Those that nobody has sent come from source.
func (f frameHandover) card(stop *atomic.Bool, tx, rx *frameQueue, source []byte) {
	sum := uint64(0)
	for number := uint64(1); !stop.Load(); {
		n := cardBatch
		if tx != nil {
			n = tx.there(n)
		}
		if rx != nil {
			n = rx.room(n)
			f.fetch(rx.memory, number+cardBatch/4, n)
		}
		if n == 0 {
			continue
		}
		for i := range uint64(n) {
			from := f.buffer(source, number+i)
			sum += binary.LittleEndian.Uint64(from)
			if rx != nil {
				copy(f.buffer(rx.memory, number+i), from)
			}
		}
		if rx != nil {
			rx.fill(n, f.size)
		}
		if tx != nil {
			tx.empty(n, f.buffers)
		}
		number += uint64(n)
	}
	runtime.KeepAlive(sum)
}

// driver sends and receives n frames, a batch at a time.
func (f frameHandover) driver(n int, tx, rx *frameQueue) {
	sum := uint64(0)
	for sent, received := 0, 0; min(sent, received) < n; {
		if tx == nil {
			sent = n
		} else {
			k := tx.room(min(f.batch, n-sent))
			tx.fill(k, f.size)
			sent += k
		}
		if rx == nil {
			received = sent
			continue
		}
		k := rx.there(min(f.batch, n-received))
		if k == 0 {
			continue
		}
		for i := range uint64(k) {
			sum += binary.LittleEndian.Uint64(f.buffer(rx.memory, rx.emptied+1+i))
		}
		rx.empty(k, f.buffers)
		received += k
	}
	runtime.KeepAlive(sum)
}
