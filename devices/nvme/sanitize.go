package nvme

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

const (
	keptSanitize = "sanitize" // subject of the state directory

	sanitizeErase = 32 << 20 // bytes of a step that writes zeroes
	sanitizeWrite = 1 << 20  // bytes of a step that writes a pattern
	// sanitizeTime is how long it takes at least: a host is to see it in progress.
	sanitizeTime = 500 * time.Millisecond
	// sanitizeKeep is the pause between two records of how far it is.
	sanitizeKeep = time.Second
	// sanitizeSpeed is what estimated times go by, in bytes a second.
	sanitizeSpeed = 1 << 30
)

// sanitize is the sanitize operation of a subsystem (Base 2.0, 8.20). While it is in progress,
// and after it has failed, no namespace can be reached.
type sanitize struct {
	mu    sync.Mutex
	pace  time.Duration // in place of the least time, if not 0
	state sanitizeState
	runs  bool // the goroutine
}

// sanitizeState is what is kept, and moves.
type sanitizeState struct {
	Status       uint8  // spec.Sanitize*
	CDW10, CDW11 uint32 // of the last command
	Passes       uint8  // that are complete
	Erased       bool   // nothing was written since it succeeded
	Writes       uint64 // of all hosts then

	// Where it is: a namespace, and a byte in it. Passes is 0 for a block erase.
	Namespace uint32
	Offset    int64
	Progress  uint16
}

func (s *sanitizeState) possible() bool {
	return s.Status <= spec.SanitizeNotDeallocated && s.Passes <= 16 && s.Offset >= 0 && s.Offset%block.SectorSize == 0 &&
		(s.Status != spec.SanitizeRuns || offersSanitize(s.action()))
}

func offersSanitize(action uint32) bool {
	return action == spec.SanitizeActionBlockErase || action == spec.SanitizeActionOverwrite
}

// action, passes and unrestricted are what the command says.
func (s *sanitizeState) action() uint32     { return s.CDW10 & 7 }
func (s *sanitizeState) unrestricted() bool { return s.CDW10&spec.SanitizeUnrestricted != 0 }
func (s *sanitizeState) keepAllocated() bool {
	return s.CDW10&spec.SanitizeNoDeallocate != 0
}

func (s *sanitizeState) passes() int {
	if s.action() != spec.SanitizeActionOverwrite {
		return 1
	}
	if n := int(s.CDW10 >> 4 & 0xf); n > 0 {
		return n
	}
	return 16
}

// refusal is the status of commands that cannot be carried out now.
func (s *sanitizeState) refusal() spec.Status {
	switch s.Status {
	case spec.SanitizeRuns:
		return spec.SanitizeInProgress | spec.StatusDNR
	case spec.SanitizeHasFailed:
		return spec.SanitizeFailed | spec.StatusDNR
	}
	return spec.Success
}

func (z *sanitize) get() sanitizeState {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.state
}

// running is the state of the operation for the goroutine, which is to end if there is none any
// more: the state of another drive may have arrived.
func (z *sanitize) running() (st sanitizeState, ok bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.runs = z.state.Status == spec.SanitizeRuns
	return z.state, z.runs
}

func (z *sanitize) change(f func(*sanitizeState)) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f(&z.state)
}

// allowedDuringSanitize are the admin commands that go on (Base 2.0, figure 640).
var allowedDuringSanitize = [256]bool{
	spec.AdminDeleteSQ: true, spec.AdminCreateSQ: true, spec.AdminGetLogPage: true, spec.AdminDeleteCQ: true,
	spec.AdminCreateCQ: true, spec.AdminIdentify: true, spec.AdminAbort: true, spec.AdminSetFeatures: true,
	spec.AdminGetFeatures: true, spec.AdminAsyncEvent: true, spec.AdminKeepAlive: true, spec.AdminDoorbellBuffer: true,
	spec.AdminSanitize: true,
}

