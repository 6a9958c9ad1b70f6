package engine

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// migrationArcs are the direct transitions (specification, "Direct State Transitions").
var migrationArcs = [codec.NumMigStates][]codec.MigState{
	codec.MigStop:     {codec.MigRunning, codec.MigStopCopy, codec.MigResuming},
	codec.MigRunning:  {codec.MigStop, codec.MigPreCopy},
	codec.MigStopCopy: {codec.MigStop},
	codec.MigResuming: {codec.MigStop},
	codec.MigPreCopy:  {codec.MigRunning, codec.MigStopCopy},
}

// migrationPath is the shortest way from a state to another one that has no state of the
// saving group in its inside ("Complex State Transitions"); ok is false if there is none.
func migrationPath(from, to codec.MigState, preCopy bool) (path []codec.MigState, ok bool) {
	switch {
	case from == codec.MigError, to == codec.MigError:
		return nil, false // only a reset leads out, and only a failure in
	case from == codec.MigStopCopy && to == codec.MigPreCopy:
		return nil, false
	case from == to:
		return nil, true
	}
	var reached [codec.NumMigStates][]codec.MigState
	for queue := []codec.MigState{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at != from && (at == codec.MigPreCopy || at == codec.MigStopCopy) {
			continue
		}
		for _, next := range migrationArcs[at] {
			if reached[next] != nil || next == from || next == codec.MigPreCopy && !preCopy {
				continue
			}
			reached[next] = append(slices.Clone(reached[at]), next)
			queue = append(queue, next)
		}
	}
	return reached[to], reached[to] != nil
}

// migration is a session's state of migration. It lives on the reactor; what may take its
// time runs beside it, for one command at a time.
type migration struct {
	session *Session
	device  Migrator  // nil: it cannot be migrated
	pre     PreCopier // nil: not while it runs

	state codec.MigState
	// sealed: no region is accessible, for the state is being read or written.
	sealed bool
	saver  *saver  // in PRE_COPY and STOP_COPY
	loader *loader // in RESUMING
	fired  bool    // interrupts were loaded that fire when the device runs

	busy bool   // something runs beside the reactor
	idle func() // to be called when it does not any more
}

func (m *migration) init(s *Session) {
	m.session = s
	m.device, _ = s.ep.device.(Migrator)
	m.pre, _ = s.ep.device.(PreCopier)
	m.enter(codec.MigRunning)
}

func (m *migration) enter(to codec.MigState) {
	m.state = to
	// In STOP the client may look at the device, as at libvfio-user's; not where the state
	// of the device is only half of what it will be.
	m.sealed = to != codec.MigRunning && to != codec.MigPreCopy && to != codec.MigStop
}

// flags is what the device can do.
func (m *migration) flags() codec.MigrationFlags {
	f := codec.MigrationStopCopy
	if m.pre != nil {
		f |= codec.MigrationPreCopy
	}
	return f
}

// set goes to another state and calls then when it is there, or when it cannot go on.
func (m *migration) set(to codec.MigState, then func(error)) {
	path, ok := migrationPath(m.state, to, m.pre != nil)
	if !ok {
		then(fmt.Errorf("migration from %v to %v: %w", m.state, to, unix.EINVAL))
		return
	}
	m.walk(path, then)
}

func (m *migration) walk(path []codec.MigState, then func(error)) {
	if len(path) == 0 {
		then(nil)
		return
	}
	from, to := m.state, path[0]
	m.arc(from, to, func(err error) {
		if err != nil {
			m.session.log.Warn("migration fails", "from", from, "to", to, "state", m.state, "err", err)
			then(err)
			return
		}
		m.enter(to)
		m.walk(path[1:], then)
	})
}

// arc does what a direct transition demands.
func (m *migration) arc(from, to codec.MigState, then func(error)) {
	s := m.session
	type arc struct{ from, to codec.MigState }
	switch (arc{from, to}) {
	case arc{codec.MigRunning, codec.MigStop}:
		m.hold(then)
	case arc{codec.MigStop, codec.MigRunning}:
		if m.fired {
			m.fired = false
			s.irqs.Flush()
		}
		s.path.release(m.unlessEnded(then))
	case arc{codec.MigRunning, codec.MigPreCopy}:
		m.saver = newSaver(s, m.pre)
		then(nil)
	case arc{codec.MigStop, codec.MigStopCopy}:
		m.saver = newSaver(s, nil)
		m.saver.snapshot = m.snapshot()
		then(nil)
	case arc{codec.MigPreCopy, codec.MigStopCopy}:
		m.hold(func(err error) {
			m.saver.snapshot = m.snapshot()
			m.saver.final = true
			then(err)
		})
	case arc{codec.MigPreCopy, codec.MigRunning}, arc{codec.MigStopCopy, codec.MigStop}:
		m.discard(func() { then(nil) })
	case arc{codec.MigStop, codec.MigResuming}:
		m.loader = newLoader(s, m.device)
		then(nil)
	case arc{codec.MigResuming, codec.MigStop}:
		m.complete(then)
	}
}

// hold stops the data path.
func (m *migration) hold(then func(error)) {
	m.session.events.collect()
	m.session.path.hold(m.unlessEnded(then))
}

func (m *migration) unlessEnded(then func(error)) func() {
	return func() {
		if m.session.state != stateDropped {
			then(nil)
		}
	}
}

// snapshot takes the engine's own part of the state.
func (m *migration) snapshot() func() (config, interrupts []byte) {
	d := &m.session.ep.desc
	config, interrupts := d.Config.Snapshot(), m.session.irqs.Save()
	if d.MSIX != nil {
		interrupts = append(interrupts, d.MSIX.Save()...)
	}
	return func() ([]byte, []byte) { return config, interrupts }
}

