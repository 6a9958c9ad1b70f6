package reactor

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// countTask counts its runs and tells when it has reached goal.
type countTask struct {
	n, goal uint64
	done    chan struct{}
}

func (c *countTask) Run() {
	if c.n++; c.n == c.goal {
		close(c.done)
	}
}

// BenchmarkPost is the cost of handing a task to a loop that is kept busy by the same posts.
func BenchmarkPost(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		r := newReactor(b, Config{})
		task := &countTask{goal: uint64(b.N), done: make(chan struct{})}
		b.ReportAllocs()
		for range b.N {
			r.Post(task)
		}
		<-task.done
	})
	b.Run("parallel", func(b *testing.B) {
		r := newReactor(b, Config{})
		task := &countTask{goal: uint64(b.N), done: make(chan struct{})}
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r.Post(task)
			}
		})
		<-task.done
	})
	b.Run("onloop", func(b *testing.B) {
		r := newReactor(b, Config{})
		done := make(chan struct{})
		again := &chainTask{r: r, left: b.N, done: done}
		b.ReportAllocs()
		r.Post(again)
		<-done
	})
}

// chainTask posts itself until it has run often enough.
type chainTask struct {
	r    *Reactor
	left int
	done chan struct{}
}

func (c *chainTask) Run() {
	if c.left--; c.left <= 0 {
		close(c.done)
		return
	}
	c.r.Post(c)
}

// BenchmarkWake is a post to a sleeping loop, and back.
func BenchmarkWake(b *testing.B) {
	r := newReactor(b, Config{})
	back := make(chan struct{})
	task := signalTask(back)
	b.ReportAllocs()
	for range b.N {
		r.Post(task)
		<-back
	}
}

type signalTask chan struct{}

func (s signalTask) Run() { s <- struct{}{} }

// BenchmarkHandOver is a round trip as a client's caller sees it: the reply arrives on the loop, whose handler wakes the
// goroutine that waits for it. "quiet" shows what it costs if the handler says Quiet where it must not.
func BenchmarkHandOver(b *testing.B) {
	b.Run("yield", func(b *testing.B) { benchmarkHandOver(b, false) })
	b.Run("quiet", func(b *testing.B) { benchmarkHandOver(b, true) })
}

func benchmarkHandOver(b *testing.B, quiet bool) {
	r := newReactor(b, Config{})
	x, y := socketPair(b)
	back := make(chan struct{}, 1)
	var in, out [echoSize]byte
	addFD(b, r, y, Readable, handlerFunc(func(Events) {
		if _, _, err := RecvMsg(y, nil, in[:]); err == nil {
			back <- struct{}{}
		}
		if quiet {
			r.Quiet()
		}
	}))
	b.ReportAllocs()
	for b.Loop() {
		mustSend(b, x, out[:])
		<-back
	}
}

const echoSize = 32 // a REGION_READ with 32 bytes

// BenchmarkEcho is a ping-pong over a unix stream socket pair: what a message round trip costs at the least. To see more
// than the time that an idle core takes to wake, pin it to one core: taskset -c 1 go test -bench Echo -cpu 4.
// "netpoll" leaves the waiting to netpoll, "bare" is epoll_wait, recvmsg and sendmsg without any reactor.
func BenchmarkEcho(b *testing.B) {
	b.Run("reactor", func(b *testing.B) { benchmarkEcho(b, Config{}, 0, true) })
	b.Run("look-again", func(b *testing.B) { benchmarkEcho(b, Config{}, 1, true) })
	b.Run("spin", func(b *testing.B) { benchmarkEcho(b, Config{Spin: 50 * time.Microsecond}, 0, true) })
	b.Run("netpoll", func(b *testing.B) { benchmarkEcho(b, Config{}, 0, false) })
	b.Run("bare", benchmarkBareEcho)
}

