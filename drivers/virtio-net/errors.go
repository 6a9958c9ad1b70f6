package virtionet

import (
	"errors"

	"vfiouser/drivers/virtio"
)

// Errors of the driver, those of drivers/virtio among them. What became of the session is what package client says.
var (
	ErrClosed      = virtio.ErrClosed
	ErrTimeout     = virtio.ErrTimeout
	ErrDevice      = virtio.ErrDevice
	ErrNeedsReset  = virtio.ErrNeedsReset
	ErrUnsupported = virtio.ErrUnsupported
	ErrInvalid     = virtio.ErrInvalid

	// ErrRefused: the card answered a command of the control queue with an error.
	ErrRefused = errors.New("virtio-net: command refused")
	// ErrSize: the frame is longer than the buffers for it.
	ErrSize = errors.New("virtio-net: frame is too long")
)
