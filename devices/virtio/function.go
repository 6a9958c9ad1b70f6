package virtio

import (
	"errors"
	"sync"
	"sync/atomic"

	"vfiouser/devices/virtio/spec"
	"vfiouser/engine"
	"vfiouser/pci"
)

// Function is a virtio device on PCI; it implements engine.Device. What is here stays from
// client to client, what belongs to one client is in its host.
type Function struct {
	cfg    Config
	device Device
	space  *pci.Space // the engine's, on the reactor
	window window
	msix   *pci.MSIXTable // likewise
	page   notifyPage
	host   atomic.Pointer[host] // the client's, stored on the reactor; nil before the first

	mu     sync.Mutex
	closed bool
	hosts  sync.WaitGroup // control goroutines
}

// ErrClosed is returned to a client that comes after Close.
var ErrClosed = errors.New("virtio: function is closed")

// New makes a function around a device. Register it with an engine, and Close it after
// its endpoint.
func New(cfg Config, d Device) (*Function, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	f := &Function{cfg: cfg, device: d}
	if err := f.newSpace(); err != nil {
		return nil, err
	}
	if cfg.Doorbells == Mmap {
		if err := f.page.open(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Close waits until the device was stopped for the last client. Close the endpoint before.
// It is idempotent.
func (f *Function) Close() error {
	f.mu.Lock()
	first := !f.closed
	f.closed = true
	f.mu.Unlock()
	f.hosts.Wait()
	if !first {
		return nil
	}
	return f.page.close()
}

// Features is what is offered.
func (f *Function) Features() uint64 { return f.cfg.Features }

// ConfigChanged tells the driver that the device-specific configuration has changed: the
// configuration interrupt is raised if the driver has set DRIVER_OK. (What ReadConfig gives
// decides on config_generation.) Any goroutine.
func (f *Function) ConfigChanged() {
	if h := f.host.Load(); h != nil {
		h.interrupts.configChanged(func() bool {
			_, ok := h.regs.running()
			return ok
		})
	}
}

// NeedsReset tells the driver that the device cannot go on: DEVICE_NEEDS_RESET is set and
// the configuration interrupt raised (2.1.2), until the driver resets the device. Without a
// driver it does nothing. Any goroutine.
func (f *Function) NeedsReset(err error) {
	if h := f.host.Load(); h != nil {
		if epoch, ok := h.regs.running(); ok {
			h.needsReset(epoch, err)
		}
	}
}

// NewDevice takes a client: it finds a device that is reset.
func (f *Function) NewDevice(s *engine.Session) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	before := f.host.Load()
	f.window.reset()
	h := newHost(f, s)
	f.host.Store(h)
	f.hosts.Add(1)
	go func() {
		defer f.hosts.Done()
		if before != nil {
			<-before.done
		}
		h.run()
	}()
	return nil
}

// DestroyDevice lets the client go.
func (f *Function) DestroyDevice(*engine.Session) {
	if l, ok := f.device.(Leaver); ok {
		l.ClientGone()
	}
	f.host.Load().ask(func(r *request) { r.quit = true })
}

// UpdateStatus follows changes of the memory table and of the interrupts.
func (f *Function) UpdateStatus(_ *engine.Session, what engine.Update) {
	h := f.host.Load()
	if what&engine.UpdateInterrupts != 0 {
		h.interrupts.update()
	}
	if what&engine.UpdateMemory != 0 && h.active.Load() {
		h.ask(func(r *request) { r.place = true })
	}
}

// LockDataPath stops all queues, or lets them go on.
func (f *Function) LockDataPath(_ *engine.Session, hold bool, done func()) {
	h := f.host.Load()
	h.ask(func(r *request) {
		r.tasks = append(r.tasks, func() {
			h.setHeld(hold)
			done()
		})
	})
}

// ResetDevice resets the device as writing 0 to its status does.
func (f *Function) ResetDevice(*engine.Session) { f.host.Load().reset() }

// vectors is the number of MSI-X vectors: one for each queue and one for the configuration.
func (f *Function) vectors() int { return f.cfg.Queues + 1 }

var _ engine.Device = (*Function)(nil)

// readBAR and writeBAR serve the structures of BAR0, on the reactor.
func (f *Function) readBAR(off uint64, p []byte) error {
	h := f.host.Load()
	clear(p)
	switch at := off % pageSize; off - at {
	case commonOffset:
		if at < spec.CommonSize {
			b := h.regs.read()
			copy(p, b[at:])
		}
	case isrOffset:
		if at == 0 && len(p) > 0 {
			p[0] = h.interrupts.take()
		}
	case deviceOffset:
		h.readConfig(at, p)
	case notifyOffset:
		// Reads 0: there is nothing to be learned here.
	}
	return nil
}

func (f *Function) writeBAR(off uint64, p []byte) error {
	h := f.host.Load()
	switch at := off % pageSize; off - at {
	case commonOffset:
		h.writeCommon(at, p)
	case deviceOffset:
		if at < uint64(f.cfg.ConfigSize) {
			f.device.WriteConfig(int(at), p[:min(len(p), f.cfg.ConfigSize-int(at))])
		}
	case notifyOffset:
		if at%notifyMultiplier == 0 && (len(p) == 2 || len(p) == 4) {
			h.notify(int(at / notifyMultiplier))
		}
	}
	return nil
}
