package engine

import (
	"fmt"
	"iter"
	"runtime/debug"
)

// saver is a stream of migration data on its way out. The device's methods run as a
// coroutine of whoever reads, so that nothing is produced before it is asked for and
// never more than a record is kept. One goroutine uses it at a time.
type saver struct {
	session   *Session
	id        identity
	preCopier PreCopier // nil: there are no rounds
	// snapshot gives the engine's own part; it is called once the data path is held.
	snapshot func() (config, interrupts []byte)

	writer recordWriter
	yield  func([]byte) bool
	next   func() ([]byte, bool)
	stop   func()
	rest   []byte // of a record
	buf    []byte // for the reply
	err    error  // why there is no more
	round  int    // the next one
	final  bool   // the data path is held: SaveState is next
	ended  bool
}

func newSaver(s *Session, preCopier PreCopier) *saver {
	v := &saver{session: s, id: identityOf(s.ep), preCopier: preCopier, final: preCopier == nil}
	v.writer.out = func(record []byte) error {
		if !v.yield(record) {
			return errAbandoned
		}
		return nil
	}
	return v
}

// read gives up to n bytes, which are valid until the next read. Fewer mean that a round
// of PRE_COPY has ended, or the stream.
func (v *saver) read(n int) ([]byte, error) {
	v.buf = v.buf[:0]
	for len(v.buf) < n && v.err == nil {
		if len(v.rest) == 0 {
			more, end := v.fill()
			if end {
				break
			}
			if !more {
				continue
			}
		}
		k := min(n-len(v.buf), len(v.rest))
		v.buf = append(v.buf, v.rest[:k]...)
		v.rest = v.rest[k:]
	}
	return v.buf, v.err
}

// fill gets the next record; end says that a round, or all, has come to its end.
func (v *saver) fill() (more, end bool) {
	if v.next == nil {
		if v.ended {
			return false, true
		}
		v.begin()
	}
	last := v.ended
	if v.rest, more = v.next(); more {
		return true, false
	}
	v.next, v.stop = nil, nil
	// The rest of a round that was under way when the data path was held is followed by
	// what SaveState writes.
	return false, last || !v.final
}

// begin begins the next round, or the last part.
func (v *saver) begin() {
	part := v.saveRound
	if v.final {
		v.ended = true
		part = v.saveRest
	}
	v.next, v.stop = iter.Pull(func(yield func([]byte) bool) {
		debug.SetPanicOnFault(true) // as in migration.aside: this is a goroutine, too
		v.yield = yield
		if v.writer.sequence == 0 {
			v.writer.put(recordIdentity, v.id.append(nil))
		}
		if v.writer.err != nil {
			v.err = v.writer.err
			return
		}
		if err := part(); err != nil {
			v.err = err
		}
	})
}

func (v *saver) saveRound() error {
	round := v.round
	v.round++
	if err := v.preCopier.PreCopy(v.session, round, &v.writer); err != nil {
		return fmt.Errorf("device cannot save its state: %w", err)
	}
	v.writer.flush()
	return v.writer.err
}

func (v *saver) saveRest() error {
	config, interrupts := v.snapshot()
	v.writer.put(recordConfig, config)
	v.writer.put(recordInterrupts, interrupts)
	if v.writer.err != nil {
		return v.writer.err
	}
	if err := v.session.migration.device.SaveState(v.session, &v.writer); err != nil {
		return fmt.Errorf("device cannot save its state: %w", err)
	}
	v.writer.put(recordEnd, nil)
	return v.writer.err
}

// close makes the device leave its methods and tells it that it is over.
func (v *saver) close() {
	if v.stop != nil {
		v.stop()
		v.next, v.stop = nil, nil
	}
	if v.preCopier != nil {
		v.preCopier.EndPreCopy(v.session)
		v.preCopier = nil
	}
}

// loader is a stream of migration data on its way in. The device's LoadState runs as a
// coroutine of whoever writes: when a write returns all of it was read, and nothing is
// kept but the part of a record. One goroutine uses it at a time.
type loader struct {
	session *Session
	id      identity
	device  Migrator

	records  recordReader
	data     []byte // written and not read yet
	total    int64  // bytes written
	end      bool   // no more will be written
	yield    func(struct{}) bool
	next     func() (struct{}, bool)
	stop     func()
	finished bool // the coroutine has returned
	err      error
}

func newLoader(s *Session, device Migrator) *loader {
	l := &loader{session: s, id: identityOf(s.ep), device: device}
	l.records.in = l
	l.next, l.stop = iter.Pull(func(yield func(struct{}) bool) {
		debug.SetPanicOnFault(true) // likewise
		l.yield = yield
		l.err = l.load()
		l.finished = true
	})
	return l
}

func (l *loader) load() error {
	version, err := l.records.begin(l.id)
	if err != nil {
		return err
	}
	if err := l.device.LoadState(l.session, version, &l.records); err != nil {
		if l.records.err != nil {
			return l.records.err
		}
		return fmt.Errorf("device cannot load its state: %w", err)
	}
	return l.records.finish()
}

// Read is where the coroutine waits for data.
func (l *loader) Read(p []byte) (int, error) {
	for len(l.data) == 0 {
		if l.end {
			return 0, fmt.Errorf("%w: it ends before it is complete", errStream)
		}
		if !l.yield(struct{}{}) {
			return 0, errAbandoned
		}
	}
	n := copy(p, l.data)
	l.data = l.data[n:]
	return n, nil
}

// write hands data to the device. The error says what was wrong with the stream so far.
func (l *loader) write(p []byte) error {
	l.total += int64(len(p))
	l.data = p
	if !l.finished {
		l.next()
	}
	if l.finished && l.err == nil && len(l.data) > 0 {
		l.err = fmt.Errorf("%w: it goes on behind its end", errStream)
	}
	l.data = nil
	return l.err
}

// finish says whether the state is complete. If nothing was written there is nothing to
// complete, and the device was not touched.
func (l *loader) finish() error {
	if l.total == 0 {
		l.close()
		return nil
	}
	l.end = true
	if !l.finished {
		l.next()
	}
	return l.err
}

// close makes the device leave LoadState.
func (l *loader) close() { l.stop() }
