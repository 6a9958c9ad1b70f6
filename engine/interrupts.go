package engine

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/irq"
)

// irqFlags says what each interrupt type can do. NORESIZE is set for none: every
// vector may be assigned at any time.
var irqFlags = [irq.NumIndexes]codec.IRQFlags{
	irq.INTx: codec.IRQInfoEventfd | codec.IRQInfoMaskable | codec.IRQInfoAutomasked,
	irq.MSI:  codec.IRQInfoEventfd,
	irq.MSIX: codec.IRQInfoEventfd,
	irq.Err:  codec.IRQInfoEventfd,
	irq.Req:  codec.IRQInfoEventfd,
}

// serveGetIRQInfo is VFIO_USER_DEVICE_GET_IRQ_INFO.
func (s *Session) serveGetIRQInfo(m *message) error {
	var info codec.IRQInfo
	if err := info.Decode(m.payload); err != nil {
		return err
	}
	if info.Index >= irq.NumIndexes {
		return fmt.Errorf("interrupt type %d: %w", info.Index, unix.EINVAL)
	}
	info = codec.IRQInfo{
		ArgSz: codec.IRQInfoSize,
		Flags: irqFlags[info.Index],
		Index: info.Index,
		Count: uint32(s.ep.desc.IRQs[info.Index]),
	}
	s.out.set(info.Append(s.out.bytes()))
	return nil
}

// serveSetIRQs is VFIO_USER_DEVICE_SET_IRQS.
func (s *Session) serveSetIRQs(m *message) error {
	var req codec.SetIRQs
	if err := req.Decode(m.payload); err != nil {
		return err
	}
	if req.Index >= irq.NumIndexes || s.ep.desc.IRQs[req.Index] == 0 {
		return fmt.Errorf("interrupt type %d: %w", req.Index, unix.EINVAL)
	}
	if len(m.fds) > 0 && req.Flags&codec.IRQSetDataEventfd == 0 {
		return fmt.Errorf("descriptors without IRQ_SET_DATA_EVENTFD: %w", unix.EINVAL)
	}
	if err := s.setIRQs(&req, m); err != nil {
		return err
	}
	s.ep.device.UpdateStatus(s, UpdateInterrupts)
	return nil
}

func (s *Session) setIRQs(req *codec.SetIRQs, m *message) error {
	index, start, count := req.Index, int(req.Start), int(req.Count)
	action := req.Flags & codec.IRQSetActionBits
	if req.Flags&codec.IRQSetDataEventfd != 0 {
		return s.setEventfds(action, index, start, count, m.takeFDs())
	}
	if count == 0 { // NONE and TRIGGER, as the codec has checked
		return s.irqs.Disable(index)
	}
	switch action { // Data is nil for NONE: act on all
	case codec.IRQSetActionMask:
		return s.irqs.Mask(index, start, count, req.Data)
	case codec.IRQSetActionUnmask:
		return s.irqs.Unmask(index, start, count, req.Data)
	default:
		return s.irqs.Trigger(index, start, count, req.Data)
	}
}

// setEventfds assigns one descriptor to each vector, or, without descriptors, takes
// what was assigned away.
func (s *Session) setEventfds(action codec.IRQSetFlags, index irq.Index, start, count int, fds []int) error {
	if len(fds) != 0 && len(fds) != count {
		s.ep.foreign.close(fds...)
		return fmt.Errorf("%d descriptors for %d interrupts: %w", len(fds), count, unix.EINVAL)
	}
	switch {
	case action == codec.IRQSetActionMask && len(fds) == 0:
		return s.irqs.ClearMaskEventfds(index, start, count)
	case action == codec.IRQSetActionMask:
		return s.irqs.SetMaskEventfds(index, start, fds)
	case action == codec.IRQSetActionUnmask && len(fds) == 0:
		return s.irqs.ClearUnmaskEventfds(index, start, count)
	case action == codec.IRQSetActionUnmask:
		return s.irqs.SetUnmaskEventfds(index, start, fds)
	case len(fds) == 0:
		return s.irqs.Enable(index, start, count)
	default:
		return s.irqs.SetEventfds(index, start, fds)
	}
}
