package virtio

import "errors"

// Errors of the driver. What became of the session is what package client says.
var (
	// ErrClosed: the device or the queue was closed.
	ErrClosed = errors.New("virtio: closed")
	// ErrTimeout: the device did not answer in time.
	ErrTimeout = errors.New("virtio: device does not answer")
	// ErrDevice: the device broke the rules, for example used what was not given to it.
	ErrDevice = errors.New("virtio: device misbehaves")
	// ErrNeedsReset: the device reports an error from which only a reset helps (DEVICE_NEEDS_RESET).
	ErrNeedsReset = errors.New("virtio: device needs a reset")
	// ErrUnsupported: the device lacks what this needs.
	ErrUnsupported = errors.New("virtio: not supported by the device")
	// ErrInvalid: an argument makes no sense.
	ErrInvalid = errors.New("virtio: invalid argument")
	// ErrFull: the ring has no room for the chain.
	ErrFull = errors.New("virtio: ring is full")
)
