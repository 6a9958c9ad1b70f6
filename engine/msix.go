package engine

import (
	"errors"
	"fmt"

	"vfiouser/irq"
)

// window is a part of a region that the engine serves itself.
type window struct {
	off, size   uint64
	read, write func(off uint64, p []byte) error // off counts from the window's start
}

// placeMSIX puts the MSI-X table and its pending bits into the regions of their BARs, and
// couples them to the vectors of whoever is the client.
func (ep *Endpoint) placeMSIX() error {
	d := &ep.desc
	t := d.MSIX
	if t == nil {
		return nil
	}
	m, ok := d.Config.MSIX()
	switch {
	case !ok:
		return errors.New("an MSI-X table, but no MSI-X in the configuration space")
	case t.OnMask != nil || t.Pending != nil:
		return errors.New("the MSI-X table is served by somebody: OnMask and Pending are the engine's")
	case d.IRQs[irq.MSIX] == 0:
		d.IRQs[irq.MSIX] = m.Vectors
	}
	if t.Vectors() != m.Vectors || d.IRQs[irq.MSIX] != m.Vectors {
		return fmt.Errorf("%d MSI-X vectors in the configuration space, %d in the table, %d interrupts",
			m.Vectors, t.Vectors(), d.IRQs[irq.MSIX])
	}
	t.OnMask = func(v int, masked bool) {
		if s := ep.session; s != nil {
			_ = s.irqs.SetGate(irq.MSIX, v, 1, irq.GateVector, masked) // fails only when the session has ended
		}
	}
	t.Pending = func(v int) bool {
		s := ep.session
		return s != nil && s.irqs.Vector(irq.MSIX, v).Pending()
	}
	readOnly := func(uint64, []byte) error { return nil } // a write is ignored (7.7.2.11)
	if err := d.overlay(m.TableBAR, window{uint64(m.TableOffset), uint64(m.TableSize()), t.Read, t.Write}); err != nil {
		return err
	}
	return d.overlay(m.PBABAR, window{uint64(m.PBAOffset), uint64(m.PBASize()), t.ReadPBA, readOnly})
}

// overlay has accesses of a BAR that lie in w go there. A BAR that the device does not
// serve reads 0 elsewhere.
func (d *Description) overlay(bar int, w window) error {
	r := &d.Regions[bar]
	if r.Size == 0 {
		*r = Region{
			Size:  d.Config.BAR(bar).Size,
			Read:  func(_ uint64, p []byte) error { clear(p); return nil },
			Write: func(uint64, []byte) error { return nil },
		}
	}
	for _, a := range r.Areas {
		if a.Offset < w.off+w.size && w.off < a.Offset+a.Size {
			return fmt.Errorf("region %d: mappable area %+v covers the MSI-X structures at %#x", bar, a, w.off)
		}
	}
	for _, a := range r.IOEventfds {
		if a.Offset < w.off+w.size && w.off < a.Offset+max(a.Size, 1) {
			return fmt.Errorf("region %d: ioeventfd at %#x lies in the MSI-X structures", bar, a.Offset)
		}
	}
	r.Read = w.split(w.read, r.Read)
	r.Write = w.split(w.write, r.Write)
	return nil
}

// split cuts an access in what lies in the window and what lies before and behind it.
func (w window) split(inside, outside func(off uint64, p []byte) error) func(off uint64, p []byte) error {
	if outside == nil {
		outside = func(uint64, []byte) error { return errNoHandler }
	}
	return func(off uint64, p []byte) error {
		for len(p) > 0 {
			n, serve, at := uint64(len(p)), outside, off
			switch {
			case off < w.off:
				n = min(n, w.off-off)
			case off < w.off+w.size:
				n, serve, at = min(n, w.off+w.size-off), inside, off-w.off
			}
			if err := serve(at, p[:n]); err != nil {
				return err
			}
			off, p = off+n, p[n:]
		}
		return nil
	}
}
