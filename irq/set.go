package irq

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// Index is a type of interrupt, by the numbers of VFIO.
type Index = codec.IRQIndex

// The indexes of a PCI device, under short names.
const (
	INTx       = codec.IRQINTx
	MSI        = codec.IRQMSI
	MSIX       = codec.IRQMSIX
	Err        = codec.IRQErr
	Req        = codec.IRQReq
	NumIndexes = codec.NumIRQIndexes
)

// Config describes a set.
type Config struct {
	// Counts is how many vectors each index has.
	Counts [NumIndexes]int
	// OnStuck, if set, is called once, from a goroutine of the set's own, when its
	// client was found to block a writer: the session is to be dropped.
	OnStuck func()
	// CloseFD closes a descriptor that is refused. It may be of any kind, and closing it
	// may take as long as the client wants. nil: close(2).
	CloseFD func(fd int)
}

// Set holds the interrupts of one session. Its methods may be called from any
// goroutine.
type Set struct {
	vectors [NumIndexes][]Vector

	mu      sync.Mutex
	enabled [NumIndexes]bool
	closed  bool
	stuck   bool
	onStuck func() // nil once it was called
	closeFD func(int)
	leaving []*event // closed while somebody used them

	watched atomic.Bool
	timer   *time.Timer
	period  time.Duration
}

// watchPeriod is how long a write may take before it is looked at.
const watchPeriod = 50 * time.Millisecond

// NewSet makes a set without any eventfd. Close it.
func NewSet(cfg Config) *Set {
	s := &Set{period: watchPeriod, onStuck: cfg.OnStuck, closeFD: cfg.CloseFD}
	if s.closeFD == nil {
		s.closeFD = func(fd int) { _ = unix.Close(fd) }
	}
	for i, n := range cfg.Counts {
		s.vectors[i] = make([]Vector, max(n, 0))
		for k := range s.vectors[i] {
			v := &s.vectors[i][k]
			v.set = s
			v.state.Store(initialState(Index(i)))
		}
	}
	s.timer = time.AfterFunc(math.MaxInt64, s.expire)
	s.timer.Stop()
	return s
}

func initialState(i Index) uint32 {
	switch i {
	case INTx:
		return stateAuto | stateLatch
	case MSI, MSIX:
		return stateLatch
	}
	return 0
}

// Count gives the number of vectors of an index.
func (s *Set) Count(i Index) int {
	if i >= NumIndexes {
		return 0
	}
	return len(s.vectors[i])
}

// Vector gives a vector, nil if there is none. It stays the same for the life of
// the set, whatever the client assigns.
func (s *Set) Vector(i Index, n int) *Vector {
	if n < 0 || n >= s.Count(i) {
		return nil
	}
	return &s.vectors[i][n]
}

// Enabled tells whether the client has enabled the index and not disabled it since.
func (s *Set) Enabled(i Index) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return i < NumIndexes && s.enabled[i]
}

// span checks a range and gives its vectors.
func (s *Set) span(i Index, start, count int) ([]Vector, error) {
	n := s.Count(i)
	if start < 0 || count <= 0 || start >= n || count > n-start {
		return nil, fmt.Errorf("%w: %v %d, count %d, of %d", ErrRange, i, start, count, n)
	}
	return s.vectors[i][start : start+count], nil
}

// role is the action whose eventfd is set.
type role func(*Vector) *atomic.Pointer[event]

func onTrigger(v *Vector) *atomic.Pointer[event] { return &v.event }
func onMask(v *Vector) *atomic.Pointer[event]    { return &v.onMask }
func onUnmask(v *Vector) *atomic.Pointer[event]  { return &v.onUnmask }

// SetEventfds assigns eventfds to vectors from start on (EVENTFD|TRIGGER), -1 takes
// one away; what was assigned is replaced, what is pending fires. The set owns the
// descriptors from the call on. All are assigned or, with an error, none.
func (s *Set) SetEventfds(i Index, start int, fds []int) error {
	return s.assign(i, start, fds, onTrigger)
}

// SetMaskEventfds assigns eventfds that are signalled when a vector is masked, by
// the client or by itself (EVENTFD|MASK). Otherwise as SetEventfds.
func (s *Set) SetMaskEventfds(i Index, start int, fds []int) error {
	return s.assign(i, start, fds, onMask)
}

// SetUnmaskEventfds assigns eventfds that are signalled when a vector is unmasked
// (EVENTFD|UNMASK). Otherwise as SetEventfds.
func (s *Set) SetUnmaskEventfds(i Index, start int, fds []int) error {
	return s.assign(i, start, fds, onUnmask)
}

// Enable enables the index and takes the eventfds of the range away: EVENTFD|TRIGGER
// without descriptors, which is how QEMU enables MSI-X before it has any.
func (s *Set) Enable(i Index, start, count int) error {
	return s.deassign(i, start, count, onTrigger)
}

// ClearMaskEventfds takes the eventfds of SetMaskEventfds away (EVENTFD|MASK without
// descriptors).
func (s *Set) ClearMaskEventfds(i Index, start, count int) error {
	return s.deassign(i, start, count, onMask)
}

