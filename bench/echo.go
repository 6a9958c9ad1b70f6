package bench

import (
	"cmp"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// echo is an exchange of so many bytes for so many others, several under way at a time.
type echo struct{ request, reply, depth int }

func (e echo) limit() string {
	return fmt.Sprintf("socket-echo/request=%d/reply=%d/depth=%d", e.request, e.reply, e.depth)
}

// echoLimits are a bare server for every exchange that a case makes: it waits with epoll, takes
// what there is with recvmsg(2), and answers that with one sendmsg(2).
func echoLimits() (limits []Limit) {
	var all []echo
	for _, m := range messages {
		all = append(all, m.echo())
	}
	for _, m := range guestMessages {
		all = append(all, m.echo())
	}
	for _, depth := range guestClientDepths {
		all = append(all, guestClientEcho(depth))
	}
	all = append(all, mapEcho)
	slices.SortFunc(all, func(a, b echo) int {
		return cmp.Or(cmp.Compare(a.request, b.request), cmp.Compare(a.reply, b.reply), cmp.Compare(a.depth, b.depth))
	})
	for _, e := range slices.Compact(all) {
		limits = append(limits, Limit{Name: e.limit(), Bytes: e.request + e.reply, Setup: func(env *Env) (Subject, error) {
			fd, err := spawn(env, "echo", e.request, e.reply, e.depth)
			if err != nil {
				return Subject{}, err
			}
			return newAsker(fd, make([]byte, e.request), e.reply, e.depth).subject()
		}})
	}
	return limits
}

// asker sends the same request again and again and takes the replies, which all have the
// same length.
type asker struct {
	fd, reply, depth int
	request          []byte // depth times
	buf              []byte
}

func newAsker(fd int, request []byte, reply, depth int) *asker {
	return &asker{fd: fd, reply: reply, depth: depth, request: slices.Repeat(request, depth), buf: make([]byte, min(reply*depth, 1<<20))}
}

// run makes n exchanges, and has as many under way as it may.
func (a *asker) run(n int) error {
	size := len(a.request) / a.depth
	sent, got, part := 0, 0, 0 // part: bytes of a reply that has begun
	for got < n {
		if k := min(n-sent, a.depth-(sent-got)); k > 0 {
			if err := sendAll(a.fd, a.request[:k*size]); err != nil {
				return err
			}
			sent += k
		}
		// No more than what is asked for: the first byte too much is an error.
		m, err := recvSome(a.fd, a.buf[:min(len(a.buf), (sent-got)*a.reply-part)])
		if err != nil {
			return err
		}
		part += m
		got += part / a.reply
		part %= a.reply
	}
	return nil
}

// subject makes one exchange and measures others.
func (a *asker) subject() (Subject, error) {
	s := Subject{Run: a.run, UnderWay: a.depth}
	if a.depth == 1 {
		s.Latency = func(n int, h *hdrhistogram.Histogram) error {
			return openLoop(n, h, func() error { return a.run(1) })
		}
	}
	return s, a.run(1)
}

var errRole = errors.New("wrong arguments")

// playEcho answers so many bytes with so many others, at most some at a time.
func playEcho(fd int, args []int) error {
	if len(args) != 3 || args[0] == 0 || args[1] == 0 || args[2] == 0 {
		return errRole
	}
	request, reply, depth := args[0], args[1], args[2]
	debug.SetGCPercent(-1) // nobody else runs, and calls are not the scheduler's
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return err
	}
	in, out := make([]byte, max(request*depth, 4096)), make([]byte, reply*depth)
	var events [16]unix.EpollEvent
	var m rawMessage
	for have := 0; ; {
		if _, e := rawEpollWait(epoll, events[:]); e != 0 && e != unix.EINTR {
			return e
		}
		n, e := m.call(unix.SYS_RECVMSG, fd, in, unix.MSG_DONTWAIT)
		switch {
		case e == unix.EAGAIN || e == unix.EINTR:
			continue
		case e != 0 || n == 0:
			return hungUp(e)
		}
		have += n
		answer := out[:min(have/request, depth)*reply]
		have %= request
		for len(answer) > 0 {
			n, e := m.call(unix.SYS_SENDMSG, fd, answer, unix.MSG_NOSIGNAL)
			if e != 0 && e != unix.EINTR {
				return hungUp(e)
			}
			if e == 0 {
				answer = answer[n:]
			}
		}
	}
}

// playSink takes whatever comes.
func playSink(fd int, _ []int) error {
	debug.SetGCPercent(-1)
	buf := make([]byte, 64<<10)
	var m rawMessage
	for {
		if n, e := m.call(unix.SYS_RECVMSG, fd, buf, 0); (e != 0 || n == 0) && e != unix.EINTR {
			return hungUp(e)
		}
	}
}
