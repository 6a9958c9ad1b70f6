package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"vfiouser/codec"
)

// MigrateOptions changes how Migrate goes about it. The zero value is what is usual.
type MigrateOptions struct {
	// DeviceOnly moves the state of the device alone: the caller has given the destination its memory and its interrupts.
	// Otherwise the source must have been attached with WithReattach, which is what remembers them.
	DeviceOnly bool
	// NoPreCopy stops the source at once, even if it could send a part of its state before.
	NoPreCopy bool
	// MaxRounds bounds the rounds of PRE_COPY. 0 means 30.
	MaxRounds int
	// SmallRound is how few bytes a round has after which the source is stopped. 0 means 1 MiB.
	SmallRound int64
	// Stopped, if not nil, is called when neither device runs: the last chance to copy memory that the source has written,
	// if the destination's is not the same.
	Stopped func(ctx context.Context) error
}

// MigrateStats tells what a migration took.
type MigrateStats struct {
	Rounds    int           // of PRE_COPY
	PreCopied int64         // bytes of state that were moved while the source ran
	Copied    int64         // bytes moved while neither ran
	Downtime  time.Duration // from the request to stop the source to the destination's running
}

// ErrUndecided: the destination was told to run, and whether it does is not known. The source is left in
// codec.MigStopCopy: resume it only when it is certain that the destination does not run.
var ErrUndecided = errors.New("client: the destination of a migration may be running")

// Migrate moves what src does to dst, a device of the same kind that another server has and that has done nothing yet. In the end dst
// runs with the state, the memory and the eventfds that src had, Interrupts of src go on there, and src is closed. Regions are to
// be asked for again. src may be used meanwhile, until it is
// stopped, but its memory and interrupts must stay as they are; dst must be left alone.
//
// After an error src runs as before, and dst is reset and has neither memory nor interrupts, or its session has ended if
// that could not be done. Two exceptions: ErrUndecided, and a source whose session has ended itself. Errors: ErrChanged, ErrInvalid (see
// MigrateOptions), what the servers answered, ctx's.
func Migrate(ctx context.Context, src, dst *Device, opts MigrateOptions) (MigrateStats, error) {
	if src == dst {
		return MigrateStats{}, invalid("migration of a device to itself")
	}
	src.life.Lock()
	defer src.life.Unlock()
	switch {
	case src.closed:
		return MigrateStats{}, ErrClosed
	case !opts.DeviceOnly && src.keep == nil:
		return MigrateStats{}, invalid("the source was not attached with WithReattach")
	}
	if opts.MaxRounds == 0 {
		opts.MaxRounds = 30
	}
	if opts.SmallRound == 0 {
		opts.SmallRound = 1 << 20
	}
	m := move{src: src, dst: dst, opts: opts}
	if err := m.check(ctx); err != nil {
		return MigrateStats{}, err
	}
	if err := m.run(ctx); err != nil {
		return m.stats, m.undo(ctx, err)
	}
	for _, s := range src.subscriptions.list() {
		if s.move(dst) != nil { // its Wait says so
			s.release()
		}
	}
	src.conn.fail(ErrClosed)
	src.close()
	return m.stats, nil
}

// move is one migration.
type move struct {
	src, dst *Device
	opts     MigrateOptions
	preCopy  bool
	started  bool // dst was told to run
	stats    MigrateStats
	buf      []byte
}

// check changes nothing.
func (m *move) check(ctx context.Context) error {
	if m.src.info != m.dst.info {
		return fmt.Errorf("%w: %+v instead of %+v", ErrChanged, m.dst.info, m.src.info)
	}
	for _, d := range []*Device{m.src, m.dst} {
		flags, err := d.MigrationFlags(ctx)
		if err != nil {
			return m.failed(d, err)
		}
		state, err := d.MigrationState(ctx)
		if err != nil {
			return m.failed(d, err)
		}
		if state != codec.MigRunning {
			return m.failed(d, invalid("it is in %s", state))
		}
		if d == m.src {
			m.preCopy = flags&codec.MigrationPreCopy != 0 && !m.opts.NoPreCopy
		}
	}
	m.buf = make([]byte, min(m.src.chunk, m.dst.chunk))
	return nil
}

