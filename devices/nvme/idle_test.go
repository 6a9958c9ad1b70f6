package nvme

import (
	"slices"
	"sync"
	"testing"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
)

// manualWorker polls when the test says so.
type manualWorker struct {
	mu    sync.Mutex
	list  []engine.Source
	kicks int
	wakes int
}

func (w *manualWorker) Attach(src engine.Source, _ engine.SourceOptions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, src)
}

func (w *manualWorker) Detach(src engine.Source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = slices.DeleteFunc(w.list, func(s engine.Source) bool { return s == src })
}

func (w *manualWorker) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakes++
}

func (w *manualWorker) Kick(engine.Source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kicks++
}

// sources is what is attached.
func (w *manualWorker) sources() []engine.Source {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

func (w *manualWorker) poll() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.list {
		n += s.Poll()
	}
	return n
}

func (w *manualWorker) arm() (pending bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.list {
		pending = s.Arm() || pending
	}
	return pending
}

func (w *manualWorker) takeKicks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.kicks
	w.kicks = 0
	return n
}

func manual(t testing.TB, mode DoorbellMode) (*guest, *testQueue, *manualWorker) {
	return manualOn(t, rig{mode: mode})
}

func manualOn(t testing.TB, r rig) (*guest, *testQueue, *manualWorker) {
	w := &manualWorker{}
	r.workers = func() worker { return w }
	g := newGuest(t, r)
	g.idle = w.poll // somebody has to look at mapped doorbells of the admin queue
	g.enable()
	if r.mode == Shadow {
		g.useDBBUF()
	}
	q := g.createQueue(1, 16)
	g.idle = nil
	w.poll()
	w.takeKicks()
	return g, q, w
}

func TestShadowDoorbellsAreSilentUntilTheWorkerSleeps(t *testing.T) {
	g, q, w := manual(t, Shadow)
	data := g.alloc(1)
	// The event index starts at 0, so the first write comes; after that none, but for
	// the one that passes the index once in a round of the queue.
	q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
	w.poll()
	w.takeKicks()
	for range 8 {
		q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
		if w.poll() != 1 {
			t.Fatal("the shadow doorbell was not seen")
		}
		q.reap()
	}
	if n := w.takeKicks(); n != 0 {
		t.Errorf("%d trapped doorbells while the worker polls", n)
	}
	for range 40 { // also where the queue wraps
		if w.arm() {
			t.Fatal("pending although nothing was submitted")
		}
		q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
		if n := w.takeKicks(); n != 1 {
			t.Fatalf("%d trapped doorbells while the worker sleeps", n)
		}
		if w.poll() != 1 {
			t.Fatal("not served")
		}
		q.reap()
	}
}

func TestArmSeesWhatCameBefore(t *testing.T) {
	for _, mode := range []DoorbellMode{Trap, Shadow, Mmap} {
		g, q, w := manual(t, mode)
		data := g.alloc(1)
		q.submit(rw(spec.NVMRead, 1, 0, 8, data, 0))
		if !w.arm() {
			t.Errorf("%v: a submitted command was not seen", mode)
		}
		w.poll()
		if w.arm() {
			t.Errorf("%v: pending although all is done", mode)
		}
	}
}

func TestInvalidTailIsNotPending(t *testing.T) {
	for _, mode := range []DoorbellMode{Shadow, Mmap} {
		g, q, w := manual(t, mode)
		page := g.c.doorbells.page
		if mode == Shadow {
			page = g.bytes(g.shadow, pageSize)
		}
		dma.Store32(page, sqDoorbell(1), 99)
		for range 3 {
			if w.poll() != 0 || w.arm() {
				t.Errorf("%v: an invalid tail keeps the worker awake", mode)
			}
		}
		if n := g.c.errors.total(); n != 1 {
			t.Errorf("%v: reported %d times", mode, n)
		}
		q.submit(rw(spec.NVMRead, 1, 0, 8, g.alloc(1), 0))
		if w.poll() != 1 {
			t.Errorf("%v: the queue is stuck", mode)
		}
	}
}

func TestFullCompletionQueueLetsTheWorkerSleep(t *testing.T) {
	for _, mode := range []DoorbellMode{Trap, Shadow} {
		g, q, w := manual(t, mode)
		data := g.alloc(1)
		for range 15 {
			q.put(rw(spec.NVMRead, 1, 0, 8, data, 0))
		}
		q.ringTail(0)
		w.poll()
		old := q.tail
		for range 4 {
			q.put(rw(spec.NVMRead, 1, 0, 8, data, 0))
		}
		q.ringTail(old)
		if n := w.poll(); n != 0 {
			t.Fatalf("%v: %d commands without room", mode, n)
		}
		if w.arm() {
			t.Errorf("%v: a full completion queue keeps the worker awake", mode)
		}
		w.takeKicks()
		if !q.reap() {
			t.Fatal("no completions")
		}
		if w.takeKicks() != 1 {
			t.Errorf("%v: the doorbell of the completion queue does not wake the worker", mode)
		}
		if w.poll() != 4 {
			t.Errorf("%v: the rest was not served", mode)
		}
	}
}

