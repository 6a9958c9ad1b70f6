package bench

import (
	"encoding/binary"
	"fmt"
	"path/filepath"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// nbdLimitName is that of a bare client of the NBD server.
func (d drive) nbdLimitName() string {
	return fmt.Sprintf("nbd/%s/size=%d/depth=%d", d.op(), d.size, d.depth)
}

// nbdLimits are a bare client for every kind of access that a case makes: on the device's CPU,
// with the same server at the same place.
func nbdLimits() (limits []Limit) {
	for _, d := range drives() {
		if d.backend == "nbd" {
			limits = append(limits, Limit{Name: d.nbdLimitName(), Bytes: d.size, Setup: d.nbdClient})
		}
	}
	return limits
}

func (d drive) nbdClient(env *Env) (Subject, error) {
	if err := spawnNBD(env, env.storage()); err != nil {
		return Subject{}, err
	}
	if len(env.DeviceCPUs) > 0 {
		if err := env.pin(env.DeviceCPUs[0]); err != nil {
			return Subject{}, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Subject{}, err
	}
	env.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(env.Dir, nbdSocket)}); err != nil {
		return Subject{}, err
	}
	if err := nbdEnter(fd, env.storage()); err != nil {
		return Subject{}, err
	}
	c := newNBDClient(fd, d, randomBlocks(uint64(env.storage()/d.size)))
	s := Subject{Run: c.run, UnderWay: d.depth}
	if d.depth == 1 {
		s.Latency = func(n int, h *hdrhistogram.Histogram) error {
			return openLoop(n, h, func() error { return c.run(1) })
		}
	}
	return s, nil
}

// nbdEnter makes a handshake with spawnNBD's server of so many bytes.
func nbdEnter(fd, size int) error {
	if err := recvAll(fd, make([]byte, 18)); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(nil, nbdFixedNewstyle|nbdNoZeroes)
	b = binary.BigEndian.AppendUint64(b, nbdOptionMagic)
	b = binary.BigEndian.AppendUint32(b, nbdOptGo)
	b = binary.BigEndian.AppendUint32(b, 6)
	if err := sendAll(fd, append(b, 0, 0, 0, 0, 0, 0)); err != nil { // an empty name, no questions
		return err
	}
	var answers [20 + 12 + 20]byte
	if err := recvAll(fd, answers[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(answers[22:]) != uint64(size) {
		return errNBD
	}
	return nil
}

// nbdClient has as many requests under way as it may: it sends with one write(2) what can be
// sent, and takes with one read(2) what has come.
type nbdClient struct {
	fd, depth  int
	next       func() uint64
	size       uint64
	request    int    // bytes of one
	requests   []byte // depth of them
	reply      int    // bytes of one
	replies    []byte // depth of them, each at a place that is a multiple of its length
	cookie, at uint64 // of the next request, and what the next reply has
	got        int    // bytes in replies that have come
}

func newNBDClient(fd int, d drive, next func() uint64) *nbdClient {
	c := &nbdClient{fd: fd, depth: d.depth, next: next, size: uint64(d.size), request: nbdRequestSize, reply: nbdReplySize}
	command := uint16(nbdRead)
	if d.write {
		command = nbdWrite
		c.request += d.size
	} else {
		c.reply += d.size
	}
	c.requests, c.replies = make([]byte, c.request*d.depth), make([]byte, c.reply*d.depth)
	for b := c.requests; len(b) > 0; b = b[c.request:] {
		binary.BigEndian.PutUint32(b, nbdRequestMagic)
		binary.BigEndian.PutUint16(b[6:], command)
		binary.BigEndian.PutUint32(b[24:], uint32(d.size))
	}
	return c
}

// run makes n accesses.
func (c *nbdClient) run(n int) error {
	for sent, done := 0, 0; done < n; {
		if k := min(n-sent, c.depth-(sent-done)); k > 0 {
			for b := c.requests[:k*c.request]; len(b) > 0; b = b[c.request:] {
				binary.BigEndian.PutUint64(b[8:], c.cookie)
				binary.BigEndian.PutUint64(b[16:], c.next()*c.size)
				c.cookie++
			}
			if err := sendAll(c.fd, c.requests[:k*c.request]); err != nil {
				return err
			}
			sent += k
		}
		m, err := recvSome(c.fd, c.replies[c.got:])
		if err != nil {
			return err
		}
		before := c.got / c.reply
		c.got += m
		for i := before; i < c.got/c.reply; i++ {
			b := c.replies[i*c.reply:]
			// The server answers in order.
			if binary.BigEndian.Uint64(b) != nbdReplyMagic<<32 || binary.BigEndian.Uint64(b[8:]) != c.at {
				return errNBD
			}
			c.at++
			done++
		}
		if c.got == len(c.replies) {
			c.got = 0
		}
	}
	return nil
}
