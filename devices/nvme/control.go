package nvme

import (
	"runtime/debug"
	"sync"
	"sync/atomic"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
)

// host is the attached client: its session, its queues, and the control goroutine
// that changes them. Fields without a note belong to that goroutine.
type host struct {
	c    *Controller
	s    session
	pick func() worker
	done chan struct{} // closed when the control goroutine has ended
	wake chan struct{} // capacity 1: there is a request, a doorbell or an event

	mu   sync.Mutex
	mail request // under mu

	// For the reactor and for the workers.
	ready      atomic.Bool // as CSTS.RDY
	events     atomic.Uint32
	queues     atomic.Int32 // I/O queues of either kind
	messengers atomic.Int32 // completion queues that run by message
	sqs        [MaxQueues + 1]atomic.Pointer[subQueue]
	cqs        [MaxQueues + 1]atomic.Pointer[compQueue]
	interrupts interrupts
	couriers   couriers
	changed    changedNamespaces
	dropping   atomic.Bool // the queues are to be forgotten

	arbitration atomic.Uint32 // the feature

	admin      admin
	background background
	features   features
	aer        asyncEvents
	trace      trace
	download   download // of a firmware image
	required   uint64   // bytes that the namespace takes that was to be created last; 0: more than can be told
	// eventContext is the persistent event log that the host is reading; nil: none.
	eventContext []byte

	groups   []*group
	watch    *doorbellWatch // mode Mmap
	held     bool
	weighted bool   // as CC.AMS says; changed while there are no queues
	arrived  bool   // a state was loaded: its interrupts are still to be raised
	shadow   shadow // changed while nobody runs the queues
	reader   *dma.Reader
	data     courier // of admin commands
}

// request is what the control goroutine is asked to do. It is coalesced, so a client
// cannot make it grow: a reset forgets what it undoes.
type request struct {
	reset    bool
	enable   bool
	shutdown bool
	place    bool // memory has changed: see where queues belong
	quit     bool
	config   adminConfig // for enable
	tasks    []func()    // the engine's, which waits for each
}

func (r *request) resetAsked() { r.reset, r.enable, r.shutdown = true, false, false }

func newHost(c *Controller, s session, pick func() worker) *host {
	h := &host{c: c, s: s, pick: pick, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	h.interrupts.init(s.IRQ(), &c.interruptCounts, c.vectors())
	h.couriers.init(h)
	h.reader = s.Memory().NewReader()
	h.data = courier{h: h, ended: make(chan error, 1)}
	c.subsystem.enter(h)
	return h
}

// ask changes what is asked for. Any goroutine; it does not block.
func (h *host) ask(change func(*request)) {
	h.mu.Lock()
	change(&h.mail)
	h.mu.Unlock()
	h.signal()
}

func (h *host) askPlace() { h.ask(func(r *request) { r.place = true }) }

func (h *host) signal() { notify(h.wake) }

func (h *host) take() request {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.mail
	h.mail = request{}
	return r
}

func (h *host) resetPending() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mail.reset
}

// urgent says whether something is asked for that cannot wait for a command to end.
func (h *host) urgent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mail.reset || h.mail.quit || len(h.mail.tasks) > 0
}

// run is the control goroutine. Requests go before admin commands.
func (h *host) run() {
	defer close(h.done)
	debug.SetPanicOnFault(true)
	h.resetFeatures()
	for {
		r := h.take()
		h.handle(&r)
		if r.quit {
			h.leave()
			return
		}
		if h.guard(h.serveAdmin) {
			continue
		}
		<-h.wake
	}
}

// guard runs a step of admin work; a panic in it costs the client its session, not the
// process.
func (h *host) guard(step func() bool) (more bool) {
	defer func() {
		if v := recover(); v != nil {
			h.reader.Exit()
			h.fault(v, debug.Stack())
			h.admin.open = false
			more = false
		}
	}()
	return step()
}

func (h *host) handle(r *request) {
	if r.reset {
		h.reset()
	}
	if r.enable {
		h.enable(r.config)
	}
	if r.shutdown {
		h.shutdown()
	}
	if r.place {
		h.place()
		h.kickAll()
	}
	// Last: once the data path is held the registers may belong to the next client.
	for _, task := range r.tasks {
		task()
	}
}