// complete ends RESUMING. If what was written is not a whole state, the device is in
// ERROR: it may have taken over a part of it.
func (m *migration) complete(then func(error)) {
	l := m.loader
	m.aside(l.finish, func(err error) {
		m.loader = nil
		if err == nil && l.total > 0 {
			err = m.restore(l)
		}
		if err != nil {
			m.enter(codec.MigError)
		}
		then(err)
	})
}

// restore takes over the engine's own part of the state. The device has taken its own.
func (m *migration) restore(l *loader) error {
	s, d := m.session, &m.session.ep.desc
	vectors := l.records.interrupts
	table := vectors[min(len(vectors), sum(d.IRQs[:])):]
	if d.MSIX != nil {
		vectors = vectors[:len(vectors)-len(table)]
		if err := d.MSIX.Restore(table); err != nil {
			return err
		}
	}
	if err := s.irqs.Restore(vectors); err != nil {
		return err
	}
	changed, err := d.Config.Restore(l.records.config)
	if err != nil {
		return err
	}
	m.fired = true
	if changed != 0 && d.ConfigWritten != nil {
		d.ConfigWritten(changed)
	}
	return nil
}

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// discard gives up the stream, if there is one, and calls then when the device has left
// its methods.
func (m *migration) discard(then func()) {
	saver, loader := m.saver, m.loader
	m.saver, m.loader = nil, nil
	if saver == nil && loader == nil {
		then()
		return
	}
	m.aside(func() error {
		if saver != nil {
			saver.close()
		}
		if loader != nil {
			loader.close()
		}
		return nil
	}, func(error) { then() })
}

// reset is a part of the device's reset, which follows: the device runs then, whatever
// state it was in.
func (m *migration) reset(then func()) {
	m.discard(func() {
		m.fired = false
		m.enter(codec.MigRunning)
		then()
	})
}

// end follows the end of the session, and calls then when nothing runs any more; broken
// says that the device has a state that no client should meet.
func (m *migration) end(then func(broken bool)) {
	if m.busy {
		m.idle = func() { m.end(then) }
		return
	}
	broken := m.state == codec.MigError || m.loader != nil && m.loader.total > 0
	m.discard(func() { then(broken) })
}

// aside runs work on a goroutine and then, on the reactor, what follows, unless the
// session has ended meanwhile. A panic in work is the device's and ends the session.
func (m *migration) aside(work func() error, then func(error)) {
	s := m.session
	ended := s.state == stateDropped
	m.busy = true
	go func() {
		var err error
		var panicked any
		var stack []byte
		func() {
			defer func() {
				if panicked = recover(); panicked != nil {
					stack = debug.Stack()
					err = errDevicePanic
				}
			}()
			// The device may look at guest memory, which the client can truncate.
			debug.SetPanicOnFault(true)
			err = work()
		}()
		s.Post(func() {
			m.busy = false
			if panicked != nil {
				s.log.Error("panic while the device is migrated", "panic", panicked, "stack", string(stack))
				m.enter(codec.MigError)
				s.drop(errDevicePanic)
			}
			switch {
			case m.idle != nil:
				idle := m.idle
				m.idle = nil
				idle()
			case ended || s.state != stateDropped:
				then(err)
			}
		})
	}()
}

// startMigDataRead is VFIO_USER_MIG_DATA_READ.
func (s *Session) startMigDataRead(msg *message) error {
	m := &s.migration
	var req codec.MigData
	if err := req.DecodeReadRequest(msg.payload); err != nil {
		return err
	}
	switch {
	case m.saver == nil:
		return fmt.Errorf("no migration data to read in %v: %w", m.state, unix.EINVAL)
	case req.Size > maxDataXfer || uint64(req.Size) > s.peer.MaxDataXferSize:
		return fmt.Errorf("%d bytes of migration data in one message: %w", req.Size, unix.EINVAL)
	}
	s.backlog.begin(msg.Header)
	v := m.saver
	var data []byte
	m.aside(func() (err error) {
		data, err = v.read(int(req.Size))
		return err
	}, func(err error) {
		if err != nil {
			s.log.Warn("state of the device cannot be read", "err", err)
		}
		reply := codec.MigData{ArgSz: codec.MigDataSize + uint32(len(data)), Size: uint32(len(data)), Data: data}
		s.backlog.finish(err, reply.Append)
	})
	return nil
}

// startMigDataWrite is VFIO_USER_MIG_DATA_WRITE. The reply comes when the device has
// taken the data, or when it is certain that it cannot use them.
func (s *Session) startMigDataWrite(msg *message) error {
	m := &s.migration
	var req codec.MigData
	if err := req.DecodeWriteRequest(msg.payload); err != nil {
		return err
	}
	l := m.loader
	switch {
	case l == nil:
		return fmt.Errorf("no migration data can be written in %v: %w", m.state, unix.EINVAL)
	case req.Size > maxDataXfer || uint64(req.Size) > s.peer.MaxDataXferSize:
		return fmt.Errorf("%d bytes of migration data in one message: %w", req.Size, unix.EINVAL)
	case int64(req.Size) > s.engine.cfg.MaxMigrationData-l.total:
		return fmt.Errorf("more than %d bytes of migration data: %w", s.engine.cfg.MaxMigrationData, unix.EFBIG)
	}
	s.backlog.begin(msg.Header)
	data := slices.Clone(req.Data)
	m.aside(func() error { return l.write(data) }, func(err error) {
		if err != nil && !errors.Is(err, errAbandoned) {
			s.log.Warn("migration data is refused", "err", err)
		}
		s.backlog.finish(err, nil)
	})
	return nil
}