// refusesAdmin is the status of an admin command because of a sanitize operation.
func (s *Subsystem) refusesAdmin(opcode uint8) spec.Status {
	if allowedDuringSanitize[opcode] {
		return spec.Success
	}
	st := s.sanitize.get()
	return st.refusal()
}

// sanitizeCommand is Sanitize (Base 2.0, 5.23). It completes when the operation has begun.
func (h *host) sanitizeCommand(e *spec.SubmissionEntry) (spec.Status, uint32) {
	s := h.c.subsystem
	now := s.sanitize.get()
	next := sanitizeState{Status: spec.SanitizeRuns, CDW10: e.CDW10 & 0x3ff, CDW11: e.CDW11}
	failed := now.Status == spec.SanitizeHasFailed
	switch {
	case now.Status == spec.SanitizeRuns:
		return spec.SanitizeInProgress | spec.StatusDNR, 0
	case next.action() == spec.SanitizeActionExitFailure && failed && !now.unrestricted():
		return spec.SanitizeFailed | spec.StatusDNR, 0
	case next.action() == spec.SanitizeActionExitFailure:
		if !failed {
			return spec.Success, 0
		}
		return h.later(e, func(context.Context, *courier) (spec.Status, uint32) {
			s.sanitize.change(func(st *sanitizeState) { *st = sanitizeState{} })
			s.openNamespaces()
			s.keepSanitize()
			return spec.Success, 0
		}, nil)
	case !offersSanitize(next.action()):
		return badField, 0
	case failed && !now.unrestricted() && next.unrestricted():
		return spec.SanitizeFailed | spec.StatusDNR, 0
	case s.firmware.state().Next != 0:
		return spec.FirmwareNeedsReset | spec.StatusDNR, 0
	}
	for _, ns := range s.list() {
		if ns.info.ReadOnly {
			return spec.NamespaceWriteProtected | spec.StatusDNR, 0
		}
	}
	s.sanitize.change(func(st *sanitizeState) { *st = next })
	s.selfTest.abort(nil, spec.SelfTestSanitized)
	return h.later(e, func(context.Context, *courier) (spec.Status, uint32) {
		start := make([]byte, spec.SanitizeStartEventSize)
		binary.LittleEndian.PutUint32(start[0:], sanitizeCapabilities)
		binary.LittleEndian.PutUint32(start[4:], next.CDW10)
		binary.LittleEndian.PutUint32(start[8:], next.CDW11)
		s.record(h.c, spec.EventSanitizeStart, 1, start)
		s.keepSanitize()
		s.closeNamespaces(next.refusal())
		s.resumeSanitize(h.c)
		return spec.Success, 0
	}, nil)
}

// closeNamespaces lets no command reach the namespaces, and waits for those that do.
func (s *Subsystem) closeNamespaces(refusal spec.Status) {
	for _, ns := range s.list() {
		if ns.refusal.Swap(uint32(refusal)) != uint32(refusal) {
			s.renew(ns.allocation)
		}
	}
}

func (s *Subsystem) openNamespaces() { s.closeNamespaces(spec.Success) }

// runSanitize does the operation, from where its state says.
func (s *Subsystem) runSanitize(ctx context.Context, c *Controller) {
	z := &s.sanitize
	least := sanitizeTime
	if z.pace > 0 {
		least = z.pace
	}
	begun, kept := time.Now(), time.Now()
	by, failed := newStorage(), false
	var pattern []byte
	for !failed {
		st, ok := z.running()
		if !ok {
			return
		}
		if int(st.Passes) >= st.passes() {
			break
		}
		a, next := s.sanitizeNext(&st)
		if a == nil {
			z.change(func(st *sanitizeState) { st.Passes, st.Namespace, st.Offset = st.Passes+1, 0, 0 })
			continue
		}
		if st.action() == spec.SanitizeActionOverwrite {
			pattern = st.pattern(pattern)
		}
		done := s.chores.step(ctx, func() {
			n, err := s.sanitizeStep(a, &st, next, pattern, by)
			failed = err != nil
			z.change(func(st *sanitizeState) { st.Namespace, st.Offset = a.id, next+n })
		})
		if !done {
			return
		}
		progress := s.sanitizeProgress(z.get())
		z.change(func(st *sanitizeState) { st.Progress = progress })
		if now := time.Now(); now.Sub(kept) >= sanitizeKeep {
			kept = now
			s.keepSanitize()
		}
	}
	select {
	case <-time.After(time.Until(begun.Add(least))):
	case <-ctx.Done():
		return
	}
	s.endSanitize(c, failed)
}