// enable follows CC.EN. What is not possible is a fatal status (Base 1.4, 3.1.5).
func (h *host) enable(a adminConfig) {
	h.weighted = a.cc.AMS() == spec.AMSWeighted
	err := h.c.claimStorage()
	if err != nil {
		h.s.Logger().Error("the storage cannot be used", "err", err)
	}
	if err != nil || !h.openAdmin(a) {
		h.c.regs.setStatus(func(s spec.CSTS) spec.CSTS { return s | spec.CSTSFatal })
		return
	}
	h.watchDoorbells()
	h.c.keepHealth(true)
	h.recordReset()
	h.c.regs.setStatus(func(s spec.CSTS) spec.CSTS {
		if h.resetPending() {
			return s
		}
		h.ready.Store(true)
		return s | spec.CSTSReady
	})
}

// reset is the controller reset (Base 1.4, 7.3.2): queues and events are gone, and
// features are what they were.
func (h *host) reset() {
	wasReady := h.ready.Swap(false)
	h.dropping.Store(true)
	h.abortAll() // first: what runs in the background may wait for it
	h.endBackground()
	h.admin.open = false
	h.sqs[0].Store(nil)
	h.cqs[0].Store(nil)
	h.dropQueues()
	h.giveBack()
	h.unwatchDoorbells()
	h.shadow = shadow{}
	h.interrupts.reset()
	h.aer.reset()
	h.c.subsystem.selfTest.resetBy(h.c)
	h.eventContext = nil
	h.download = download{}
	if h.c.subsystem.firmware.activate(0) {
		h.c.subsystem.keepFirmware()
	}
	h.events.Store(0)
	h.changed.clear()
	if wasReady {
		h.c.keepHealth(false)
	}
	h.resetFeatures()
	h.c.subsystem.disassociate(h.c)
	h.c.regs.mu.Lock()
	h.c.regs.csts &= spec.CSTSNSSRO
	h.c.regs.intms = 0
	h.c.regs.mu.Unlock()
}

// shutdown follows CC.SHN: what was written is made durable.
func (h *host) shutdown() {
	h.c.flushAll(&h.data)
	h.admin.shutdown = true
	h.c.keepHealth(false)
	h.c.regs.setStatus(func(s spec.CSTS) spec.CSTS { return s.WithSHST(spec.ShutComplete) })
}

// setHeld stops the data path, or lets it go on.
func (h *host) setHeld(held bool) {
	if held != h.held {
		h.holdChores(held)
	}
	h.held = held
	if held {
		h.unwatchDoorbells()
		if h.abandoned() {
			h.abortAll()
		}
		h.stopQueues()
		h.background.wg.Wait()
		h.collectBackground() // they are posted when the data path goes on, here or elsewhere
		h.interrupts.flushAll()
		return
	}
	if h.ready.Load() {
		if err := h.c.claimStorage(); err != nil {
			h.fatal(err)
		}
	}
	h.signalArrival()
	h.startQueues()
	if h.ready.Load() {
		h.watchDoorbells()
	}
	h.kickAll()
}

func (h *host) holdChores(held bool) {
	if held {
		h.c.subsystem.chores.hold()
	} else {
		h.c.subsystem.chores.release()
	}
}

// leave ends what belongs to the client. Its data path is held.
func (h *host) leave() {
	if h.ready.Load() && !h.admin.shutdown {
		h.c.smart.unsafeShutdowns.Add(1)
	}
	if h.ready.Swap(false) {
		h.c.keepHealth(false)
	}
	if h.held {
		h.holdChores(false)
	}
	h.c.subsystem.selfTest.resetBy(h.c)
	h.features.keepAlive.stop()
	h.dropQueues()
	h.interrupts.forgetDelays()
	h.unwatchDoorbells()
	for _, g := range h.groups {
		g.close()
	}
	h.couriers.close()
	h.giveBack()
	h.reader.Close()
	h.c.subsystem.leave(h)
	h.c.subsystem.disassociate(h.c)
}

// abandoned says whether nobody will see the completions of commands any more: what
// has not begun is not worth beginning.
func (h *host) abandoned() bool { return h.dropping.Load() || h.s.Context().Err() != nil }

// fatal ends the client and shows it in CSTS.
func (h *host) fatal(err error) {
	h.c.regs.setStatus(func(s spec.CSTS) spec.CSTS { return s | spec.CSTSFatal })
	h.s.Fail(err)
}

// flushAll flushes every namespace of the controller.
func (c *Controller) flushAll(by *courier) spec.Status {
	for _, ns := range c.active() {
		if st := by.flush(ns); !st.OK() {
			return st
		}
	}
	return spec.Success
}

// flush flushes a namespace, unless it is another one by now.
func (c *courier) flush(ns *namespace) spec.Status {
	ns.gate.lock.RLock()
	defer ns.gate.lock.RUnlock()
	if ns.info.ReadOnly || ns.view.Load() == nil {
		return spec.Success
	}
	return c.submit(ns, block.Request{Op: block.Flush})
}