// failed says which side an error came from.
func (m *move) failed(d *Device, err error) error {
	if d == m.src {
		return fmt.Errorf("client: source of a migration: %w", err)
	}
	return fmt.Errorf("client: destination of a migration: %w", err)
}

func (m *move) set(ctx context.Context, d *Device, state codec.MigState) error {
	if err := d.SetMigrationState(ctx, state); err != nil {
		return m.failed(d, fmt.Errorf("to %s: %w", state, err))
	}
	return nil
}

func (m *move) run(ctx context.Context) error {
	if !m.opts.DeviceOnly {
		if err := m.dst.MapDMA(ctx, m.src.dma.kept()...); err != nil {
			return m.failed(m.dst, err)
		}
		if err := m.src.keep.restore(ctx, m.dst); err != nil {
			return m.failed(m.dst, err)
		}
	}
	if err := m.set(ctx, m.dst, codec.MigResuming); err != nil {
		return err
	}
	if m.preCopy {
		if err := m.rounds(ctx); err != nil {
			return err
		}
	}
	stopped := time.Now()
	if err := m.set(ctx, m.src, codec.MigStopCopy); err != nil {
		return err
	}
	if err := m.copy(ctx, &m.stats.Copied); err != nil {
		return err
	}
	if m.opts.Stopped != nil {
		if err := m.opts.Stopped(ctx); err != nil {
			return err
		}
	}
	if err := m.set(ctx, m.dst, codec.MigStop); err != nil {
		return err
	}
	m.started = true
	if err := m.set(ctx, m.dst, codec.MigRunning); err != nil {
		return err
	}
	m.stats.Downtime = time.Since(stopped)
	return nil
}

// rounds moves state while the source runs, until little of it changes.
func (m *move) rounds(ctx context.Context) error {
	if err := m.set(ctx, m.src, codec.MigPreCopy); err != nil {
		return err
	}
	for m.stats.Rounds < m.opts.MaxRounds {
		before := m.stats.PreCopied
		if err := m.copy(ctx, &m.stats.PreCopied); err != nil {
			return err
		}
		m.stats.Rounds++
		if m.stats.PreCopied-before <= m.opts.SmallRound {
			break
		}
	}
	return nil
}

// copy moves what the source has to say now, and counts it.
func (m *move) copy(ctx context.Context, count *int64) error {
	for {
		n, err := m.src.ReadMigrationData(ctx, m.buf)
		if err != nil && err != io.EOF {
			return m.failed(m.src, err)
		}
		if n > 0 {
			if _, err := m.dst.WriteMigrationData(ctx, m.buf[:n]); err != nil {
				return m.failed(m.dst, err)
			}
			*count += int64(n)
		}
		if err == io.EOF {
			return nil
		}
	}
}

// undo makes the source run again after err, unless the destination may be running.
func (m *move) undo(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if e := m.clear(ctx); e != nil {
		m.dst.conn.fail(ErrUndo)
		if m.started {
			return fmt.Errorf("%w: %w", ErrUndecided, err)
		}
	}
	if m.src.Err() != nil {
		return err // it says so
	}
	if e := m.set(ctx, m.src, codec.MigRunning); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

// clear makes the destination a device that has done nothing.
func (m *move) clear(ctx context.Context) error {
	if err := m.dst.Reset(ctx); err != nil {
		return err
	}
	m.started = false // it runs, but nothing of what it was to do
	if m.opts.DeviceOnly {
		return nil
	}
	for _, index := range m.src.keep.indexes() {
		if err := m.dst.DisableIRQ(ctx, index); err != nil {
			return err
		}
	}
	return m.dst.UnmapAllDMA(ctx)
}
