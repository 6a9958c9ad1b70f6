package nvme

import (
	"encoding/binary"
	"sync"

	"vfiouser/devices/nvme/spec"
)

const (
	// readyTimeout is CAP.TO in units of 500 ms: 60 s, as a reset waits for requests that a
	// backend has begun and that may still write to the host's memory; an NBD server has 30 s.
	readyTimeout = 120

	pageSize  = 4096 // the only memory page size, CAP.MPSMIN and CAP.MPSMAX
	pageShift = 12
)

// registers is the register file. The lock is held for a few instructions only.
type registers struct {
	mu       sync.Mutex
	cc       spec.CC
	csts     spec.CSTS
	aqa      spec.AQA
	asq, acq uint64
	intms    uint32
}

// adminConfig is what the registers say when the controller is enabled.
type adminConfig struct {
	cc       spec.CC
	aqa      spec.AQA
	asq, acq uint64
}

func (r *registers) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restart(0)
}

// restart puts the registers back, but for what CSTS is to say. The lock is held.
func (r *registers) restart(csts spec.CSTS) {
	r.cc, r.csts, r.aqa, r.asq, r.acq, r.intms = 0, csts, 0, 0, 0, 0
}

// config is CC as it is now. The sizes of I/O queue entries may be set while the
// controller is ready, as the host reads in Identify which ones there are (Base 1.4, 7.6.1).
func (r *registers) config() spec.CC {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cc
}

func (r *registers) setStatus(f func(spec.CSTS) spec.CSTS) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.csts = f(r.csts)
}

// readBAR0 serves any size at any offset; what is not a register reads 0.
func (c *Controller) readBAR0(off uint64, p []byte) error {
	clear(p)
	if off >= doorbellOffset {
		return nil // reading a doorbell is undefined (PCIe transport, 3.1.2.1)
	}
	var b [spec.RegCRTO + 4]byte
	r := &c.regs
	r.mu.Lock()
	le := binary.LittleEndian
	le.PutUint64(b[spec.RegCAP:], uint64(c.cap))
	le.PutUint32(b[spec.RegVS:], spec.Version2_0)
	le.PutUint32(b[spec.RegINTMS:], r.intms)
	le.PutUint32(b[spec.RegINTMC:], r.intms)
	le.PutUint32(b[spec.RegCC:], uint32(r.cc))
	le.PutUint32(b[spec.RegCSTS:], uint32(r.csts))
	le.PutUint32(b[spec.RegAQA:], uint32(r.aqa))
	le.PutUint64(b[spec.RegASQ:], r.asq)
	le.PutUint64(b[spec.RegACQ:], r.acq)
	r.mu.Unlock()
	le.PutUint32(b[spec.RegCRTO:], readyTimeout)
	if off < uint64(len(b)) {
		copy(p, b[off:])
	}
	return nil
}

// writeBAR0 takes aligned accesses of 4 and 8 bytes; anything else is undefined
// (Base 1.4, 3.1) and ignored here.
func (c *Controller) writeBAR0(off uint64, p []byte) error {
	if off%4 != 0 || len(p) != 4 && len(p) != 8 {
		return nil
	}
	for ; len(p) > 0; off, p = off+4, p[4:] {
		v := binary.LittleEndian.Uint32(p)
		if off >= doorbellOffset {
			c.host.ring(off-doorbellOffset, v)
		} else {
			c.writeRegister(off, v)
		}
	}
	return nil
}

func (c *Controller) writeRegister(off uint64, v uint32) {
	if off == spec.RegNSSR {
		if v == spec.NSSRReset {
			c.subsystem.reset()
		}
		return
	}
	r := &c.regs
	low := func(p *uint64) { *p = *p&^0xffffffff | uint64(v)&^(pageSize-1) }
	high := func(p *uint64) { *p = *p&0xffffffff | uint64(v)<<32 }
	r.mu.Lock()
	switch off {
	case spec.RegINTMS:
		r.intms |= v
	case spec.RegINTMC:
		r.intms &^= v
	case spec.RegAQA:
		r.aqa = spec.AQA(v & 0x0fff0fff)
	case spec.RegASQ:
		low(&r.asq)
	case spec.RegASQ + 4:
		high(&r.asq)
	case spec.RegACQ:
		low(&r.acq)
	case spec.RegACQ + 4:
		high(&r.acq)
	case spec.RegCC:
		c.writeCC(spec.CC(v & 0x00fffff1))
	case spec.RegCSTS:
		r.csts &^= spec.CSTS(v) & spec.CSTSNSSRO // it is cleared by writing 1
	}
	intms := r.intms
	r.mu.Unlock()
	if off == spec.RegINTMS || off == spec.RegINTMC {
		c.host.interrupts.setMask(intms)
	}
}

// writeCC turns changes of CC into requests to the control goroutine. The lock of
// the registers is held.
func (c *Controller) writeCC(cc spec.CC) {
	r := &c.regs
	old := r.cc
	r.cc = cc
	switch {
	case old.EN() && !cc.EN():
		c.host.ask(func(q *request) { q.resetAsked() })
	case !old.EN() && cc.EN():
		r.csts = r.csts.WithSHST(spec.ShutNormal) // of a shutdown while it was disabled
		config := adminConfig{cc, r.aqa, r.asq, r.acq}
		c.host.ask(func(q *request) { q.enable, q.config = true, config })
	}
	if old.SHN() == spec.ShutdownNone && cc.SHN() != spec.ShutdownNone {
		r.csts = r.csts.WithSHST(spec.ShutOccurring)
		c.host.ask(func(q *request) { q.shutdown = true })
	}
}
