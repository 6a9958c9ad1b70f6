package virtionet

import (
	"encoding/binary"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link/vnet"
)

// deliver gives the driver frames in a form that it can take, and returns how many were
// taken.
func (rx *receiver) deliver(frames []vnet.Frame, reports []spec.HashReport) (n int) {
	for n < len(frames) {
		run := rx.ready(frames[n:])
		var rest []spec.HashReport
		if reports != nil {
			rest = reports[n:]
		}
		if run > 0 {
			got := rx.fill(frames[n:n+run], rest)
			if n += got; got < run {
				return n
			}
			continue
		}
		if !rx.finish(&frames[n], rest) {
			return n
		}
		n++
	}
	return n
}

// ready is how many of the first frames the driver can take as they are.
func (rx *receiver) ready(frames []vnet.Frame) int {
	for i := range frames {
		f := &frames[i]
		if f.Header == (vnet.Header{}) {
			if f.Len > rx.longest {
				return i
			}
			continue
		}
		if rx.can&vnet.OffloadChecksum == 0 || f.Header.Needs()&^rx.can != 0 || f.Header.GSOType == vnet.GSONone && f.Len > rx.longest {
			return i
		}
	}
	return len(frames)
}

// finish does for a frame what the driver cannot, and delivers the result. It returns false
// if there were no buffers for all of it; the same frame is then to come next, and what was
// delivered of it is not delivered again.
func (rx *receiver) finish(f *vnet.Frame, reports []spec.HashReport) bool {
	if f.Header.GSOType == vnet.GSONone && f.Len > rx.longest && !rx.tagged(f) {
		rx.stats.tooLong.Add(1)
		return true
	}
	if f.Header.Needs()&^rx.can == 0 {
		// A checksum that somebody has found valid, or a tagged frame of full length.
		rx.single[0] = *f
		if rx.can&vnet.OffloadChecksum == 0 {
			rx.single[0].Header = vnet.Header{}
		}
		return rx.fill(rx.single[:], reports) == 1
	}
	if reports != nil {
		for i := range rx.same {
			rx.same[i] = reports[0]
		}
		reports = rx.same[:]
	}
	skip, at := rx.cut, 0 // segments
	rx.cut = 0
	refused := false
	reason := rx.lower.Lower(f, rx.can, func(segments []vnet.Frame) bool {
		if at == 0 && segments[0].Len > rx.longest && !rx.tagged(&segments[0]) {
			rx.stats.tooLong.Add(1) // all of them but the last are as long as the first
			return false
		}
		for len(segments) > 0 {
			n := min(len(segments), len(rx.same))
			got := min(skip, n) // were delivered before
			skip -= got
			if got < n {
				got += rx.fill(segments[got:n], reports)
			}
			if at += got; got < n {
				refused = true
				return false
			}
			segments = segments[n:]
		}
		return true
	})
	if reason != vnet.ReasonNone {
		rx.stats.dropped[reason].Add(1)
	}
	if refused {
		rx.cut = at
	}
	return !refused
}

// tagged says whether a frame is longer than the MTU allows only by a VLAN tag, which is no
// part of it.
func (rx *receiver) tagged(f *vnet.Frame) bool {
	var h [etherSize]byte
	f.CopyTo(h[:], 0)
	return f.Len <= rx.longest+vlanSize && binary.BigEndian.Uint16(h[2*macSize:]) == typeVLAN
}
