package nvme

import "errors"

// Errors of the driver. What the device answered is a spec.Status, which errors.Is and errors.As find; what became
// of the session is what package client says.
var (
	// ErrClosed: the controller or the queue was closed.
	ErrClosed = errors.New("nvme: closed")
	// ErrTimeout: a command was not answered in time, or the controller did not become ready.
	ErrTimeout = errors.New("nvme: controller does not answer")
	// ErrFatal: the controller reports a fatal status (CSTS.CFS).
	ErrFatal = errors.New("nvme: controller has failed")
	// ErrDevice: the controller broke the rules, for example completed what was not submitted.
	ErrDevice = errors.New("nvme: controller misbehaves")
	// ErrUnsupported: the controller, or the namespace, lacks what this needs.
	ErrUnsupported = errors.New("nvme: not supported by the controller")
	// ErrInvalid: an argument makes no sense.
	ErrInvalid = errors.New("nvme: invalid argument")
	// ErrBusy: the tag is in use.
	ErrBusy = errors.New("nvme: tag is in use")
	// ErrNoNamespace: there is no namespace with this identifier.
	ErrNoNamespace = errors.New("nvme: no such namespace")
	// ErrNoQueue: all queues that the controller has are in use.
	ErrNoQueue = errors.New("nvme: no queue left")
)
