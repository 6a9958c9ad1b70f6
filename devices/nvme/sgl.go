package nvme

import "vfiouser/devices/nvme/spec"

// maxDescriptors bounds the SGL descriptors of one command, so that segments that
// lead to themselves end and a command costs a bounded time.
const maxDescriptors = 4096

// sgl walks a scatter gather list (Base 1.4, 4.4) that begins with the descriptor in
// the command. What follows the n bytes is not looked at (SGLS bit 18).
func (w *dataWalker) sgl(d spec.SGLDescriptor, n uint64, from listReader) spec.Status {
	for left := maxDescriptors; ; {
		switch d.Type() {
		case spec.SGLDataBlock:
			// The list is this one descriptor.
			if uint64(d.Length()) < n {
				return spec.DataSGLLengthInvalid | spec.StatusDNR
			}
			w.add(d.Address, n)
			return spec.Success
		case spec.SGLBitBucket:
			if !w.toHost || uint64(d.Length()) < n {
				return spec.DataSGLLengthInvalid | spec.StatusDNR
			}
			w.discard(n)
			return spec.Success
		case spec.SGLSegment, spec.SGLLastSegment:
		default:
			return spec.SGLDescriptorTypeInvalid | spec.StatusDNR
		}
		size := uint64(d.Length())
		if size == 0 || size%spec.SGLDescriptorSize != 0 {
			return spec.InvalidSGLSegment | spec.StatusDNR
		}
		if left -= int(size / spec.SGLDescriptorSize); left < 0 {
			return spec.InvalidNumberOfSGLDescriptors | spec.StatusDNR
		}
		next, rest, st := w.segment(d, n, from)
		switch {
		case st != spec.Success || rest == 0:
			return st
		case d.Type() == spec.SGLLastSegment:
			return spec.DataSGLLengthInvalid | spec.StatusDNR
		case next.Type() != spec.SGLSegment && next.Type() != spec.SGLLastSegment:
			return spec.InvalidSGLSegment | spec.StatusDNR
		}
		d, n = next, rest
	}
}

// segment walks one segment. It returns its last descriptor if that leads on, and
// how many bytes are still missing.
func (w *dataWalker) segment(d spec.SGLDescriptor, n uint64, from listReader) (next spec.SGLDescriptor, rest uint64, st spec.Status) {
	at, size := d.Address, uint64(d.Length())
	for size > 0 {
		list := w.list[:min(size, uint64(len(w.list)))]
		if st := from.readList(at, list); st != spec.Success {
			return next, n, st
		}
		at, size = at+uint64(len(list)), size-uint64(len(list))
		for ; len(list) > 0; list = list[spec.SGLDescriptorSize:] {
			e := spec.GetSGLDescriptor(list)
			switch e.Type() {
			case spec.SGLDataBlock:
				k := min(uint64(e.Length()), n)
				if k > 0 {
					w.add(e.Address, k)
				}
				if n -= k; n == 0 {
					return next, 0, spec.Success
				}
			case spec.SGLBitBucket:
				if !w.toHost {
					break // it is of no length then (Base 2.0, 4.1.2)
				}
				k := min(uint64(e.Length()), n)
				if k > 0 {
					w.discard(k)
				}
				if n -= k; n == 0 {
					return next, 0, spec.Success
				}
			case spec.SGLSegment, spec.SGLLastSegment:
				last := size == 0 && len(list) == spec.SGLDescriptorSize
				if !last || d.Type() == spec.SGLLastSegment {
					return next, n, spec.InvalidSGLSegment | spec.StatusDNR
				}
				return e, n, spec.Success
			default:
				return next, n, spec.SGLDescriptorTypeInvalid | spec.StatusDNR
			}
		}
	}
	return next, n, spec.Success
}
