package reactor

import "errors"

// Task is work for the loop. A task made once and posted again and again costs no allocation.
type Task interface {
	Run()
}

// taskFunc is pointer-shaped: it becomes a Task without an allocation.
type taskFunc func()

func (f taskFunc) Run() { f() }

// Post has t run on the loop, once, after the handlers that run now. Tasks posted by one goroutine run in the order
// of their posting. Post never blocks and may be called from any goroutine, the loop included. It
// returns false, and t will never run, only if the reactor is closed.
func (r *Reactor) Post(t Task) bool {
	if !r.queue.push(t) {
		return false
	}
	r.signal()
	return true
}

// PostFunc is Post for a function.
func (r *Reactor) PostFunc(fn func()) bool { return r.Post(taskFunc(fn)) }

// signal makes sure that the loop will look at the queue once more: at most one write for each time it sleeps.
func (r *Reactor) signal() {
	if r.state.Load() != 0 {
		return
	}
	r.writers.Add(1)
	if r.state.CompareAndSwap(0, signalled) {
		r.wake.Signal()
	}
	r.writers.Add(-1)
}

// wakeHandler takes the events of the loop's own eventfd; the tasks themselves run in settle.
type wakeHandler struct{ r *Reactor }

func (h wakeHandler) HandleEvents(Events) {
	h.r.stats.Wakeups++
	h.r.state.And(^signalled)
}

// settle ends the handling of an event: tasks, then the timer descriptor, then the last look at the queue.
func (r *Reactor) settle() {
	left := taskBudget
	for {
		left -= r.runTasks(left)
		r.timers.arm()
		if r.stopping {
			return
		}
		// Either the poster sees that the loop is not awake, or the loop sees the task: both orders are sequentially
		// consistent, so a task is never left behind.
		r.state.And(^awake)
		if !r.queue.ready() {
			return
		}
		if left == 0 {
			r.signal() // descriptors first, the rest in the next turn
			return
		}
		r.state.Or(awake)
	}
}

// runTasks runs at most budget tasks and returns how many it took.
func (r *Reactor) runTasks(budget int) int {
	n := 0
	for n < budget && r.queue.ready() {
		n += r.runBatch(budget - n)
	}
	if n > 0 {
		r.stats.Tasks += uint64(n)
		r.yield = true
	}
	return n
}

// runBatch runs tasks until the budget is used, the queue is empty or one of them panics.
func (r *Reactor) runBatch(budget int) (n int) {
	defer r.contain(nil)
	for n < budget {
		t := r.queue.pop()
		if t == nil {
			break
		}
		n++
		t.Run()
	}
	return n
}

var errTaskPanicked = errors.New("reactor: the function panicked")

// Do runs fn on the loop and waits for it. It returns ErrClosed if the reactor is closed and fn will not run, or an error
// if fn panicked. Any goroutine but the loop, which would wait for itself.
func (r *Reactor) Do(fn func()) error {
	done := make(chan struct{})
	finished := false
	posted := r.PostFunc(func() {
		defer close(done)
		fn()
		finished = true
	})
	if !posted {
		return ErrClosed
	}
	<-done
	if !finished {
		return errTaskPanicked
	}
	return nil
}