// sanitizeNext finds where to go on in this pass; nil: it is complete.
func (s *Subsystem) sanitizeNext(st *sanitizeState) (*allocation, int64) {
	for _, ns := range s.list() {
		switch {
		case ns.id < st.Namespace || ns.refusal.Load() == 0: // is done, or came later
		case ns.id > st.Namespace:
			return ns.allocation, 0
		case st.Offset < ns.stored():
			return ns.allocation, st.Offset
		}
	}
	return nil, 0
}

// sanitizeStep erases, or overwrites, a piece of a namespace from an offset.
func (s *Subsystem) sanitizeStep(a *allocation, st *sanitizeState, off int64, pattern []byte, by *storage) (n int64, err error) {
	a.gate.lock.RLock()
	defer a.gate.lock.RUnlock()
	ns := a.view.Load()
	if ns == nil || off >= ns.stored() {
		return sanitizeErase, nil
	}
	data := ns.bytes(ns.blocks)
	zeroes := block.Request{Op: block.WriteZeroes, Offset: off, Deallocate: !st.keepAllocated()}
	switch {
	case st.action() == spec.SanitizeActionBlockErase:
		zeroes.Length = min(sanitizeErase, ns.stored()-off)
		err = by.submit(ns, zeroes)
	case off < data: // the pattern is in the blocks, and metadata is as after a format
		zeroes.Length = min(sanitizeWrite, data-off)
		err = by.submit(ns, block.Request{Op: block.Write, Offset: off, Length: zeroes.Length, Buffers: [][]byte{pattern[:zeroes.Length]}})
		if err == nil && int(st.Passes)+1 == st.passes() && !st.keepAllocated() {
			err = by.submit(ns, zeroes)
		}
	default:
		zeroes.Length = min(sanitizeErase, ns.stored()-off)
		err = by.submit(ns, zeroes)
	}
	if err == nil && off+zeroes.Length == ns.stored() {
		err = by.submit(ns, block.Request{Op: block.Flush})
		s.uncorrectable.written(ns, 0, ns.blocks)
	}
	return zeroes.Length, err
}

// pattern is a buffer of what this pass writes; b has the size of one, or is nil.
func (s *sanitizeState) pattern(b []byte) []byte {
	if b == nil {
		b = make([]byte, sanitizeWrite)
	}
	v := s.CDW11
	if s.CDW10&spec.SanitizeInvert != 0 && s.Passes%2 == 1 {
		v = ^v
	}
	for i := 0; i < len(b); i += 4 {
		binary.LittleEndian.PutUint32(b[i:], v)
	}
	return b
}

// sanitizeProgress is in units of 1/65536. The last one means that no operation is in progress.
func (s *Subsystem) sanitizeProgress(st sanitizeState) uint16 {
	var done, total int64
	for _, ns := range s.list() {
		total += ns.stored()
		switch {
		case ns.id < st.Namespace:
			done += ns.stored()
		case ns.id == st.Namespace:
			done += min(st.Offset, ns.stored())
		}
	}
	if total == 0 {
		return 0
	}
	passes := float64(st.passes())
	return uint16(min(65534, (float64(st.Passes)+float64(done)/float64(total))/passes*65536))
}

