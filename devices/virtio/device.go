package virtio

import (
	"vfiouser/engine"
)

// Device is what a virtio device implements. Embed BaseDevice to get a default for
// everything but StartQueue and StopQueue.
//
// A driver that sets DRIVER_OK brings Start, then StartQueue for each queue that it has
// enabled. The control goroutine of the client makes these calls and waits for each; they
// may block, but a reset waits for them. After StopQueue a queue may be started again, with
// the same q when it was held for a while (a reset of VFIO, a migration, memory that is now
// reached in another way), with another one when it was reset. Stop comes when all queues
// are stopped; then the device is as before Start. The next client comes after that.
type Device interface {
	// ReadConfig fills p with the device-specific configuration from off on. It is
	// called on the reactor, always for the whole of it, so that the transport sees what
	// has changed (config_generation). It must not block.
	ReadConfig(off int, p []byte)
	// WriteConfig takes what the driver writes there; p is its own only during the call. On
	// the reactor; it must not block.
	WriteConfig(off int, p []byte)
	// CheckFeatures says whether the device can go on with what the driver has accepted,
	// which is a part of what was offered and has VERSION_1. On the reactor; it must not
	// block.
	CheckFeatures(accepted uint64) bool
	// Start begins with a driver (DRIVER_OK). After an error DEVICE_NEEDS_RESET is set
	// and nothing else is started.
	Start(s *Session, features uint64) error
	// Stop ends what Start began. Also called when Start has failed.
	Stop()
	// StartQueue lets queue i run. The device, and nobody else, uses q until StopQueue.
	StartQueue(i int, q *Queue)
	// StopQueue returns when nobody uses the queue any more. Chains that were taken and
	// not pushed are given back with Untake, or finished before.
	StopQueue(i int)
	// Notify tells that the driver has notified queue i, or that its memory may have come
	// back. Any goroutine, mostly the reactor; it must not block. It comes from StartQueue
	// on, and may still come when StopQueue is called. Queues that Serve runs are notified
	// by the transport.
	Notify(i int)
}

// Leaver is a Device whose configuration drivers can change.
type Leaver interface {
	// ClientGone is called when the client has gone, whose queues are stopped, and before the
	// next one can come: that one is to find the configuration of a device that was reset.
	// Stop may come later. On the reactor; it must not block.
	ClientGone()
}

// BaseDevice has defaults for what a simple Device need not do.
type BaseDevice struct{}

// ReadConfig reads zeroes.
func (BaseDevice) ReadConfig(_ int, p []byte) { clear(p) }

// WriteConfig ignores the write.
func (BaseDevice) WriteConfig(int, []byte) {}

// CheckFeatures accepts every part of what was offered.
func (BaseDevice) CheckFeatures(uint64) bool { return true }

// Start does nothing.
func (BaseDevice) Start(*Session, uint64) error { return nil }

// Stop does nothing.
func (BaseDevice) Stop() {}

// Notify does nothing.
func (BaseDevice) Notify(int) {}

// Session is the client that a Device was started for: its memory, its interrupts and the
// engine, from Start to Stop.
type Session struct {
	*engine.Session
	h *host
}

// Polling is how an engine.Source that serves queues is to be attached to a worker: silent
// in mode Mmap.
func (s *Session) Polling() engine.SourceOptions {
	cfg := &s.h.f.cfg
	return engine.SourceOptions{Silent: cfg.Doorbells == Mmap, MaxSleep: cfg.IdlePoll}
}
