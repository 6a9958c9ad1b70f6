package nvme

import "time"

// DoorbellMode says how the driver rings.
type DoorbellMode uint8

const (
	// Auto takes mapped doorbells if the device lets them be mapped, else shadow doorbells, else messages.
	Auto DoorbellMode = iota
	// Trap sends a message for each doorbell, without waiting for an answer.
	Trap
	// Shadow keeps the doorbells in memory that the device reads, and sends a message when the device asks for it.
	Shadow
	// Mapped writes the doorbell registers through a mapping.
	Mapped
)

// String is the name of the mode.
func (m DoorbellMode) String() string {
	switch m {
	case Auto:
		return "auto"
	case Trap:
		return "trap"
	case Shadow:
		return "shadow"
	case Mapped:
		return "mapped"
	}
	return "unknown"
}

type options struct {
	doorbells DoorbellMode
	iova      uint64
	queues    int
	timeout   time.Duration
}

// Option changes how a controller is opened.
type Option func(*options)

// WithDoorbells demands a mode; Open fails with ErrUnsupported if the device does not offer it. Default: Auto.
func WithDoorbells(m DoorbellMode) Option { return func(o *options) { o.doorbells = m } }

// WithIOVA sets where Open maps the memory if it is not mapped to the device yet. Default: 4 GiB.
func WithIOVA(iova uint64) Option { return func(o *options) { o.iova = iova } }

// WithQueues sets how many I/O queues are asked for. Default: as many as the controller has.
func WithQueues(n int) Option { return func(o *options) { o.queues = n } }

// WithTimeout sets how long a command of the admin queue or of a Namespace may take. Default: 30 s, as in Linux.
// Commands of a Queue have no time-out.
func WithTimeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }
