package nvme

import "vfiouser/dma"

// shadow is where the buffers of Doorbell Buffer Config lie.
type shadow struct {
	set              bool
	doorbell, events uint64 // pages of guest memory
}

// translator finds the memory of rings.
type translator struct {
	r       *dma.Reader
	shadow  shadow
	page    []byte // doorbell registers
	missing bool   // something cannot be reached
	message bool   // something is reached by message only
}

// translate says whether the ring can be used.
func (t *translator) translate(q *ring) bool {
	q.mem, q.reader = nil, t.r
	whole, err := t.r.Bytes(q.base, q.bytes(), q.prot)
	switch err {
	case nil:
		q.mem = whole
	case dma.ErrNotMapped:
		// It may lie in several regions: go by the entry, if all are there.
		if !t.everywhere(q.base, q.bytes(), q.prot) {
			return false
		}
	default:
		t.note(err)
		return false
	}
	q.door, q.event = t.page[q.doorbell:][:4], nil
	if !t.shadow.set {
		return true
	}
	door, err := t.r.Bytes(t.shadow.doorbell+uint64(q.doorbell), 4, dma.ProtRead)
	if t.note(err) {
		return false
	}
	q.eventIOVA = t.shadow.events + uint64(q.doorbell)
	event, err := t.r.Bytes(q.eventIOVA, 4, dma.ProtWrite)
	if t.note(err) {
		return false
	}
	q.door, q.event = door, event
	return true
}

// everywhere says whether all of a range is in mapped regions.
func (t *translator) everywhere(iova, n uint64, p dma.Prot) bool {
	for n > 0 {
		b, err := t.r.Span(iova, n, p)
		if t.note(err) {
			return false
		}
		iova, n = iova+uint64(len(b)), n-uint64(len(b))
	}
	return true
}

func (t *translator) note(err error) bool {
	if err == nil {
		return false
	}
	t.missing = true
	t.message = t.message || err == dma.ErrMessage
	return true
}