// ClearUnmaskEventfds takes the eventfds of SetUnmaskEventfds away (EVENTFD|UNMASK
// without descriptors).
func (s *Set) ClearUnmaskEventfds(i Index, start, count int) error {
	return s.deassign(i, start, count, onUnmask)
}

func (s *Set) assign(i Index, start int, fds []int, of role) error {
	events, err := adopt(fds)
	if err == nil {
		err = s.install(i, start, events, of)
	}
	if err != nil {
		for _, fd := range fds {
			if fd >= 0 {
				s.closeFD(fd)
			}
		}
	}
	return err
}

func (s *Set) deassign(i Index, start, count int, of role) error {
	if _, err := s.span(i, start, count); err != nil {
		return err
	}
	return s.install(i, start, make([]*event, count), of)
}

// adopt makes events of descriptors; it takes ownership only if it succeeds.
func adopt(fds []int) ([]*event, error) {
	events := make([]*event, len(fds))
	for k, fd := range fds {
		if fd < 0 {
			continue
		}
		if !isEventfd(fd) {
			return nil, fmt.Errorf("%w: number %d of %d", ErrNotEventfd, k, len(fds))
		}
		events[k] = &event{fd: fd}
	}
	return events, nil
}

// install puts events in their places. The descriptors are the set's if it succeeds.
func (s *Set) install(i Index, start int, events []*event, of role) error {
	vs, err := s.span(i, start, len(events))
	if err != nil {
		return err
	}
	trigger := of(&vs[0]) == &vs[0].event
	if !trigger && i > MSIX {
		return ErrAction
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.enabled[i] = s.enabled[i] || trigger
	for k, e := range events {
		s.dismiss(of(&vs[k]).Swap(e))
	}
	s.mu.Unlock()
	if trigger {
		for k := range vs {
			_ = vs[k].flush()
		}
	}
	return nil
}

// dismiss closes an event that is in no vector any more. The caller holds mu.
func (s *Set) dismiss(e *event) {
	if e == nil {
		return
	}
	e.close()
	if e.word.Load()&eventDead == 0 {
		s.leaving = append(s.leaving, e)
	}
}

// Mask masks vectors (NONE|MASK, BOOL|MASK): all of the range, or those for which
// which, if not nil, is not 0.
func (s *Set) Mask(i Index, start, count int, which []byte) error {
	return s.act(i, start, count, which, false, func(v *Vector) error { v.mask(); return nil })
}

// Unmask unmasks vectors (NONE|UNMASK, BOOL|UNMASK); those that are pending fire.
func (s *Set) Unmask(i Index, start, count int, which []byte) error {
	return s.act(i, start, count, which, false, (*Vector).unmask)
}

// Trigger triggers vectors on behalf of the client (NONE|TRIGGER, BOOL|TRIGGER).
// Vectors without an eventfd are passed over.
func (s *Set) Trigger(i Index, start, count int, which []byte) error {
	return s.act(i, start, count, which, true, func(v *Vector) error {
		if !v.Assigned() {
			return nil
		}
		return v.Trigger()
	})
}

func (s *Set) act(i Index, start, count int, which []byte, trigger bool, do func(*Vector) error) error {
	vs, err := s.span(i, start, count)
	switch {
	case err != nil:
		return err
	case which != nil && len(which) != count:
		return fmt.Errorf("%w: %d bytes for %d interrupts", ErrData, len(which), count)
	case !trigger && i > MSIX:
		return ErrAction
	}
	for k := range vs {
		if which != nil && which[k] == 0 {
			continue
		}
		if err := do(&vs[k]); err != nil {
			return err
		}
	}
	return nil
}

// Disable disables an index (NONE|TRIGGER, count 0): it drops all eventfds, masks and
// what is pending. The level of an INTx line is the device's and stays.
func (s *Set) Disable(i Index) error {
	if i >= NumIndexes {
		return fmt.Errorf("%w: %v", ErrRange, i)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enabled[i] = false
	s.clear(i)
	return nil
}

func (s *Set) clear(i Index) {
	for k := range s.vectors[i] {
		v := &s.vectors[i][k]
		for _, of := range []role{onTrigger, onMask, onUnmask} {
			s.dismiss(of(v).Swap(nil))
		}
		v.state.And(^uint32(stateMasked | statePending))
	}
}

// ClearPending forgets what is pending and lowers all lines: for a device reset.
// Eventfds and masks stay (VFIO_USER_DEVICE_RESET does not touch them).
func (s *Set) ClearPending() {
	for i := range s.vectors {
		for k := range s.vectors[i] {
			s.vectors[i][k].state.And(^uint32(statePending | stateLevel))
		}
	}
}

// Close drops everything; triggers give ErrClosed from now on. It waits for nobody: a
// descriptor that is being written to is closed by that writer. Idempotent.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.shut()
	for i := range s.vectors {
		s.enabled[i] = false
		s.clear(Index(i))
	}
}

// shut stops all triggers.
func (s *Set) shut() {
	for i := range s.vectors {
		for k := range s.vectors[i] {
			s.vectors[i][k].state.Or(stateClosed)
		}
	}
}