func TestFairShareOfARound(t *testing.T) {
	w := &manualWorker{}
	g := newGuest(t, rig{mode: Trap, workers: func() worker { return w }})
	g.enable()
	q := g.createQueue(1, 256)
	data := g.alloc(256)
	list := g.alloc(1)
	for range 200 {
		q.put(rw(spec.NVMRead, 1, 0, 8, data, 0))
	}
	q.ringTail(0)
	if n := w.poll(); n != maxBurst {
		t.Errorf("%d commands in one round", n)
	}
	for w.poll() > 0 {
	}
	old := q.tail
	prp1, prp2 := g.prps(data, 512<<10, list, false)
	for range 8 {
		q.put(rw(spec.NVMRead, 1, 0, 1024, prp1, prp2))
	}
	q.ringTail(old)
	if n := w.poll(); n != 2 {
		t.Errorf("%d commands of 512 KiB in one round", n)
	}
}

func TestRoundIsBoundedAndEveryQueueHasItsTurn(t *testing.T) {
	w := &manualWorker{}
	g := newGuest(t, rig{mode: Trap, workers: func() worker { return w }})
	g.enable()
	data, list := g.alloc(256), g.alloc(1)
	prp1, prp2 := g.prps(data, 1<<20, list, false)
	var queues []*testQueue
	for id := range uint16(10) {
		q := g.createQueue(id+1, 16)
		for range 2 {
			q.put(rw(spec.NVMRead, 1, 0, 2048, prp1, prp2))
		}
		q.ringTail(0)
		queues = append(queues, q)
	}
	for _, want := range []int{4, 4, 4, 4, 4, 0} {
		if n := w.poll(); n != want {
			t.Errorf("%d commands of 1 MiB in a round, want %d", n, want)
		}
	}
	for _, q := range queues {
		q.reap()
		if len(q.completed) != 2 {
			t.Errorf("queue %d has %d completions", q.id, len(q.completed))
		}
	}
}

func TestCommandsInFlightAreBounded(t *testing.T) {
	w := &manualWorker{}
	b := holding(memory(t, 1<<20))
	g := newGuest(t, rig{mode: Trap, backends: []block.Backend{b}, workers: func() worker { return w }})
	g.enable()
	data := g.alloc(1)
	var queues [3]*testQueue
	for i := range queues {
		q := g.createQueue(uint16(i+1), 1024)
		for range 1000 {
			q.put(rw(spec.NVMRead, 1, 0, 8, data, 0))
		}
		q.ringTail(0)
		queues[i] = q
	}
	completed := 0
	for completed < 3000 {
		for range 40 {
			w.poll()
		}
		if n := b.held(); n > maxInflight || completed < 2000 && n < maxInflight {
			t.Fatalf("%d commands in flight", n)
		}
		if w.arm() {
			t.Fatal("pending although nothing can be fetched")
		}
		b.release()
		w.poll()
		completed = 0
		least, most := 1000, 0
		for _, q := range queues {
			q.reap()
			n := len(q.completed)
			least, most = min(least, n), max(most, n)
			completed += n
		}
		if most-least > maxInflight {
			t.Fatalf("one queue has %d completions, another one %d", most, least)
		}
	}
}

func TestReadAndWriteDoNotAllocate(t *testing.T) {
	t.Run("mem", func(t *testing.T) { doNotAllocate(t, memory(t, 1<<20)) })
	t.Run("file", func(t *testing.T) {
		file, _ := fileBackend(t, 1<<20)
		doNotAllocate(t, file)
	})
}

func doNotAllocate(t *testing.T, b block.Backend) {
	g, q, w := manualOn(t, rig{mode: Trap, backends: []block.Backend{b}})
	data, list := g.alloc(33), g.alloc(1)
	queues := w.sources()[0].(*group)
	for _, c := range []struct {
		name   string
		blocks int
	}{{"4 KiB", 8}, {"128 KiB", 256}} {
		for _, op := range []uint8{spec.NVMRead, spec.NVMWrite} {
			prp1, prp2 := g.prps(data+512, c.blocks*512, list, false)
			e := rw(op, 1, 0, c.blocks, prp1, prp2)
			e.CID = 1
			n := testing.AllocsPerRun(200, func() {
				e.Put(g.bytes(q.sq+uint64(q.tail)*64, 64))
				q.tail = (q.tail + 1) % q.size
				dma.Store32(g.c.doorbells.page, sqDoorbell(1), q.tail)
				if queues.Poll() == 0 {
					t.Fatal("not served")
				}
				for queues.inflight > 0 {
					queues.Poll()
				}
				q.head = (q.head + 1) % q.size
				dma.Store32(g.c.doorbells.page, cqDoorbell(1), q.head)
			})
			if n != 0 {
				t.Errorf("%s, opcode %d: %v allocations", c.name, op, n)
			}
		}
	}
}
