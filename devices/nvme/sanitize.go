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
	// turn is held while an operation begins or ends, and while the state of a drive arrives. Who
	// has it may wait for the storage.
	turn sync.Mutex

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

func (z *sanitize) set(st sanitizeState) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.state = st
}

// replace is set for a state that follows from another one, unless that does not hold any more.
func (z *sanitize) replace(now, next sanitizeState) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.state != now {
		return false
	}
	z.state = next
	return true
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

// sanitizeCommand is Sanitize (Base 2.0, 5.23). It completes when the operation has begun. The
// hosts of a subsystem have their turns: of two operations only one begins.
func (h *host) sanitizeCommand(e *spec.SubmissionEntry) (spec.Status, uint32) {
	next := sanitizeState{Status: spec.SanitizeRuns, CDW10: e.CDW10 & 0x3ff, CDW11: e.CDW11}
	exit := next.action() == spec.SanitizeActionExitFailure
	if !exit && !offersSanitize(next.action()) {
		return badField, 0
	}
	return h.later(e, func(context.Context, *courier) (spec.Status, uint32) {
		s := h.c.subsystem
		s.sanitize.turn.Lock()
		defer s.sanitize.turn.Unlock()
		if exit {
			return s.exitSanitize(), 0
		}
		return s.beginSanitize(h.c, next), 0
	}, nil)
}

// beginSanitize has the turn.
func (s *Subsystem) beginSanitize(c *Controller, next sanitizeState) spec.Status {
	now := s.sanitize.get()
	failed := now.Status == spec.SanitizeHasFailed
	switch {
	case now.Status == spec.SanitizeRuns:
		return now.refusal()
	case failed && !now.unrestricted() && next.unrestricted():
		return now.refusal()
	case s.firmware.state().Next != 0:
		return spec.FirmwareNeedsReset | spec.StatusDNR
	}
	for _, ns := range s.list() {
		if ns.info.ReadOnly {
			return spec.NamespaceWriteProtected | spec.StatusDNR
		}
	}
	s.sanitize.set(next)
	s.selfTest.abort(nil, spec.SelfTestSanitized)
	start := make([]byte, spec.SanitizeStartEventSize)
	binary.LittleEndian.PutUint32(start[0:], sanitizeCapabilities)
	binary.LittleEndian.PutUint32(start[4:], next.CDW10)
	binary.LittleEndian.PutUint32(start[8:], next.CDW11)
	s.record(c, spec.EventSanitizeStart, 1, start)
	s.keepSanitize()
	s.closeNamespaces(next.refusal())
	s.startSanitize(c)
	return spec.Success
}

// exitSanitize is Exit Failure Mode. It has the turn.
func (s *Subsystem) exitSanitize() spec.Status {
	switch now := s.sanitize.get(); {
	case now.Status == spec.SanitizeHasFailed && now.unrestricted():
		s.sanitize.set(sanitizeState{})
		s.openNamespaces()
		s.keepSanitize()
		return spec.Success
	default:
		return now.refusal()
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

// resumeSanitize goes on with an operation that has begun in an earlier process.
func (s *Subsystem) resumeSanitize(c *Controller) {
	s.sanitize.turn.Lock()
	defer s.sanitize.turn.Unlock()
	s.startSanitize(c)
}

// startSanitize has an operation go on that has begun. It has the turn.
func (s *Subsystem) startSanitize(c *Controller) {
	z := &s.sanitize
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.state.Status == spec.SanitizeRuns && !z.runs {
		z.runs = true
		s.chores.start(func(ctx context.Context) {
			defect := true
			defer func() {
				if defect {
					s.endSanitize(c, z.get(), true)
				}
			}()
			s.runSanitize(ctx, c)
			defect = false
		})
	}
}

// loadSanitize takes over the state of a drive that arrives.
func (s *Subsystem) loadSanitize(c *Controller, st sanitizeState) {
	s.sanitize.turn.Lock()
	defer s.sanitize.turn.Unlock()
	s.sanitize.set(st)
	s.closeNamespaces(st.refusal())
	s.keepSanitize()
	s.startSanitize(c)
}