// endSanitize makes the namespaces reachable again, if it has succeeded, and tells all hosts.
// What a host finds when it sees the end is as it will be after a crash.
func (s *Subsystem) endSanitize(c *Controller, failed bool) {
	z := &s.sanitize
	st, ok := z.running()
	if !ok {
		return
	}
	st.Progress = 0xffff
	if st.Status = spec.SanitizeSucceeded; failed {
		st.Status = spec.SanitizeHasFailed
	} else {
		st.Erased, st.Writes = true, s.hostWrites()
	}
	s.keepNow(keptSanitize, func() any { return st })
	end := make([]byte, spec.SanitizeEndEventSize)
	binary.LittleEndian.PutUint16(end[0:], st.Progress)
	binary.LittleEndian.PutUint16(end[2:], s.sanitizeStatus(&st))
	s.record(c, spec.EventSanitizeEnd, 1, end)
	s.closeNamespaces(st.refusal())
	z.mu.Lock()
	z.state, z.runs = st, false
	z.mu.Unlock()
	s.closeNamespaces(st.refusal()) // of those too that were made in between
	s.tell(eventSanitize)
	if failed {
		s.reportTelemetry(c, "a sanitize operation failed")
	}
}

// hostWrites counts the writes of all hosts.
func (s *Subsystem) hostWrites() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.controllers {
		if c != nil {
			n += c.smart.writes.Load()
		}
	}
	return n
}

// sanitizeStatus is SSTAT.
func (s *Subsystem) sanitizeStatus(st *sanitizeState) uint16 {
	v := uint16(st.Status)
	if st.action() == spec.SanitizeActionOverwrite {
		v |= uint16(st.Passes) << 3
	}
	if st.Erased && st.Writes == s.hostWrites() {
		v |= spec.SanitizeGlobalErased
	}
	return v
}

const sanitizeCapabilities = spec.SanitizeBlockErase | spec.SanitizeOverwrite | spec.SanitizeUnmodified

// sanitizePage is the sanitize status log (Base 2.0, 5.16.1.25).
func (h *host) sanitizePage() []byte {
	s := h.c.subsystem
	st := s.sanitize.get()
	var size int64
	for _, ns := range s.list() {
		size += ns.stored()
	}
	seconds := uint32((size + sanitizeSpeed - 1) / sanitizeSpeed)
	l := &spec.SanitizeLog{
		Progress: 0xffff, Status: s.sanitizeStatus(&st), CDW10: st.CDW10,
		Overwrite: seconds, BlockErase: seconds, CryptoErase: spec.SanitizeNoEstimate,
		OverwriteKept: seconds, BlockEraseKept: seconds, CryptoEraseKept: spec.SanitizeNoEstimate,
	}
	if st.Status == spec.SanitizeRuns {
		l.Progress = st.Progress
	}
	return page(spec.SanitizeSize, l)
}

func (s *Subsystem) keepSanitize() { s.keepNow(keptSanitize, func() any { return s.sanitize.get() }) }

// recallSanitize takes over what an earlier process has kept.
func (s *Subsystem) recallSanitize() error {
	var st sanitizeState
	if _, err := s.state.recall(keptSanitize, &st); err != nil {
		return err
	}
	if !st.possible() {
		return impossible(keptSanitize)
	}
	st.Erased = false // who wrote meanwhile is not known
	s.sanitize.state = st
	return nil
}

// resumeSanitize goes on with an operation that has begun, perhaps in an earlier process or in
// another server.
func (s *Subsystem) resumeSanitize(c *Controller) {
	z := &s.sanitize
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.state.Status == spec.SanitizeRuns && !z.runs {
		z.runs = true
		s.chores.start(func(ctx context.Context) { s.runSanitize(ctx, c) })
	}
}

// loadSanitize takes over the state of a drive that arrives.
func (s *Subsystem) loadSanitize(c *Controller, st sanitizeState) {
	s.sanitize.change(func(now *sanitizeState) { *now = st })
	s.closeNamespaces(st.refusal())
	s.keepSanitize()
	s.resumeSanitize(c)
}
