package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

const (
	// Pauses between two attempts to reattach: doubled from the first to the last.
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// ErrChanged: what answers on the path is another device than before: its regions or interrupts are others.
var ErrChanged = errors.New("client: the server offers another device")

// WithReattach keeps what Reattach needs: a duplicate of each descriptor that is given to the server, as long as
// the server has it. With AttachFD it does nothing.
func WithReattach() Option { return func(o *options) { o.reattach = true } }

// Reattach attaches to the same path again after the session has ended, as when the server was restarted, with the same
// options. The device that it returns has all that d had: every mapping at its address, every eventfd and mask of every
// interrupt; Interrupts of d go on there. d is then closed. If d still had a session that is ended. Close of d waits for it.
//
// While nobody listens, or the server hangs up, it tries again, with pauses of 5 ms to 1 s, until ctx ends. After an error d is as it
// was, and Reattach may be called again. Errors: ctx's together with the last one, ErrChanged, ErrInvalid (see WithReattach),
// or what the new server answered.
//
// What the device itself has lost is not restored: registers, the configuration space with bus mastering in it,
// DMA logging, a state of migration. Regions of d are still usable if they are mapped, but mean the old
// server's memory: ask for them again.
func (d *Device) Reattach(ctx context.Context) (*Device, error) {
	d.life.Lock()
	defer d.life.Unlock()
	switch {
	case d.closed:
		return nil, ErrClosed
	case d.keep == nil:
		return nil, invalid("the device was not attached with WithReattach")
	}
	d.conn.fail(ErrDisconnected)
	d.waitGone()
	var last error // why the attempts so far have failed
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		next, err := d.successor(ctx)
		if err == nil {
			for _, s := range d.subscriptions.list() {
				if s.move(next) != nil { // its Wait says so
					s.release()
				}
			}
			d.close()
			return next, nil
		}
		switch {
		case ctx.Err() != nil && last != nil:
			return nil, fmt.Errorf("client: reattach: %w: %w", ctx.Err(), last)
		case !passing(err):
			return nil, err
		}
		last = err
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("client: reattach: %w: %w", ctx.Err(), err)
		}
	}
}

// passing tells whether an error is what a server gives that is being started or stopped.
func passing(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ECONNREFUSED, unix.EAGAIN, unix.ECONNRESET, unix.EPIPE, ErrDisconnected} {
		if errors.Is(err, e) {
			return !errors.Is(err, codec.ErrRemote)
		}
	}
	return false
}

// successor makes one attempt.
func (d *Device) successor(ctx context.Context) (*Device, error) {
	next, err := Attach(ctx, d.keep.path, d.keep.opts...)
	if err != nil {
		return nil, err
	}
	if next.info != d.info {
		err = fmt.Errorf("%w: %+v instead of %+v", ErrChanged, next.info, d.info)
	}
	if err == nil {
		err = next.MapDMA(ctx, d.dma.kept()...)
	}
	if err == nil {
		err = d.keep.restore(ctx, next)
	}
	if err != nil {
		_ = next.Close()
		return nil, err
	}
	return next, nil
}
