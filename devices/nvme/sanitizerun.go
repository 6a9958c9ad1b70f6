package nvme

import (
	"context"
	"encoding/binary"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
)

// closeNamespaces lets no command reach the namespaces, and waits for those that do.
func (s *Subsystem) closeNamespaces(refusal spec.Status) {
	for _, ns := range s.list() {
		if ns.refusal.Swap(uint32(refusal)) != uint32(refusal) {
			s.renew(ns.allocation)
		}
	}
}

func (s *Subsystem) openNamespaces() { s.closeNamespaces(spec.Success) }

// runSanitize does the operation, from where its state says. The state of another drive may take
// its place at any time, and then that is gone on with.
func (s *Subsystem) runSanitize(ctx context.Context, c *Controller) {
	z := &s.sanitize
	least := sanitizeTime
	if z.pace > 0 {
		least = z.pace
	}
	begun, kept := time.Now(), time.Now()
	by := newStorage()
	var pattern []byte
	for {
		st, ok := z.running()
		if !ok {
			return
		}
		var failed bool
		if int(st.Passes) < st.passes() {
			a, at := s.sanitizeNext(&st)
			if a == nil {
				next := st
				next.Passes, next.Namespace, next.Offset = st.Passes+1, 0, 0
				z.replace(st, next)
				continue
			}
			if st.action() == spec.SanitizeActionOverwrite {
				pattern = st.pattern(pattern)
			}
			done := s.chores.step(ctx, func() {
				var n int64
				var err error
				if n, err = s.sanitizeStep(a, &st, at, pattern, by); err != nil {
					failed = true
					return
				}
				next := st
				next.Namespace, next.Offset = a.id, at+n
				next.Progress = s.sanitizeProgress(next)
				z.replace(st, next)
			})
			if !done {
				return
			}
			if now := time.Now(); now.Sub(kept) >= sanitizeKeep {
				kept = now
				s.keepSanitize()
			}
			if !failed {
				continue
			}
		}
		select {
		case <-time.After(time.Until(begun.Add(least))):
		case <-ctx.Done():
			return
		}
		if s.endSanitize(c, st, failed) {
			return
		}
		begun = time.Now()
	}
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

// endSanitize makes the namespaces reachable again, if it has succeeded, and tells all hosts. now is
// the state that it follows from; false: that does not hold any more. What a host finds when it sees
// the end is as it will be after a crash.
func (s *Subsystem) endSanitize(c *Controller, now sanitizeState, failed bool) bool {
	z := &s.sanitize
	z.turn.Lock()
	defer z.turn.Unlock()
	if z.get() != now {
		return false
	}
	st := now
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
	return true
}
