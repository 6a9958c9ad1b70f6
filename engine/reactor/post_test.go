package reactor

import (
	"sync"
	"testing"

	"vfiouser/test/holdings"
)

func TestPostKeepsTheOrderOfEachGoroutine(t *testing.T) {
	for _, c := range []struct {
		name string
		held bool // the loop is kept busy while tasks are posted: the ring overflows
	}{{"running", false}, {"overflowing", true}} {
		t.Run(c.name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			r := newReactor(t, Config{})
			const goroutines, posts = 8, 10_000
			next := make([]int, goroutines) // on the loop
			var wrong, total int
			done := make(chan struct{})
			release := func() {}
			if c.held {
				release = hold(t, r)
			}
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					for i := range posts {
						r.PostFunc(func() {
							if next[g] != i {
								wrong++
							}
							next[g] = i + 1
							if total++; total == goroutines*posts {
								close(done)
							}
						})
					}
				})
			}
			wg.Wait()
			release()
			wait(t, done, "all tasks")
			if wrong != 0 {
				t.Errorf("%d tasks out of order", wrong)
			}
		})
	}
}

// Posts to a loop that is awake do not write its eventfd; those to one that sleeps write it once.
func TestPostWakesAtMostOnce(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	var before, after uint64
	on(t, r, func() { before = r.Stats().Wakeups })
	release := hold(t, r)
	done := make(chan struct{})
	task := &countTask{goal: taskBudget / 2, done: done}
	for range task.goal {
		r.Post(task)
	}
	release()
	wait(t, done, "the tasks")
	on(t, r, func() { after = r.Stats().Wakeups })
	// One for hold, one for the last look.
	if after-before > 2 {
		t.Errorf("%d wake-ups for %d posts", after-before, task.goal)
	}
}

// A task that posts itself for ever must not keep descriptors from being served, nor the reverse.
func TestTasksDoNotStarveDescriptors(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	server, client := socketPair(t)
	stop := false
	runs := 0
	var again func()
	again = func() {
		if runs++; !stop {
			r.PostFunc(again)
		}
	}
	served := make(chan int, 1)
	addFD(t, r, server, Readable, handlerFunc(func(Events) {
		var b [1]byte
		if _, _, err := RecvMsg(server, nil, b[:]); err == nil {
			stop = true
			served <- runs
		}
	}))
	r.PostFunc(again)
	on(t, r, func() {}) // the chain has begun
	mustSend(t, client, []byte("x"))
	wait(t, served, "the descriptor")
}

func TestDescriptorsDoNotStarveTasks(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	server, _ := socketPair(t)
	events := 0
	addFD(t, r, server, Writable, handlerFunc(func(Events) { events++ })) // ready for ever
	for range 100 {
		on(t, r, func() {})
	}
	turns(t, r)
	on(t, r, func() {
		if events == 0 {
			t.Error("no event came")
		}
	})
}

func TestTaskPostedByAHandlerRunsAfterIt(t *testing.T) {
	holdings.CheckLeaks(t)
	r := newReactor(t, Config{})
	server, client := socketPair(t)
	order := make(chan string, 2)
	addFD(t, r, server, Readable, handlerFunc(func(Events) {
		var b [1]byte
		if _, _, err := RecvMsg(server, nil, b[:]); err != nil {
			return
		}
		r.PostFunc(func() { order <- "task" })
		order <- "handler"
	}))
	mustSend(t, client, []byte("x"))
	if a, b := wait(t, order, "the handler"), wait(t, order, "the task"); a != "handler" || b != "task" {
		t.Errorf("%s before %s", a, b)
	}
}
