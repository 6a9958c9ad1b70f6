package dut

import (
	"encoding/binary"
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/test/conformance"
)

// registers is the control region. The reactor calls its handlers; a transfer runs in a
// goroutine of its own.
type registers struct {
	mu      sync.Mutex
	session *engine.Session // nil while no client is there
	running sync.WaitGroup
	busy    bool
	addr    uint64
	length  uint32
	status  uint32
	resets  uint32
	rings   [3]uint32
	events  [3]engine.IOEvent // of the doorbells
	buffer  [conformance.ControlSize - conformance.ControlBuffer]byte
}

func (r *registers) attach(s *engine.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session = s
}

// detach waits for a transfer, which ends with the session.
func (r *registers) detach() {
	r.mu.Lock()
	r.session = nil
	r.mu.Unlock()
	r.running.Wait()
}

func (r *registers) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resets++
}

func (r *registers) read(off uint64, p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off >= conformance.ControlBuffer {
		copy(p, r.buffer[off-conformance.ControlBuffer:])
		return nil
	}
	if len(p) != 4 {
		return unix.EINVAL
	}
	var v uint32
	switch off {
	case conformance.ControlLength:
		v = r.length
	case conformance.ControlStatus:
		v = r.status
	case conformance.ControlResets:
		v = r.resets
	case conformance.ControlRings, conformance.ControlRings + 4, conformance.ControlRings + 8:
		v = r.rings[(off-conformance.ControlRings)/4]
	}
	binary.NativeEndian.PutUint32(p, v)
	return nil
}

func (r *registers) write(off uint64, p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case off >= conformance.ControlBuffer:
		copy(r.buffer[off-conformance.ControlBuffer:], p)
		return nil
	case off >= conformance.ControlBells && off < conformance.ControlBells+4*4:
		r.rings[bells[(off-conformance.ControlBells)/4]]++
		return nil
	case off == conformance.ControlAddr && len(p) == 8:
		r.addr = binary.NativeEndian.Uint64(p)
		return nil
	case len(p) != 4:
		return unix.EINVAL
	}
	v := binary.NativeEndian.Uint32(p)
	switch off {
	case conformance.ControlTrigger:
		return r.vector(irq.Index(v>>16), int(v&0xffff), (*irq.Vector).Trigger)
	case conformance.ControlLevel:
		return r.vector(irq.INTx, 0, func(line *irq.Vector) error { return line.SetLevel(v != 0) })
	case conformance.ControlLength:
		r.length = v
	case conformance.ControlStart:
		return r.start(v)
	default:
		return unix.EINVAL
	}
	return nil
}

func (r *registers) vector(i irq.Index, n int, do func(*irq.Vector) error) error {
	v := r.session.IRQ().Vector(i, n)
	if v == nil {
		return unix.EINVAL
	}
	return do(v)
}

// start begins a transfer between client memory and the buffer.
func (r *registers) start(direction uint32) error {
	if r.busy || int64(r.length) > int64(len(r.buffer)) {
		return unix.EBUSY
	}
	r.busy, r.status = true, conformance.TransferBusy
	s, addr, data := r.session, r.addr, make([]byte, r.length)
	copy(data, r.buffer[:])
	done := func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil && (direction == conformance.TransferRead || direction == conformance.TransferFetch) {
			copy(r.buffer[:], data)
		}
		r.busy, r.status = false, errno(err)
	}
	switch direction {
	case conformance.TransferRead:
		r.running.Go(func() { done(s.ReadDMA(s.Context(), addr, data)) })
	case conformance.TransferWrite:
		r.running.Go(func() { done(s.WriteDMA(s.Context(), addr, data)) })
	case conformance.TransferFetch:
		s.StartReadDMA(addr, data, done)
	case conformance.TransferStore:
		s.StartWriteDMA(addr, data, done)
	default:
		r.busy, r.status = false, 0
		return unix.EINVAL
	}
	return nil
}

// errno is what an error shows in the status register.
func errno(err error) uint32 {
	var e syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return uint32(e)
	}
	return uint32(unix.EIO)
}

// bells are the doorbells at ControlBells, ControlBells+4 and so on.
var bells = [4]int{0, 0, 1, 2}

// ioeventfds are the areas of the doorbells.
func (r *registers) ioeventfds() []engine.IOEventfd {
	for i := range r.events {
		r.events[i].Handler = func(*engine.Session) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.rings[i]++
		}
	}
	areas := []engine.IOEventfd{{Size: 4}, {Size: 4, Match: true, Data: 7}, {Size: 2}, {}}
	for i := range areas {
		areas[i].Offset, areas[i].Event = uint64(conformance.ControlBells+4*i), &r.events[bells[i]]
	}
	return areas
}