func benchmarkEcho(b *testing.B, cfg Config, again int, idle bool) {
	r := newReactor(b, cfg)
	server, client := socketPair(b)
	on(b, r, func() {
		if !idle {
			r.idler.epoll = -1
		}
	})
	addFD(b, r, server, Readable, &echoHandler{r: r, fd: server, again: again})
	pingPong(b, client)
}

// echoHandler sends back what it receives.
type echoHandler struct {
	r     *Reactor // nil: bare
	fd    int
	again int // looks at the socket once more after answering
	buf   [4096]byte
	fds   [8]int
}

func (h *echoHandler) HandleEvents(Events) {
	if h.r != nil {
		h.r.Quiet()
	}
	for range 1 + h.again {
		n, _, err := RecvMsg(h.fd, h.fds[:], h.buf[:])
		if err != nil {
			return
		}
		if _, err := SendMsg(h.fd, nil, h.buf[:n]); err != nil {
			return
		}
	}
}

// pingPong sends and receives b.N times over a blocking socket. The median is what other load disturbs least.
func pingPong(b *testing.B, fd int) {
	if err := unix.SetNonblock(fd, false); err != nil {
		b.Fatal(err)
	}
	var buf [echoSize]byte
	took := make([]time.Duration, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range took {
		start := time.Now()
		if _, err := unix.Write(fd, buf[:]); err != nil {
			b.Fatal(err)
		}
		if n, err := unix.Read(fd, buf[:]); n != echoSize {
			b.Fatal(n, err)
		}
		took[i] = time.Since(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
}

func benchmarkBareEcho(b *testing.B) {
	server, client := socketPair(b)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(ep)
	stop, err := NewEventfd()
	if err != nil {
		b.Fatal(err)
	}
	defer stop.Close()
	for _, fd := range []int{server, stop.FD()} {
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN}); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h := &echoHandler{fd: server}
		for events := make([]unix.EpollEvent, 64); ; {
			n, err := unix.EpollWait(ep, events, -1)
			if err != nil && err != unix.EINTR {
				return
			}
			for _, ev := range events[:max(n, 0)] {
				if int(ev.Fd) == stop.FD() {
					return
				}
				h.HandleEvents(Readable)
			}
		}
	}()
	pingPong(b, client)
	stop.Signal()
	<-done
}

// BenchmarkSendRecv is one sendmsg and one recvmsg on the same goroutine: no wake-up, no loop.
func BenchmarkSendRecv(b *testing.B) {
	buf := make([]byte, echoSize)
	b.Run("raw", func(b *testing.B) {
		x, y := socketPair(b)
		var fds [8]int
		b.ReportAllocs()
		for range b.N {
			if _, err := SendMsg(x, nil, buf); err != nil {
				b.Fatal(err)
			}
			if _, _, err := RecvMsg(y, fds[:], buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("with-descriptor", func(b *testing.B) {
		x, y := socketPair(b)
		var fds [8]int
		pass := []int{x}
		b.ReportAllocs()
		for range b.N {
			if _, err := SendMsg(x, pass, buf); err != nil {
				b.Fatal(err)
			}
			_, n, err := RecvMsg(y, fds[:], buf)
			if err != nil {
				b.Fatal(err)
			}
			CloseFDs(fds[:n])
		}
	})
	b.Run("read-write", func(b *testing.B) {
		x, y := socketPair(b)
		b.ReportAllocs()
		for range b.N {
			if _, err := unix.Write(x, buf); err != nil {
				b.Fatal(err)
			}
			if _, err := unix.Read(y, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("x-sys", func(b *testing.B) {
		x, y := socketPair(b)
		oob := make([]byte, unix.CmsgSpace(8*4))
		b.ReportAllocs()
		for range b.N {
			if _, err := unix.SendmsgN(x, buf, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
				b.Fatal(err)
			}
			if _, _, _, _, err := unix.Recvmsg(y, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC); err != nil {
				b.Fatal(err)
			}
		}
	})
}
