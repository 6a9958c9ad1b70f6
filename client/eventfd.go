package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Eventfd is an eventfd to receive interrupts with. Waiting on it costs no thread.
type Eventfd struct {
	fd   int
	file *os.File
	b    [8]byte
}

// NewEventfd opens an eventfd with counter 0.
func NewEventfd() (*Eventfd, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &Eventfd{fd: fd, file: os.NewFile(uintptr(fd), "eventfd")}, nil
}

// FD is the descriptor, which stays e's: see Device.EnableIRQ.
func (e *Eventfd) FD() int { return e.fd }

// Wait waits until the eventfd was signalled and returns how often since the last time. It gives up when ctx ends. One
// goroutine at a time.
func (e *Eventfd) Wait(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	for {
		_, err := e.file.Read(e.b[:])
		switch {
		case err == nil:
			return binary.NativeEndian.Uint64(e.b[:]), nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			// This deadline may be a late one of an earlier Wait.
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			_ = e.file.SetReadDeadline(time.Time{})
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		case errors.Is(err, os.ErrClosed):
			return 0, ErrClosed
		default:
			return 0, fmt.Errorf("client: eventfd: %w", err)
		}
	}
}

// Poll returns how often the eventfd was signalled since the last time, without waiting.
func (e *Eventfd) Poll() uint64 {
	if n, err := unix.Read(e.fd, e.b[:]); err != nil || n != len(e.b) {
		return 0
	}
	return binary.NativeEndian.Uint64(e.b[:])
}

// Close closes the descriptor; a Wait under way fails with ErrClosed. Closing again does nothing.
func (e *Eventfd) Close() error {
	if err := e.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Signal signals it from this side, as the device would: who waits wakes up. It does nothing after Close.
func (e *Eventfd) Signal() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = e.file.Write(one[:])
}
