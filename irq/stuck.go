package irq

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// A client shares the file description of its eventfds. It can make one blocking and
// fill the counter at any time, and then a write(2) to it does not return. No check
// before the write closes that race, so the writer is found afterwards: each write
// is visible in event.word while it lasts, and reading the counter ends it.
//
// The set watches itself: the first write arms a timer, the timer looks and is
// armed again by the next write or by a writer that it found inside. An idle set
// has no timer. Nobody else is needed, so the reactor may write as well, and a
// writer is let go also after Close.

// CheckStuck looks for writers that their client has blocked and lets them go, as the
// set does by itself from time to time. It returns true from then on: the client is
// hostile, all vectors are closed, and the session is to be dropped. It never blocks.
func (s *Set) CheckStuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check()
	return s.stuck
}

// watch arms the timer.
func (s *Set) watch() {
	if s.watched.CompareAndSwap(false, true) {
		s.timer.Reset(s.period)
	}
}

// expire is the timer. It first says that it is gone, then looks: a writer that
// comes meanwhile arms it again.
func (s *Set) expire() {
	s.watched.Store(false)
	s.mu.Lock()
	busy := s.check()
	tell := s.onStuck
	if !s.stuck {
		tell = nil
	} else {
		s.onStuck = nil
	}
	s.mu.Unlock()
	if busy {
		s.watch()
	}
	if tell != nil {
		tell()
	}
}

// check inspects every event that may have a user and tells whether one has. The
// caller holds mu.
func (s *Set) check() (busy bool) {
	for i := range s.vectors {
		for k := range s.vectors[i] {
			v := &s.vectors[i][k]
			for _, e := range [...]*event{v.event.Load(), v.onMask.Load(), v.onUnmask.Load()} {
				busy = e != nil && s.inspect(e) || busy
			}
		}
	}
	rest := s.leaving[:0]
	for _, e := range s.leaving {
		busy = s.inspect(e) || busy
		if e.word.Load()&eventDead == 0 {
			rest = append(rest, e)
		}
	}
	clear(s.leaving[len(rest):])
	s.leaving = rest
	return busy
}

// inspect looks at one event. What proves malice is a counter at its limit, which no
// number of interrupts reaches, under a writer that waits for it: one on a blocking
// description, or one that has not moved since the last look (the client may have
// made the description non-blocking again).
func (s *Set) inspect(e *event) (busy bool) {
	before, ok := e.peek()
	if !ok {
		e.seen = 0
		return false
	}
	defer e.unpeek()
	if full(e.fd) && (s.stuck || before == e.seen || blocking(e.fd)) {
		if !s.stuck {
			s.stuck = true
			s.shut()
		}
		e.relieve()
	}
	e.seen = before
	return true
}

// relieve lets the writers go, or gives up when the client, which may fill the counter
// again at once, has won too often; then the next check goes on. The caller is a user.
//
// Reading the counter wakes a writer, which may find it full again. So the description
// is made non-blocking too, and the threads of the process get the signal that the Go
// runtime uses for itself: it makes the kernel begin the write anew, and that returns.
func (e *event) relieve() {
	const attempts = 64
	var buf [8]byte
	for range attempts {
		if full(e.fd) {
			// Not read(2): the client may have emptied it, and then read blocks.
			_, _ = unix.Preadv2(e.fd, [][]byte{buf[:]}, -1, unix.RWF_NOWAIT)
		}
		if e.word.Load()&eventUsers == eventUser {
			return
		}
		_ = unix.SetNonblock(e.fd, true)
		interruptThreads()
		runtime.Gosched()
	}
}

// interruptThreads interrupts the system calls of all threads that can be interrupted;
// they are begun anew.
func interruptThreads() {
	tasks, _ := os.ReadDir("/proc/self/task")
	pid := os.Getpid()
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.Tgkill(pid, tid, unix.SIGURG)
		}
	}
}

// full tells whether a write to the eventfd would wait.
func full(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 0)
	return err == nil && (n == 0 || p[0].Revents&unix.POLLOUT == 0)
}

func blocking(fd int) bool {
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return err == nil && fl&unix.O_NONBLOCK == 0
}
