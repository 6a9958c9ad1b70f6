package nvme

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"vfiouser/devices/nvme/spec"
)

const (
	// spinRounds is how often a command is looked for before its owner sleeps.
	spinRounds = 64
	firstPause = 20 * time.Microsecond
	maxPause   = time.Millisecond
)

// executor lets any number of goroutines use a queue for one command at a time each, waiting for it.
type executor struct {
	q       *Queue
	timeout time.Duration
	free    chan uint16
	wg      sync.WaitGroup
	users   sync.RWMutex // held shared by who uses the queue's memory
	pairs   sync.Mutex   // held while two tags are taken

	mu    sync.Mutex // the queue belongs to who holds it
	slots []execSlot
	done  [32]Completion
}

// execSlot is the state of a tag.
type execSlot struct {
	finished   bool
	abandoned  bool // its owner has given up; it becomes free when the device is done with it
	completion Completion
	wake       chan struct{}
}

func newExecutor(q *Queue, timeout time.Duration) *executor {
	x := &executor{q: q, timeout: timeout, free: make(chan uint16, q.Depth()), slots: make([]execSlot, q.Depth())}
	for i := range x.slots {
		x.slots[i].wake = make(chan struct{}, 1)
		x.free <- uint16(i)
	}
	if q.irq != nil {
		x.wg.Go(x.interrupts)
	}
	return x
}

// interrupts takes completions when the device says that there are some.
func (x *executor) interrupts() {
	for {
		if _, err := x.q.irq.Wait(context.Background()); err != nil {
			return
		}
		x.mu.Lock()
		err := x.reap()
		x.mu.Unlock()
		if err != nil || x.q.c.Err() != nil {
			return
		}
	}
}

// close makes all calls fail, and waits until nobody touches the queue's memory any more, nor will. The controller's
// context has ended.
func (x *executor) close() {
	x.mu.Lock()
	_ = x.q.fail(ErrClosed)
	x.mu.Unlock()
	x.wg.Wait()
	x.users.Lock()
	defer x.users.Unlock()
}

// enter begins the use of the queue; leave ends it.
func (x *executor) enter() error {
	x.users.RLock()
	x.mu.Lock()
	err := x.q.err
	x.mu.Unlock()
	if err != nil {
		x.users.RUnlock()
	}
	return err
}

func (x *executor) leave() { x.users.RUnlock() }

// take gets a free tag. Its buffer is the caller's until give.
func (x *executor) take(ctx context.Context) (uint16, error) {
	select {
	case tag := <-x.free:
		return tag, nil
	default:
	}
	select {
	case tag := <-x.free:
		return tag, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-x.q.c.ctx.Done():
		return 0, x.lost()
	}
}

func (x *executor) lost() error {
	if err := x.q.c.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// tryTake gets a free tag if there is one.
func (x *executor) tryTake() (uint16, bool) {
	select {
	case tag := <-x.free:
		return tag, true
	default:
		return 0, false
	}
}

func (x *executor) give(tag uint16) { x.free <- tag }

// submit submits the command and rings. If it fails the tag is free.
func (x *executor) submit(tag uint16, cmd *spec.SubmissionEntry) error {
	x.mu.Lock()
	s := &x.slots[tag]
	s.finished, s.abandoned = false, false
	err := x.q.Submit(tag, cmd)
	if err == nil {
		err = x.q.Ring()
	}
	x.mu.Unlock()
	if err != nil {
		x.give(tag)
	}
	return err
}

// wait waits for the command of a tag. Without an error the completion is there, of whatever status, and the caller
// gives the tag back; with one the command may still be under way and the tag is gone until it is not.
func (x *executor) wait(ctx context.Context, tag uint16) (Completion, error) {
	s := &x.slots[tag]
	deadline := time.Now().Add(x.timeout)
	pause := firstPause
	for round := 0; ; round++ {
		x.mu.Lock()
		err := x.reap()
		if s.finished {
			x.mu.Unlock()
			return s.completion, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && round >= spinRounds && time.Now().After(deadline) {
			err = ErrTimeout
		}
		if err != nil {
			s.abandoned = true
			x.mu.Unlock()
			return Completion{}, x.explain(err)
		}
		x.mu.Unlock()
		if round < spinRounds {
			runtime.Gosched()
			continue
		}
		x.idle(ctx, s, pause)
		pause = min(2*pause, maxPause)
	}
}

// idle sleeps until the command is done, or for a while.
func (x *executor) idle(ctx context.Context, s *execSlot, pause time.Duration) {
	if x.q.irq != nil {
		pause = x.timeout // an interrupt comes
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-s.wake:
	case <-t.C:
	case <-ctx.Done():
	case <-x.q.c.ctx.Done():
		runtime.Gosched() // the next look finds out why
	}
}

// explain finds out whether a time-out is a failed controller.
func (x *executor) explain(err error) error {
	if err != ErrTimeout {
		return err
	}
	ctx, cancel := context.WithTimeout(x.q.c.ctx, readyGrace)
	defer cancel()
	v, e := x.q.c.dev.ReadRegion32(ctx, bar0, spec.RegCSTS)
	if e == nil && (v == ^uint32(0) || spec.CSTS(v).CFS()) {
		return fmt.Errorf("%w: a command was not answered, CSTS is %#x", ErrFatal, v)
	}
	return err
}

// reap takes what has completed. mu is held.
func (x *executor) reap() error {
	for {
		n, err := x.q.Poll(x.done[:])
		for _, c := range x.done[:n] {
			s := &x.slots[c.Tag]
			if s.abandoned {
				x.give(c.Tag)
				continue
			}
			s.finished, s.completion = true, c
			select {
			case s.wake <- struct{}{}:
			default:
			}
		}
		if err != nil {
			return err
		}
		if n < len(x.done) {
			if n == 0 {
				return x.q.c.Err()
			}
			return nil
		}
	}
}

// do executes one command: in is copied to the data buffer before, the buffer to out afterwards. It returns dword 0.
func (x *executor) do(ctx context.Context, cmd *spec.SubmissionEntry, in, out []byte) (uint32, error) {
	if err := x.enter(); err != nil {
		return 0, err
	}
	defer x.leave()
	tag, err := x.take(ctx)
	if err != nil {
		return 0, err
	}
	buffer := x.q.Buffer(tag)
	length := max(len(in), len(out))
	if length > 0 {
		clear(buffer[:length])
		copy(buffer, in)
		cmd.PRP1, cmd.PRP2 = x.q.PRPs(tag, length)
	}
	if err := x.submit(tag, cmd); err != nil {
		return 0, err
	}
	c, err := x.wait(ctx, tag)
	if err != nil {
		return 0, err
	}
	if err = c.Err(); err == nil {
		copy(out, buffer)
	}
	x.give(tag)
	return c.Result, err
}
