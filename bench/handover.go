package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// handover is two lanes between two cores, as a device's queue pair is: commands of a cache line
// one way, answers of 16 bytes the other, with so many under way. What a command is about, if
// it is about anything, is done by the core that answers.
type handover struct {
	depth int
	work  func(place uint64, slot int) error // nil: nothing
	next  func() uint64                      // the place of a command, if there is work
	fetch func(place uint64)                 // has the processor fetch the place of the next command; may be nil

	rings bool // by a message that the other core waits for, as a trapped doorbell does

	commands, answers lane
	bell              [2]int // sockets, of who asks and who answers

	_    [64]byte // the other core reads what is above all the time
	made uint64   // commands so far
}

const (
	commandSize = 64 // bytes
	answerSize  = 16
)

// handoverName is that of a limit; work "" is none.
func handoverName(work string, depth int) string {
	if work != "" {
		work = "/" + work
	}
	return fmt.Sprintf("handover%s/depth=%d", work, depth)
}

// doorbell is as long as the message that writes one.
var doorbell [messageHead + 4]byte

// errWork is told by an answer: what it is about has failed.
var errWork = errors.New("bench: the other core has failed")

func (h *handover) subject(env *Env) (s Subject, err error) {
	if h.commands, err = newLane(env, commandSize); err != nil {
		return s, err
	}
	if h.answers, err = newLane(env, answerSize); err != nil {
		return s, err
	}
	if !h.rings {
		beside(env, h.answer)
		return Subject{Run: h.ask, UnderWay: h.depth}, nil
	}
	if h.bell, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return s, err
	}
	env.Cleanup(func() { unix.Close(h.bell[1]) })
	beside(env, h.answer)
	env.Cleanup(func() { unix.Close(h.bell[0]) })
	return Subject{Run: h.ask, UnderWay: h.depth}, nil
}

// together is how many commands are answered at a time: of those that are there no more than a
// quarter of all, so that neither core waits for the other.
func (h *handover) together() int { return min(max(h.depth/4, 1), 16) }

// answer is the other core's part.
func (h *handover) answer(stop *atomic.Bool) {
	messages := make([]byte, 4096)
	for number := uint64(1); !stop.Load(); {
		if h.rings && h.commands.there(number, 1) == 0 {
			if _, err := recvSome(h.bell[1], messages); err != nil {
				return
			}
		}
		n := h.commands.there(number, h.together())
		for i := range uint64(n) {
			if h.fetch != nil && i+1 < uint64(n) {
				h.fetch(binary.LittleEndian.Uint64(h.commands.entry(number + i + 1)))
			}
			command, answer := h.commands.entry(number+i), h.answers.entry(number+i)
			var sum uint64
			for at := 0; at < commandSize-8; at += 8 {
				sum += binary.LittleEndian.Uint64(command[at:])
			}
			if h.work != nil && h.work(binary.LittleEndian.Uint64(command), int(number+i)%h.depth) != nil {
				sum = 0 // and never else: see ask
			}
			binary.LittleEndian.PutUint64(answer, sum)
		}
		h.answers.put(number, n)
		number += uint64(n)
	}
}

// ask makes n commands and takes their answers.
func (h *handover) ask(n int) error {
	taken, last := h.made, h.made+uint64(n)
	for taken < last {
		k := int(min(last-h.made, uint64(h.depth)-(h.made-taken)))
		for i := range uint64(k) {
			command := h.commands.entry(h.made + 1 + i)
			place := uint64(0)
			if h.next != nil {
				place = h.next()
			}
			binary.LittleEndian.PutUint64(command, place)
			for at := 8; at < commandSize-8; at += 8 {
				binary.LittleEndian.PutUint64(command[at:], 1)
			}
		}
		h.commands.put(h.made+1, k)
		h.made += uint64(k)
		if h.rings && k > 0 {
			if err := sendAll(h.bell[0], doorbell[:]); err != nil {
				return err
			}
		}
		came := h.answers.there(taken+1, h.depth)
		for i := range uint64(came) {
			if binary.LittleEndian.Uint64(h.answers.entry(taken+1+i)) == 0 {
				return errWork
			}
		}
		taken += uint64(came)
	}
	return nil
}
