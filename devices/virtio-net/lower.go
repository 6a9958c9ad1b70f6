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
// if nothing was delivered because there are no buffers.
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
	if size := int(f.Header.GSOSize); size > 0 && !rx.roomFor(f.Len/size+1) {
		return false
	}
	begun, refused := false, false
	reason := rx.lower.Lower(f, rx.can, func(segments []vnet.Frame) bool {
		for len(segments) > 0 {
			n := min(len(segments), len(rx.same))
			got := rx.fill(segments[:n], reports)
			begun = begun || got > 0
			if got < n {
				refused = true
				if begun {
					rx.stats.noBuffer.Add(uint64(len(segments) - got))
				}
				return false
			}
			segments = segments[n:]
		}
		return true
	})
	if reason != vnet.ReasonNone {
		rx.stats.dropped[reason].Add(1)
	}
	return begun || !refused
}

// roomFor says whether there are n buffers, or as many as there will ever be: the segments of
// a frame are delivered as a whole if they can be. If not the driver is asked to tell of the next.
func (rx *receiver) roomFor(n int) bool {
	n = min(n, maxMerged, rx.q.Size()/2)
	for {
		rx.takeAll()
		ok := rx.buffers.end >= n
		if ok || !rx.await() {
			rx.done()
			return ok
		}
	}
}

// tagged says whether a frame is longer than the MTU allows only by a VLAN tag, which is no
// part of it.
func (rx *receiver) tagged(f *vnet.Frame) bool {
	var h [etherSize]byte
	f.CopyTo(h[:], 0)
	return f.Len <= rx.longest+vlanSize && binary.BigEndian.Uint16(h[2*macSize:]) == typeVLAN
}
